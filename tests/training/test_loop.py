from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from textune.config import TrainingConfig
from textune.durations import Duration
from textune.errors import TrainingError
from textune.models.losses import Loss
from textune.training.callbacks import Callback, EarlyStopping, Record
from textune.training.checkpoint import committed, load_optimizer, load_weights
from textune.training.loop import train
from textune.training.schedule import Schedule
from textune.training.setup import Intervals, Setup
from textune.training.state import TrainingState
from textune.training.work import TextWork

from .engine import NEVER, Recorder, assert_same_weights, make_setup, random_rows, tiny_model, weights


def reference_batch(work: TextWork, numbers: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(work.tokens.take([number]).input_ids[0], dtype=torch.long) for number in numbers]
    masks = [torch.ones_like(row) for row in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": pad(masks, batch_first=True)}


def reference_losses(setup: Setup, model: torch.nn.Module, *, steps: int, warmup: int, decay: float) -> list[float]:
    """Plain PyTorch: AdamW, clipping, transformers' scheduler, the model's own loss, the same batches."""
    plain = [name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [named[name] for name in named if name not in plain], "weight_decay": decay},
            {"params": [named[name] for name in plain], "weight_decay": 0.0},
        ],
        lr=setup.learning_rate,
    )
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    work = setup.work
    assert isinstance(work, TextWork)
    losses: list[float] = []
    model.train()
    epoch = 0
    while len(losses) < steps:
        for (numbers,) in work.plan.steps(epoch):
            labels = torch.from_numpy(work.labels[numbers])
            loss = model(**reference_batch(work, numbers), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), setup.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if len(losses) == steps:
                break
        epoch += 1
    return losses


def test_losses_and_weights_equal_plain_pytorch(tmp_path: Path) -> None:
    steps, warmup = 50, 5
    rows = random_rows(75, num_labels=3)  # ten steps an epoch, the last with three rows
    reference_model = tiny_model(num_labels=3)
    config = TrainingConfig(learning_rate=2e-3, weight_decay=0.01)
    setup = make_setup(
        tmp_path,
        model=tiny_model(num_labels=3),
        rows=rows,
        config=config,
        schedule=Schedule("linear", warmup, steps),
    )
    recorder = Recorder()
    state = train(setup, callbacks=[recorder])
    expected = reference_losses(setup, reference_model, steps=steps, warmup=warmup, decay=0.01)
    found = [record["loss"] for record in recorder.logs]
    assert len(found) == steps
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[0] - min(expected) > 0.2, "the comparison means something only if the model learns"
    assert_same_weights(weights(setup.model), weights(reference_model), within=1e-5)
    assert (state.step, state.epoch, state.examples) == (50, 5, 375)
    assert state.tokens == 5 * int(rows.tokens.lengths.sum())


@pytest.mark.parametrize("class_weights", [None, [0.3, 2.0]])
@pytest.mark.parametrize("num_rows", [64, 75])  # with and without a partial last step
def test_accumulation_gives_the_same_weights(tmp_path: Path, class_weights: list[float] | None, num_rows: int) -> None:
    found, norms = [], []
    for batch_size, accumulation in ((32, 1), (8, 4), (4, 8)):
        loss = Loss(
            "single_label_classification",
            class_weights=None if class_weights is None else np.array(class_weights),
        )
        setup = make_setup(
            tmp_path / str(batch_size),
            rows=random_rows(num_rows),
            batch_size=batch_size,
            accumulation=accumulation,
            steps=6,
            loss=loss,
            config=TrainingConfig(learning_rate=5e-5),
        )
        recorder = Recorder()
        train(setup, callbacks=[recorder])
        found.append(weights(setup.model))
        norms.append([record["grad_norm"] for record in recorder.logs])
    for other in found[1:]:
        assert_same_weights(other, found[0], within=1e-6)
    np.testing.assert_allclose(norms[1:], [norms[0]] * 2, rtol=1e-4)


