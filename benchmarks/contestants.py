"""Who is compared in training, and what each runs: textune's command, or a script written for a Trainer.

`python -m benchmarks.contestants SCRIPT` (as JSON) runs the script from reading the data to the saved model.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import program
from textune.config import EngineConfig

if TYPE_CHECKING:
    from datasets import DatasetDict

FIRST_STEP = "first step"
TEXT_COLUMNS = ("text", "text_pair")
BEST_FLAGS = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    Attributes:
        library: whose Trainer the script uses; None for textune's own command and `textune.train`.
        precision: of textune's own command.
        flags: of TrainingArguments, besides what all have in common.
        settings: of textune's own command, by their dotted names.
    """

    description: str
    library: str | None = None
    precision: str = "fp32"
    flags: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


TEXTUNE, TRAINER, BEST_TRAINER, DROP_IN = "textune", "trainer", "trainer-best", "drop-in"
CONTESTANTS = {
    TEXTUNE: Contestant("textune's own command, its defaults", precision="auto"),
    "textune-fp32": Contestant("the same with --precision fp32"),
    DROP_IN: Contestant("textune.compat.Trainer, its defaults (fp32)", "textune.compat"),
    TRAINER: Contestant("transformers.Trainer, its defaults (fp32)", "transformers"),
    BEST_TRAINER: Contestant("transformers.Trainer, its best flags", "transformers", "bf16", BEST_FLAGS),
}
# textune without one of the things that its engine does by itself, and without all of them.
_ON = [name for name, value in dataclasses.asdict(EngineConfig()).items() if value is True]
WITHOUT = {
    f"without-{name}": Contestant(
        f"textune with engine.{name}=false", precision="auto", settings={f"engine.{name}": False}
    )
    for name in _ON
} | {
    "without-all": Contestant(
        "textune with all of these off", precision="auto", settings={f"engine.{name}": False for name in _ON}
    )
}
KNOWN = CONTESTANTS | WITHOUT


@dataclass(frozen=True)
class Training:
    """One training: what is the same for all contestants.

    Attributes:
        who: a name in `KNOWN`.
        data: folder with train.jsonl, validation.jsonl and perhaps test.jsonl.
        checkpoint: folder.
        work: folder for this run's outputs and caches.
        duration: steps, or epochs with `in_epochs`.
        device: `auto` or `cpu`.
        dropout: False for none.
    """

    who: str
    data: str
    checkpoint: str
    work: str
    duration: float
    in_epochs: bool = False
    batch_size: int = 8
    learning_rate: float = 5e-5
    seed: int = 42
    threads: int = 1
    device: str = "auto"
    dropout: bool = True


def command(training: Training) -> list[str]:
    """The command of the whole way, from data to saved model."""
    contestant = KNOWN[training.who]
    if contestant.library is not None:
        return program("benchmarks.contestants", training)
    length = f"{training.duration:g}{'epochs' if training.in_epochs else 'steps'}"
    flags = {
        "data": training.data,
        "model": training.checkpoint,
        "output": str(Path(training.work, "run")),
        "duration": length,
        "batch-size": training.batch_size,
        "learning-rate": training.learning_rate,
        "seed": training.seed,
        "precision": contestant.precision,
    }
    settings = {"training.threads": training.threads, "training.device": training.device, **contestant.settings}
    return [
        *(sys.executable, "-m", "textune", "train"),
        *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
        *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
    ]


def script_of(
    training: Training, *, callbacks: Sequence[Any] = (), collate: Callable[..., Any] | None = None, **flags: Any
) -> Any:
    """The script, up to the Trainer: as its users write it.

    Args:
        callbacks: given to the Trainer.
        collate: stands in for DataCollatorWithPadding.
        flags: further TrainingArguments.

    Returns:
        The Trainer, and the rows (a DatasetDict).
    """
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    contestant = KNOWN[training.who]
    library = importlib.import_module(str(contestant.library))
    torch.set_num_threads(training.threads)
    transformers.set_seed(training.seed)
    tokenizer = AutoTokenizer.from_pretrained(training.checkpoint)
    rows = tokenized(training, tokenizer)
    config = AutoConfig.from_pretrained(training.checkpoint, num_labels=len(set(rows["train"]["label"])))
    if not training.dropout:
        for name in [name for name, value in vars(config).items() if "dropout" in name and isinstance(value, float)]:
            setattr(config, name, 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(training.checkpoint, config=config, dtype=torch.float32)
    length = {"num_train_epochs" if training.in_epochs else "max_steps": training.duration}
    arguments = library.TrainingArguments(
        str(Path(training.work, "out")),
        **length,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        seed=training.seed,
        # Without it transformers.Trainer refuses bf16 on a machine that has no GPU.
        use_cpu=training.device == "cpu" or not torch.accelerator.is_available(),
        disable_tqdm=True,
        report_to="none",
        **contestant.flags,
        **flags,
    )
    trainer = library.Trainer(
        model,
        arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=collate or DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=list(callbacks),
    )
    return trainer, rows


def tokenized(training: Training, tokenizer: Any) -> DatasetDict:
    import datasets

    datasets.disable_progress_bars()
    # The first file says which columns there are, and a test split may be without labels.
    paths = {split: Path(training.data, f"{split}.jsonl") for split in ("train", "validation", "test")}
    files = {split: str(path) for split, path in paths.items() if path.is_file()}
    rows = datasets.load_dataset("json", data_files=files, cache_dir=str(Path(training.work, "datasets")))
    columns = [name for name in TEXT_COLUMNS if name in rows["train"].column_names]
    return rows.map(lambda batch: tokenizer(*(batch[name] for name in columns), truncation=True), batched=True)


def accuracy(outcome: Any) -> dict[str, float]:
    return {"accuracy": float((outcome.predictions.argmax(-1) == outcome.label_ids).mean())}


def main(training: Training) -> None:
    from transformers import TrainerCallback

    class SayFirstStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            if state.global_step == 1:
                print(FIRST_STEP, flush=True)

    trainer, rows = script_of(training, callbacks=[SayFirstStep()])
    trainer.train()
    trainer.evaluate()
    if "test" in rows:
        test = rows["test"]
        # A file without labels has the column all the same, of nothing, which no collator takes.
        trainer.predict(test.remove_columns("label") if test[0]["label"] is None else test)
    trainer.save_model(str(Path(training.work, "model")))


if __name__ == "__main__":
    main(Training(**json.loads(sys.argv[1])))
