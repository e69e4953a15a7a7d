"""transformers and PEFT on what we write: the exported base and a trained adapter give the losses we report."""

import json
import os
import pathlib
import subprocess

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import chat_rows

ATTUNE = os.environ["ATTUNE_BIN"]
TICKETS = pathlib.Path(__file__).parents[2] / "examples" / "tickets"
SMOLLM2 = pathlib.Path(os.environ["ATTUNE_MODELS"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def supervised_loss(model, tokenizer, rows):
    """Mean cross-entropy over what the template emits for the assistant, in f32."""
    nll, count = 0.0, 0
    for row in rows:
        messages = row["messages"]
        render = lambda upto, prompt: tokenizer(
            tokenizer.apply_chat_template(upto, add_generation_prompt=prompt, tokenize=False), add_special_tokens=False
        ).input_ids
        before, whole = render(messages[:-1], True), render(messages, False)
        ids = torch.tensor([whole])
        with torch.no_grad():
            log_probs = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
        targets = ids[0, 1:]
        taken = log_probs.gather(1, targets[:, None])[len(before) - 1 :, 0]
        nll, count = nll - taken.sum().item(), count + len(taken)
    return nll / count


def train(base, rows, valid, out, settings):
    (out / "train.jsonl").write_text("".join(rows))
    (out / "valid.jsonl").write_text("".join(valid))
    (out / "job.json").write_text(json.dumps(settings))
    subprocess.run(
        [ATTUNE, "train", "--model", base, "--train", out / "train.jsonl", "--valid", out / "valid.jsonl",
         "--config", out / "job.json", "--out", out / "adapter"],
        check=True, timeout=540,
    )
    return json.loads((out / "adapter" / "summary.json").read_text())["valid_loss"]


def check(folder, base, rows, valid, settings, out):
    ours = train(base, rows, valid, out, settings)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, out / "adapter").eval()
    theirs = supervised_loss(tuned, tokenizer, [json.loads(row) for row in valid])
    assert ours == pytest.approx(theirs, abs=1e-3)
    with tuned.disable_adapter():
        assert supervised_loss(tuned, tokenizer, [json.loads(row) for row in valid]) > theirs + 0.05


@pytest.mark.parametrize("variant", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_an_adapter_of_a_model_made_by_transformers(tiny_base, tmp_path, variant):
    lora = {"rank": 4, "target_modules": ["q_proj", "up_proj", "down_proj"], **variant}
    settings = {"n_epochs": 3, "learning_rate": 1e-2, "lora": lora}
    check(tiny_base, tiny_base, list(chat_rows(16)), list(chat_rows(4, 50)), settings, tmp_path)


def test_an_adapter_of_the_real_model_and_its_export(tmp_path):
    folder = tmp_path / "export"
    subprocess.run([ATTUNE, "models", "export", SMOLLM2, "--out", folder], check=True, timeout=300)
    rows = (TICKETS / "train.jsonl").read_text().splitlines(keepends=True)[:12]
    valid = (TICKETS / "valid.jsonl").read_text().splitlines(keepends=True)[:3]
    settings = {"max_steps": 3, "learning_rate": 1e-3, "lr_schedule": "constant", "warmup_steps": 0}
    check(folder, SMOLLM2, rows, valid, settings, tmp_path)
