"""One fine-tuning by transformers.Trainer as its users write it: the reference that textune is compared with.

    python -m benchmarks.reference_trainer --data FOLDER --seed 42 [--bf16] [--threads 2]

FOLDER holds train.jsonl, validation.jsonl and test.jsonl with sentence1, sentence2 and integer labels. Everything else
is the Trainer's default: batch 8, 5e-5, 3 epochs, linear to zero, the last step's weights. Prints one JSON line.
Needs: pip install accelerate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.data, seed=arguments.seed, bf16=arguments.bf16, threads=arguments.threads)))


def run(data: Path, *, seed: int, bf16: bool, threads: int | None) -> dict[str, Any]:
    """Trains and returns accuracy and F1 on validation and test."""
    import torch
    from datasets import load_dataset
    from sklearn.metrics import accuracy_score, f1_score
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from textune.models.starter import starter_folder

    if threads is not None:
        torch.set_num_threads(threads)
    set_seed(seed)
    checkpoint = starter_folder()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    files = {split: str(data / f"{split}.jsonl") for split in ("train", "validation", "test")}
    rows = load_dataset("json", data_files=files).map(
        lambda batch: tokenizer(batch["sentence1"], batch["sentence2"], truncation=True), batched=True
    )
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2, dtype=torch.float32)

    def compute_metrics(outcome: Any) -> dict[str, float]:
        predictions = outcome.predictions.argmax(axis=-1)
        return {
            "accuracy": accuracy_score(outcome.label_ids, predictions),
            "f1": f1_score(outcome.label_ids, predictions),
        }

    with tempfile.TemporaryDirectory() as folder:
        # use_cpu: without it the Trainer refuses bf16 on a machine that has no GPU.
        options: dict[str, Any] = {"seed": seed, "bf16": bf16, "use_cpu": not torch.cuda.is_available()}
        trainer = Trainer(
            model,
            TrainingArguments(folder, **options, save_strategy="no", report_to=[], disable_tqdm=True),
            train_dataset=rows["train"],
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )
        seconds = trainer.train().metrics["train_runtime"]
        scores = {split: trainer.predict(rows[split]).metrics for split in ("validation", "test")}
    figures = {split: {name: found[f"test_{name}"] for name in ("accuracy", "f1")} for split, found in scores.items()}
    return {
        "who": "transformers.Trainer",
        "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
        **figures,
        "training_seconds": seconds,
    }


if __name__ == "__main__":
    main()
