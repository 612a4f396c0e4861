"""A Trainer that goes on from a checkpoint ends where an undisturbed one does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.optimization import AdafactorSchedule

from textune.compat import EarlyStoppingCallback, Trainer, TrainerCallback
from textune.errors import CheckpointError, ConfigError, InputNotFoundError
from textune.files import json_text

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


class Killed(TrainerCallback):  # type: ignore[misc]
    """Ends training at a step's event, as a kill would."""

    def __init__(self, step: int, event: str) -> None:
        self.step = step
        setattr(self, event, self.end)

    def end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Ends(TrainerCallback):  # type: ignore[misc]
    """Notes the ends of epochs, and ends them at a step's event."""

    def __init__(self, step: int | None, event: str) -> None:
        self.step, self.told = step, list[int]()
        setattr(self, event, self.end)

    def end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step == self.step:
            control.should_epoch_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        self.told.append(state.global_step)


@pytest.mark.parametrize("own", [False, True], ids=["text", "general"])
@pytest.mark.parametrize(
    ("save", "killed", "event", "ends"),
    [
        (4, 4, "on_evaluate", None),  # saved behind the last step of an epoch, whose end was still to come
        (4, 8, "on_evaluate", None),  # the same in the last epoch
        ("epoch", 5, "on_step_end", None),  # saved behind an epoch's end
        (3, 4, "on_step_begin", (3, "on_step_end")),  # saved in the step that ended its epoch
        (3, 3, "on_evaluate", (3, "on_step_end")),
        ("epoch", 4, "on_step_end", (3, "on_log")),
    ],
)
def test_the_end_of_an_epoch_comes_once(
    tmp_path: Path, own: bool, save: Any, killed: int, event: str, ends: tuple[int, str] | None
) -> None:
    saving = {"save_strategy": "epoch"} if save == "epoch" else {"save_steps": save}
    values = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "eval_loss", "warmup_steps": 0}
    values |= {"lr_scheduler_kwargs": {"patience": 0, "threshold": 10}, "logging_steps": 1, **saving}
    ended: dict[str, list[int]] = {}

    def begin(name: str, folder: str) -> Trainer:
        made = make(tmp_path / folder, own=own, **values)
        noting = Ends(*(ends or (None, "on_step_end")))
        ended[name] = noting.told
        made.add_callback(noting)
        return made

    whole = begin("whole", "whole")
    whole.train()
    cut = begin("cut", "cut")
    cut.add_callback(Killed(killed, event))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = begin("resumed", "cut")
    resumed.train(resume_from_checkpoint=True)
    assert told(resumed) == told(whole)
    assert resumed.state.best_metric == whole.state.best_metric
    assert_same(weights(resumed.model), weights(whole.model), within=0)
    assert list(dict.fromkeys(ended["cut"] + ended["resumed"])) == ended["whole"]
    assert ended["resumed"] == [step for step in ended["whole"] if step in ended["resumed"]]


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


def test_the_speed_of_a_resumed_run_counts_its_own_tokens(tmp_path: Path) -> None:
    values = {"include_tokens_per_second": True, "include_num_input_tokens_seen": "non_padding", "logging_steps": 1}
    whole = make(tmp_path, **values)
    whole.train()
    resumed = make(tmp_path, **values)
    metrics = resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6")).metrics
    seen = {entry["step"]: entry["num_input_tokens_seen"] for entry in whole.state.log_history if "loss" in entry}
    assert resumed.state.num_input_tokens_seen == seen[8]
    own = seen[8] - seen[6]
    assert metrics["train_tokens_per_second"] * metrics["train_runtime"] == pytest.approx(own, rel=0.05)
    entry = [entry for entry in resumed.state.log_history if "loss" in entry][-1]
    assert entry["train_tokens_per_second"] * entry["train_runtime"] == pytest.approx(own, rel=0.05)


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


def test_callbacks_keep_their_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        lost = "EarlyStoppingCallback begins anew, without what the checkpoint has of it (early_stopping_patience_count"
        assert (lost in caplog.text) == (not asked)
    assert expected == 2


