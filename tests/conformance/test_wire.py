"""What clients send and what they choke on, where a client's own methods would hide it: lost answers, either form of a path or
a query, errors of every kind, the last line of a stream."""

import csv
import http.client
import io
import json
import socket
import threading
import time

import httpx2 as httpx
import openai
import pytest

from conftest import chat_rows, finished, upload
from test_openapi import admin


@pytest.fixture(scope="session")
def raw(server):
    """Sends requests as they are written."""
    key = {"Authorization": f"Bearer {server['OPENAI_API_KEY']}"}
    with httpx.Client(base_url=server["OPENAI_BASE_URL"], headers=key, timeout=60) as client:
        yield client


@pytest.fixture
def long_job(client):
    """It would take an hour."""
    file = upload(client, chat_rows(400))
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1},
        extra_body={"attune": {"checkpoint_every": 2}},
    )
    yield job
    client.fine_tuning.jobs.cancel(job.id)


class LosesAnswers(threading.Thread):
    """Passes requests on, each in a connection of its own, and hangs up instead of giving the first answer back."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.answered = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self.port)) as server:
                server.sendall(request_in(client))
                answer = server.recv(1 << 20)
                self.answered += 1
                if self.answered > 1:
                    client.sendall(answer)


def request_in(connection):
    """A request with a short body, which asks not to keep the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return b"\r\n".join([*lines, b"connection: close", b"", body])


def test_a_job_whose_answer_was_lost_is_not_trained_twice(client, server):
    """The client itself repeats the request: nothing but `x-stainless-retry-count` tells it from a second job."""
    port = httpx.URL(server["OPENAI_BASE_URL"]).port
    lossy = LosesAnswers(port)
    repeating = openai.OpenAI(base_url=lossy.base_url, api_key=server["OPENAI_API_KEY"], max_retries=2)
    file = upload(client, chat_rows(2))
    job = repeating.fine_tuning.jobs.create(model="tiny", training_file=file.id, metadata={"lost": "answer"})
    lossy.listener.close()
    assert lossy.answered == 2
    assert [each.id for each in client.fine_tuning.jobs.list(metadata={"lost": "answer"})] == [job.id]


def test_a_client_that_is_told_to_wait_gets_its_answer_afterwards(server):
    """A project of 120 requests a minute: when those are used up, the next one is let through half a second later."""
    project = admin(server, "project", "create", "--name", "limited")
    manager = openai.OpenAI(base_url=server["OPENAI_BASE_URL"], api_key="", admin_api_key=server["OPENAI_ADMIN_KEY"])
    manager.admin.organization.projects.rate_limits.update_rate_limit(
        "rl-project", project_id=project["project_id"], max_requests_per_1_minute=120
    )
    hasty = openai.OpenAI(base_url=server["OPENAI_BASE_URL"], api_key=project["api_key"], max_retries=0)
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(200):
            hasty.models.list()
    headers = refused.value.response.headers
    assert refused.value.code == "rate_limit_exceeded" and int(headers["retry-after"]) >= 1
    assert headers["x-ratelimit-limit-requests"] == "120" and headers["x-ratelimit-remaining-requests"] == "0"
    patient = hasty.with_options(max_retries=2)
    for _ in range(3):
        patient.models.list()


def test_a_name_is_found_raw_and_encoded_and_a_query_is_read_either_way(raw, client, tuned):
    for name in (tuned.fine_tuned_model, tuned.fine_tuned_model.replace(":", "%3A")):
        assert raw.get(f"models/{name}").json()["id"] == tuned.fine_tuned_model
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, chat_rows(2)).id, metadata={"sent by": "a b+c"}
    )
    for query in ("metadata%5Bsent+by%5D=a+b%2Bc", "metadata%5Bsent%20by%5D=a%20b%2Bc", "metadata[sent%20by]=a+b%2Bc"):
        assert [each["id"] for each in raw.get(f"fine_tuning/jobs?{query}").json()["data"]] == [job.id]


@pytest.mark.parametrize("first", ["file", "purpose"])
def test_the_parts_of_a_form_come_in_any_order(raw, first):
    row = next(chat_rows(1)).encode()
    parts = {
        "file": b'content-disposition: form-data; name="file"; filename="rows.jsonl"\r\n'
        b"content-type: application/octet-stream\r\n\r\n" + row,
        "purpose": b'content-disposition: form-data; name="purpose"\r\n\r\nfine-tune',
    }
    order = sorted(parts, key=lambda name: name != first)
    form = b"".join(b"--edge\r\n" + parts[name] + b"\r\n" for name in order) + b"--edge--\r\n"
    file = raw.post("files", content=form, headers={"content-type": "multipart/form-data; boundary=edge"}).json()
    assert (file["bytes"], file["filename"], file["status"]) == (len(row), "rows.jsonl", "processed")


