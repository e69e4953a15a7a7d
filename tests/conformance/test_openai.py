"""The unmodified OpenAI client: upload, job, events, checkpoints, models, chat, errors."""

import csv
import io
import json

import openai
import pytest

from conftest import chat_rows, finished, upload


def test_a_file_is_uploaded_listed_read_and_deleted(client):
    rows = list(chat_rows(3))
    file = upload(client, rows)
    assert file.id.startswith("file-") and file.bytes == len("".join(rows)) and file.purpose == "fine-tune"
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.content(file.id).read() == "".join(rows).encode()
    assert file.id in [f.id for f in client.files.list(purpose="fine-tune")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_job_has_every_field_the_client_knows(tuned):
    assert tuned.object == "fine_tuning.job" and tuned.id.startswith("ftjob-")
    assert tuned.fine_tuned_model.startswith("ft:tiny:") and ":odd:" in tuned.fine_tuned_model
    assert tuned.hyperparameters.n_epochs == 2 and tuned.hyperparameters.batch_size == 4
    assert tuned.method.supervised.hyperparameters.n_epochs == 2
    assert tuned.seed == 3 and tuned.error is None and tuned.metadata == {"team": "tests"}
    assert tuned.trained_tokens > 0 and tuned.finished_at >= tuned.created_at
    assert tuned.organization_id and len(tuned.result_files) == 1


def test_preferences_are_tuned_on_through_the_clients_own_method(client):
    said = lambda text: [{"role": "assistant", "content": text}]
    rows = [
        json.dumps({
            "input": {"messages": [{"role": "user", "content": f"is {n} odd?"}]},
            "preferred_output": said("yes" if n % 2 else "no"),
            "non_preferred_output": said("who knows"),
        }) + "\n"
        for n in range(12)
    ]
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload(client, rows).id,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1, "batch_size": 4}}},
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    assert job.method.type == "dpo" and job.method.dpo.hyperparameters.beta == 0.2
    assert job.hyperparameters.n_epochs == 1


def test_events_come_newest_first_with_one_metrics_event_a_step(client, tuned):
    events = list(client.fine_tuning.jobs.list_events(tuned.id, limit=5))
    assert "successfully completed" in events[0].message
    steps = [e.data["step"] for e in events if e.type == "metrics"]
    assert steps == list(range(12, 0, -1))
    last = next(e for e in events if e.type == "metrics")
    assert last.message.startswith("Step 12/12: training loss=") and last.data["total_steps"] == 12
    losses = [e.data["train_loss"] for e in events if e.type == "metrics"]
    assert losses[0] < losses[-1] / 2, losses  # newest first


def test_pages_follow_one_another_without_gap_or_repeat(client, tuned):
    pages = list(client.fine_tuning.jobs.list_events(tuned.id, limit=5).iter_pages())
    ids = [event.id for page in pages for event in page.data]
    assert ids == [event.id for event in client.fine_tuning.jobs.list_events(tuned.id, limit=100)]
    assert {len(page.data) for page in pages[:-1]} == {5}
    assert [page.has_next_page() for page in pages] == [True] * (len(pages) - 1) + [False]
    # The filter goes along to the second page.
    file = upload(client, chat_rows(2))
    for team in ("one page", "other", "one page"):
        client.fine_tuning.jobs.create(model="tiny", training_file=file.id, metadata={"team": team})
    first = client.fine_tuning.jobs.list(metadata={"team": "one page"}, limit=1)
    assert [job.metadata for job in first.data + first.get_next_page().data] == [{"team": "one page"}] * 2


def test_every_checkpoint_is_listed_and_answers(client, tuned):
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(tuned.id))
    assert [c.step_number for c in checkpoints] == [12, 10, 5]
    assert checkpoints[0].metrics.full_valid_loss < checkpoints[-1].metrics.full_valid_loss
    name = checkpoints[-1].fine_tuned_model_checkpoint
    assert name == f"{tuned.fine_tuned_model}:ckpt-step-5"
    answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "is 3 odd?"}], max_tokens=4)
    assert answer.model == name


def test_the_result_file_is_a_csv_with_one_row_a_step(client, tuned):
    text = client.files.content(tuned.result_files[0]).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert [int(r["step"]) for r in rows] == list(range(1, 13))
    assert rows[4]["valid_loss"] and not rows[0]["valid_loss"]


def test_chat_answers_blocking_and_streaming_alike(client, tuned):
    request = dict(
        model=tuned.fine_tuned_model, messages=[{"role": "user", "content": "is 7 odd?"}], temperature=0.8, seed=5,
        max_tokens=12,
    )
    whole = client.chat.completions.create(**request)
    stream = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == whole.choices[0].message.content
    assert stream[-1].usage == whole.usage and whole.usage.completion_tokens <= 12
    assert len({c.id for c in stream}) == 1
    assert [c.choices[0].finish_reason for c in stream if c.choices][-1] == whole.choices[0].finish_reason


def test_the_tuned_model_learned_what_the_base_does_not_know(client, tuned):
    def said(model):
        messages = [{"role": "user", "content": "is 11 odd?"}]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=8)
        return answer.choices[0].message.content

    assert said(tuned.fine_tuned_model).startswith("the answer is")
    assert not said("tiny").startswith("the answer is")


def test_models_are_listed_and_a_tuned_one_can_be_deleted(client, tuned):
    names = [m.id for m in client.models.list()]
    assert "tiny" in names and tuned.fine_tuned_model in names
    assert client.models.retrieve(tuned.fine_tuned_model).owned_by
    train = upload(client, chat_rows(8))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=train.id, extra_body={"attune": {"max_steps": 1}})
    name = finished(client, job.id).fine_tuned_model
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}])


def test_cancelling_stops_a_job_and_a_finished_one_cannot_be_cancelled(client, tuned):
    train = upload(client, chat_rows(200))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=train.id, extra_body={"attune": {"n_epochs": 50}})
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(tuned.id)


def test_two_runs_of_one_config_give_the_same_result_file(client):
    train = upload(client, chat_rows(12))
    texts = []
    for _ in range(2):
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=train.id, seed=9, extra_body={"attune": {"n_epochs": 1, "lora": {"dropout": 0.1}}}
        )
        texts.append(client.files.content(finished(client, job.id).result_files[0]).read())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"extra_body": {"attune": {"lora": {"rank": 0}}}}, "attune.lora.rank"),
        ({"hyperparameters": {"n_epochs": 2}, "extra_body": {"attune": {"n_epochs": 3}}}, "attune.n_epochs"),
        ({"training_file": "file-00000000000000000000000000000000"}, "training_file"),
        ({"model": "no-such-model"}, "model"),
    ],
)
def test_a_bad_request_names_its_field(client, change, param):
    train = upload(client, chat_rows(2))
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.fine_tuning.jobs.create(**{"model": "tiny", "training_file": train.id, **change})
    assert caught.value.param == param, caught.value


def test_a_faulty_row_fails_the_job_with_its_line(client):
    rows = [*chat_rows(2), '{"messages": [{"role": "user", "content": "no answer"}]}\n']
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload(client, rows).id)
    job = finished(client, job.id)
    assert job.status == "failed" and job.error.param == "training_file"
    assert job.error.code == "invalid_training_file" and "line 3" in job.error.message


def test_a_wrong_key_is_401(server):
    stranger = openai.OpenAI(base_url=server["OPENAI_BASE_URL"], api_key="sk-attune-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
