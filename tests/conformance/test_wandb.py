"""Reports to Weights & Biases are what its own client sends: the same server hears both."""

import json
import os
import pathlib
import re
import subprocess
import time

import pytest

import wandb_server
from conftest import chat_rows, finished, upload

HERE = pathlib.Path(__file__).parent
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def wandb():
    with wandb_server.listening() as server:
        yield server


@pytest.fixture
def account(server, wandb, tmp_path):
    """The project's account at that server."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    command = [os.environ["ATTUNE_BIN"], "admin", "project", "wandb"]
    common = ["default", "--json", "--data-dir", server["data_dir"]]
    set_it = [*command, "set", *common, "--api-key-file", file, "--base-url", wandb.url]
    subprocess.run(set_it, check=True, timeout=60, stdout=subprocess.PIPE)
    yield
    subprocess.run([*command, "remove", *common], check=True, timeout=60, stdout=subprocess.PIPE)


def run_of_their_client(wandb, name, exit_code, folder):
    settings = {"WANDB_BASE_URL": wandb.url, "WANDB_API_KEY": KEY, "WANDB_DIR": str(folder), "WANDB_MODE": "online"}
    command = [os.environ["ATTUNE_TOOLS_PYTHON"], HERE / "tools" / "with_wandb_run.py", name, str(exit_code)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def input_fields(query):
    """Each field of the mutation's input, and the name of the variable that it is given."""
    fields = re.search(r"upsertBucket\s*\(\s*input:\s*\{(.*?)\}", query, re.S)[1]
    return dict(re.findall(r"(\w+):\s*\$(\w+)", fields))


def variable_types(query):
    return dict(re.findall(r"\$(\w+):\s*([\w!\[\]]+)", query.split("{")[0]))


def kinds(value):
    """The shape of a JSON value: the keys and types of what is in it, the numbers of one kind."""
    if isinstance(value, dict):
        return {key: kinds(each) for key, each in value.items()}
    if isinstance(value, list):
        return [kinds(each) for each in value[:1]]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def test_a_job_is_reported_as_their_client_reports_a_run(client, account, wandb, tmp_path):
    run_of_their_client(wandb, "theirs", 0, tmp_path)
    file = upload(client, chat_rows(8))
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=file.id,
        integrations=[{"type": "wandb", "wandb": {"project": "support", "name": "first", "tags": ["a"]}}],
        extra_body={"attune": {"max_steps": 3}},
    )
    assert job.integrations[0].wandb.project == "support" and job.integrations[0].wandb.tags == ["a"]
    assert finished(client, job.id).status == "succeeded"
    for _ in range(100):
        if any(each["body"].get("complete") for each in wandb.streamed(job.id)):
            break
        time.sleep(0.3)
    assert wandb.made(job.id) and wandb.streamed(job.id), client.fine_tuning.jobs.list_events(job.id)

    (theirs, *_), (ours,) = wandb.made("theirs"), wandb.made(job.id)
    for name in ("path", "auth", "type"):
        assert ours[name] == theirs[name]
    assert ours["auth"] == ("Basic", "api", KEY)
    ours, theirs = ours["body"], theirs["body"]
    assert input_fields(ours["query"]).items() <= input_fields(theirs["query"]).items()
    assert variable_types(ours["query"]).items() <= variable_types(theirs["query"]).items()
    assert set(ours["variables"]) <= set(theirs["variables"])
    for name in ("project", "displayName", "jobType", "entity"):
        assert ours["variables"][name] == theirs["variables"][name]
    for body in (ours, theirs):
        config = json.loads(body["variables"]["config"])
        assert config["seed"].keys() == {"value"}
    assert set(ours["variables"]["tags"]) == {"attune/finetune", "attune/tiny", f"attune/{job.id}", "a"}

    last, theirs_last = wandb.streamed(job.id)[-1], wandb.streamed("theirs")[-1]
    assert last["path"] == theirs_last["path"].replace("theirs", job.id)
    assert (last["auth"], last["type"]) == (theirs_last["auth"], theirs_last["type"])
    assert (last["body"]["complete"], last["body"]["exitcode"]) == (True, 0)
    assert {"complete", "exitcode"} <= theirs_last["body"].keys()
    for file in ("wandb-history.jsonl", "wandb-summary.json"):
        (ours, *_), (theirs, *_) = (
            [each["body"]["files"][file] for each in wandb.streamed(name) if file in each["body"].get("files", {})]
            for name in (job.id, "theirs")
        )
        assert kinds(ours) == kinds(theirs)
    history, their_history = wandb.lines(job.id, "wandb-history.jsonl"), wandb.lines("theirs", "wandb-history.jsonl")
    assert [line["_step"] for line in history] == [1, 2, 3]
    assert kinds(their_history[0]).items() <= kinds(history[0]).items()
    assert wandb.lines(job.id, "wandb-summary.json")[-1]["status"] == "succeeded"


@pytest.mark.parametrize("exit_code", [1, 255])
def test_their_client_says_in_the_same_way_that_a_run_failed_or_was_stopped(wandb, tmp_path, exit_code):
    run_of_their_client(wandb, "theirs", exit_code, tmp_path)
    body = wandb.streamed("theirs")[-1]["body"]
    assert (body["complete"], body["exitcode"]) == (True, exit_code)


def test_a_run_is_where_the_job_says(client, account, wandb):
    file = upload(client, chat_rows(4))
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=file.id,
        integrations=[{"type": "wandb", "wandb": {"project": "support", "entity": "team"}}],
        extra_body={"attune": {"max_steps": 1}},
    )
    assert finished(client, job.id).status == "succeeded"
    page = f"Weights & Biases run: {wandb.url}/team/support/runs/{job.id}"
    for _ in range(100):
        messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        if page in messages:
            return
        time.sleep(0.3)
    pytest.fail(f"no `{page}` among {messages}")
