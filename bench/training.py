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
QUANTISED_MEMORY = os.environ["ATTUNE_QUANTISED_MEMORY"]
BASE = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = pathlib.Path(os.environ["ATTUNE_CACHE"]) / "bench" / "smollm2"
ROWS = ROOT / "examples" / "tickets" / "train.jsonl"
FEATURES = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"]
# As many rows a step as two packed lines of the peer hold.
ROWS_PER_STEP = 8
# The peers', and not what the size of the dataset would suggest.
RANK = 8


def sides(precisions):
    """Every variant: name, precision, and how to run it."""
    for precision in precisions:
        yield f"attune {precision}", precision, lambda tokens, p=precision: attune(p, tokens)
        for layout in ("padded", "packed"):
            yield f"PEFT {layout} {precision}", precision, lambda tokens, p=precision, l=layout: peer(
                "peft_loop.py", tokens, "--precision", p, "--layout", l
            )
        yield f"TRL SFTTrainer {precision}", precision, lambda tokens, p=precision: peer(
            "trl_sft.py", tokens, "--precision", p
        )


# Our own settings beside one another: name, what is asked for, and the setting it is measured against.
SETTINGS = [
    ("bf16, activations recomputed", {"precision": "bf16", "recompute": True}, "bf16"),
    ("base in its file's 4-bit blocks", {"quantization": "gguf"}, "bf16"),
    ("base quantised to nf4", {"quantization": "nf4"}, "bf16"),
    ("bf16, DoRA", {"precision": "bf16", "lora": {"rank": RANK, "use_dora": True}}, "bf16"),
]

# Bases of random weights: size, what they are kept in, and the tokens of the step that is measured on them.
QUANTISED = [("1b", "bf16", 256), ("1b", "nf4", 256), ("8b", "nf4", 64)]


def attune(precision, tokens):
    """As PEFT trains: an adapter on a base in f32 or bf16."""
    return attune_with({"precision": precision}, tokens, ROWS)


