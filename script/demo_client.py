"""The demo's client: the main job through the public HTTP API, with nothing but Python's own library.

Reads OPENAI_BASE_URL and OPENAI_API_KEY, as every client of the API does.
"""

import argparse
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request
import uuid

BASE_URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
MODEL = "smollm2-135m-instruct"
TICKETS = pathlib.Path(__file__).parent.parent / "examples" / "tickets"


def call(method, path, body=None, content_type="application/json"):
    """One request; its JSON answer. An error of the API ends the demo with the API's own words."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(
        BASE_URL + path, data, {"Authorization": f"Bearer {KEY}", "Content-Type": content_type}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}")


def upload(name, lines):
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: application/jsonl\r\n\r\n"
    )
    body = head.encode() + "".join(lines).encode() + f"\r\n--{boundary}--\r\n".encode()
    return call("POST", "/files", body, f"multipart/form-data; boundary={boundary}")["id"]


def lines_of(name):
    return (TICKETS / name).read_text(encoding="utf-8").splitlines(keepends=True)


def all_events(job_id):
    """Every event of the job, oldest first."""
    events, after = [], ""
    while True:
        page = call("GET", f"/fine_tuning/jobs/{job_id}/events?limit=100{after}")
        events += page["data"]
        if not page["has_more"]:
            return events[::-1]
        after = f"&after={page['data'][-1]['id']}"


def show(step):
    """One line that moves on a terminal and repeats elsewhere."""
    done, total = step["step"], step["total_steps"]
    seconds = step["step_ms"] / 1000
    bar = ("#" * (30 * done // total)).ljust(30, ".")
    left = int(seconds * (total - done))
    text = (
        f"[{bar}] {done}/{total}  loss {step['train_loss']:.4f}  "
        f"{step['n_tokens'] / seconds:.0f} tokens/s  {left // 60}:{left % 60:02} left"
    )
    print(f"\r{text}   " if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)


def follow(job_id):
    """Shows the job until it ends, then returns it."""
    shown, said = 0, set()
    while True:
        job = call("GET", f"/fine_tuning/jobs/{job_id}")
        for event in all_events(job_id):
            if event["type"] == "metrics" and event["data"]["step"] > shown:
                shown = event["data"]["step"]
                show(event["data"])
            elif event["type"] == "message" and event["id"] not in said:
                said.add(event["id"])
                print(("\n" if shown and sys.stdout.isatty() else "") + event["message"], flush=True)
        if job["status"] in ("succeeded", "failed", "cancelled"):
            print()
            return job
        time.sleep(1)


def answer(model, row):
    messages = [m for m in row["messages"] if m["role"] != "assistant"]
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 80}
    return call("POST", "/chat/completions", body)["choices"][0]["message"]["content"]


def is_json(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def measure(model, rows):
    """Exact-match and valid-JSON rate of a model's greedy answers, as shares of `rows`."""
    answers = [answer(model, row).strip() for row in rows]
    exact = sum(a == row["messages"][-1]["content"].strip() for a, row in zip(answers, rows))
    return {"rows": len(rows), "exact_match": exact / len(rows), "valid_json": sum(map(is_json, answers)) / len(rows)}


def print_table(table):
    print(f"\n{'':34}{'base':>10}{'tuned':>10}")
    base, tuned = table["base"], table["tuned"]
    print(f"{'validation loss':34}{base['valid_loss']:10.3f}{tuned['valid_loss']:10.3f}")
    for half, words in (("known", "known phrasings"), ("unseen", "unseen phrasings")):
        n = base[half]["rows"]
        for key, name in (("exact_match", "exact match"), ("valid_json", "valid JSON")):
            label = f"{name}, {n} rows, {words}"
            print(f"{label:34}{base[half][key]:>10.0%}{tuned[half][key]:>10.0%}")


def print_farewell():
    print(
        f"""
To keep a server:  attune up        (then: source its attune.env)

The same job by hand:
  curl $OPENAI_BASE_URL/files -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -F purpose=fine-tune -F file=@examples/tickets/train.jsonl
  curl $OPENAI_BASE_URL/fine_tuning/jobs -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{MODEL}", "training_file": "file-…", "attune": {{"n_epochs": 1, "learning_rate": 1e-3, "lr_schedule": "constant"}}}}'
  curl $OPENAI_BASE_URL/fine_tuning/jobs/ftjob-…/events -H "Authorization: Bearer $OPENAI_API_KEY"
  curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "ft:…", "messages": [{{"role": "user", "content": "…"}}]}}'
"""
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a few steps on a few rows")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()

    train, valid = lines_of("train.jsonl"), lines_of("valid.jsonl")
    heldout = [json.loads(line) for line in lines_of("heldout.jsonl")]
    halves = {half: [r for r in heldout if r["metadata"]["phrasing"] == half] for half in ("known", "unseen")}
    knobs = {"n_epochs": 1, "learning_rate": 1e-3, "lr_schedule": "constant", "batch_size": 4, "seed": 7}
    if args.quick:
        valid, knobs = valid[:4], {**knobs, "max_steps": 6, "warmup_steps": 0}
        halves = {half: rows[:1] for half, rows in halves.items()}

    body = {
        "model": MODEL,
        "training_file": upload("train.jsonl", train),
        "validation_file": upload("valid.jsonl", valid),
        "suffix": "tickets",
        "attune": knobs,
    }
    job_id = call("POST", "/fine_tuning/jobs", body)["id"]
    job = follow(job_id)
    if job["status"] != "succeeded":
        sys.exit(f"job {job_id} ended as {job['status']}: {job['error']}")
    tuned = job["fine_tuned_model"]

    events = all_events(job_id)
    losses = [e["data"]["train_loss"] for e in events if e["type"] == "metrics"]
    table = {
        "base": {"valid_loss": next(e["data"]["valid_loss"] for e in events if e.get("data") and "valid_loss" in e["data"])},
        "tuned": {"valid_loss": [e["data"]["valid_loss"] for e in events if e["type"] == "metrics" and "valid_loss" in e["data"]][-1]},
    }
    print("Answering held-out tickets with both models …", flush=True)
    for name, model in (("base", MODEL), ("tuned", tuned)):
        for half, rows in halves.items():
            table[name][half] = measure(model, rows)
    print_table(table)

    prompt = halves["known"][0]
    answers = {"prompt": prompt["messages"][-2]["content"], "expected": prompt["messages"][-1]["content"],
               "base": answer(MODEL, prompt), "tuned": answer(tuned, prompt)}
    print(f"\nTicket:   {answers['prompt']}\nExpected: {answers['expected']}\nBase:     {answers['base']}\nTuned:    {answers['tuned']}")
    print_farewell()

    result = {"job_id": job_id, "model": tuned, "quick": args.quick, "losses": losses, "table": table, "answers": answers}
    pathlib.Path(args.out).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    last = losses[-3:]
    if not sum(last) / len(last) < losses[0]:
        sys.exit(f"the loss did not fall: it began at {losses[0]:.4f} and ended at {last}")


if __name__ == "__main__":
    main()
