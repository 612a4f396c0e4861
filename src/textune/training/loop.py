"""THE loop: `train()` reads from top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from textune.errors import Interrupted, TrainingError
from textune.memory import free_memory
from textune.seeds import derive_seed
from textune.training.callbacks import Callback
from textune.training.optimizer import clip_gradients, set_learning_rate
from textune.training.precision import overflowed
from textune.training.recovery import ShortOfMemoryError, back_off, not_finite, share_of_loss, whole_update
from textune.training.saving import Saver
from textune.training.setup import Intervals, Setup
from textune.training.state import TrainingState
from textune.training.work import Step


def train(setup: Setup, *, callbacks: Sequence[Callback] = (), state: TrainingState | None = None) -> TrainingState:
    """Trains until the last step or until someone sets `state.stop_reason`.

    Each callback hears of steps, logs, evaluations and checkpoints. A log record holds `step`, `epoch`, `loss` (mean
    per example since the last log), `samples_per_second`, `grad_norm` (of the step, before clipping; None where the
    gradient overflowed in fp16) and `learning_rate`.

    Of several processes each calls this, with a setup that differs in nothing but the process, its weights included;
    callbacks are told in each of them, and what one of them asks for is done by all.

    Args:
        state: where training stands; None for the beginning of one as long as the schedule.

    Raises:
        TrainingError: the loss or the gradient of a batch is not finite, or one row alone finds no memory; the weights
            are those of the step before. Or an epoch has no batch.
        OutputError, StorageError: a checkpoint cannot be written.
        Interrupted: a callback asked for it; the last step is committed and training can go on from it.
    """
    if state is None:
        assert setup.schedule is not None, "the schedule or the state says how long training is"
        state = TrainingState(total_steps=setup.schedule.total_steps)
    if setup.scaler is not None and state.loss_scale is not None:
        setup.scaler.load_state_dict(state.loss_scale)
    for callback in callbacks:
        callback.on_train_begin(state)
    setup.processes.agree(state)
    with Saver(setup, callbacks) as saver:
        if state.evaluation_due:
            state.evaluation_due, state.requests.evaluate = False, True
            _report(setup, state, saver, intervals=setup.intervals)
        _train_epochs(setup, state, saver)
        saver.tell(state, wait=True)
    setup.work.settle()
    for callback in callbacks:
        callback.on_train_end(state)
    return state


def _train_epochs(setup: Setup, state: TrainingState, saver: Saver) -> None:
    """From where the state stands to the end of training."""
    callbacks = saver.callbacks
    if state.epoch_end_told:
        _leave_epoch(setup, state)
    # An epoch's end may be all that a checkpoint of its last step has left.
    while not _finished(state) or (state.step_in_epoch and not state.epoch_end_told):
        for callback in callbacks:
            callback.on_epoch_begin(state)
        start = (state.step, state.step_in_epoch)
        to_come = not (_finished(state) or state.epoch_over)
        for step in setup.work.steps(state.epoch, start=state.step_in_epoch) if to_come else ():
            for callback in callbacks:
                callback.on_step_begin(state)
            began = time.perf_counter()
            update = training_step(setup, state, step, callbacks=callbacks)
            state.step += 1
            state.step_in_epoch += 1
            state.examples += step.num_rows
            state.tokens += step.num_tokens
            seconds = time.perf_counter() - began
            state.seconds += seconds
            if not update.skipped:
                state.note_update(
                    loss=update.loss,
                    grad_norm=update.grad_norm,
                    learning_rate=update.learning_rate,
                    rows=step.num_rows,
                    seconds=seconds,
                )
            for callback in callbacks:
                callback.on_step(state)
            _report(setup, state, saver, intervals=setup.intervals)
            if _finished(state) or state.requests.end_epoch:
                break
        else:
            _require_steps(state, start)
            state.epoch_over |= to_come
        state.epoch_over |= state.requests.end_epoch
        state.epoch_end_told = True
        for callback in callbacks:
            callback.on_epoch_end(state)
        _report(setup, state, saver, intervals=None)
        _leave_epoch(setup, state)
        state.requests.end_epoch = False


def _leave_epoch(setup: Setup, state: TrainingState) -> None:
    """Goes to the next epoch behind the end of one; stays where training ended amid it, and goes on there if it may."""
    if state.epoch_over or state.step_in_epoch >= setup.work.steps_per_epoch:
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        state.epoch_over = state.epoch_end_told = False
    elif not _finished(state):
        state.epoch_end_told = False


@dataclass(frozen=True)
class Update:
    """One update: mean loss of the step, norm of its gradient before clipping, learning rate.

    With fp16 the norm may be infinite: the gradient overflowed, and the weights stayed as they were.

    Attributes:
        skipped: loss or norm are not finite, and the update was left out.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    skipped: bool = False


