"""Loaded by schemathesis while it tries what an administrator may do, which is also to revoke the key that it uses: then
all that follows would be tried by nobody. Whatever it makes of other keys, that one stays."""

import os

import schemathesis

OWN, SPARE = os.environ["ATTUNE_FUZZ_KEYS"].split(",")


@schemathesis.hook
def before_call(context, case, **kwargs):
    if (case.path_parameters or {}).get("key_id") == OWN:
        case.path_parameters["key_id"] = SPARE
