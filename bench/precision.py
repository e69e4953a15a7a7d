"""What bf16 costs in loss: the demo's job in f32 and in bf16, with several seeds, in turn."""

import argparse
import datetime
import os
import pathlib
import statistics
import subprocess
import sys

from estimate import run, tickets
from training import ROOT, cpu

# As often as the validation loss is looked at.
EVERY = 10


def curve(precision, seed):
    """Validation loss by step."""
    settings = {"precision": precision, "seed": seed, "checkpoint_every": EVERY, "keep": "last"}
    report = run(tickets("train.jsonl"), tickets("valid.jsonl"), settings)
    return {point["step"]: point["valid_loss"] for point in report["curve"] if "valid_loss" in point}


def cell(losses):
    return f"**{statistics.mean(losses):.4f}** ({', '.join(f'{loss:.4f}' for loss in losses)})"


def main():
    parser = argparse.ArgumentParser(prog="script/bench precision", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how many seeds")
    parser.add_argument("--out", type=pathlib.Path, help="where the table goes, instead of docs/benchmarks/")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    today, before = datetime.date.today(), os.getloadavg()[0]
    curves = {"f32": [], "bf16": []}
    for seed in range(1, args.seeds + 1):
        for precision, found in curves.items():
            found.append(curve(precision, seed))
            print(f"seed {seed}, {precision}: {found[-1]}", file=sys.stderr)
    lines = []
    for step in curves["f32"][0]:
        exact, narrow = ([found[step] for found in curves[precision]] for precision in curves)
        ratio = statistics.mean(narrow) / statistics.mean(exact)
        spread = statistics.stdev(exact) / statistics.mean(exact) if len(exact) > 1 else float("nan")
        lines.append(f"| {step} | {cell(exact)} | {cell(narrow)} | **{ratio:.3f}** | {spread:.1%} |")
    text = "\n".join([
        f"# Validation loss in bf16 and in f32, {today}", "",
        f"`script/bench precision --seeds {args.seeds}` at commit {commit}, on {cpu()}. One-minute load before: {before:.1f}.",
        "The demo's job (`script/demo_client.py`), measured on its validation file every ten steps; a seed draws the adapter and the order "
        "of the rows. The mean over the seeds, and each; the ratio is of the means, and the spread the standard deviation of f32's own "
        "losses over the seeds, as a share of their mean.", "",
        "| step | f32 | bf16 | bf16 ÷ f32 | f32's spread |", "|---|---|---|---|---|", *lines, "",
    ])
    path = args.out or ROOT / "docs" / "benchmarks" / f"precision-{today}.md"
    path.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
