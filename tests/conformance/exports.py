"""One trained model in every form in which it leaves us, and the scores that others and we give the next token."""

import functools
import json
import os
import subprocess
import urllib.request

import torch
import xllamacpp
from peft import PeftModel
from transformers import AutoModelForCausalLM

ATTUNE = os.environ["ATTUNE_BIN"]
LOGITS = os.environ["ATTUNE_LOGITS"]


def export(out, *arguments):
    subprocess.run([ATTUNE, "export", *arguments, "--out", out], check=True, timeout=300)
    return out


class Exports:
    """Files are written when they are first asked for; ours, that of base and adapter, is what all are held to."""

    def __init__(self, base, adapter, prompts, folder):
        self.base, self.adapter, self.prompts, self.folder = base, adapter, prompts, folder

    @functools.cached_property
    def ours(self):
        return log_probs(self.base, "--adapter", self.adapter, prompts=self.prompts)

    @functools.cache
    def merged(self):
        return export(
            self.folder / "merged", "--model", self.base, "--adapter", self.adapter, "--merged", "--dtype", "f32"
        )

    @functools.cache
    def gguf(self, dtype="f32"):
        return export(
            self.folder / f"merged-{dtype}.gguf",
            "--model", self.base, "--adapter", self.adapter, "--gguf", "--dtype", dtype,
        )

    @functools.cache
    def base_gguf(self):
        return export(self.folder / "base.gguf", "--model", self.base, "--gguf", "--dtype", "f32")

    @functools.cache
    def adapter_gguf(self):
        return export(
            self.folder / "adapter.gguf", "--model", self.base, "--adapter", self.adapter, "--gguf", "--adapter-only"
        )

    def off(self, theirs):
        """How far any log-probability of the next token is from ours."""
        return (theirs - self.ours).abs().max().item()

    def divergence(self, theirs):
        """The Kullback-Leibler divergence from our distribution of the next token, averaged over the prompts."""
        return (self.ours.exp() * (self.ours - theirs)).sum(-1).mean().item()


def log_probs(model, *arguments, prompts):
    """Ours: one row a prompt, over the vocabulary."""
    ids = [",".join(map(str, prompt)) for prompt in prompts]
    lines = subprocess.run([LOGITS, model, *arguments, *ids], check=True, timeout=300, stdout=subprocess.PIPE).stdout
    logits = torch.tensor([json.loads(line) for line in lines.splitlines()])
    return torch.log_softmax(logits.double(), -1)


def transformers_log_probs(folder, prompts, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        rows = [model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts]
    return torch.log_softmax(torch.stack(rows).double(), -1)


class LlamaCpp:
    """llama.cpp on one GGUF file, and an adapter's if there is one. Keys and values are kept in f32, so that what is
    left of a difference is the file's."""

    def __init__(self, model, adapter=None):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_gpu_layers, params.n_ctx, params.n_parallel, params.warmup = 0, 512, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.verbosity = 0
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        self.server = xllamacpp.Server(params)

    def log_probs(self, prompts, vocab_size):
        rows = torch.zeros(len(prompts), vocab_size, dtype=torch.double)
        for row, prompt in zip(rows, prompts):
            # Nothing is reported with an end of text or with half a character, so a whole token is made to win; the
            # bias is not in the probabilities.
            answer = self.server.handle_completions(
                {"prompt": prompt, "n_predict": 1, "n_probs": vocab_size, "temperature": 0, "logit_bias": [[prompt[-1], 1e3]]}
            )
            entries = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            assert len(entries) == vocab_size
            row[[e["id"] for e in entries]] = torch.tensor([e["logprob"] for e in entries], dtype=torch.double)
        return rows

    def tokens(self, text):
        body = json.dumps({"content": text, "parse_special": True, "add_special": False}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["tokens"]
