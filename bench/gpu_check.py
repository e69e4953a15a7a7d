"""What only a real GPU can show of the CUDA path, in one go, as a report: see script/gpu-check."""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
ATTUNE = os.environ["ATTUNE_BIN"]
RANDOM_BASE = os.environ["ATTUNE_RANDOM_BASE"]
MODELS = pathlib.Path(os.environ["ATTUNE_CACHE"]) / "gpu-check"
ROWS = ROOT / "examples" / "tickets" / "train.jsonl"
# The demo's base model, which script/bootstrap fetches.
REAL_BASE = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
REAL = "SmolLM2-135M"
# Steps that compile kernels and try them against each other.
WARMUP_STEPS = 3
# Largest relative difference of any step's loss: the CPU's f32 and the GPU's, which may multiply in TF32; bf16 and f32;
# a run that was killed and one that was not.
PARITY, NARROW, RESUMED = 1e-2, 2e-2, 1e-4


@dataclasses.dataclass
class Check:
    name: str
    found: str
    passed: bool


def on_gpu(device):
    return device.startswith("cuda")


class Memory:
    """The most memory that was taken on the GPU while this is entered, by asking ten times a second."""

    def __init__(self, device):
        _, _, index = device.partition(":")
        self.index = index or "0"
        self.on_gpu = on_gpu(device)
        self.peak_mib = 0

    def __enter__(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def watch(self):
        while self.on_gpu and not self.done.wait(0.1):
            self.peak_mib = max(self.peak_mib, int(nvidia_smi("memory.used", self.index)))


def nvidia_smi(field, index):
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", index]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def base(shape):
    """A real model's file, or the folder of one of this shape with random weights, written when it is not there."""
    if shape == REAL:
        return REAL_BASE
    folder = MODELS / shape
    if shape == "tiny":
        # Soon written, and a test wants it as it would be written now.
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        print(f"Writing a random model, {shape}", file=sys.stderr)
        MODELS.mkdir(parents=True, exist_ok=True)
        staging = MODELS / f"{shape}.part"
        shutil.rmtree(staging, ignore_errors=True)
        subprocess.run([RANDOM_BASE, shape, staging], check=True)
        staging.rename(folder)
    return folder


def command(shape, device, precision, steps, out, *options, checkpoint_every=1_000_000):
    settings = {
        "n_epochs": 50, "max_steps": steps, "batch_size": 8, "learning_rate": 1e-3, "lr_schedule": "constant",
        "warmup_steps": 0, "precision": precision, "checkpoint_every": checkpoint_every, "seed": 7,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "job.json").write_text(json.dumps(settings))
    return [
        ATTUNE, "train", "--model", base(shape), "--train", ROWS, "--config", out / "job.json", "--out", out,
        "--device", device, *options,
    ]


def metrics(out):
    file = out / "metrics.jsonl"
    # The last line of a run that goes on may be half written.
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def train(*arguments, **settings):
    """The steps of one run."""
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        finish(command(*arguments, out, **settings))
        return metrics(out)


class Failed(Exception):
    pass


def finish(arguments):
    environment = os.environ | {"RUST_BACKTRACE": "0"}
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{' '.join(map(str, arguments))}\n{done.stderr[-4000:]}", file=sys.stderr)
        raise Failed(" ".join(done.stderr.split())[-300:] or f"status {done.returncode}")


def losses(steps):
    return [step["train_loss"] for step in steps]


def furthest(found, expected):
    assert len(found) == len(expected) > 0
    return max(abs(a - b) / b for a, b in zip(losses(found), losses(expected)))


def close(found, expected, bound):
    """What to say of two runs, and whether it is good."""
    difference = furthest(found, expected)
    return f"losses of {len(found)} steps differ by {difference:.1e} at most (allowed {bound:.0e})", difference <= bound


def speed(shape, device, precision, steps):
    """A line of the table of speeds."""
    with Memory(device) as memory:
        try:
            counted = train(shape, device, precision, WARMUP_STEPS + steps)[WARMUP_STEPS:]
        except Failed as failure:
            return f"| {shape} | {precision} | | did not run: {failure} | | |"
    rates = [step["n_tokens"] / step["step_ms"] * 1000 for step in counted]
    tokens = statistics.mean(step["n_tokens"] for step in counted)
    print(f"{shape} {precision}: {statistics.median(rates):.0f} tokens/s", file=sys.stderr)
    peak = f"{memory.peak_mib / 1024:.1f}" if memory.on_gpu else "not asked"
    return f"| {shape} | {precision} | {tokens:.0f} | **{statistics.median(rates):.0f}** | {min(rates):.0f}–{max(rates):.0f} | {peak} |"


def killed_and_resumed(shape, device, precision, steps):
    """Kills a run after its first checkpoint, lets another go on, and sets both beside one that was left alone."""
    uninterrupted = train(shape, device, precision, steps)
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        every = steps // 3
        arguments = command(shape, device, precision, steps, out, checkpoint_every=every)
        with (out / "stderr").open("w") as stderr:
            running = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.DEVNULL, stderr=stderr)
        while len(metrics(out)) <= every and running.poll() is None:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGKILL)
        running.wait()
        made = len(metrics(out))
        if not every < made < steps:
            raise Failed(f"the run made {made} steps of {steps} before it could be killed: {(out / 'stderr').read_text()[-300:]}")
        finish([*arguments, "--resume"])
        found, good = close(metrics(out), uninterrupted, RESUMED)
        return f"killed after step {made}: {found}", good