def test_accumulation_agrees_for_several_labels(tmp_path: Path) -> None:
    rows = random_rows(32)
    labels = np.random.default_rng(0).integers(0, 2, size=(32, 3)).astype(np.float32)
    rows = dataclasses.replace(rows, labels=labels)
    found = []
    for batch_size, accumulation in ((32, 1), (8, 4)):
        setup = make_setup(
            tmp_path / str(batch_size),
            model=tiny_model(num_labels=3, problem_type="multi_label_classification"),
            rows=rows,
            batch_size=batch_size,
            accumulation=accumulation,
            steps=4,
            loss=Loss("multi_label_classification", class_weights=np.array([1.0, 3.0, 0.5])),
            config=TrainingConfig(learning_rate=5e-5),
        )
        train(setup)
        found.append(weights(setup.model))
    assert_same_weights(found[1], found[0], within=1e-6)


def test_last_partial_batch_is_used(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, rows=random_rows(19), batch_size=8, steps=3)
    state = train(setup)
    assert (state.step, state.epoch, state.step_in_epoch, state.examples) == (3, 1, 0, 19)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_non_finite_loss_never_reaches_the_weights(tmp_path: Path, accumulation: int) -> None:
    setup = make_setup(tmp_path, batch_size=8 // accumulation, accumulation=accumulation, steps=10)
    calls = 0
    before: dict[str, torch.Tensor] = {}

    def spoil(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        nonlocal calls, before
        calls += 1
        if calls == 3 * accumulation:
            before = weights(setup.model)
            return logits * torch.nan
        return logits

    setup.model.classifier.register_forward_hook(spoil)
    with pytest.raises(TrainingError) as caught:
        train(setup)
    rows = np.concatenate(list(setup.work.steps(0))[2].passes)
    assert caught.value.message == (
        "Step 3 gave a loss nan; it was not applied, the weights are those of step 2. The batch held rows "
        f"{', '.join(str(row + 1) for row in rows)} of the training split "
        f"(id {', '.join(f'row-{row + 1}' for row in rows)})."
    )
    assert "--learning-rate" in str(caught.value.hint)
    for name, tensor in weights(setup.model).items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in setup.model.parameters())


def test_non_finite_gradient_never_reaches_the_weights(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, steps=10)
    before = weights(setup.model)
    setup.model.classifier.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=r"Step 1 gave a gradient norm (inf|nan); it was not applied"):
        train(setup)
    for name, tensor in weights(setup.model).items():
        assert torch.equal(tensor, before[name]), name


