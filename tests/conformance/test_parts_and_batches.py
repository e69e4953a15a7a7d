"""The unmodified OpenAI client, strict: files in parts, and batches."""

import hashlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from conftest import chat_rows


@pytest.fixture(scope="session")
def strict(server):
    return openai.OpenAI(
        base_url=server["OPENAI_BASE_URL"],
        api_key=server["OPENAI_API_KEY"],
        max_retries=0,
        _strict_response_validation=True,
    )


def requests(models):
    for n, model in enumerate(models):
        body = {"model": model, "messages": [{"role": "user", "content": "is 1 odd?"}], "max_tokens": 4}
        yield json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"


def made(client, models, **extra):
    content = "".join(requests(models)).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **extra
    )


def ended(client, batch_id, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.2)
    pytest.fail(f"batch {batch_id} is still {batch.status}")


def lines(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_parts_are_sent_at_once_and_joined(strict):
    content = "".join(chat_rows(40)).encode()
    upload = strict.uploads.create(
        filename="train.jsonl", purpose="fine-tune", bytes=len(content), mime_type="text/jsonl"
    )
    assert upload.status == "pending" and upload.expires_at == upload.created_at + 3600
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda piece: strict.uploads.parts.create(upload.id, data=piece), pieces))
    assert all(part.upload_id == upload.id for part in parts)
    md5 = hashlib.md5(content).hexdigest()
    ids = [part.id for part in parts]
    with pytest.raises(openai.BadRequestError):
        strict.uploads.complete(upload.id, part_ids=ids[::-1], md5=md5)
    done = strict.uploads.complete(upload.id, part_ids=ids, md5=md5)
    assert done.status == "completed" and done.file.status == "processed"
    assert strict.uploads.complete(upload.id, part_ids=ids, md5=md5).file.id == done.file.id
    assert strict.files.content(done.file.id).read() == content


def test_the_clients_own_helper_uploads_in_chunks(strict):
    content = "".join(chat_rows(40)).encode()
    done = strict.uploads.upload_file_chunked(
        file=content, filename="train.jsonl", bytes=len(content), mime_type="text/jsonl", purpose="fine-tune",
        part_size=1500, md5=hashlib.md5(content).hexdigest(),
    )
    assert strict.files.content(done.file.id).read() == content


def test_an_upload_is_given_up(strict):
    upload = strict.uploads.create(filename="a", purpose="fine-tune", bytes=4, mime_type="text/jsonl")
    strict.uploads.parts.create(upload.id, data=io.BytesIO(b"abcd"))
    assert strict.uploads.cancel(upload.id).status == "cancelled"


def test_a_batch_is_answered(strict):
    batch = made(strict, ["tiny", "no-such", "tiny"], metadata={"team": "tests"})
    assert batch.status == "validating" and batch.metadata == {"team": "tests"}
    done = ended(strict, batch.id)
    assert done.status == "completed" and done.model == "tiny", done
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (3, 2, 1)
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0
    answers = lines(strict, done.output_file_id)
    assert [line["custom_id"] for line in answers] == ["r0", "r2"]
    assert answers[0]["response"]["body"]["object"] == "chat.completion"
    (refused,) = lines(strict, done.error_file_id)
    assert refused["response"]["status_code"] == 404
    assert refused["response"]["body"]["error"]["code"] == "model_not_found"
    assert batch.id in [each.id for each in strict.batches.list(limit=1)]
    with pytest.raises(openai.BadRequestError):
        strict.batches.cancel(batch.id)


def test_a_batch_with_bad_input_says_what_is_wrong(strict):
    file = strict.files.create(file=("requests.jsonl", b'{"custom_id": "a"}\n'), purpose="batch")
    batch = strict.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    failed = ended(strict, batch.id)
    assert failed.status == "failed" and failed.errors.data[0].line == 1
    assert failed.errors.data[0].code == "invalid_method"


def test_a_batch_is_cancelled(strict):
    batch = made(strict, ["tiny"] * 400)
    assert strict.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    done = ended(strict, batch.id)
    assert done.status == "cancelled"
    left = lines(strict, done.error_file_id) if done.error_file_id else []
    assert done.request_counts.completed + len(left) in (0, 400)
