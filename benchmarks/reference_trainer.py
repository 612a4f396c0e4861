"""One fine-tuning by transformers.Trainer as its users write it: the reference that textune is compared with.

    python -m benchmarks.reference_trainer --task mrpc [--local-copy FOLDER] --seed 42 [--bf16] [--threads 2]
                                           [--predictions FOLDER]

Everything that is not named here is the Trainer's default: batch 8, 5e-5, 3 epochs, linear to zero, the last step's
weights. The data come from where `textune train --data glue/TASK` has them. Prints one JSON line. FOLDER/SPLIT.jsonl
then holds the rows' predictions in the columns that `textune compare` reads.
Needs: pip install accelerate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.cores import cores
from textune.data.glue import GLUE_TASKS

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers.trainer_utils import PredictionOutput


def main(options: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(GLUE_TASKS), required=True)
    parser.add_argument("--local-copy")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads (default: all)")
    parser.add_argument("--predictions", type=Path, metavar="FOLDER")
    arguments = vars(parser.parse_args(options))
    print(json.dumps(run(arguments.pop("task"), **arguments)))


def run(
    task: str, *, local_copy: str | None, seed: int, bf16: bool, threads: int, predictions: Path | None
) -> dict[str, Any]:
    """Trains and returns the task's metrics on each split that has labels."""
    import transformers

    from textune.compat import evaluate

    glue = GLUE_TASKS[task]
    metric = evaluate.load("glue", task)

    def compute_metrics(outcome: Any) -> dict[str, float]:
        scores = outcome.predictions
        answers = scores.argmax(axis=-1) if glue.label_names else scores[:, 0]
        return dict(metric.compute(predictions=answers, references=outcome.label_ids))

    with tempfile.TemporaryDirectory() as folder:
        trainer, rows = glue_trainer(
            transformers,
            task,
            local_copy=local_copy,
            threads=threads,
            compute_metrics=compute_metrics,
            output_dir=folder,
            seed=seed,
            bf16=bf16,
        )
        seconds = trainer.train().metrics["train_runtime"]
        labelled = [split for split in rows if split != "train" and min(rows[split]["label"]) >= 0]
        outcomes = {split: trainer.predict(rows[split]) for split in labelled}
    if predictions is not None:
        for split, outcome in outcomes.items():
            write_predictions(predictions / f"{split}.jsonl", rows[split]["idx"], outcome, glue.label_names)
    figures = {
        split: {name: outcome.metrics[f"test_{name}"] for name in glue.metrics} for split, outcome in outcomes.items()
    }
    return {
        "who": "transformers.Trainer",
        "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
        **figures,
        "training_seconds": seconds,
    }


def glue_trainer(
    library: Any,
    task: str,
    *,
    local_copy: str | None,
    threads: int,
    seed: int,
    dropout: bool = True,
    compute_metrics: Callable[[Any], dict[str, float]] | None = None,
    **arguments: Any,
) -> tuple[Any, DatasetDict]:
    """The script that trains the starter on a GLUE task, up to the Trainer: as its users write it.

    Args:
        library: transformers or textune.compat, whose Trainer it is.
        arguments: further TrainingArguments.

    Returns:
        The Trainer, and the tokenised rows of all splits.
    """
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    from textune.compat import load_dataset
    from textune.models.starter import starter_folder

    torch.set_num_threads(threads)
    transformers.set_seed(seed)
    glue = GLUE_TASKS[task]
    checkpoint = starter_folder()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = load_dataset("glue", task, data_dir=local_copy).map(
        lambda batch: tokenizer(*(batch[column] for column in glue.text_columns), truncation=True), batched=True
    )
    without = {} if dropout else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=len(glue.label_names) or 1, dtype=torch.float32, **without
    )
    trainer = library.Trainer(
        model,
        library.TrainingArguments(
            **arguments,
            seed=seed,
            # Without it transformers.Trainer refuses bf16 on a machine that has no GPU.
            use_cpu=not torch.accelerator.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    return trainer, rows


def write_predictions(path: Path, ids: list[int], outcome: PredictionOutput, label_names: Sequence[str]) -> None:
    """One line per row: id, label and prediction by name, and a probability per label; numbers alone in regression."""
    import torch

    scores = torch.tensor(outcome.predictions, dtype=torch.float64)
    lines: list[dict[str, Any]]
    if label_names:
        shares = scores.softmax(dim=-1)
        lines = [
            {
                "id": row,
                "label": label_names[label],
                "prediction": label_names[int(share.argmax())],
                **{f"score_{name}": float(value) for name, value in zip(label_names, share, strict=True)},
            }
            for row, label, share in zip(ids, outcome.label_ids, shares, strict=True)
        ]
    else:
        lines = [
            {"id": row, "label": float(label), "prediction": float(score[0])}
            for row, label, score in zip(ids, outcome.label_ids, scores, strict=True)
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
