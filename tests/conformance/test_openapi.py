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
    environment = {**os.environ, "NO_COLOR": "1", **environment}
    # It reads its settings and keeps notes where it is started; the clone stays clean.
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr
    return run.stdout


def test_every_operation_does_what_the_document_says(server, tmp_path):
    """In a project of its own: what is tried follows ids from answer to answer, to DELETE as well."""
    key = admin(server, "project", "create", "--name", "fuzz")["api_key"]
    schemathesis(server, tmp_path, key)


def test_every_operation_of_an_administrator_does_what_the_document_says(server, tmp_path):
    """In an organization of its own, whose keys, people and projects come and go. It has a model to let others use."""
    made = admin(server, "org", "create", "--name", "fuzzed")
    client = openai.OpenAI(
        base_url=server["OPENAI_BASE_URL"],
        api_key=admin(server, "project", "create", "--name", "first", "--org", made["slug"])["api_key"],
    )
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, chat_rows(4)).id, extra_body={"attune": {"max_steps": 1}}
    )
    model = finished(client, job.id).fine_tuned_model
    (tmp_path / "schemathesis.toml").write_text(
        f"[dictionaries.models]\nvalues = [{json.dumps(model)}]\n"
        '[parameters]\n"path.model" = { dictionary = "models", probability = 0.7 }\n'
    )
    keys = [admin(server, "key", "create", "--name", name, "--org", made["slug"]) for name in ("own", "spare")]
    said = schemathesis(
        server, tmp_path, keys[0]["api_key"],
        "--include-path-regex", "^/v1/(organization|fine_tuning/checkpoints)/",
        PYTHONPATH=str(HERE), SCHEMATHESIS_HOOKS="fuzz_hooks",
        ATTUNE_FUZZ_KEYS=",".join(key["key_id"] for key in keys),
    )
    # It says so when all that it got from an operation is that it may not.
    assert "401" not in said and "403" not in said, said