def training_step(setup: Setup, state: TrainingState, step: Step, *, callbacks: Sequence[Callback] = ()) -> Update:
    """Updates the weights once, or leaves the update out where that is allowed.

    Where memory runs out, the step is tried again from its beginning with passes of half as many rows, which later
    steps keep: it ends with the bits of a training that began with such passes.

    Raises:
        TrainingError: loss or gradient are not finite, or one row alone finds no memory. The weights are untouched.
    """
    while True:
        try:
            return _try_step(setup, state, setup.work.cut(step, state.micro_batch_size), callbacks)
        except ShortOfMemoryError as error:
            if not setup.smaller_passes:
                raise error.__cause__ or TrainingError("Memory ran out in another process.") from None
            phase, said = error.phase, error.said
        # Behind the clause: until its end the error holds all that lay in memory.
        setup.optimizer.zero_grad(set_to_none=True)
        setup.work.drop_gradients()
        free_memory()
        back_off(setup.work, state, step, said=said)
        record = {**_place(setup, state), "phase": phase, "micro_batch_size": state.micro_batch_size}
        for callback in callbacks:
            callback.on_out_of_memory(state, record)


def _try_step(setup: Setup, state: TrainingState, step: Step, callbacks: Sequence[Callback]) -> Update:
    """See `training_step`.

    Raises:
        ShortOfMemoryError: no weight has changed; gradients may be left.
    """
    import torch

    if setup.schedule is not None:
        learning_rate = setup.learning_rate * setup.schedule.factor(state.step)
        set_learning_rate(setup.optimizer, learning_rate)
    else:
        learning_rate = float(setup.optimizer.param_groups[0]["lr"])
    # The step's own stream makes its dropout a pure function of seed and step: nothing to save for a resume.
    torch.manual_seed(derive_seed(setup.seed, setup.processes.stream(f"dropout-{state.step}")))
    setup.model.train()
    share = share_of_loss(setup.work, step, setup.processes)
    trained = [parameter for group in setup.optimizer.param_groups for parameter in group["params"]]
    can_retry = setup.processes.world_size == 1 and setup.scaler is None
    with whole_update(setup.optimizer, can_retry=can_retry):
        mean_loss = setup.processes.sum_gradients(trained, share)
        if setup.scaler is not None:
            setup.scaler.unscale_(setup.optimizer)
        grad_norm = clip_gradients(setup.optimizer, max_norm=setup.max_grad_norm)
    overflow = setup.scaler is not None and overflowed(setup.scaler)
    state.loss_scale = None if setup.scaler is None else setup.scaler.state_dict()
    reason = None if overflow and math.isfinite(mean_loss) else not_finite(mean_loss, grad_norm)
    if reason is not None:
        _leave_out(setup, state, step, reason, callbacks)
    elif not overflow:
        for callback in callbacks:
            callback.on_gradient(state)
        with whole_update(setup.optimizer, can_retry=can_retry):
            setup.optimizer.step()
        for callback in callbacks:
            callback.on_update(state)
    setup.optimizer.zero_grad(set_to_none=True)
    return Update(mean_loss, grad_norm, learning_rate, skipped=reason is not None)


