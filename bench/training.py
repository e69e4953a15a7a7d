"""Training speed and memory, ours and the peers' in turn: A B C A B C, medians of the rounds."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PEERS = pathlib.Path(__file__).parent / "peers"
ATTUNE = os.environ["ATTUNE_BIN"]
BASE = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = ROOT / "examples" / "tickets" / "train.jsonl"
FEATURES = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"]
# As many rows a step as two packed lines of the peer hold.
ROWS_PER_STEP = 8


def sides(precisions):
    """Every variant: name, precision, and how to run it."""
    for precision in precisions:
        yield f"attune {precision}", precision, lambda model, tokens, p=precision: attune(p, tokens)
        for layout in ("padded", "packed"):
            yield f"PEFT {layout} {precision}", precision, lambda model, tokens, p=precision, l=layout: peer(
                "peft_loop.py", model, tokens, "--precision", p, "--layout", l
            )
        yield f"TRL SFTTrainer {precision}", precision, lambda model, tokens, p=precision: peer(
            "trl_sft.py", model, tokens, "--precision", p
        )


def attune(precision, tokens):
    """One run of `attune train`; the first step is not counted, as in the peers."""
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        settings = {
            "n_epochs": 50, "max_steps": max(3, tokens // 900 + 2), "batch_size": ROWS_PER_STEP, "learning_rate": 1e-3,
            "lr_schedule": "constant", "warmup_steps": 0, "precision": precision, "checkpoint_every": 100000, "seed": 7,
        }
        (out / "job.json").write_text(json.dumps(settings))
        run([ATTUNE, "train", "--model", BASE, "--train", ROWS, "--config", out / "job.json", "--out", out / "adapter"])
        steps = [json.loads(line) for line in (out / "adapter" / "metrics.jsonl").read_text().splitlines()][1:]
        summary = json.loads((out / "adapter" / "summary.json").read_text())
    n_tokens = sum(step["n_tokens"] for step in steps)
    return {
        "tokens_per_s": n_tokens / sum(step["step_ms"] for step in steps) * 1000,
        "peak_mb": summary["peak_rss_mb"],
        "tokens": n_tokens,
        "loss": steps[-1]["train_loss"],
    }


def peer(script, model, tokens, *options):
    output = run([sys.executable, PEERS / script, "--model", model, "--rows", ROWS, "--tokens", str(tokens), *options])
    return json.loads(output.strip().splitlines()[-1])


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-4000:]}")
    return done.stdout


def cpu():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    line = lambda key: next((l.split(":", 1)[1].strip() for l in text.splitlines() if l.startswith(key)), "?")
    flags = line("flags").split()
    return f"{line('model name')} ({os.cpu_count()} threads; {', '.join(f for f in FEATURES if f in flags)})"


def measure(chosen, rounds, tokens, model):
    results = {name: [] for name, _, _ in chosen}
    loads = []
    for n in range(rounds):
        for name, _, run_side in chosen:
            loads.append(os.getloadavg()[0])
            result = run_side(model, tokens)
            results[name].append(result)
            print(f"round {n + 1}: {name}: {result['tokens_per_s']:.0f} tokens/s, {result['peak_mb']:.0f} MB", file=sys.stderr)
    return results, loads


def median(results, key):
    return statistics.median(result[key] for result in results)


def table(chosen, results):
    yield "| side | tokens/s (median; all) | × the fastest PEFT of its precision | peak memory, MB | of that PEFT's |"
    yield "|---|---|---|---|---|"
    for name, precision, _ in chosen:
        peft = [other for other, p, _ in chosen if p == precision and other.startswith("PEFT")]
        fastest = max(peft, key=lambda other: median(results[other], "tokens_per_s"), default=None)
        speed, peak = median(results[name], "tokens_per_s"), median(results[name], "peak_mb")
        every = ", ".join(f"{result['tokens_per_s']:.0f}" for result in results[name])
        ratio, share = "", ""
        if fastest:
            ratio = f"{speed / median(results[fastest], 'tokens_per_s'):.2f}"
            share = f"{peak / median(results[fastest], 'peak_mb'):.0%}"
        yield f"| {name} | **{speed:.0f}** ({every}) | {ratio} | {peak:.0f} | {share} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=6000, help="counted tokens of each run")
    parser.add_argument("--precision", action="append", choices=["f32", "bf16"])
    parser.add_argument("--only", help="sides whose name contains this")
    parser.add_argument("--out", type=pathlib.Path, help="default: docs/benchmarks/training-DATE.md")
    args = parser.parse_args()
    chosen = [side for side in sides(args.precision or ["f32", "bf16"]) if not args.only or args.only in side[0]]
    model = pathlib.Path(os.environ["ATTUNE_CACHE"]) / "bench" / "smollm2"
    if not (model / "config.json").exists():
        run([ATTUNE, "models", "export", BASE, "--out", model])

    results, loads = measure(chosen, args.rounds, args.tokens, model)
    today = datetime.date.today().isoformat()
    commit = run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()
    lines = [
        f"# Training speed and memory, {today}",
        "",
        f"`script/bench training --rounds {args.rounds} --tokens {args.tokens}` at commit {commit}, on {cpu()}, "
        f"{platform.system()} {platform.release()}. One-minute load before the runs: {min(loads):.1f} to {max(loads):.1f}.",
        "LoRA of rank 8 on all linear layers of SmolLM2-135M-Instruct, the rows of `examples/tickets/train.jsonl`; "
        "non-padding tokens, the first step not counted; memory is the whole process's maximum.",
        "",
        *table(chosen, results),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not args.only:
        out = args.out or ROOT / "docs" / "benchmarks" / f"training-{today}.md"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


if __name__ == "__main__":
    main()