@pytest.mark.parametrize("wanted", ["cancel", "pause", "resume"])
def test_what_is_done_to_a_job_needs_no_body_and_no_type(server, long_job, wanted):
    address = httpx.URL(server["OPENAI_BASE_URL"])
    for headers in ({}, {"Content-Type": "application/json", "Content-Length": "0"}):
        connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
        connection.request(
            "POST", f"/v1/fine_tuning/jobs/{long_job.id}/{wanted}",
            headers={"Authorization": f"Bearer {server['OPENAI_API_KEY']}", **headers},
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "request_", "status"),
    [
        ("GET", "no/such/route", {}, 404),
        ("GET", "evals", {}, 404),
        ("PUT", "files", {}, 405),
        ("GET", "chat/completions", {}, 405),
        ("POST", "chat/completions", {"content": b"x" * (64 << 20), "headers": {"content-type": "application/json"}}, 413),
        ("POST", "chat/completions", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "fine_tuning/jobs", {"json": {"model": 1}}, 400),
        ("POST", "fine_tuning/jobs", {"content": b"<x/>", "headers": {"content-type": "text/xml"}}, 415),
        ("POST", "files", {"json": {}}, 415),
        ("DELETE", "models/tiny", {}, 404),
        ("GET", "fine_tuning/jobs?after=ftjob-x", {}, 400),
        ("GET", "models", {"headers": {"authorization": "Basic eDp5"}}, 401),
        ("GET", "organization/projects", {}, 403),
    ],
)
def test_an_error_is_json_with_all_four_keys_and_the_headers(raw, method, path, request_, status):
    answer = raw.request(method, path, **request_)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_") and int(answer.headers["openai-processing-ms"]) >= 0


def test_chat_tolerates_what_it_does_not_know_and_always_has_logprobs(raw, tuned):
    request = {
        "model": tuned.fine_tuned_model, "messages": [{"role": "user", "content": "is 3 odd?"}], "max_tokens": 3,
        "user": "u", "store": False, "service_tier": "auto", "reasoning_effort": "low", "prediction": None, "newer": [1],
    }
    whole = raw.post("chat/completions", json=request).json()
    assert whole["choices"][0]["logprobs"] is None and whole["choices"][0]["message"]["refusal"] is None
    lines = [line for line in raw.post("chat/completions", json={**request, "stream": True}).text.splitlines() if line]
    assert lines.pop() == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert all("logprobs" in choice for chunk in chunks for choice in chunk["choices"])


def test_every_cell_of_a_result_file_is_a_number_or_empty_and_every_row_has_its_step(client, tuned):
    rows = list(csv.DictReader(io.StringIO(client.files.content(tuned.result_files[0]).text)))
    for row in rows:
        assert row["step"] and all(cell == "" or float(cell) >= 0 for cell in row.values())


def test_events_that_come_meanwhile_neither_shift_nor_repeat_a_page(client, long_job):
    events = client.fine_tuning.jobs.list_events
    await_true(lambda: len(events(long_job.id, limit=8).data) == 8)
    first = events(long_job.id, limit=4)
    await_true(lambda: events(long_job.id, limit=1).data[0].id != first.data[0].id)
    seen = [event.id for event in first.data + first.get_next_page().data]
    now = [event.id for event in events(long_job.id, limit=100)]
    start = now.index(seen[0])
    assert start > 0 and now[start : start + 8] == seen


def test_a_checkpoint_answers_after_its_job_was_cancelled_and_can_be_tuned_further(client, long_job):
    checkpoints = client.fine_tuning.jobs.checkpoints.list
    await_true(lambda: checkpoints(long_job.id).data)
    assert client.fine_tuning.jobs.cancel(long_job.id).status == "cancelled"
    name = checkpoints(long_job.id).data[-1].fine_tuned_model_checkpoint
    answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    assert answer.model == name
    further = client.fine_tuning.jobs.create(
        model=name, training_file=long_job.training_file, extra_body={"attune": {"max_steps": 1}}
    )
    assert finished(client, further.id).status == "succeeded"


def await_true(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
