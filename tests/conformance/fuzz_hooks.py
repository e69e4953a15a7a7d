"""Loaded by schemathesis. It may not undo what it stands on: keys that name an earlier request, and the key that it uses."""

import os
import uuid

import schemathesis

OWN, SPARE = os.environ.get("ATTUNE_FUZZ_KEYS", "none,none").split(",")


@schemathesis.hook
def before_call(context, case, **kwargs):
    # What an administrator may do is also to revoke the key that is used: then all that follows would be tried by nobody.
    if (case.path_parameters or {}).get("key_id") == OWN:
        case.path_parameters["key_id"] = SPARE
    # A key that was used before gets the answer from then, whatever became of the object meanwhile. Only where requests follow
    # each other does that count as the making of an object that is not there.
    key = (case.headers or {}).get("Idempotency-Key")
    follows = case.meta is not None and case.meta.phase.name == "stateful"
    if follows and isinstance(key, str) and key.isascii() and key.isprintable() and 0 < len(key) <= 255:
        case.headers["Idempotency-Key"] = key[:-32] + uuid.uuid4().hex
