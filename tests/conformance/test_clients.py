"""Other people's clients and tools on a running server, each as its users run it.

Python tools that want another version of OpenAI's package than ours live in an environment of their own,
`ATTUNE_TOOLS_PYTHON`.
"""

import json
import os
import pathlib
import subprocess

import pytest

from conftest import chat_rows

HERE = pathlib.Path(__file__).parent


def run(command, server, tuned, **more):
    """Runs a program to its end; what it said is shown when it failed."""
    keys = {name: server[name] for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY")}
    environment = {**os.environ, **keys, "ATTUNE_JOB": tuned.id, **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return done.stdout


def tools(*arguments):
    return [os.environ["ATTUNE_TOOLS_PYTHON"], *arguments]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(chat_rows(8)))
    return path


def test_openai_for_node(server, tuned):
    out = run(["node", HERE / "node" / "suite.cjs"], server, tuned, NODE_PATH=os.environ["ATTUNE_NODE_MODULES"])
    assert out.count("ok: ") == 13


def test_async_openai(server, tuned):
    run([os.environ["ATTUNE_ASYNC_OPENAI"]], server, tuned)


def test_dspy_fine_tunes_gets_the_models_name_and_gives_a_job_up(server, tuned):
    out = run(tools(HERE / "tools" / "with_dspy.py"), server, tuned)
    said = json.loads(out.splitlines()[-1])
    assert said["model"].startswith("ft:tiny:") and said["cancelled"] == "cancelled"


def test_instructor_uploads_lists_creates_cancels_and_deletes(server, tuned, rows):
    out = run(tools(HERE / "tools" / "with_instructor.py", rows), server, tuned)
    assert json.loads(out.splitlines()[-1])["status"] in ("cancelled", "succeeded")


def test_litellm_tunes_batches_and_chats(server, tuned, rows):
    out = run(tools(HERE / "tools" / "with_litellm.py", rows), server, tuned)
    assert all(model.startswith("ft:tiny:") for model in json.loads(out.splitlines()[-1])["models"])


def test_langchain_chats_with_a_tuned_model(server, tuned):
    out = run(tools(HERE / "tools" / "with_langchain.py", tuned.fine_tuned_model), server, tuned)
    assert json.loads(out.splitlines()[-1])["text"].startswith("the answer is")


def test_wandb_logs_a_finished_job(server, tuned, tmp_path):
    out = run(tools(HERE / "tools" / "with_wandb.py"), server, tuned, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    logged = json.loads(out.splitlines()[-1])
    assert "successfully" in logged["done"] and logged["rows"] == 12