def test_clipping_can_be_switched_off(tmp_path: Path) -> None:
    """With AdamW a constant factor hardly shows, so that the gradients themselves are looked at."""
    norms: dict[float, float] = {}
    for limit in (0.0, 1e-3):
        setup = make_setup(tmp_path / str(limit), steps=1, config=TrainingConfig(max_grad_norm=limit))
        recorder = Recorder()
        applied: list[float] = []
        original = setup.optimizer.step

        def step(setup: Setup = setup, applied: list[float] = applied, original: Any = original) -> None:
            original()  # it scales the gradients it applies
            weights = [weight for group in setup.optimizer.param_groups for weight in group["params"]]
            applied.append(
                float(torch.nn.utils.get_total_norm([item.grad for item in weights if item.grad is not None]))
            )

        setup.optimizer.step = step  # type: ignore[method-assign, assignment]
        train(setup, callbacks=[recorder])
        norms[limit] = applied[0]
        assert recorder.logs[0]["grad_norm"] > 1e-2, "logged before clipping"
    assert norms[0.0] == pytest.approx(recorder.logs[0]["grad_norm"], rel=1e-5)
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_same_seed_gives_bit_equal_weights(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        setup = make_setup(tmp_path / name, model=tiny_model(dropout=0.2))
        train(setup)
        found.append(weights(setup.model))
        torch.manual_seed(99)  # what others do with the global generator must not matter
    for key, tensor in found[0].items():
        assert torch.equal(tensor, found[1][key]), key


def test_other_seed_gives_other_dropout(tmp_path: Path) -> None:
    rows = random_rows(8)  # one batch an epoch, so that only order within the batch and dropout differ
    losses = []
    for seed in (1, 2):
        recorder = Recorder()
        setup = make_setup(
            tmp_path / str(seed),
            model=tiny_model(dropout=0.2),
            rows=rows,
            steps=1,
            config=TrainingConfig(seed=seed),
        )
        train(setup, callbacks=[recorder])
        losses.append(recorder.logs[0]["loss"])
    assert abs(losses[0] - losses[1]) > 1e-3


def test_dropout_does_not_depend_on_logging_evaluation_and_checkpoints(tmp_path: Path) -> None:
    found = []
    for name, intervals in {"often": Intervals(1, 1, 1), "never": Intervals(NEVER, NEVER, NEVER)}.items():

        def evaluate() -> dict[str, Any]:
            torch.rand(3)  # as a callback or a metric may
            return {"accuracy": 0.5}

        setup = make_setup(tmp_path / name, model=tiny_model(dropout=0.2), intervals=intervals, evaluate=evaluate)
        train(setup)
        found.append(weights(setup.model))
    for key, tensor in found[0].items():
        assert torch.equal(tensor, found[1][key]), key


def accuracies(*values: float | None) -> Any:
    remaining = iter(values)
    return lambda: {"accuracy": next(remaining), "loss": 1.0}


def test_early_stopping(tmp_path: Path) -> None:
    setup = make_setup(
        tmp_path, steps=20, intervals=Intervals(5, 2, NEVER), evaluate=accuracies(0.5, 0.7, 0.6, 0.7, 0.9)
    )
    recorder = Recorder()
    state = train(setup, callbacks=[EarlyStopping(2), recorder])
    assert (state.step, state.best_step, state.stop_reason) == (8, 4, "no better evaluation in 2")
    assert committed(setup.checkpoints) == [4, 8]
    assert recorder.events[-2:] == ["checkpoint", "end"]
    assert [record["step"] for record in recorder.logs] == [5, 8], "what was trained since the log is logged as well"


def test_best_and_last_checkpoints_stay(tmp_path: Path) -> None:
    setup = make_setup(
        tmp_path,
        steps=12,
        intervals=Intervals(NEVER, 2, 3),
        evaluate=accuracies(0.5, 0.9, 0.7, 0.7, 0.7, 0.7),
        keep_checkpoints=2,
    )
    recorder = Recorder()
    state = train(setup, callbacks=[recorder])
    assert recorder.checkpoints == ["step-2", "step-3", "step-4", "step-6", "step-9", "step-12"]
    assert state.best_step == 4
    assert committed(setup.checkpoints) == [4, 9, 12]
    assert [record["best"] for record in recorder.evaluations] == [True, True, False, False, False, False]


def test_without_best_only_the_last_are_saved(tmp_path: Path) -> None:
    setup = make_setup(
        tmp_path, steps=4, intervals=Intervals(NEVER, 1, NEVER), evaluate=accuracies(1, 2, 3, 4), keep_best=False
    )
    train(setup)
    assert committed(setup.checkpoints) == [4]


def test_undefined_metric_is_never_the_best(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, steps=2, intervals=Intervals(NEVER, 1, NEVER), evaluate=accuracies(None, None))
    state = train(setup)
    assert state.best_step is None
    assert committed(setup.checkpoints) == [2]


def test_events_come_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    setup = make_setup(tmp_path, steps=3, intervals=Intervals(2, 3, NEVER))
    train(setup, callbacks=[recorder])
    assert recorder.events == ["begin", "step", "step", "log", "step", "log", "evaluate", "checkpoint", "end"]


def test_log_records(tmp_path: Path) -> None:
    each, pairs = Recorder(), Recorder()
    for recorder, interval in ((each, 1), (pairs, 2)):
        setup = make_setup(
            tmp_path / str(interval),
            rows=random_rows(20),  # batches of 8, 8 and 4 rows
            steps=6,
            intervals=Intervals(interval, NEVER, NEVER),
        )
        train(setup, callbacks=[recorder])
    assert list(each.logs[0]) == ["step", "epoch", "loss", "samples_per_second", "grad_norm", "learning_rate"]
    assert [record["step"] for record in pairs.logs] == [2, 4, 6]
    assert [record["epoch"] for record in pairs.logs] == [0.6667, 1.3333, 2.0]
    assert [record["learning_rate"] for record in each.logs] == pytest.approx([1e-3 * (6 - n) / 6 for n in range(6)])
    # The mean per example, not the mean of the batches' means: step 3 had four rows, step 4 eight.
    expected = (each.logs[2]["loss"] * 4 + each.logs[3]["loss"] * 8) / 12
    assert pairs.logs[1]["loss"] == pytest.approx(expected)
    assert pairs.logs[1]["grad_norm"] == each.logs[3]["grad_norm"]


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, state: TrainingState, record: Record) -> None:
        if state.step == self.step:
            state.stop_reason = "asked to"


