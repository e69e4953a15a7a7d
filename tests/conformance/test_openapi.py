"""What the OpenAPI document says against what the server does: property-based tests of every operation."""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import openai

from conftest import chat_rows, finished, upload

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def test_the_server_serves_the_document_in_the_repository(server):
    address = server["OPENAI_BASE_URL"].removesuffix("/v1")
    with urllib.request.urlopen(f"{address}/openapi.yaml") as answer:
        assert answer.read().decode() == (ROOT / "openapi.yaml").read_text()


def admin(server, *arguments):
    """`attune admin` on the running installation."""
    command = [os.environ["ATTUNE_BIN"], "admin", *arguments, "--json", "--data-dir", server["data_dir"]]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def schemathesis(server, folder, key, *arguments, **environment):
    """No failure of any check: no 5xx, only documented answers of the documented shape, bad input refused.

    The same cases each time, so that a change is at fault for what fails. `ATTUNE_FUZZ=1` tries others, and more.
    """
    command = [
        pathlib.Path(sys.executable).with_name("st"), "run", ROOT / "openapi.yaml",
        "--url", server["OPENAI_BASE_URL"].removesuffix("/v1"), "-H", f"Authorization: Bearer {key}",
        "--checks", "all", "--exclude-checks", "positive_data_acceptance", *arguments,
    ]
    command += ["--max-examples", "500"] if os.environ.get("ATTUNE_FUZZ") else ["--seed", "1"]
    hooks = {"PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "fuzz_hooks"}
    environment = {**os.environ, "NO_COLOR": "1", **hooks, **environment}
    # It reads its settings and keeps notes where it is started; the clone stays clean.
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr
    return run.stdout


def test_every_operation_does_what_the_document_says(server, tmp_path):
    """In a project of its own: what is tried follows ids from answer to answer, to DELETE as well."""
    key = admin(server, "project", "create", "--name", "fuzz")["api_key"]
    schemathesis(server, tmp_path, key)


def organization_of_its_own(server):
    """Its keys, people and projects come and go while it is tried. Returns its admin keys, and ids by the names that paths
    have for them."""
    org = admin(server, "org", "create", "--name", "fuzzed")["slug"]
    keys = [admin(server, "key", "create", "--name", name, "--org", org) for name in ("own", "spare")]
    project = admin(server, "project", "create", "--name", "first", "--org", org)
    person = admin(server, "user", "create", "--email", "a@example.com", "--org", org, "--project", project["project_id"])
    key = admin(server, "key", "create", "--name", "first", "--project", project["project_id"], "--org", org)

    client = openai.OpenAI(base_url=server["OPENAI_BASE_URL"], api_key=project["api_key"], admin_api_key=keys[0]["api_key"])
    account = client.admin.organization.projects.service_accounts.create(project["project_id"], name="first")
    file = upload(client, chat_rows(4))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, extra_body={"attune": {"max_steps": 1}})
    return keys, {
        "project_id": [project["project_id"]],
        "user_id": [person["user_id"]],
        "service_account_id": [account.id],
        "key_id": [key["key_id"], keys[1]["key_id"]],
        "rate_limit_id": ["rl-project"],
        "model": [finished(client, job.id).fine_tuned_model],
    }


def settings(ids):
    """Paths mostly name what there is, but where that would end it: then it is what was made a moment ago."""
    yield from (f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in ids.items())
    yield '[[operations]]\ninclude-method = ["GET", "POST"]\nexclude-path-regex = "/archive$"\n[operations.parameters]\n'
    yield from (f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}\n' for name in ids)


def test_every_operation_of_an_administrator_does_what_the_document_says(server, tmp_path):
    keys, ids = organization_of_its_own(server)
    (tmp_path / "schemathesis.toml").write_text("".join(settings(ids)))
    said = schemathesis(
        server, tmp_path, keys[0]["api_key"],
        "--include-path-regex", "^/v1/(organization|fine_tuning/checkpoints)/",
        ATTUNE_FUZZ_KEYS=",".join(key["key_id"] for key in keys),
    )
    # It says so when all that it got from an operation is that it may not.
    assert "401/403" not in said, said