def _leave_out(setup: Setup, state: TrainingState, step: Step, reason: str, callbacks: Sequence[Callback]) -> None:
    """Counts and tells that a step is left out, for a reason that all processes have in common.

    Raises:
        TrainingError: no more may be left out. The main process names the rows.
    """
    if state.skipped_steps < setup.skip_bad_steps:
        state.skipped_steps += 1
        record = {**_place(setup, state), "reason": reason, **setup.work.rows_of(step)}
        for callback in callbacks:
            callback.on_skip(state, record)
        return
    setup.optimizer.zero_grad(set_to_none=True)
    start = f"Step {state.step + 1} gave a {reason}; it was not applied, the weights are those of step {state.step}."
    if state.skipped_steps:
        start += f" {state.skipped_steps} bad steps were left out before, and --skip-bad-steps allows no more."
    if not setup.processes.is_main:
        raise TrainingError(f"{start} Process 0 names its rows.")
    raise TrainingError(
        f"{start} The batch held {setup.work.name_rows(step)}.",
        hint="Look at these rows; a lower --learning-rate, --warmup 10% or --precision fp32 often helps. "
        "--skip-bad-steps 5 leaves out up to five such steps.",
    )


def _place(setup: Setup, state: TrainingState) -> dict[str, Any]:
    """The running step and the place behind it, as records have them."""
    epoch = state.epoch + (state.step_in_epoch + 1) / setup.work.steps_per_epoch
    return {"step": state.step + 1, "epoch": round(epoch, 4)}


def _report(setup: Setup, state: TrainingState, saver: Saver, *, intervals: Intervals | None) -> None:
    """Logs, evaluates and saves what is due: asked for by a callback, or at the end of its interval.

    With intervals, the last step is logged, evaluated and saved, also if it came early. Processes agree whenever
    callbacks may have had wishes, so that all do the same.

    Raises:
        Interrupted: that was asked for; the step is committed, and whether its evaluation is still due.
    """

    def due(request: str, interval: int | None) -> bool:
        asked: bool = getattr(state.requests, request)
        setattr(state.requests, request, False)
        at_end = interval is not None and state.step % interval == 0
        return asked or (intervals is not None and (_finished(state) or at_end))

    every = intervals or Intervals(1, 1, 1)
    state.requests.save |= intervals is not None and saver.is_due_by_clock()
    setup.processes.agree(state)
    saver.tell(state)
    if due("log", every.log):
        _log(setup, state, saver.callbacks)
    evaluate = due("evaluate", every.evaluation)
    if evaluate and not state.requests.interrupt:
        try:
            improved = _evaluate(setup, state, saver.callbacks)
        except Interrupted as interruption:
            state.requests.interrupt = interruption.signal_number
        else:
            evaluate = False
            state.requests.save |= improved  # a callback may have asked for it meanwhile
            setup.processes.agree(state)
            if intervals is not None and _finished(state):  # the evaluation may have ended training
                _log(setup, state, saver.callbacks)
    state.epoch_over |= state.requests.end_epoch
    if state.requests.interrupt:
        _interrupt(state, saver, evaluation_due=evaluate)
    if due("save", every.checkpoint):
        saver.save(state)


def _log(setup: Setup, state: TrainingState, callbacks: Sequence[Callback]) -> None:
    """Logs the steps since the last log, if there are any."""
    if not state.window_rows:
        return
    record = {"step": state.step, "epoch": _position(setup, state), **state.close_window()}
    for callback in callbacks:
        callback.on_log(state, record)
    setup.processes.agree(state)


def _interrupt(state: TrainingState, saver: Saver, *, evaluation_due: bool) -> NoReturn:
    """Commits the step and ends training so that it can go on later as if nothing had been."""
    number, state.requests.interrupt = state.requests.interrupt, 0
    state.evaluation_due = evaluation_due
    saver.save(state)
    saver.tell(state, wait=True)
    raise Interrupted(
        f"{signal.Signals(number).name}: training stopped after step {state.step} of {state.total_steps}; "
        "its checkpoint is committed.",
        signal_number=number,
    )


def _evaluate(setup: Setup, state: TrainingState, callbacks: Sequence[Callback]) -> bool:
    """Evaluates, tells the callbacks and returns whether it is the best so far and to be kept."""
    if setup.evaluate is None:
        return False
    setup.work.settle()
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
