"""Exports in other programs: transformers, PEFT and llama.cpp give the next token the probabilities that we give it.
"""

import json
import os
import pathlib
import shutil
import subprocess

import gguf
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conftest import chat_rows
from exports import Exports, LlamaCpp, export, log_probs, transformers_log_probs

ATTUNE = os.environ["ATTUNE_BIN"]
TICKETS = pathlib.Path(__file__).parents[2] / "examples" / "tickets"
SMOLLM2 = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
# On the difference of log-probabilities, the largest over the vocabulary and all prompts.
F32_BOUND = 1e-3
# On the divergence: the largest of 50,000 differences would say little. llama.cpp narrows what it multiplies too.
F16_BOUND, Q8_0_BOUND = 1e-3, 1e-2
# On the divergence that training has caused, beside which the bounds are to be small.
TRAINED_BOUND = 0.1
TEXTS = [
    "is 7 odd?",
    "<|im_start|>user\nWhat's 12345 + 67?\n\n  Naïve café — 東京 🚀<|im_end|>\n<|im_start|>assistant\n",
    '{"status": "open",  "n": 3.50}\tI\'ll we\'re DON\'T',
]


def train(base, rows, settings, out):
    out.mkdir()
    (out / "rows.jsonl").write_text("".join(rows))
    (out / "job.json").write_text(json.dumps(settings))
    subprocess.run(
        [ATTUNE, "train", "--model", base, "--train", out / "rows.jsonl", "--config", out / "job.json", "--out", out],
        check=True, timeout=540,
    )
    return out


@pytest.fixture(scope="session")
def tiny(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-exports")
    settings = {"n_epochs": 3, "learning_rate": 1e-2, "lora": {"rank": 4, "use_rslora": True}}
    adapter = train(tiny_base, chat_rows(16), settings, folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    return Exports(tiny_base, adapter, prompts, folder)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2-exports")
    rows = (TICKETS / "train.jsonl").read_text().splitlines(keepends=True)[:8]
    settings = {"max_steps": 4, "learning_rate": 3e-3, "lr_schedule": "constant", "warmup_steps": 0}
    adapter = train(SMOLLM2, rows, settings, folder / "adapter")
    return Exports(SMOLLM2, adapter, [[1, 4093, 198, 1780, 314, 260], [504, 3575, 282, 4649, 314]], folder)


@pytest.fixture(params=["tiny", "smollm2"])
def exports(request):
    return request.getfixturevalue(request.param)


def test_training_moved_the_model_far_beyond_the_bounds(exports):
    moved = exports.divergence(log_probs(exports.base, prompts=exports.prompts))
    assert moved > TRAINED_BOUND, moved


def test_a_merged_folder_in_transformers(exports):
    most = exports.off(transformers_log_probs(exports.merged(), exports.prompts))
    assert most < F32_BOUND, most


def test_base_and_adapter_in_peft(exports, tmp_path):
    folder = tmp_path / "base"
    subprocess.run([ATTUNE, "models", "export", exports.base, "--out", folder], check=True, timeout=300)
    most = exports.off(transformers_log_probs(folder, exports.prompts, exports.adapter))
    assert most < F32_BOUND, most


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_a_merged_model_loaded_by_us(exports, form):
    most = exports.off(log_probs(getattr(exports, form)(), prompts=exports.prompts))
    assert most < F32_BOUND, most


def test_a_merged_gguf_file_in_llama_cpp(exports):
    llama = LlamaCpp(exports.gguf())
    most = exports.off(llama.log_probs(exports.prompts, exports.ours.shape[1]))
    assert most < F32_BOUND, most


def test_base_and_adapter_as_gguf_files_in_llama_cpp(exports):
    llama = LlamaCpp(exports.base_gguf(), exports.adapter_gguf())
    most = exports.off(llama.log_probs(exports.prompts, exports.ours.shape[1]))
    assert most < F32_BOUND, most


@pytest.mark.parametrize("dtype, bound", [("f16", F16_BOUND), ("q8_0", Q8_0_BOUND)])
def test_narrower_types_in_llama_cpp(exports, dtype, bound):
    llama = LlamaCpp(exports.gguf(dtype))
    divergence = exports.divergence(llama.log_probs(exports.prompts, exports.ours.shape[1]))
    assert abs(divergence) < bound, divergence


def test_llama_cpp_finds_the_tokens_that_transformers_finds(tiny, smollm2):
    for exports in tiny, smollm2:
        llama, tokenizer = LlamaCpp(exports.gguf()), AutoTokenizer.from_pretrained(exports.merged())
        for text in TEXTS:
            assert llama.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids, text


def test_metadata_made_from_documents_is_that_of_llama_cpps_own_converter(smollm2, tmp_path):
    """The original file came from that converter; ours here comes from a folder that knows nothing of it."""
    made = export(tmp_path / "made.gguf", "--model", smollm2.merged(), "--gguf", "--dtype", "f32")
    theirs, ours = gguf.GGUFReader(SMOLLM2), gguf.GGUFReader(made)
    shared = [key for key in theirs.fields if key.startswith(("llama.", "tokenizer.", "general.architecture"))]
    # For tokenizers of another kind.
    shared.remove("tokenizer.ggml.add_space_prefix")
    assert len(shared) > 15
    for key in shared:
        assert ours.fields[key].contents() == theirs.fields[key].contents(), key
    shapes = lambda file: {tensor.name: tensor.shape.tolist() for tensor in file.tensors}
    assert shapes(ours) == shapes(theirs)


# Scaled from so short a length that a few tokens notice.
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 20}
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False, "rope_parameters": LLAMA3},
    "mistral": {"sliding_window": 4096},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_llama_cpp(tiny_base, tmp_path, family):
    sizes = dict(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
    )
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(sizes | FAMILIES[family]))).float()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    prompts = [[1, 30, 40, 50, 60, 2, 7], [300, 301, 9]]
    llama = LlamaCpp(export(tmp_path / "model.gguf", "--model", folder, "--gguf", "--dtype", "f32"))
    theirs, reference = llama.log_probs(prompts, 320), transformers_log_probs(folder, prompts)
    assert (theirs - reference).abs().max().item() < F32_BOUND