def measure(device, tiny):
    """All checks and the table's lines."""
    steps = 12
    real, shape = ("tiny", "tiny") if tiny else (REAL, "llama-1b")
    run = lambda model, where, precision: train(model, where, precision, steps)
    todo = {
        f"this device and the CPU, {real} in f32": lambda: close(run(real, device, "f32"), run(real, "cpu", "f32"), PARITY),
        f"bf16 and f32, {real}": lambda: close(run(real, device, "bf16"), run(real, device, "f32"), NARROW),
        f"bf16 and f32, {shape}": lambda: close(run(shape, device, "bf16"), run(shape, device, "f32"), NARROW),
        f"killed and resumed, {shape} in bf16": lambda: killed_and_resumed(shape, device, "bf16", steps),
    }
    checks = []
    for name, check in todo.items():
        try:
            found, passed = check()
        except Failed as failure:
            found, passed = f"did not run: {failure}", False
        print(f"{name}: {found}", file=sys.stderr)
        checks.append(Check(name, found, passed))
    models = [("tiny", "bf16")] if tiny else [("llama-1b", "f32"), ("llama-1b", "bf16"), ("llama-8b", "bf16")]
    return checks, [speed(model, device, precision, steps) for model, precision in models]


def machine(device):
    if not on_gpu(device):
        return platform.processor() or platform.machine()
    index = Memory(device).index
    name, driver, mib = (nvidia_smi(field, index) for field in ("name", "driver_version", "memory.total"))
    return f"{name}, {int(mib) / 1024:.0f} GiB, driver {driver}"


def report(device, checks, table):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    yield f"# The CUDA path on a GPU, {datetime.date.today()}" if on_gpu(device) else "# A trial of script/gpu-check without a GPU"
    yield ""
    yield f"`script/gpu-check` at commit {commit or 'unknown'} on {machine(device)}."
    yield f"Models of a shape have random weights, {REAL} its own; LoRA of the default rank on all linear layers; 8 rows a step."
    yield ""
    yield "| check | found | |"
    yield "|---|---|---|"
    for check in checks:
        yield f"| {check.name} | {check.found} | {'passed' if check.passed else '**failed**'} |"
    yield ""
    yield "| model | base in | tokens a step | tokens/s (median) | range | peak GPU memory, GiB |"
    yield "|---|---|---|---|---|---|"
    yield from table
    yield ""
    yield f"Speeds without the first {WARMUP_STEPS} steps, in which kernels are compiled and chosen. Memory is all that was in use on the GPU."


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--tiny", action="store_true", help="tiny models only: tries the script itself")
    arguments.add_argument("--report", type=pathlib.Path)
    arguments = arguments.parse_args()
    checks, table = measure(arguments.device, arguments.tiny)
    file = arguments.report or ROOT / "docs" / "benchmarks" / f"gpu-{datetime.date.today()}.md"
    text = "\n".join(report(arguments.device, checks, table)) + "\n"
    file.write_text(text)
    print(text)
    print(f"Written to {file}", file=sys.stderr)
    sys.exit(0 if all(check.passed for check in checks) else 1)


if __name__ == "__main__":
    main()
