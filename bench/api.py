"""The HTTP service and the queue under load: requests per second, what the slowest wait, memory, claims.

Starts `attune storage` and `attune api` in a directory of its own and ends them. Each figure stands beside a floor that the
same run measured: a handler that does nothing, or `dd` to the same disk.
"""

import argparse
import asyncio
import csv
import datetime
import io
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]
ATTUNE = os.environ["ATTUNE_BIN"]
RATE = 500
BASE = "smollm2-135m-instruct"
N_JOBS = 100_000
BAR_MS, BAR_CLAIMS, BAR_UPLOAD, BAR_API_MB = 10, 1000, 200, 150


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def exports(text):
    lines = re.findall(r"^(?:# )?export ([A-Z0-9_]+)=(.*)$", text, re.M)
    return {name: value.strip("'\"") for name, value in lines}


class Installation:
    """`attune storage`, and `attune api` beside it as a process of its own."""

    def __init__(self, folder):
        self.data = folder / "data"
        self.data.mkdir(mode=0o755)
        self.log = (folder / "log").open("wb")
        self.port = free_port()
        self.storage = self.spawn({}, "storage", "--data-dir", self.data, "--s3-port", free_port())
        self.wait_for(self.data / "storage.env")
        text = (self.data / "storage.env").read_text()
        _, own = text.split("# for `attune api`:\n", 1)
        variables = {**exports(re.sub(r"(?m)^# .*$", "", text)), **exports(own.splitlines()[0])}
        self.key = variables["OPENAI_API_KEY"]
        self.import_base()
        self.api = self.spawn(
            {**variables, "ATTUNE_LISTEN": f"127.0.0.1:{self.port}", "ATTUNE_INFERENCE_URL": "http://127.0.0.1:9",
             "ATTUNE_MAX_FILE_BYTES": "2000000000"},
            "api",
        )
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5)
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("the API does not become ready")

    def spawn(self, variables, *arguments):
        command = [ATTUNE, *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, **variables}, stdout=self.log, stderr=self.log)

    def wait_for(self, path):
        for _ in range(600):
            if path.exists():
                return
            time.sleep(0.1)
        sys.exit(f"{path} does not appear")

    def import_base(self):
        source = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
        command = [ATTUNE, "models", "import", source, "--name", BASE, "--data-dir", self.data]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)

    @property
    def database(self):
        return f"postgres://attune_admin@localhost/attune?host={self.data}/run"

    def sql(self, text):
        done = subprocess.run(["psql", "-qAt", "-v", "ON_ERROR_STOP=1", self.database, "-c", text], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout.strip()

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))

    def peak_mb(self):
        status = pathlib.Path(f"/proc/{self.api.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6

    def end(self):
        for process in (self.api, self.storage):
            process.terminate()
        for process in (self.api, self.storage):
            process.wait(60)


def upload(installation, path):
    """`curl` streams the file; seconds, and the file's id."""
    started = time.monotonic()
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", f"{installation.url}/v1/files", "-H", f"Authorization: Bearer {installation.key}",
         "-F", "purpose=fine-tune", "-F", f"file=@{path};filename=rows.jsonl"],
        capture_output=True, text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started, json.loads(done.stdout)["id"]