def attune_with(asked, tokens, rows):
    """One run of `attune train`; the first step is not counted, as in the peers."""
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        settings = {
            "n_epochs": 50, "max_steps": max(3, tokens // 900 + 2), "batch_size": ROWS_PER_STEP, "learning_rate": 1e-3,
            "lr_schedule": "constant", "warmup_steps": 0, "checkpoint_every": 100000, "seed": 7, "lora": {"rank": RANK}, **asked,
        }
        (out / "job.json").write_text(json.dumps(settings))
        run([ATTUNE, "train", "--model", BASE, "--train", rows, "--config", out / "job.json", "--out", out / "adapter"])
        steps = [json.loads(line) for line in (out / "adapter" / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((out / "adapter" / "summary.json").read_text())
    seconds = sum(step["step_ms"] for step in steps) / 1000
    parts = summary["seconds_by_part"]
    flops = flops_per_token(json.loads((MODEL / "config.json").read_text())) * sum(step["n_tokens"] for step in steps)
    counted = steps[1:]
    n_tokens = sum(step["n_tokens"] for step in counted)
    return {
        "parts": {part: spent / seconds for part, spent in parts.items()},
        "matmul_gflops": flops / parts["matmul"] / 1e9,
        "tokens_per_s": n_tokens / sum(step["step_ms"] for step in counted) * 1000,
        "peak_mb": summary["peak_rss_mb"],
        "tokens": n_tokens,
        "loss": steps[-1]["train_loss"],
    }


def rows_file(folder, n_rows):
    """The tickets again and again, each copy with a number of its own so that no two rows are the same."""
    tickets = [json.loads(line) for line in ROWS.read_text().splitlines()]
    path = pathlib.Path(folder) / f"{n_rows}.jsonl"
    with path.open("w") as out:
        for n in range(n_rows):
            row = json.loads(json.dumps(tickets[n % len(tickets)]))
            row["messages"][-2]["content"] += f" (ticket {100000 + n})"
            out.write(json.dumps(row) + "\n")
    return path


def settings_table(rounds, tokens):
    """What other settings cost beside plain bf16, in turn."""
    sides = [("bf16", {"precision": "bf16"}, "bf16"), *SETTINGS]
    results = {name: [] for name, _, _ in sides}
    for _ in range(rounds):
        for name, asked, _ in sides:
            results[name].append(attune_with(asked, tokens, ROWS))
    yield from ["", "Other settings, in turn beside plain bf16:", ""]
    yield "| setting | tokens/s | of bf16's | peak memory, MB | of bf16's |"
    yield "|---|---|---|---|---|"
    for name, _, beside in sides:
        speed, peak = median(results[name], "tokens_per_s"), median(results[name], "peak_mb")
        of_speed, of_peak = (value / median(results[beside], key) for value, key in ((speed, "tokens_per_s"), (peak, "peak_mb")))
        yield f"| {name} | {speed:.0f} | {of_speed:.0%} | {peak:.0f} | {of_peak:.0%} |"


def scale_table(rounds, tokens):
    """A step costs the same whatever the size of the dataset."""
    sizes = [1_000, 100_000]
    with tempfile.TemporaryDirectory() as folder:
        files = {n: rows_file(folder, n) for n in sizes}
        results = {n: [] for n in sizes}
        for _ in range(rounds):
            for n in sizes:
                results[n].append(attune_with({"precision": "f32"}, tokens, files[n]))
    yield from ["", "The size of the dataset, f32, in turn:", ""]
    yield "| rows | tokens/s | of that with 1,000 | peak memory, MB | of that with 1,000 |"
    yield "|---|---|---|---|---|"
    for n in sizes:
        speed, peak = median(results[n], "tokens_per_s"), median(results[n], "peak_mb")
        of_speed, of_peak = speed / median(results[sizes[0]], "tokens_per_s"), peak / median(results[sizes[0]], "peak_mb")
        yield f"| {n:,} | {speed:.0f} | {of_speed:.0%} | {peak:.0f} | {of_peak:.0%} |"


def quantised_table():
    """What a base in 4 bits saves: beside the same in bf16 where that fits, and beside 16 bits computed where it may not."""
    gib = lambda size: f"{size / 2**30:.2f}"
    results = {}
    yield from ["", "Bases of random weights in Llama's shapes, LoRA of rank 8 on all matrices, one pass forward and backward at a time:", ""]
    yield "| base | kept in | matrices, GiB | in 16 bits, GiB (computed) | tokens of a step | peak memory, GiB | beside 16 bits | tokens/s |"
    yield "|---" * 8 + "|"
    for size, kept, tokens in QUANTISED:
        found = json.loads(run([QUANTISED_MEMORY, size, kept, 1, tokens]))
        results[size, kept] = found
        peak, wide = found["peak_bytes"], found["matrix_bytes_in_16_bits"]
        if beside := results.get((size, "bf16")):
            share = f"{peak / beside['peak_bytes']:.0%} of its peak"
        else:
            share = f"{peak / wide:.0%} of the matrices alone"
        speed = tokens / min(step["secs"] for step in found["steps"])
        cells = [size.upper(), kept, gib(found["matrix_bytes"]), gib(wide), tokens, f"**{gib(peak)}**", share, f"{speed:.1f}"]
        yield f"| {' | '.join(map(str, cells))} |"


def flops_per_token(config):
    """Products with the layers' matrices, forward and for the gradient of their input; the first input needs none."""
    d, ffn = config["hidden_size"], config["intermediate_size"]
    e = config.get("head_dim") or d // config["num_attention_heads"]
    qkv = d * e * (config["num_attention_heads"] + 2 * config["num_key_value_heads"])
    layer = qkv + d * e * config["num_attention_heads"] + 3 * d * ffn
    return 4 * config["num_hidden_layers"] * layer - 2 * qkv


def torch_gflops(precision):
    """What PyTorch's own product of two large matrices reaches here: the best of five."""
    code = f"""
import time, torch
a = torch.randn(2048, 2048).to(torch.{"float32" if precision == "f32" else "bfloat16"})
best = 1e9
for _ in range(6):
    started = time.perf_counter()
    a @ a
    best = min(best, time.perf_counter() - started)
print(2 * 2048**3 / best / 1e9)
"""
    return float(run([sys.executable, "-c", code]))


def peer(script, tokens, *options):
    output = run([sys.executable, PEERS / script, "--model", MODEL, "--rows", ROWS, "--tokens", str(tokens), *options])
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


def measure(chosen, rounds, tokens):
    results = {name: [] for name, _, _ in chosen}
    loads = []
    for n in range(rounds):
        for name, _, run_side in chosen:
            loads.append(os.getloadavg()[0])
            result = run_side(tokens)
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


def parts_table(chosen, results):
    """Where our steps' time went, of the median of the rounds, and what the products reached beside PyTorch's best."""
    ours = [(name, precision) for name, precision, _ in chosen if name.startswith("attune")]
    if not ours:
        return
    parts = list(results[ours[0][0]][0]["parts"])
    share = lambda name, part: statistics.median(result["parts"][part] for result in results[name])
    yield from ["", "Where our steps' time goes; `other` is data, bookkeeping and sums between the parts:", ""]
    yield f"| side | {' | '.join(parts)} | other | products, GFLOP/s | of PyTorch's 2048³ product |"
    yield "|---" * (len(parts) + 4) + "|"
    for name, precision in ours:
        shares = [share(name, part) for part in parts]
        reached = median(results[name], "matmul_gflops")
        cells = [f"{value:.0%}" for value in [*shares, 1 - sum(shares)]]
        yield f"| {name} | {' | '.join(cells)} | {reached:.0f} | {reached / torch_gflops(precision):.0%} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=6000, help="counted tokens of each run")
    parser.add_argument("--precision", action="append", choices=["f32", "bf16"])
    parser.add_argument("--only", help="sides whose name contains this, and no other table")
    parser.add_argument("--quantised", action="store_true", help="only what bases in 4 bits take, and write nothing")
    parser.add_argument("--out", type=pathlib.Path, help="default: docs/benchmarks/training-DATE.md")
    args = parser.parse_args()
    if args.quantised:
        print("\n".join(quantised_table()))
        return
    chosen = [side for side in sides(args.precision or ["f32", "bf16"]) if not args.only or args.only in side[0]]
    if not (MODEL / "config.json").exists():
        run([ATTUNE, "models", "export", BASE, "--out", MODEL])

    results, loads = measure(chosen, args.rounds, args.tokens)
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
        *parts_table(chosen, results),
        *([] if args.only else settings_table(args.rounds, args.tokens)),
        *([] if args.only else quantised_table()),
        *([] if args.only else scale_table(args.rounds, args.tokens)),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not args.only:
        out = args.out or ROOT / "docs" / "benchmarks" / f"training-{today}.md"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


if __name__ == "__main__":
    main()
