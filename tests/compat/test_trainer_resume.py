"""A Trainer that goes on from a checkpoint ends where an undisturbed one does."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from textune.compat import EarlyStoppingCallback, Trainer, TrainerCallback
from textune.errors import CheckpointError, ConfigError, InputNotFoundError

from .trainers import accuracy, assert_same, classifier, trainer, weights


class StopAfter(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == self.step:
            control.should_training_stop = True


class Own(Trainer):
    """Takes the general path."""

    def compute_loss(self, *values: Any, **options: Any) -> Any:
        return super().compute_loss(*values, **options)


def make(folder: Path, *, stop: int | None = None, own: bool = False, **values: Any) -> Trainer:
    settings = {
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 2,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "warmup_steps": 2,
        "lr_scheduler_type": "cosine",
        "gradient_accumulation_steps": 2,
        **values,
    }
    callbacks = [StopAfter(stop)] if stop else []
    settings.setdefault("compute_metrics", accuracy)
    made = trainer(folder, model=classifier(dropout=0.1), callbacks=callbacks, **settings)
    if own:
        made.__class__ = Own
    return made


def told(made: Trainer) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    timed = ("runtime", "per_second", "total_flos", "train_loss")
    return [
        {name: value for name, value in entry.items() if not name.endswith(timed)} for entry in made.state.log_history
    ]


@pytest.mark.parametrize("own", [False, True], ids=["text", "general"])
@pytest.mark.parametrize("stop", [3, 4, 7])  # saved at steps 3 and 6 of 8; four steps make an epoch
def test_interrupted_and_resumed_equals_undisturbed(tmp_path: Path, stop: int, own: bool) -> None:
    whole = make(tmp_path / "whole", own=own)
    whole.train()
    make(tmp_path / "cut", stop=stop, own=own).train()
    resumed = make(tmp_path / "cut", own=own)
    output = resumed.train(resume_from_checkpoint=True)
    assert resumed.training_path == ("general" if own else "text")
    assert output.global_step == 8
    assert_same(weights(resumed.model), weights(whole.model), within=0)
    assert told(resumed) == told(whole)


class SignalAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int, event: str) -> None:
        self.step = step
        setattr(self, event, self.send)

    def send(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("own", [False, True], ids=["text", "general"])
@pytest.mark.parametrize(
    ("step", "event", "saved"),
    [(2, "on_step_begin", 3), (4, "on_step_end", 4), (4, "on_evaluate", 5), (7, "on_step_end", 7)],
)
def test_a_signal_saves_the_step_and_ends_the_script(
    tmp_path: Path, own: bool, step: int, event: str, saved: int
) -> None:
    whole = make(tmp_path / "whole", own=own)
    whole.train()
    before = signal.getsignal(signal.SIGTERM)
    cut = make(tmp_path / "cut", own=own, enable_jit_checkpoint=True, save_strategy="no")
    cut.add_callback(SignalAt(step, event))
    with pytest.raises(SystemExit) as ended:
        cut.train()
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert [folder.name for folder in (tmp_path / "cut").iterdir()] == [f"checkpoint-{saved}"]
    resumed = make(tmp_path / "cut", own=own)
    resumed.train(resume_from_checkpoint=True)
    assert_same(weights(resumed.model), weights(whole.model), within=0)
    assert told(resumed) == told(whole)


def test_a_signal_behind_the_last_step_has_its_usual_effect(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        made = make(tmp_path, enable_jit_checkpoint=True)
        made.add_callback(EndsWith(signal.SIGUSR1))
        assert made.train().global_step == 8
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


class EndsWith(TrainerCallback):  # type: ignore[misc]
    def __init__(self, number: int) -> None:
        self.number = number

    def on_evaluate(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == state.max_steps:
            signal.raise_signal(self.number)


def test_products_are_computed_as_before(tmp_path: Path) -> None:
    make(tmp_path, stop=4).train()
    file = tmp_path / "checkpoint-3" / "progress.json"
    used = json.loads(file.read_text())["fp32_mode"]
    resumed = make(tmp_path)
    other = {"fp32-blas": "fp32-onednn", "fp32-onednn": "fp32-blas"}[used]
    resumed.arithmetic = dataclasses.replace(resumed.arithmetic, fp32_mode=other)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.arithmetic.fp32_mode == used


def test_a_named_checkpoint(tmp_path: Path) -> None:
    whole = make(tmp_path)
    whole.train()
    resumed = make(tmp_path / "other")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(weights(resumed.model), weights(whole.model), within=0)
    with pytest.raises(InputNotFoundError, match=r"there is no folder '.*checkpoint-4'"):
        make(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, stop=7).train()
    file = tmp_path / "checkpoint-6" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    resumed = make(tmp_path)
    with caplog.at_level(logging.INFO):
        resumed.train(resume_from_checkpoint=True)
    assert "optimizer.safetensors has been cut short or altered. Trying the one before." in caplog.text
    assert f"Going on from {tmp_path / 'checkpoint-3'}." in caplog.text
    assert resumed.state.global_step == 8


def test_callbacks_keep_their_state(tmp_path: Path) -> None:
    values = {"metric_for_best_model": "score", "compute_metrics": lambda prediction: {"score": 1.0}}
    values |= {"eval_strategy": "steps", "eval_steps": 1}
    made = make(tmp_path, stop=4, **values)
    made.add_callback(EarlyStoppingCallback(early_stopping_patience=50))
    made.train()
    counted = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["stateful_callbacks"]
    expected = counted["EarlyStoppingCallback"]["attributes"]["early_stopping_patience_counter"]
    for asked, begin in ((True, expected), (False, 0)):
        resumed = make(tmp_path / str(asked), restore_callback_states_from_checkpoint=asked, **values)
        stopping = EarlyStoppingCallback(early_stopping_patience=50)
        resumed.add_callback(stopping)
        seen: list[int] = []

        class Look(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *rest: Any, seen: Any = seen, stopping: Any = stopping, **values: Any) -> None:
                seen.append(stopping.early_stopping_patience_counter)

        resumed.add_callback(Look())
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert seen == [begin]
    assert expected == 2


def test_what_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="resume_from_checkpoint=True: there is no whole checkpoint in"):
        make(tmp_path / "none").train(resume_from_checkpoint=True)

    make(tmp_path / "alone", stop=4, save_only_model=True).train()
    assert not (tmp_path / "alone" / "checkpoint-3" / "optimizer.safetensors").exists()
    with pytest.raises(CheckpointError, match="holds the model alone"):
        make(tmp_path / "alone").train(resume_from_checkpoint=True)

    make(tmp_path / "other", stop=4).train()
    with pytest.raises(ConfigError, match="seed is 7, the checkpoint was made with 42") as caught:
        make(tmp_path / "other", seed=7, per_device_train_batch_size=4).train(resume_from_checkpoint=True)
    assert len(caught.value.problems) == 2

    foreign = tmp_path / "foreign"
    shutil.copytree(tmp_path / "other" / "checkpoint-3", foreign)
    (foreign / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json: it was written by transformers"):
        make(tmp_path / "other").train(resume_from_checkpoint=str(foreign))


@pytest.mark.parametrize(("limit", "kept"), [(1, [4, 8]), (2, [4, 8]), (3, [4, 7, 8]), (None, list(range(1, 9)))])
def test_save_total_limit_counts_the_best(tmp_path: Path, limit: int | None, kept: list[int]) -> None:
    values = iter([0.1, 0.2, 0.3, 0.9, 0.1, 0.1, 0.1, 0.1])
    made = trainer(
        tmp_path,
        compute_metrics=lambda prediction: {"score": next(values)},
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_steps=8,
        save_total_limit=limit,
        metric_for_best_model="score",
    )
    made.train()
    assert sorted(int(folder.name.rpartition("-")[2]) for folder in tmp_path.iterdir()) == kept