def test_a_callback_can_stop_training(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, steps=10)
    recorder = Recorder()
    state = train(setup, callbacks=[StopAt(3), recorder])
    assert (state.step, state.stop_reason) == (3, "asked to")
    assert recorder.events[-4:] == ["log", "evaluate", "checkpoint", "end"], "as at the last step"
    assert committed(setup.checkpoints) == [3], "what was learnt is saved"


class Ask(Callback):
    """Asks for one thing after each of the steps given."""

    def __init__(self, **steps: tuple[int, ...]) -> None:
        self.steps = steps

    def on_step(self, state: TrainingState) -> None:
        for request, steps in self.steps.items():
            if state.step in steps:
                setattr(state.requests, request, True)


def test_without_intervals_callbacks_ask(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, rows=random_rows(24), steps=6)
    setup = dataclasses.replace(setup, intervals=None, schedule=None, keep_checkpoints=None)
    recorder = Recorder()
    state = TrainingState(total_steps=6)
    train(setup, callbacks=[Ask(log=(2, 3), evaluate=(4,), save=(1, 2, 5)), recorder], state=state)
    assert [record["step"] for record in recorder.logs] == [2, 3]
    assert {record["learning_rate"] for record in recorder.logs} == {1e-3}, "the optimiser's own rate"
    assert [record["step"] for record in recorder.evaluations] == [4]
    assert recorder.checkpoints == ["step-1", "step-2", "step-4", "step-5"], "the best is saved too"
    assert committed(setup.checkpoints) == [1, 2, 4, 5]
    assert (state.step, state.epoch) == (6, 2)


