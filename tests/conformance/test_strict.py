"""OpenAI's client with strict validation of every answer, blocking and asynchronous: a missing key or one of another type
fails. Every method of the surface is called once."""

import asyncio
import json

import openai
import pytest
from openai._base_client import BaseSyncPage

from conftest import chat_rows

SETTINGS = dict(max_retries=0, _strict_response_validation=True, default_headers={"attune-compat": "openai"})


@pytest.fixture(params=["sync", "async"])
def call(request, server):
    """Calls a method by its path, for instance `files.list`, of either client. Pages and streams come as lists."""
    where = dict(base_url=server["OPENAI_BASE_URL"], api_key=server["OPENAI_API_KEY"])

    def method(client, path):
        for name in path.split("."):
            client = getattr(client, name)
        return client

    def blocking(path, *args, **kwargs):
        with openai.OpenAI(**where, **SETTINGS) as client:
            answer = method(client, path)(*args, **kwargs)
            return list(answer) if isinstance(answer, (BaseSyncPage, openai.Stream)) else answer

    def asynchronous(path, *args, **kwargs):
        async def run():
            async with openai.AsyncOpenAI(**where, **SETTINGS) as client:
                answer = method(client, path)(*args, **kwargs)
                if not hasattr(answer, "__aiter__"):
                    answer = await answer
                return [each async for each in answer] if hasattr(answer, "__aiter__") else answer

        return asyncio.run(run())

    return blocking if request.param == "sync" else asynchronous


def upload(call, rows):
    return call("files.create", file=("rows.jsonl", "".join(rows).encode()), purpose="fine-tune")


def test_files(call):
    rows = list(chat_rows(3))
    file = call(
        "files.create", file=("rows.jsonl", "".join(rows).encode()), purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600
    assert call("files.retrieve", file.id) == file
    for order in ("asc", "desc"):
        assert file.id in [each.id for each in call("files.list", purpose="fine-tune", order=order, limit=2)]
    content = call("files.content", file.id)
    assert content.content == "".join(rows).encode()
    assert call("files.wait_for_processing", file.id).status == "processed"
    assert call("files.delete", file.id).deleted


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hyperparameters": {"n_epochs": 50, "batch_size": "auto", "learning_rate_multiplier": 2}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}},
        {"extra_body": {"attune": {"method": "kto", "n_epochs": 50}}},
    ],
)
def test_a_job_however_it_is_asked_for(call, settings):
    file = upload(call, chat_rows(4))
    job = call(
        "fine_tuning.jobs.create", model="tiny", training_file=file.id, validation_file=file.id, suffix="strict", seed=1,
        metadata={"suite": "strict"}, **settings,
    )
    assert call("fine_tuning.jobs.retrieve", job.id).seed == 1
    listed = call("fine_tuning.jobs.list", limit=50, metadata={"suite": "strict"})
    assert job.id in [each.id for each in listed]
    assert call("fine_tuning.jobs.list_events", job.id, limit=10)
    assert call("fine_tuning.jobs.checkpoints.list", job.id) == []
    try:
        assert call("fine_tuning.jobs.cancel", job.id).status == "cancelled"
    except openai.BadRequestError as refused:  # a worker was quicker
        assert refused.code == "job_is_final"


def test_a_finished_job(call, tuned):
    job = call("fine_tuning.jobs.retrieve", tuned.id)
    assert job.status == "succeeded" and job.trained_tokens > 0
    events = call("fine_tuning.jobs.list_events", job.id, limit=4)
    assert {event.type for event in events} <= {"message", "metrics"} and len(events) > 4
    checkpoints = call("fine_tuning.jobs.checkpoints.list", job.id, limit=1)
    assert checkpoints and all(each.metrics.step == each.step_number for each in checkpoints)


def test_models(call, tuned):
    assert "tiny" in [model.id for model in call("models.list")]
    for name in ("tiny", tuned.fine_tuned_model):
        assert call("models.retrieve", name).id == name
    with pytest.raises(openai.NotFoundError):
        call("models.delete", "ft:base/one:acme::abc123")


def test_chat(call):
    request = dict(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=4, seed=1)
    whole = call("chat.completions.create", **request, logprobs=True, top_logprobs=2)
    assert whole.choices[0].logprobs.content
    chunks = call("chat.completions.create", **request, stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content


@pytest.mark.parametrize(
    ("path", "args", "error"),
    [
        ("files.retrieve", ["file-abc123"], openai.NotFoundError),
        ("fine_tuning.jobs.retrieve", ["ftjob-AF1WoRqd3aJAHsqc9NY7iL8F"], openai.NotFoundError),
        ("fine_tuning.jobs.cancel", ["ftjob-AF1WoRqd3aJAHsqc9NY7iL8F"], openai.NotFoundError),
        ("fine_tuning.jobs.list_events", ["ftjob-AF1WoRqd3aJAHsqc9NY7iL8F"], openai.NotFoundError),
        ("models.retrieve", ["gpt-4o-mini"], openai.NotFoundError),
    ],
)
def test_an_unknown_id_is_a_404_with_all_four_keys(call, path, args, error):
    with pytest.raises(error) as caught:
        call(path, *args)
    assert set(caught.value.body) == {"message", "type", "param", "code"}, json.dumps(caught.value.body)
    assert caught.value.request_id.startswith("req_")
