"""OpenAI's client with strict validation of every answer, blocking and asynchronous, as it is, raw and streaming: jobs, models,
chat, graders, errors. Every method of the surface is called, which `test_surface.py` checks."""

import json

import openai
import pytest

from conftest import chat_rows, finished


def upload(call, rows):
    return call("files.create", file=("rows.jsonl", "".join(rows).encode()), purpose="fine-tune")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hyperparameters": {"n_epochs": 50, "batch_size": "auto", "learning_rate_multiplier": 2}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}},
        {"extra_body": {"attune": {"method": "kto", "n_epochs": 50}}},
        # As OpenAI's own tests of its client send it: every variant at once.
        {"method": {"type": "supervised", "supervised": {}, "dpo": {"hyperparameters": {"beta": "auto"}}, "reinforcement": {
            "grader": {"type": "string_check", "name": "n", "operation": "eq", "input": "i", "reference": "r"},
            "hyperparameters": {"reasoning_effort": "default"},
        }}},
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
    # There may be some already.
    assert all(each.fine_tuning_job_id == job.id for each in call("fine_tuning.jobs.checkpoints.list", job.id))
    try:
        assert call("fine_tuning.jobs.cancel", job.id).status == "cancelled"
    except openai.BadRequestError as refused:  # a worker was quicker
        assert refused.code == "job_is_final"


def test_a_job_is_paused_and_goes_on(call):
    file = upload(call, chat_rows(400))
    job = call(
        "fine_tuning.jobs.create", model="tiny", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    for action in ("pause", "pause", "resume", "resume"):
        # `paused` is no word of this client.
        assert call(f"fine_tuning.jobs.{action}", job.id).status in ("queued", "running")
    for _ in range(2):
        assert call("fine_tuning.jobs.cancel", job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        call("fine_tuning.jobs.pause", job.id)


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


def test_a_model_is_deleted_and_is_then_unknown(call, client):
    file = upload(call, chat_rows(4))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, extra_body={"attune": {"max_steps": 1}})
    name = finished(client, job.id).fine_tuned_model
    assert call("models.delete", name).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        call("chat.completions.create", model=name, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"


def test_chat(call):
    request = dict(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=4, seed=1)
    whole = call("chat.completions.create", **request, logprobs=True, top_logprobs=2)
    assert whole.choices[0].logprobs.content
    chunks = call("chat.completions.create", **request, stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content


def test_chat_that_the_client_itself_puts_together(call, tuned):
    request = dict(
        model=tuned.fine_tuned_model, messages=[{"role": "user", "content": "is 3 odd?"}], max_tokens=32, temperature=0,
        stop=["answer"],
    )
    parsed, streamed = (call(f"chat.completions.{name}", **request).choices[0] for name in ("parse", "stream"))
    assert parsed.message.content == streamed.message.content and parsed.finish_reason == "stop"


def test_graders(call):
    grader = {
        "type": "string_check", "name": "same", "operation": "eq",
        "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
    }
    assert call("fine_tuning.alpha.graders.validate", grader=grader).grader.name == "same"
    run = call("fine_tuning.alpha.graders.run", grader=grader, item={"answer": "a"}, model_sample="a")
    assert run.reward == 1 and run.metadata.errors.other_error is False
    # What goes wrong while it is graded is told of in the answer.
    run = call("fine_tuning.alpha.graders.run", grader=grader, item={}, model_sample="a")
    assert run.reward == 0 and run.metadata.errors.invalid_variable_error is True


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