def test_what_the_optimizer_keeps_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, stop=4).train()
    folder = str(tmp_path / "checkpoint-3")
    resumed = make(tmp_path, learning_rate=5e-3, weight_decay=0.1, optim="adamw_torch", adam_beta1=0.9)
    resumed.train(resume_from_checkpoint=folder)
    assert "learning_rate is 0.005; the checkpoint's 0.001 is used" in caplog.text
    assert "weight_decay is 0.1; the checkpoint's 0.0 is used" in caplog.text
    assert "adam_beta1" not in caplog.text
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.0
    assert resumed.lr_scheduler.base_lrs == [1e-3, 1e-3]
    with pytest.raises(ConfigError, match="optim is 'sgd', the checkpoint was made with 'adamw_torch_fused'"):
        make(tmp_path, optim="sgd").train(resume_from_checkpoint=folder)
    caplog.clear()
    values: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    for rate, asked in ((1e-3, None), (7.0, str(tmp_path / "own" / "checkpoint-2"))):
        model = classifier()
        optimizers = (OldAdamW(model.parameters()), None)
        own = trainer(tmp_path / "own", model=model, optimizers=optimizers, learning_rate=rate, **values)
        own.train(resume_from_checkpoint=asked)
    assert "is used" not in caplog.text


class OldAdamW(torch.optim.Optimizer):
    """Counts steps in a number, as AdamW of transformers 4 did."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                state["step"] = state.get("step", 0) + 1
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(weight.grad.sign(), alpha=-group["lr"] / state["step"])


def one_cycle(model: Any) -> Any:
    optimizer = torch.optim.AdamW(model.parameters())
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=8)


def by_plateau(model: Any) -> Any:
    optimizer = torch.optim.AdamW(model.parameters())
    return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10)


def by_milestones(model: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 7])


def adafactor(model: Any) -> Any:
    optimizer = transformers.Adafactor(model.parameters(), lr=None, warmup_init=True)
    return optimizer, AdafactorSchedule(optimizer)


class DecaysLate(TrainerCallback):  # type: ignore[misc]
    """From step 2 on."""

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **values: Any) -> None:
        if state.global_step == 2:
            for group in optimizer.param_groups:
                group["weight_decay"] = 50.0


OPTIMIZERS = {
    "old AdamW": lambda model: (OldAdamW(model.parameters()), None),
    "one cycle": one_cycle,
    "plateau": by_plateau,
    "milestones": by_milestones,
    "adafactor": adafactor,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_schedules_of_a_script_go_on(tmp_path: Path, name: str) -> None:
    trained = []
    for asked in (None, str(tmp_path / "checkpoint-3")):
        model = classifier()
        values = {"save_strategy": "steps", "save_steps": 3, "max_steps": 8, "callbacks": [DecaysLate()]}
        if name == "plateau":
            values |= {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}
        made = trainer(tmp_path, model=model, optimizers=OPTIMIZERS[name](model), **values)
        made.train(resume_from_checkpoint=asked)
        trained.append(weights(model))
    assert_same(trained[1], trained[0], within=0)


class Remembering(OldAdamW):
    def step(self, closure: Any = None) -> None:
        super().step()
        self.state[self.param_groups[0]["params"][0]]["past"] = {1}


class Growing:
    """A schedule that keeps what no JSON holds."""

    def __init__(self) -> None:
        self.past = {1}

    def __call__(self, step: int) -> float:
        return 2.0**step


def test_what_no_checkpoint_could_hold_is_said_at_the_start(tmp_path: Path) -> None:
    cases = (
        (Remembering, None, r"the optimiser's state: past/.*found a set"),
        (OldAdamW, Growing(), "LambdaLR: .* set"),
    )
    for kind, growing, expected in cases:
        model = classifier()
        optimizer = kind(model.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, growing) if growing else None
        made = trainer(
            tmp_path, model=model, optimizers=(optimizer, schedule), save_strategy="steps", save_steps=5, max_steps=6
        )
        with pytest.raises(CheckpointError, match=expected) as caught:
            made.train()
        assert "save_only_model=True" in str(caught.value.hint)
        assert made.state.global_step == 0
        made.args.save_only_model = True
        assert made.train().global_step == 6


def test_a_forged_state_is_named(tmp_path: Path) -> None:
    make(tmp_path, stop=4).train()
    folder, text = tmp_path / "checkpoint-3", '{"total_steps": 8, "stepp": 3}'
    (folder / "state.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"]["state.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    manifest["sha256"] = hashlib.sha256(json_text(manifest).encode()).hexdigest()
    (folder / "manifest.json").write_text(json_text(manifest))
    with pytest.raises(CheckpointError, match=r"written by another textune: .* in its state\.json"):
        make(tmp_path).train(resume_from_checkpoint=str(folder))


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

    lengths = {"train_sampling_strategy": "group_by_length"}
    make(tmp_path / "lengths", stop=4, **lengths).train()
    with pytest.raises(ConfigError, match="length_column_name is 'size', the checkpoint was made with 'length'"):
        make(tmp_path / "lengths", length_column_name="size", **lengths).train(resume_from_checkpoint=True)

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
