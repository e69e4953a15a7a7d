"""LiteLLM as a gateway's code calls it, blocking and asynchronous: files, a fine-tuning job that is tuned to its end, one that
is cancelled, a batch, and chat with the tuned model, whole and as a stream."""

import asyncio
import inspect
import json
import os
import sys
import time

# It would fetch its table of prices from GitHub.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

WHERE = dict(
    custom_llm_provider="openai", api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_retries=0
)
QUESTION = [{"role": "user", "content": "is 3 odd?"}]
rows = open(sys.argv[1], "rb").read()


async def blocking(name, *args, **kwargs):
    return getattr(litellm, name)(*args, **kwargs)


async def asynchronous(name, *args, **kwargs):
    answer = getattr(litellm, f"a{name}")(*args, **kwargs)
    return await answer if inspect.isawaitable(answer) else answer


async def finished(call, job_id):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        job = await call("retrieve_fine_tuning_job", fine_tuning_job_id=job_id, **WHERE)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        await asyncio.sleep(0.5)
    raise AssertionError(f"job {job_id} is still {job.status}")


async def files(call):
    file = await call("create_file", file=("rows.jsonl", rows), purpose="fine-tune", **WHERE)
    assert (await call("file_retrieve", file_id=file.id, **WHERE)).bytes == len(rows)
    assert (await call("file_content", file_id=file.id, **WHERE)).content == rows
    assert file.id in [each.id for each in (await call("file_list", **WHERE)).data]
    assert (await call("file_delete", file_id=file.id, **WHERE)).deleted


async def jobs(call):
    file = await call("create_file", file=("rows.jsonl", rows), purpose="fine-tune", **WHERE)
    create = dict(model="tiny", training_file=file.id, suffix="litellm", **WHERE)
    job = await call("create_fine_tuning_job", hyperparameters={"n_epochs": 50}, **create)
    assert job.hyperparameters.n_epochs == 50
    listed = await call("list_fine_tuning_jobs", limit=1, **WHERE)
    assert [each.id for each in listed.data] == [job.id]
    assert (await call("cancel_fine_tuning_job", fine_tuning_job_id=job.id, **WHERE)).status in ("cancelled", "succeeded")
    job = await call("create_fine_tuning_job", hyperparameters={"n_epochs": 1}, **create)
    job = await finished(call, job.id)
    assert job.status == "succeeded", job
    return job.fine_tuned_model


async def chat(call, model):
    request = dict(model=f"openai/{model}", messages=QUESTION, max_tokens=4, seed=1, temperature=0)
    where = {name: WHERE[name] for name in ("api_base", "api_key")}
    whole = await call("completion", **request, **where)
    assert whole.usage.completion_tokens > 0
    chunks = await call("completion", stream=True, **request, **where)
    chunks = [each async for each in chunks] if hasattr(chunks, "__anext__") and call is asynchronous else list(chunks)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == whole.choices[0].message.content


async def batches(call):
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 2}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
    file = await call("create_file", file=("requests.jsonl", line.encode()), purpose="batch", **WHERE)
    batch = await call(
        "create_batch", completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, **WHERE
    )
    deadline = time.monotonic() + 120
    while batch.status != "completed" and time.monotonic() < deadline:
        batch = await call("retrieve_batch", batch_id=batch.id, **WHERE)
        await asyncio.sleep(0.3)
    assert batch.status == "completed" and batch.request_counts.completed == 1, batch
    assert batch.id in [each.id for each in (await call("list_batches", limit=2, **WHERE)).data]
    answered = (await call("file_content", file_id=batch.output_file_id, **WHERE)).content
    assert json.loads(answered)["custom_id"] == "a"


async def main():
    models = []
    for call in (blocking, asynchronous):
        await files(call)
        models.append(await jobs(call))
        await chat(call, models[-1])
        await batches(call)
    print(json.dumps({"models": models}))


asyncio.run(main())
