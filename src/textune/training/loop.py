"""THE loop: `train()` reads from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.errors import TrainingError
from textune.seeds import derive_seed
from textune.training.callbacks import Callback
from textune.training.checkpoint import remove_old, save_checkpoint
from textune.training.optimizer import set_learning_rate
from textune.training.schedule import Schedule
from textune.training.state import TrainingState
from textune.training.work import Step, Work

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Selection:
    """Which evaluation counts as the best: by which metric, and how much better it must be."""

    metric: str
    higher_is_better: bool
    min_improvement: float
    keep_best: bool


@dataclass(frozen=True)
class Intervals:
    """Steps between two logs, evaluations and checkpoints."""

    log: int
    evaluation: int
    checkpoint: int


@dataclass(frozen=True)
class Setup:
    """Everything training needs, made beforehand."""

    model: PreTrainedModel
    work: Work
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    learning_rate: float
    max_grad_norm: float
    seed: int
    intervals: Intervals
    selection: Selection
    evaluate: Callable[[], dict[str, Any]]
    checkpoints: Path
    keep_checkpoints: int


def train(setup: Setup, *, callbacks: Sequence[Callback] = ()) -> TrainingState:
    """Trains until the schedule's last step or until someone sets `state.stop_reason`.

    Each callback hears of steps, logs, evaluations and checkpoints. A log record holds `step`, `epoch`, `loss` (mean
    per example since the last log), `grad_norm` (before clipping), `learning_rate` and `samples_per_second`.

    Raises:
        TrainingError: the loss or the gradient of a batch is not finite; the weights are those of the step before.
        OutputError, StorageError: a checkpoint cannot be written.
    """
    state = TrainingState(total_steps=setup.schedule.total_steps)
    window = _Window()
    for callback in callbacks:
        callback.on_train_begin(state)
    while not _finished(state):
        for step in setup.work.steps(state.epoch, start=state.step_in_epoch):
            began = time.perf_counter()
            learning_rate = setup.learning_rate * setup.schedule.factor(state.step)
            set_learning_rate(setup.optimizer, learning_rate)
            loss, grad_norm = training_step(setup, state, step)
            state.step += 1
            state.step_in_epoch += 1
            state.examples += step.num_rows
            state.tokens += step.num_tokens
            window.add(loss, step.num_rows, time.perf_counter() - began)
            state.seconds += time.perf_counter() - began
            for callback in callbacks:
                callback.on_step(state)

            # The last step is logged, evaluated and saved, also if it came early.
            if _finished(state) or state.step % setup.intervals.log == 0:
                record = {"step": state.step, "epoch": _position(setup, state), **window.summary()}
                record |= {"grad_norm": grad_norm, "learning_rate": learning_rate}
                window = _Window()
                for callback in callbacks:
                    callback.on_log(state, record)
            save = state.step % setup.intervals.checkpoint == 0
            if _finished(state) or state.step % setup.intervals.evaluation == 0:
                save |= _evaluate(setup, state, callbacks) and setup.selection.keep_best
            if save or _finished(state):
                folder = save_checkpoint(setup.checkpoints, state, setup.model, setup.optimizer)
                remove_old(setup.checkpoints, keep=setup.keep_checkpoints, best=state.best_step)
                for callback in callbacks:
                    callback.on_checkpoint(state, folder)
            if _finished(state):
                break
        if state.step_in_epoch == setup.work.steps_per_epoch:
            state.epoch, state.step_in_epoch = state.epoch + 1, 0
    for callback in callbacks:
        callback.on_train_end(state)
    return state


def training_step(setup: Setup, state: TrainingState, step: Step) -> tuple[float, float]:
    """Updates the weights once.

    Returns:
        The mean loss of the step and the norm of its gradient before clipping.

    Raises:
        TrainingError: one of them is not finite. The weights are untouched.
    """
    import torch

    # The step's own stream makes its dropout a pure function of seed and step: nothing to save for a resume.
    torch.manual_seed(derive_seed(setup.seed, f"dropout-{state.step}"))
    setup.model.train()
    mean_loss = setup.work.accumulate(step)
    trained = [parameter for group in setup.optimizer.param_groups for parameter in group["params"]]
    grad_norm = float(torch.nn.utils.clip_grad_norm_(trained, setup.max_grad_norm or math.inf))
    if not (math.isfinite(mean_loss) and math.isfinite(grad_norm)):
        setup.optimizer.zero_grad(set_to_none=True)
        what = f"loss {mean_loss}" if not math.isfinite(mean_loss) else f"gradient norm {grad_norm}"
        raise TrainingError(
            f"Step {state.step + 1} gave a {what}; it was not applied, the weights are those of step {state.step}. "
            f"The batch held {setup.work.name_rows(step)}.",
            hint="Look at these rows; a lower --learning-rate, --warmup 10% or --precision fp32 often helps.",
        )
    setup.optimizer.step()
    setup.optimizer.zero_grad(set_to_none=True)
    return mean_loss, grad_norm


def _evaluate(setup: Setup, state: TrainingState, callbacks: Sequence[Callback]) -> bool:
    """Evaluates, tells the callbacks and returns whether it is the best so far."""
    setup.model.eval()
    metrics = setup.evaluate()
    selection = setup.selection
    improved = state.note_evaluation(
        metrics[selection.metric],
        higher_is_better=selection.higher_is_better,
        min_improvement=selection.min_improvement,
    )
    record = {"step": state.step, "epoch": _position(setup, state), **metrics, "best": improved}
    for callback in callbacks:
        callback.on_evaluate(state, record)
    return improved


def _finished(state: TrainingState) -> bool:
    return state.step >= state.total_steps or state.stop_reason is not None


def _position(setup: Setup, state: TrainingState) -> float:
    """Epochs done, as a fraction."""
    return round(state.epoch + state.step_in_epoch / setup.work.steps_per_epoch, 4)


class _Window:
    """Sums since the last log."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.rows = 0
        self.seconds = 0.0

    def add(self, loss: float, rows: int, seconds: float) -> None:
        self.loss += loss * rows
        self.rows += rows
        self.seconds += seconds

    def summary(self) -> dict[str, float]:
        return {"loss": self.loss / self.rows, "samples_per_second": self.rows / self.seconds}
