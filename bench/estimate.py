"""What a run was expected to take beside what it took: the demo's job, and two that differ from it four times."""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from training import ATTUNE, BASE, ROOT, cpu

TICKETS = ROOT / "examples" / "tickets"
# As script/demo_client.py asks for.
SETTINGS = {"n_epochs": 1, "learning_rate": 1e-3, "lr_schedule": "constant", "batch_size": 4, "seed": 7}
# Nothing is better than a prediction by more than this.
WITHIN = 0.2


def tickets(name):
    return [json.loads(line) for line in (TICKETS / name).read_text(encoding="utf-8").splitlines()]


def longer(rows, times):
    """Rows of `times` tickets each, as one conversation: a quarter as many, each about four times as long."""
    groups = [rows[start : start + times] for start in range(0, len(rows) - times + 1, times)]
    return [{"messages": [message for row in group for message in row["messages"] if message["role"] != "system"]} for group in groups]


def jobs():
    """Name, rows to learn from, rows to measure on, settings."""
    train, valid = tickets("train.jsonl"), tickets("valid.jsonl")
    yield "demo", train, valid, {}
    yield "a quarter of the rows", train[::4], valid, {}
    yield "four times the length", longer(train, 4), longer(valid, 4), {}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(rows, valid, settings):
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        (out / "job.json").write_text(json.dumps({**SETTINGS, **settings}))
        command = [
            ATTUNE, "train", "--model", BASE, "--train", write(out / "train.jsonl", rows),
            "--valid", write(out / "valid.jsonl", valid), "--config", out / "job.json", "--out", out / "run",
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        return json.loads((out / "run" / "report.json").read_text())


def line(name, report):
    expected, found = report["estimate"], report["outcome"]
    pairs = [
        (expected["seconds"], found["seconds"], "{:.0f}"),
        (expected["peak_bytes"] / 1e6, found["peak_memory_bytes"] / 1e6, "{:.0f}"),
    ]
    cells = [f"{report['data']['training_file']['n_rows']}", f"{report['steps']}", f"{report['train_tokens']}"]
    exact = (expected["steps"], expected["train_tokens"]) == (report["steps"], report["train_tokens"])
    cells.append("exact" if exact else f"{expected['steps']}, {expected['train_tokens']}")
    ratios = [a / b for a, b, _ in pairs]
    for (a, b, shape), ratio in zip(pairs, ratios):
        cells += [shape.format(a), shape.format(b), f"**{ratio:.2f}**"]
    cells.append(f"{found['flops_per_second'] / 1e9:.0f}")
    return f"| {name} | {' | '.join(cells)} |", exact and all(abs(ratio - 1) <= WITHIN for ratio in ratios)


def main():
    parser = argparse.ArgumentParser(prog="script/bench estimate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each job is run")
    parser.add_argument("--settings", type=json.loads, default={}, help="settings for all jobs, as JSON")
    parser.add_argument("--out", type=pathlib.Path, help="where the table goes, instead of docs/benchmarks/")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    today = datetime.date.today()
    lines, all_within = [], True
    before = os.getloadavg()[0]
    for n in range(args.rounds):
        for name, rows, valid, settings in jobs():
            report = run(rows, valid, {**args.settings, **settings})
            row, within = line(name, report)
            print(row, file=sys.stderr)
            lines.append(row)
            all_within &= within
    text = "\n".join([
        f"# Estimates beside outcomes, {today}", "",
        f"`script/bench estimate{f' --rounds {args.rounds}' if args.rounds > 1 else ''}` at commit {commit}, on {cpu()}. One-minute load before: {before:.1f}.",
        "The demo's job (`script/demo_client.py`), a quarter of its rows, and its tickets in conversations of four, so a quarter of the rows "
        "again and each four times as long; ratios are expected ÷ found. Time is from the first measurement to the last; memory is the whole "
        "process's maximum." + (f" Settings of all: `{json.dumps(args.settings)}`." if args.settings else ""), "",
        "| job | rows | steps | tokens | expected | s expected | s found | ratio | MB expected | MB found | ratio | GFLOP/s found |",
        "|---" * 12 + "|", *lines, "",
    ])
    path = args.out or ROOT / "docs" / "benchmarks" / f"estimate-{today}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    if not all_within:
        sys.exit(f"an expectation was off by more than {WITHIN:.0%}")


if __name__ == "__main__":
    main()
