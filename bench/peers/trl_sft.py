"""LoRA with TRL's SFTTrainer, as its documentation shows it. Prints one JSON object."""

import argparse
import json
import os
import resource
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """The time from the end of the first step to the end of the last."""

    def on_step_end(self, _args, state, _control, **_):
        now = time.perf_counter()
        self.first = now if state.global_step == 1 else self.first
        self.seconds = now - self.first


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--tokens", type=int, required=True)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line) for line in open(args.rows, encoding="utf-8")]
    rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    length = lambda row: len(
        tokenizer(tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)).input_ids
    )
    mean = sum(map(length, rows)) / len(rows)
    steps = max(3, round(args.tokens / mean / 4) + 1)
    clock = Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        args=SFTConfig(
            output_dir="/tmp/attune-bench-trl", per_device_train_batch_size=4, max_steps=steps, learning_rate=1e-3,
            bf16=args.precision == "bf16", gradient_checkpointing=False, use_cpu=True, report_to=[], save_strategy="no",
            logging_steps=1, max_length=512, completion_only_loss=True, disable_tqdm=True, seed=7,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    tokens = mean * 4 * (steps - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"tokens_per_s": tokens / clock.seconds, "peak_mb": peak, "tokens": round(tokens)}))


if __name__ == "__main__":
    main()
