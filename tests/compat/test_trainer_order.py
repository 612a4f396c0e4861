"""The order of a script's own sampler or loader: a function of seed and epoch, whatever was drawn before."""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from textune.compat import Trainer, TrainerCallback, TrainingArguments

from .trainers import assert_same, quiet, weights

ROWS = 20


class Shop(torch.nn.Module):
    """A linear model that remembers the rows of its training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(3, 2)
        self.seen: list[list[int]] = []

    def forward(self, values: torch.Tensor, row: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        if self.training:
            self.seen.append(row.tolist())
        logits = torch.nn.functional.dropout(self.layer(values), training=self.training)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows() -> list[dict[str, Any]]:
    values = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    return [{"values": torch.tensor(row), "row": number, "labels": number % 2} for number, row in enumerate(values)]


class PickyRows(torch.utils.data.Sampler[int]):
    """Draws each row when it is asked for, from all the generators there are."""

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        for _ in range(ROWS):
            draws = (random.randrange(ROWS), np.random.randint(ROWS), int(torch.randint(ROWS, ())))
            yield sum(draws) % ROWS


def noisy(examples: list[Any]) -> dict[str, Any]:
    batch = transformers.default_data_collator(examples)
    batch["values"] += torch.randn(()) + random.random() + np.random.rand()
    return dict(batch)


def shuffling(**values: Any) -> Any:
    options = {"batch_size": 4, "collate_fn": noisy, "shuffle": True, **values}
    return lambda: torch.utils.data.DataLoader(rows(), **options)


def sampled(make: Any) -> Any:
    return lambda: shuffling(shuffle=False, sampler=make())()


def weighted(**values: Any) -> Any:
    return torch.utils.data.WeightedRandomSampler(torch.arange(1.0, ROWS + 1), ROWS, **values)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


LOADERS = {
    "shuffle": lambda: shuffling()(),
    "shuffle with a generator": lambda: shuffling(generator=seeded(5))(),
    "weighted": sampled(weighted),
    "weighted with a generator": sampled(lambda: weighted(generator=seeded(5))),
    "drawn row by row": sampled(PickyRows),
    "workers": lambda: shuffling(num_workers=1, multiprocessing_context="fork")(),
}


class EndsAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def make(folder: Path, loader: Any, *, end: int | None = None, theirs: bool = False, **values: Any) -> Any:
    kind, arguments = (transformers.Trainer, transformers.TrainingArguments) if theirs else (Trainer, TrainingArguments)

    class Own(kind):  # type: ignore[misc, valid-type]
        def get_train_dataloader(self) -> Any:
            made = loader()
            return self.accelerator.prepare(made) if theirs else made

    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.1, **values}
    return Own(
        Shop(),
        arguments(str(folder), **{**quiet(), **settings}),
        train_dataset=rows(),
        eval_dataset=rows(),
        data_collator=noisy,
        callbacks=[EndsAt(end)],
    )


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", LOADERS)
def test_an_own_order_goes_on(tmp_path: Path, name: str, size: int) -> None:
    values = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
    values["gradient_accumulation_steps"] = size
    saved = 7 if size == 1 else 4  # of ten and six steps: amid epoch 2, and behind an evaluation or not
    whole = make(tmp_path / "whole", LOADERS[name], **values)
    whole.train()
    cut = make(tmp_path / "cut", LOADERS[name], end=saved, **values)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = make(tmp_path / "cut", LOADERS[name], **values)
    torch.rand(3), random.random()  # what a script may have drawn before
    resumed.train(resume_from_checkpoint=True)
    assert cut.model.seen + resumed.model.seen == whole.model.seen
    assert_same(weights(resumed.model), weights(whole.model), within=0)
    told = [
        [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry] for made in (resumed, whole)
    ]
    assert told[0] == told[1]
    epochs = whole.model.seen[:5], whole.model.seen[5:]
    assert epochs[0] != epochs[1]
    if "shuffle" in name:
        assert [sorted(itertools.chain(*epoch)) for epoch in epochs] == [list(range(ROWS))] * 2


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="transformers.Trainer needs it")
@pytest.mark.parametrize(("name", "epochs"), [("shuffle", 2), ("weighted", 1), ("weighted with a generator", 1)])
def test_the_order_is_that_of_transformers(tmp_path: Path, name: str, epochs: int) -> None:
    seen = []
    for theirs in (False, True):
        made = make(tmp_path / str(theirs), LOADERS[name], theirs=theirs, num_train_epochs=epochs)
        made.train()
        seen.append(made.model.seen)
    assert seen[0] == seen[1]
