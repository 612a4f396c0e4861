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
from textune.training.checkpoint import STEP_FOLDERS, CheckpointFolders, remove_old, save_checkpoint
from textune.training.optimizer import set_learning_rate
from textune.training.schedule import Schedule
from textune.training.state import TrainingState
from textune.training.work import Step, Work

if TYPE_CHECKING:
    import torch


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
    """Everything training needs, made beforehand.

    Attributes:
        schedule: None where a callback sets the optimiser's learning rates after each update.
        intervals: None where callbacks ask for logs, evaluations and checkpoints.
        selection: None where `evaluate` itself notes which evaluation is the best.
        evaluate: None where nothing is evaluated.
        keep_checkpoints: how many of the last checkpoints stay besides the best; None for all.
        folders: how checkpoints are called, and what lies in them besides weights, moments and state.
    """

    model: torch.nn.Module
    work: Work
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    learning_rate: float
    max_grad_norm: float
    seed: int
    intervals: Intervals | None
    selection: Selection | None
    evaluate: Callable[[], dict[str, Any]] | None
    checkpoints: Path
    keep_checkpoints: int | None
    folders: CheckpointFolders = STEP_FOLDERS


def train(setup: Setup, *, callbacks: Sequence[Callback] = (), state: TrainingState | None = None) -> TrainingState:
    """Trains until the last step or until someone sets `state.stop_reason`.

    Each callback hears of steps, logs, evaluations and checkpoints. A log record holds `step`, `epoch`, `loss` (mean
    per example since the last log), `samples_per_second`, `grad_norm` (before clipping) and `learning_rate`.

    Args:
        state: where training stands; None for the beginning of one as long as the schedule.

    Raises:
        TrainingError: the loss or the gradient of a batch is not finite; the weights are those of the step before. Or
            an epoch has no batch.
        OutputError, StorageError: a checkpoint cannot be written.
    """
    if state is None:
        assert setup.schedule is not None, "the schedule or the state says how long training is"
        state = TrainingState(total_steps=setup.schedule.total_steps)
    window = _Window()
    for callback in callbacks:
        callback.on_train_begin(state)
    while not _finished(state):
        for callback in callbacks:
            callback.on_epoch_begin(state)
        start = (state.step, state.step_in_epoch)
        for step in setup.work.steps(state.epoch, start=state.step_in_epoch):
            for callback in callbacks:
                callback.on_step_begin(state)
            began = time.perf_counter()
            update = training_step(setup, state, step, callbacks=callbacks)
            state.step += 1
            state.step_in_epoch += 1
            state.examples += step.num_rows
            state.tokens += step.num_tokens
            state.loss = update.loss
            seconds = time.perf_counter() - began
            state.seconds += seconds
            window.add(update, step.num_rows, seconds)
            for callback in callbacks:
                callback.on_step(state)
            _report(setup, state, window, callbacks, intervals=setup.intervals)
            if _finished(state) or state.requests.end_epoch:
                break
        else:
            _require_steps(state, start)
        for callback in callbacks:
            callback.on_epoch_end(state)
        _report(setup, state, window, callbacks, intervals=None)
        if not _finished(state) or state.step_in_epoch == setup.work.steps_per_epoch:
            state.epoch, state.step_in_epoch = state.epoch + 1, 0
        state.requests.end_epoch = False
    for callback in callbacks:
        callback.on_train_end(state)
    return state


@dataclass(frozen=True)
class Update:
    """One update: mean loss of the step, norm of its gradient before clipping, learning rate."""

    loss: float
    grad_norm: float
    learning_rate: float


def training_step(setup: Setup, state: TrainingState, step: Step, *, callbacks: Sequence[Callback] = ()) -> Update:
    """Updates the weights once.

    Raises:
        TrainingError: loss or gradient are not finite. The weights are untouched.
    """
    import torch

    if setup.schedule is not None:
        learning_rate = setup.learning_rate * setup.schedule.factor(state.step)
        set_learning_rate(setup.optimizer, learning_rate)
    else:
        learning_rate = float(setup.optimizer.param_groups[0]["lr"])
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
    for callback in callbacks:
        callback.on_gradient(state)
    setup.optimizer.step()
    for callback in callbacks:
        callback.on_update(state)
    setup.optimizer.zero_grad(set_to_none=True)
    return Update(mean_loss, grad_norm, learning_rate)


def _report(
    setup: Setup,
    state: TrainingState,
    window: _Window,
    callbacks: Sequence[Callback],
    *,
    intervals: Intervals | None,
) -> None:
    """Logs, evaluates and saves what is due: asked for by a callback, or at the end of its interval.

    With intervals, the last step is logged, evaluated and saved, also if it came early.
    """

    def due(request: str, interval: int) -> bool:
        asked: bool = getattr(state.requests, request)
        setattr(state.requests, request, False)
        return asked or (intervals is not None and (_finished(state) or state.step % interval == 0))

    every = intervals or Intervals(1, 1, 1)
    if due("log", every.log) and window.rows:
        record = {"step": state.step, "epoch": _position(setup, state), **window.summary()}
        window.reset()
        for callback in callbacks:
            callback.on_log(state, record)
    improved = due("evaluate", every.evaluation) and _evaluate(setup, state, callbacks)
    if due("save", every.checkpoint) or improved:
        folder = save_checkpoint(setup.checkpoints, state, setup.model, setup.optimizer, folders=setup.folders)
        if setup.keep_checkpoints is not None:
            remove_old(setup.checkpoints, keep=setup.keep_checkpoints, best=state.best_step, folders=setup.folders)
        for callback in callbacks:
            callback.on_checkpoint(state, folder)


def _evaluate(setup: Setup, state: TrainingState, callbacks: Sequence[Callback]) -> bool:
    """Evaluates, tells the callbacks and returns whether it is the best so far and to be kept."""
    if setup.evaluate is None:
        return False
    setup.model.eval()
    metrics = setup.evaluate()
    selection = setup.selection
    if selection is None:
        return False
    improved = state.note_evaluation(
        metrics[selection.metric],
        higher_is_better=selection.higher_is_better,
        min_improvement=selection.min_improvement,
    )
    record = {"step": state.step, "epoch": _position(setup, state), **metrics, "best": improved}
    for callback in callbacks:
        callback.on_evaluate(state, record)
    return improved and selection.keep_best


def _finished(state: TrainingState) -> bool:
    return state.step >= state.total_steps or state.stop_reason is not None


def _position(setup: Setup, state: TrainingState) -> float:
    """Epochs done, as a fraction."""
    return round(state.epoch + state.step_in_epoch / setup.work.steps_per_epoch, 4)


def _require_steps(state: TrainingState, start: tuple[int, int]) -> None:
    """Without a single batch an epoch would go on for ever."""
    if (state.step, 0) == start:
        raise TrainingError(
            f"Epoch {state.epoch + 1} has no batch at all; there are {state.total_steps - state.step} steps to go.",
            hint="Training data that can be read once only, as a generator, need fewer steps or another pass of it.",
        )


class _Window:
    """Sums since the last log, and the last update."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.loss = 0.0
        self.rows = 0
        self.seconds = 0.0

    def add(self, update: Update, rows: int, seconds: float) -> None:
        self.loss += update.loss * rows
        self.rows += rows
        self.seconds += seconds
        self.last = update

    def summary(self) -> dict[str, float]:
        return {
            "loss": self.loss / self.rows,
            "samples_per_second": self.rows / self.seconds,
            "grad_norm": self.last.grad_norm,
            "learning_rate": self.last.learning_rate,
        }
