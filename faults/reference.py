"""The same kill test with transformers.Trainer, its own checkpoints and its own way of going on.

Set up as its documentation has it: `save_strategy="steps"`, and after a kill `resume_from_checkpoint` with what
`get_last_checkpoint` finds, None where it finds nothing. Data, model, batch size, steps and interval are those of
textune's trial; everything random is seeded, on one CPU thread, where a run repeated ends with the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from faults.breaking import Faults
from faults.trainings import Process, Training, start
from faults.trials import INSIDE_SHARE, STEP_SECONDS, Bench, Trial, Undisturbed, kill_by_chance


def trainer(bench: Bench, runs: int) -> Iterator[Trial]:
    """SIGKILL at the moments of `textune`'s kill test; each trial says how it ended."""
    training = next(iter(bench.trainings.values()))
    undisturbed = _leave_alone(bench, training)
    for number in range(runs):
        rng = bench.rng(f"kill-{number}")
        inside = number % 10 < INSIDE_SHARE * 10
        if inside:
            output = bench.new_run()
            at = rng.randint(1, undisturbed.operations)
            trial = Trial(f"killed at operation {at} of {undisturbed.operations} on checkpoints")
            _start(training, output, Faults(folder=output.name, at=at, step_seconds=STEP_SECONDS)).wait()
        else:
            trial = Trial("killed by chance")
            faults = Faults(step_seconds=STEP_SECONDS)
            output = kill_by_chance(bench, partial(_start, training, faults=faults), ".", undisturbed, rng)
        trial.facts["inside"] = inside
        process = _start(training, output, Faults())
        if process.wait():
            trial.problems.append(f"going on fails: {process.said().strip().splitlines()[-1][:200]}")
        elif _weights(output) != undisturbed.result["weights"]:
            trial.problems.append("ends with other weights")
        yield trial


def _leave_alone(bench: Bench, training: Training) -> Undisturbed:
    hashes = []
    for _ in range(2):
        output, count = bench.new_run(), bench.folder / "count"
        process = _start(training, output, Faults(folder=output.name, count=str(count), step_seconds=STEP_SECONDS))
        process.wait_for(output)
        before = time.monotonic() - process.began
        if process.wait():
            raise RuntimeError(f"undisturbed, the Trainer ends with {process.code}: {process.said()[-2000:]}")
        seconds = time.monotonic() - process.began - before
        hashes.append(_weights(output))
    if hashes[0] != hashes[1]:
        raise RuntimeError("two undisturbed runs of the Trainer differ: nothing can be compared")
    return Undisturbed(output, {"weights": hashes[0]}, int(count.read_text()), before, seconds)


def _start(training: Training, output: Path, faults: Faults) -> Process:
    def program() -> int:
        _train(training, output, faults.step_seconds)
        return 0

    return start(program, output.with_name(f"{output.name}.txt"), faults)


def _weights(output: Path) -> str:
    return sha256((output / "final" / "model.safetensors").read_bytes()).hexdigest()


def _train(training: Training, output: Path, step_seconds: float) -> None:
    """The usual script: trains, or goes on from the last checkpoint of its folder."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint

    from textune.models.load import find_checkpoint

    class Slow(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            time.sleep(step_seconds)

    torch.set_num_threads(1)
    set_seed(training.seed)
    checkpoint = find_checkpoint(training.model)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    found = [json.loads(line) for line in Path(training.data).read_text(encoding="utf-8").splitlines()]
    names = sorted({row["label"] for row in found})
    examples = [
        {**tokenizer(row["text"], truncation=True, max_length=32), "labels": names.index(row["label"])} for row in found
    ]
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=training.steps,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        bf16=training.precision == "bf16",
        save_strategy="steps",
        save_steps=training.interval,
        save_total_limit=2,
        seed=training.seed,
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(names))
    made = Trainer(
        model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=examples,
        callbacks=[Slow()],
    )
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    made.train(resume_from_checkpoint=last)
    made.save_model(str(output / "final"))
