"""OpenAI's strict client in each of its ways: files, uploads in parts, batches."""

import hashlib

import openai
import pytest

from conftest import chat_rows
from test_parts_and_batches import requests

CONTENT = "".join(chat_rows(20)).encode()
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_files(call):
    file = call(
        "files.create", file=("rows.jsonl", CONTENT), purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600
    assert call("files.retrieve", file.id) == file
    for order in ("asc", "desc"):
        assert file.id in [each.id for each in call("files.list", purpose="fine-tune", order=order, limit=2)]
    assert call("files.content", file.id) == CONTENT
    with pytest.warns(DeprecationWarning):
        assert call("files.retrieve_content", file.id) == CONTENT.decode()
    assert call("files.wait_for_processing", file.id).status == "processed"
    assert call("files.delete", file.id).deleted
    with pytest.raises(openai.NotFoundError):
        call("files.content", file.id)


def test_uploads(call):
    upload = call(
        "uploads.create", filename="rows.jsonl", purpose="fine-tune", bytes=len(CONTENT), mime_type="text/jsonl"
    )
    assert upload.status == "pending"
    parts = [call("uploads.parts.create", upload.id, data=piece) for piece in (CONTENT[:100], CONTENT[100:])]
    done = call("uploads.complete", upload.id, part_ids=[part.id for part in parts], md5=MD5)
    assert done.status == "completed" and done.file.bytes == len(CONTENT)
    with pytest.raises(openai.BadRequestError):
        call("uploads.cancel", upload.id)
    upload = call("uploads.create", filename="a", purpose="fine-tune", bytes=4, mime_type="text/jsonl")
    assert call("uploads.cancel", upload.id).status == "cancelled"


def test_the_clients_own_helper_uploads_in_chunks(call):
    done = call(
        "uploads.upload_file_chunked", file=CONTENT, filename="rows.jsonl", bytes=len(CONTENT), mime_type="text/jsonl",
        purpose="fine-tune", part_size=500, md5=MD5,
    )
    assert call("files.content", done.file.id) == CONTENT


def test_batches(call):
    content = "".join(requests(["tiny"] * 400)).encode()
    file = call("files.create", file=("requests.jsonl", content), purpose="batch")
    batch = call(
        "batches.create", input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
        metadata={"suite": "strict"}, output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert batch.status == "validating" and batch.metadata == {"suite": "strict"}
    assert call("batches.cancel", batch.id).status in ("cancelling", "cancelled")
    assert call("batches.retrieve", batch.id).cancelling_at
    assert batch.id in [each.id for each in call("batches.list", limit=2)]
