"""A running `attune up`, a tiny base model made by transformers, and OpenAI's client pointed at the server."""

import http.server
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import openai
import pytest

from surface import WAYS, Call

ATTUNE = os.environ["ATTUNE_BIN"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A Llama of two layers as transformers itself writes it, with a byte-level BPE of the tokenizers library."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the answer is yes", "the answer is no", "user assistant system"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rope_theta=10000.0, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
        # Wide enough that a small adapter can move the loss of a random model.
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    if not (folder / "generation_config.json").exists():
        (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    return folder


@pytest.fixture(scope="session")
def server(tiny_base):
    """`attune up` on a free port with its own data directory; the tiny base is imported while it runs."""
    data = pathlib.Path(tempfile.mkdtemp(prefix="attune-conformance.", dir="/var/tmp"))
    data.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = open(data / "up.log", "w")
    # The receivers of webhooks and the server of Weights & Biases are on this machine.
    allowed = {f"ATTUNE_{kind}_ALLOW_{what}": "1" for kind in ("WEBHOOK", "WANDB") for what in ("HTTP", "PRIVATE")}
    process = subprocess.Popen(
        [ATTUNE, "up", "--data-dir", data, "--port", str(port)], stdout=log, stderr=log, env=os.environ | allowed
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, data / "up.log")
        subprocess.run(
            [ATTUNE, "models", "import", tiny_base, "--name", "tiny", "--data-dir", data], check=True, timeout=120
        )
        settings = dict(re.findall(r"export (\w+)=(\S+)", (data / "attune.env").read_text()))
        yield settings | {"data_dir": str(data)}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
        shutil.rmtree(data, ignore_errors=True)


def wait_until_ready(url, process, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, f"attune up ended:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"attune up is not ready:\n{log.read_text()}")


@pytest.fixture(scope="session")
def client(server):
    return openai.OpenAI(base_url=server["OPENAI_BASE_URL"], api_key=server["OPENAI_API_KEY"], max_retries=0)


@pytest.fixture(params=WAYS)
def call(request, server):
    """Calls methods of the strict client in each of the ways that it offers."""
    return Call(server, request.param)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers what it is told to, otherwise 200, and keeps what came."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.received.put((body, dict(self.headers)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.answers = queue.Queue(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def chat_rows(n, offset=0):
    """Rows with one rule to learn."""
    for i in range(offset, offset + n):
        answer = "yes" if i % 2 else "no"
        messages = [{"role": "user", "content": f"is {i} odd?"}, {"role": "assistant", "content": f"the answer is {answer}"}]
        yield json.dumps({"messages": messages}) + "\n"


def upload(client, rows, name="train.jsonl"):
    return client.files.create(file=(name, "".join(rows).encode()), purpose="fine-tune")


def finished(client, job_id, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.3)
    pytest.fail(f"job {job_id} is still {job.status}")


@pytest.fixture(scope="session")
def tuned(client):
    """A job on the tiny base, run to its end by the real worker."""
    train, valid = upload(client, chat_rows(24)), upload(client, chat_rows(6, 100), "valid.jsonl")
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=train.id,
        validation_file=valid.id,
        suffix="odd",
        seed=3,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
        metadata={"team": "tests"},
        extra_body={"attune": {"learning_rate": 1e-2, "checkpoint_every": 5, "lora": {"rank": 4}}},
    )
    assert job.status in ("validating_files", "queued", "running")
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    return job