def hey(installation, path, seconds, rate=None, workers=20, method="GET", body=None):
    """Requests per second, and the middle one's and the slowest hundredth's milliseconds.

    With a `rate`, each connection is a process of its own, begun a little after the one before: the connections of one process
    tick together, and twenty requests at once are a burst, not a rate.
    """
    command = ["hey", "-z", f"{seconds}s", "-o", "csv", "-m", method, "-H", f"Authorization: Bearer {installation.key}"]
    if body:
        command += ["-T", "application/json", "-d", json.dumps(body)]
    if rate:
        command, processes = [*command, "-c", "1", "-q", str(rate / workers)], workers
    else:
        command, processes = [*command, "-c", str(workers)], 1
    running = []
    for _ in range(processes):
        running.append(subprocess.Popen([*command, installation.url + path], stdout=subprocess.PIPE, text=True))
        time.sleep(1 / rate if rate else 0)
    rows = [row for one in running for row in csv.DictReader(io.StringIO(one.communicate()[0]))]
    bad = [row for row in rows if row["status-code"] != "200"]
    if bad or not rows:
        sys.exit(f"{method} {path}: {len(bad)} of {len(rows)} were answered {bad[0]['status-code'] if bad else 'nothing'}")
    took = sorted(float(row["response-time"]) * 1000 for row in rows)
    return {"per_s": len(rows) / seconds, "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


def fill(installation, job):
    """Makes a job many, all of them over."""
    columns = installation.sql(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns WHERE table_name = 'jobs' AND is_generated = 'NEVER'"
    ).split(", ")
    changed = {
        "id": "gen_random_uuid()", "model_name": "model_name || n", "status": "'cancelled'", "finished_at": "now()",
        "created_at": "created_at - n * interval '1 second'", "metadata": "jsonb_build_object('team', 't' || n % 100)",
    }
    values = ", ".join(changed.get(column, column) for column in columns)
    installation.sql(
        f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM jobs, generate_series(1, {N_JOBS}) n WHERE id = '{job}'; ANALYZE jobs"
    )


def uuid_of(job):
    digits = job.removeprefix("ftjob-")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


async def streams(installation, job, count, events):
    """`count` clients listen while events are told; milliseconds from the telling to each client's reading."""
    told, waits, ready = {}, [], asyncio.Semaphore(0)

    async def listen():
        reader, writer = await asyncio.open_connection("127.0.0.1", installation.port)
        writer.write(
            f"GET /v1/fine_tuning/jobs/{job}/events?stream=true HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {installation.key}\r\n\r\n".encode()
        )
        seen = 0
        while seen < events:
            line = (await reader.readline()).decode()
            if not line:
                sys.exit("a stream was cut")
            if line.startswith("HTTP/") and " 200 " not in line:
                sys.exit(f"a stream was answered {line}")
            if line.startswith("retry:"):
                ready.release()
            found = re.search(r'"message":"told (\d+)"', line)
            if found:
                waits.append((time.monotonic() - told[int(found[1])]) * 1000)
                seen += 1
        writer.close()

    listeners = [asyncio.create_task(listen()) for _ in range(count)]
    for _ in range(count):
        await asyncio.wait_for(ready.acquire(), 120)
    for n in range(events):
        told[n] = time.monotonic()
        await asyncio.to_thread(
            installation.sql,
            "INSERT INTO job_events (id, project_id, job_id, level, type, message, created_at) "
            f"SELECT gen_random_uuid(), project_id, id, 'info', 'message', 'told {n}', now() FROM jobs WHERE id = '{uuid_of(job)}'",
        )
        await asyncio.sleep(1)
    await asyncio.wait_for(asyncio.gather(*listeners), 120)
    waits.sort()
    return {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100]}


def psql_ms(installation):
    took = []
    for _ in range(9):
        started = time.monotonic()
        installation.sql("SELECT 1")
        took.append((time.monotonic() - started) * 1000)
    return statistics.median(took)


