"""LoRA with PyTorch and PEFT, as one writes it by hand: the peer that training speed is measured against.

`packed` lays whole rows into lines of 512 tokens under a block-diagonal causal mask; `padded` fills each batch of four
rows up to its longest. With bf16 the base model is bfloat16 and the adapter f32 under autocast. Prints one JSON object.
"""

import argparse
import json
import resource
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LINE, LINES, ROWS = 512, 2, 4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -100


def encode(tokenizer, row):
    """Ids and labels of a row whose last message is the assistant's, the only one that is supervised."""
    ids = lambda messages, prompt: tokenizer(
        tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False), add_special_tokens=False
    ).input_ids
    whole = ids(row["messages"], False)
    n_prompt = len(ids(row["messages"][:-1], True))
    return whole[:LINE], ([IGNORED] * n_prompt + whole[n_prompt:])[:LINE]


def batched(items, n):
    return (items[start : start + n] for start in range(0, len(items), n))


def padded(rows, pad, _dtype):
    """Batches of ROWS rows, each as long as its longest."""
    for batch in batched(rows, ROWS):
        longest = max(len(ids) for ids, _ in batch)
        fill = lambda values, value: torch.tensor([v + [value] * (longest - len(v)) for v in values])
        ids = [ids for ids, _ in batch]
        yield {
            "input_ids": fill(ids, pad),
            "attention_mask": fill([[1] * len(i) for i in ids], 0),
            "labels": fill([labels for _, labels in batch], IGNORED),
        }, sum(map(len, ids))


def lines_of(rows):
    """First fit over the rows in order."""
    lines = []
    for row in rows:
        fits = (line for line in lines if sum(len(ids) for ids, _ in line) + len(row[0]) <= LINE)
        line = next(fits, None)
        if line is None:
            lines.append(line := [])
        line.append(row)
    return lines


def packed(rows, pad, dtype):
    """Batches of LINES lines of LINE tokens."""
    for batch in batched(lines_of(rows), LINES):
        shape = (len(batch), LINE)
        ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
        positions, segment = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
        for n, line in enumerate(batch):
            end = 0
            for m, (row_ids, row_labels) in enumerate(line):
                place = slice(end, end := end + len(row_ids))
                ids[n, place], labels[n, place] = torch.tensor(row_ids), torch.tensor(row_labels)
                positions[n, place], segment[n, place] = torch.arange(len(row_ids)), m
        seen = (segment[:, :, None] == segment[:, None, :]).tril()
        mask = torch.zeros(len(batch), 1, LINE, LINE, dtype=dtype)
        mask.masked_fill_(~seen[:, None], torch.finfo(dtype).min)
        n_tokens = sum(len(row_ids) for line in batch for row_ids, _ in line)
        yield {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}, n_tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--layout", choices=["padded", "packed"], required=True)
    parser.add_argument("--tokens", type=int, required=True, help="stop after so many, the first batch not counted")
    args = parser.parse_args()

    narrow = args.precision == "bf16"
    dtype = torch.bfloat16 if narrow else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [encode(tokenizer, json.loads(line)) for line in open(args.rows, encoding="utf-8")]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)

    layout = {"padded": padded, "packed": packed}[args.layout]
    seconds = tokens = 0
    for n, (batch, n_tokens) in enumerate(layout(rows, tokenizer.pad_token_id or 0, dtype)):
        labels = batch.pop("labels")
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            logits = model(**batch, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if n > 0:
            seconds, tokens = seconds + time.perf_counter() - started, tokens + n_tokens
        if tokens >= args.tokens:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"tokens_per_s": tokens / seconds, "peak_mb": peak, "tokens": tokens, "loss": float(loss)}))


if __name__ == "__main__":
    main()