class Epochs(Callback):
    """Notes at which steps epochs begin and end."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_epoch_begin(self, state: TrainingState) -> None:
        self.events.append(f"begin {state.step}")

    def on_epoch_end(self, state: TrainingState) -> None:
        self.events.append(f"end {state.step}")


def test_an_epoch_can_be_cut_short(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, rows=random_rows(24), steps=7)  # three steps make an epoch
    epochs = Epochs()
    state = train(setup, callbacks=[Ask(end_epoch=(2,)), epochs])
    assert epochs.events == ["begin 0", "end 2", "begin 2", "end 5", "begin 5", "end 7"]
    assert (state.epoch, state.step_in_epoch) == (2, 2)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            {"step": 2, "step_in_epoch": 2, "epoch_over": True},
            ["begin 2", "end 2", "begin 2", "end 5", "begin 5", "end 7"],
        ),
        (
            {"step": 2, "step_in_epoch": 2, "epoch_over": True, "epoch_end_told": True},
            ["begin 2", "end 5", "begin 5", "end 7"],
        ),
        ({"step": 3, "step_in_epoch": 3}, ["begin 3", "end 3", "begin 3", "end 6", "begin 6", "end 7"]),
        ({"step": 3, "step_in_epoch": 3, "epoch_end_told": True}, ["begin 3", "end 6", "begin 6", "end 7"]),
        (
            {"step": 2, "step_in_epoch": 2, "epoch_end_told": True},
            ["begin 2", "end 3", "begin 3", "end 6", "begin 6", "end 7"],
        ),
        ({"step": 7, "epoch": 2, "step_in_epoch": 1}, ["begin 7", "end 7"]),
        ({"step": 7, "epoch": 2, "step_in_epoch": 1, "epoch_end_told": True}, []),
    ],
)
def test_an_epoch_ends_once_wherever_training_goes_on(
    tmp_path: Path, state: dict[str, Any], expected: list[str]
) -> None:
    setup = make_setup(tmp_path, rows=random_rows(24), steps=7)  # three steps make an epoch
    epochs = Epochs()
    train(setup, callbacks=[epochs], state=TrainingState(total_steps=7, **state))
    assert epochs.events == expected


def test_training_goes_on_from_a_state(tmp_path: Path) -> None:
    whole = make_setup(tmp_path / "whole", model=tiny_model(dropout=0.2), steps=8)
    train(whole)
    stopping = make_setup(tmp_path / "cut", model=tiny_model(dropout=0.2), steps=8)
    state = train(stopping, callbacks=[StopAt(3)])
    folder = stopping.checkpoints / "step-3"
    resumed = make_setup(tmp_path / "cut", steps=8, model=tiny_model(dropout=0.2))
    with torch.no_grad():
        resumed.model.classifier.bias.fill_(9.0)
    load_weights(folder, resumed.model)
    load_optimizer(folder, resumed.model, resumed.optimizer)
    train(resumed, state=dataclasses.replace(state, stop_reason=None))
    for name, tensor in weights(whole.model).items():
        assert torch.equal(tensor, weights(resumed.model)[name]), name


def test_stops_in_mid_epoch_at_the_last_step(tmp_path: Path) -> None:
    state = train(make_setup(tmp_path, rows=random_rows(40), steps=7))
    assert (state.epoch, state.step_in_epoch) == (1, 2)


@given(num_rows=st.integers(1, 100_000), batch_size=st.integers(1, 64))
def test_default_interval_logs_twenty_times_an_epoch(num_rows: int, batch_size: int) -> None:
    steps_per_epoch = -(-num_rows // batch_size)
    interval = Duration.parse(TrainingConfig().log_every).as_interval(
        steps_per_epoch=steps_per_epoch, batch_size=batch_size, total_steps=3 * steps_per_epoch
    )
    assert steps_per_epoch // interval >= min(20, steps_per_epoch)


def with_scaler(setup: Setup, scale: float) -> Setup:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    assert isinstance(setup.work, TextWork)
    return dataclasses.replace(setup, scaler=scaler, work=dataclasses.replace(setup.work, scaler=scaler))


def test_a_scaled_loss_gives_the_same_weights(tmp_path: Path) -> None:
    plain = make_setup(tmp_path / "plain", steps=4)
    scaled = with_scaler(make_setup(tmp_path / "scaled", steps=4), 2.0**10)
    recorders = [Recorder(), Recorder()]
    for setup, recorder in zip((plain, scaled), recorders, strict=True):
        train(setup, callbacks=[recorder])
    assert_same_weights(weights(scaled.model), weights(plain.model), within=1e-7)
    for found, expected in zip(recorders[1].logs, recorders[0].logs, strict=True):
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)


def test_a_step_whose_scaled_gradient_overflows_is_left_out(tmp_path: Path) -> None:
    class Updates(Recorder):
        def on_update(self, state: TrainingState) -> None:
            self.events.append("update")

    class Louder(Loss):
        def sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return 16 * super().sum(logits, labels)

    setup = make_setup(tmp_path, steps=10, loss=Louder("single_label_classification"))
    setup = with_scaler(setup, 2.0**127)
    before, recorder = weights(setup.model), Updates()
    train(setup, callbacks=[recorder])
    norms = [record["grad_norm"] for record in recorder.logs]
    skipped = norms.count(None)
    assert 0 < skipped < 10 and norms[-1] is not None
    assert recorder.events.count("update") == 10 - skipped
    assert all(np.isfinite(record["loss"]) for record in recorder.logs)
    assert setup.scaler is not None and setup.scaler.get_scale() == 2.0 ** (127 - skipped)
    assert any(not torch.equal(value, before[name]) for name, value in weights(setup.model).items())