def rows_file(path, n_bytes):
    row = json.dumps({"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y" * 80}]}) + "\n"
    block = (row * ((1 << 20) // len(row))).encode()
    with path.open("wb") as out:
        while out.tell() < n_bytes:
            out.write(block)
    return path


def dd(source, folder):
    target = folder / "copy"
    started = time.monotonic()
    subprocess.run(["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"], check=True, capture_output=True)
    took = time.monotonic() - started
    target.unlink()
    return took


def claims(installation, rows):
    done = subprocess.run(
        [os.environ["ATTUNE_CLAIMS"], "--rows", ",".join(map(str, rows)), "--workers", "1,8,32"],
        env={**os.environ, "DATABASE_URL": installation.database}, capture_output=True, text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def timing(one):
    return f"**{one['per_sec']:.0f}** | {one['p50_us']:.0f} | {one['p99_us']:.0f} | {one['postgres_cpu_us'] or 0:.0f}"


def cpu():
    name = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{name[1] if name else platform.machine()}, {os.cpu_count()} threads"


def measure(folder, seconds, n_mb, claim_rows):
    """Lines of the tables, and what missed its bar."""
    lines, missed = [], []

    def bar(name, holds):
        if not holds:
            missed.append(name)
        return "holds" if holds else "**missed**"

    installation = Installation(folder)
    small = rows_file(folder / "small.jsonl", 10_000)
    _, file = upload(installation, small)
    create = {"model": BASE, "training_file": file, "attune": {"max_steps": 1}}
    first = installation.call("POST", "/v1/fine_tuning/jobs", create)["id"]
    fill(installation, uuid_of(first))
    page = installation.call("GET", "/v1/fine_tuning/jobs?limit=100")
    deep = installation.sql(f"SELECT 'ftjob-' || replace(id::text, '-', '') FROM jobs ORDER BY created_at, id OFFSET 1000 LIMIT 1")
    assert page["has_more"], "the table is filled"
    jobs = "/v1/fine_tuning/jobs"
    lines += [f"| requests, {N_JOBS:,} jobs in the table | asked for, 1/s | answered, 1/s | p50, ms | p99, ms | bar: p99 ≤ {BAR_MS} ms |", "|---|---|---|---|---|---|"]
    for name, path, barred in [
        ("a handler that does nothing (`/healthz`)", "/healthz", False),
        ("retrieve a job", f"{jobs}/{first}", True),
        ("list jobs, the first page", f"{jobs}?limit=20", True),
        ("list jobs, the last pages", f"{jobs}?limit=20&after={deep}", True),
        ("list jobs by metadata", f"{jobs}?limit=20&metadata%5Bteam%5D=t7", True),
    ]:
        found = hey(installation, path, seconds, RATE)
        verdict = bar(name, found["p99"] <= BAR_MS and found["per_s"] > 0.98 * RATE) if barred else ""
        lines.append(f"| {name} | {RATE} | {found['per_s']:.0f} | {found['p50']:.1f} | {found['p99']:.1f} | {verdict} |")
    for name, arguments in [
        ("nothing, as fast as it goes", ("/healthz", seconds)),
        ("retrieve a job, as fast as it goes", (f"{jobs}/{first}", seconds)),
        ("nothing, by 8 connections", ("/healthz", seconds, None, 8)),
        ("create a job, by 8 connections", (jobs, seconds, None, 8, "POST", create)),
    ]:
        found = hey(installation, *arguments)
        lines.append(f"| {name} | | {found['per_s']:.0f} | {found['p50']:.1f} | {found['p99']:.1f} | |")

    count = 1000
    waits = asyncio.run(streams(installation, first, count, 10))
    lines += ["", f"{count} streams of one job's events, ten events told: from the telling to a client's reading p50 {waits['p50']:.0f} ms, "
              f"p99 {waits['p99']:.0f} ms. The telling is a call of `psql`, which takes {psql_ms(installation):.0f} ms for `SELECT 1`; the API "
              f"looks twice a second. `attune api` held {installation.peak_mb():.0f} MB at most until here."]

    large = rows_file(folder / "large.jsonl", n_mb * 1_000_000)
    size_mb = large.stat().st_size / 1e6
    floor, (took, _) = size_mb / dd(large, folder), upload(installation, large)
    speed, peak = size_mb / took, installation.peak_mb()
    lines += ["", f"| upload of {size_mb:.0f} MB | MB/s | `dd` to the same disk, MB/s | bar: ≥ {BAR_UPLOAD} MB/s or the disk's own | `attune api` at most, MB | bar: < {BAR_API_MB} MB |",
              "|---|---|---|---|---|---|",
              f"| `curl -F` | **{speed:.0f}** | {floor:.0f} | {bar('upload', speed >= min(BAR_UPLOAD, floor))} | {peak:.0f} | {bar('memory', peak < BAR_API_MB)} |"]
    large.unlink()

    found = claims(installation, claim_rows)
    floors = {(one["rows"], one["workers"]): one["per_sec"] for one in found if one["what"] == "nothing"}
    floor = lambda one: f"{floors[one['rows'], one['workers']]:.0f}"
    head = "p50, µs | p99, µs | Postgres' processor, µs each | transactions without work/s"
    lines += ["", f"| claims | workers | claims/s | {head} | share of the tenant that owns half | bar: ≥ {BAR_CLAIMS}/s at 1 M rows, 32 workers |", "|---|---|---|---|---|---|---|---|---|"]
    for one in (one for one in found if one["what"] == "claims"):
        barred = one["rows"] >= 1_000_000 and one["workers"] == 32
        verdict = bar("claims", one["per_sec"] >= BAR_CLAIMS) if barred else ""
        lines.append(f"| {one['rows']:,} jobs wait | {one['workers']} | {timing(one)} | {floor(one)} | {one['hog_share']:.1%} | {verdict} |")
    lines += ["", f"| events, each in a transaction under its job's lease | workers | events/s | {head} |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {one['rows']:,} jobs in the table | {one['workers']} | {timing(one)} | {floor(one)} |" for one in found if one["what"] == "events"]
    installation.end()
    return lines, missed


def main():
    parser = argparse.ArgumentParser(prog="script/bench api", description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="how long each request is repeated")
    parser.add_argument("--upload-mb", type=int, default=1000, help="the size of the large upload")
    parser.add_argument("--claim-rows", default="100000,1000000", help="how many jobs wait while some are claimed")
    parser.add_argument("--out", type=pathlib.Path, help="where the table goes, instead of docs/benchmarks/")
    args = parser.parse_args()
    if not shutil.which("hey"):
        sys.exit("`hey` makes the load: apt-get install hey")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    today, before = datetime.date.today(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="attune-bench.", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        lines, missed = measure(pathlib.Path(folder), args.seconds, args.upload_mb, [int(rows) for rows in args.claim_rows.split(",")])
    text = "\n".join([
        f"# The API and the queue under load, {today}", "",
        f"`script/bench api` at commit {commit}, on {cpu()}. One-minute load before: {before:.1f}"
        + (", so the absolute bars say little." if before >= 0.5 else ".") + " The load's generator, Postgres, S3 and the API share the machine.",
        f"Load by `hey` with 20 connections, each request {args.seconds} s; where a rate is asked for, each connection is a process with a clock of its own.", "",
        *lines, "",
    ])
    path = args.out or ROOT / "docs" / "benchmarks" / f"api-{today}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
