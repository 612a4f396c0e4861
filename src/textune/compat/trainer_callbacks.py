"""The engine's events as transformers' callbacks hear them, and their wishes as the engine's requests."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import set_seed
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import is_in_notebook

from textune.compat.trainer_checkpoints import note_best_checkpoint, require_storable
from textune.compat.trainer_courses import Course
from textune.compat.trainer_evaluation import metric_value
from textune.compat.trainer_facts import as_taken
from textune.errors import Interrupted, UnavailableError
from textune.seeds import derive_seed
from textune.training.callbacks import Callback, Record
from textune.training.signals import StopSignals
from textune.training.state import TrainingState

if TYPE_CHECKING:
    from textune.compat.arguments import TrainingArguments
    from textune.compat.trainer import Trainer

_logger = logging.getLogger(__name__)

_BY_METRIC = torch.optim.lr_scheduler.ReduceLROnPlateau


def progress_callback(args: TrainingArguments) -> Any:
    """The class of what shows how far training is: lines, a bar, or a notebook's table."""
    if args.disable_tqdm:
        return PrinterCallback
    if is_in_notebook():
        with contextlib.suppress(ImportError):  # marimo is one that may come without IPython
            from transformers.utils.notebook import NotebookProgressCallback

            return NotebookProgressCallback
    return ProgressCallback


def tracker_callbacks(args: TrainingArguments) -> list[Any]:
    """transformers' own callbacks for the trackers of `report_to`.

    Raises:
        UnavailableError: a tracker's package is not installed.
    """
    made = []
    for name in args.report_to or ():
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"report_to={name!r} needs the package {name}, which is not installed.",
                hint=f"pip install {name}, or leave report_to out.",
            )
        (callback,) = get_reporting_integration_callbacks([name])
        made.append(callback())
        if name == "tensorboard" and args.logging_dir is not None:
            made[-1].logging_dir = args.logging_dir
    return made


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[StopSignals]:
    """Inside the block a signal ends training behind a checkpoint, and the script with the signal's exit code.

    One that comes when no step is left has its usual effect behind the block.

    Raises:
        SystemExit: training was stopped; its code is 128 + the signal's number.
    """
    try:
        with StopSignals() as signals:
            yield signals
    except Interrupted as error:
        _logger.warning("%s train(resume_from_checkpoint=True) goes on from it.", error.message)
        raise SystemExit(error.exit_code) from None
    if signals.received:
        signal.raise_signal(signals.received)


class EventBridge(Callback):
    """Tells the Trainer's callbacks what happens and hands their `TrainerControl` to the engine.

    Args:
        batches_per_epoch: passes in an epoch; None where the data have no length.
        num_epochs: epochs in the whole training.
        ignore_keys: outputs of the model that are no predictions, in evaluations.

    Attributes:
        loss_since_log: losses of the steps since the last log, added up.
        last_logged_step: the step of that log.
        total_loss: losses of all steps of this call of `train`, added up.
        course: which one of the output folder's this training is.
    """

    def __init__(
        self, trainer: Trainer, *, batches_per_epoch: int, num_epochs: int, ignore_keys: list[str] | None
    ) -> None:
        self.trainer = trainer
        self.batches_per_epoch = batches_per_epoch
        self.num_epochs = num_epochs
        self.ignore_keys = ignore_keys
        self.loss_since_log = 0.0
        self.last_logged_step = 0
        self.total_loss = 0.0
        self.course = Course()
        self.begin = time.time()
        self._is_storable = False

    def on_train_begin(self, state: TrainingState) -> None:
        self.engine = state
        self._tell("on_train_begin")
        if self.trainer.args.eval_on_start:
            self.trainer.evaluate(ignore_keys=self.ignore_keys)
            self._hand_over()

    def on_epoch_begin(self, state: TrainingState) -> None:
        self._tell("on_epoch_begin")

    def on_step_begin(self, state: TrainingState) -> None:
        self._tell("on_step_begin")

    def on_gradient(self, state: TrainingState) -> None:
        self._tell("on_pre_optimizer_step")

    def on_update(self, state: TrainingState) -> None:
        if not self._is_storable:  # many optimisers have no state before their first update
            require_storable(self.trainer)
            self._is_storable = True
        self._tell("on_optimizer_step")
        if not isinstance(self.trainer.lr_scheduler, _BY_METRIC):
            self.trainer.lr_scheduler.step()

    def on_step(self, state: TrainingState) -> None:
        assert state.loss is not None
        trainer, args = self.trainer, self.trainer.args
        self.loss_since_log += state.loss
        self.total_loss += state.loss
        trainer.state.global_step = state.step
        done = min(state.step_in_epoch * args.gradient_accumulation_steps, self.batches_per_epoch)
        trainer.state.epoch = state.epoch + done / self.batches_per_epoch
        if args.include_num_input_tokens_seen != "no":
            trainer.state.num_input_tokens_seen = state.tokens
        trainer.count_operations(state.tokens)
        empty_every = args.torch_empty_cache_steps
        if empty_every is not None and state.step % empty_every == 0 and torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._tell("on_step_end")

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        _logger.warning(
            "Memory ran out %s of step %d: from now on %d rows in a pass, and more passes in a step.",
            record["phase"],
            record["step"],
            record["micro_batch_size"],
        )

    def on_log(self, state: TrainingState, record: Record) -> None:
        steps = state.step - self.last_logged_step
        logs = {
            "loss": self.loss_since_log / steps,
            "grad_norm": math.inf if record["grad_norm"] is None else record["grad_norm"],  # fp16 overflowed
            "learning_rate": record["learning_rate"],
        }
        self.loss_since_log, self.last_logged_step = 0.0, state.step
        self.trainer.log(*as_taken(self.trainer.log, logs, self.begin))
        self._hand_over()

    def evaluate(self) -> dict[str, Any]:
        """Evaluates and notes whether it is the best so far; the engine calls it."""
        trainer, args = self.trainer, self.trainer.args
        # For collators that draw: an evaluation that is made up for after a resume is the one that was due.
        set_seed(derive_seed(args.seed, f"evaluation-{self.engine.step}") % 2**32)
        metrics = trainer.evaluate(ignore_keys=self.ignore_keys)
        if args.metric_for_best_model is not None:
            value = metric_value(metrics, args.metric_for_best_model)
            if isinstance(trainer.lr_scheduler, _BY_METRIC):
                trainer.lr_scheduler.step(value)
            is_best = self._note_best(value)
            if args.save_strategy == "best":
                trainer.control.should_save = is_best
        self._hand_over()
        return metrics

    def _note_best(self, value: float) -> bool:
        state, args = self.trainer.state, self.trainer.args
        if state.best_metric is None or math.isnan(state.best_metric):
            state.best_metric = -math.inf if args.greater_is_better else math.inf
        if not (value > state.best_metric if args.greater_is_better else value < state.best_metric):  # as NaN is not
            return False
        state.best_metric = value
        if args.save_strategy != "no":
            state.best_global_step = state.global_step
        return True

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        note_best_checkpoint(self.trainer, self.course)  # only the main process wrote it
        self.trainer.remove_old_checkpoints()
        self._tell("on_save")

    def on_epoch_end(self, state: TrainingState) -> None:
        self._tell("on_epoch_end")
        self.end_behind_last_epoch(state)

    def end_behind_last_epoch(self, state: TrainingState) -> None:
        """Ends training at an epoch's end where no more are to come: with epochs cut short there are steps left."""
        if state.epoch + 1 >= self.num_epochs and state.stop_reason is None:
            state.stop_reason = "all epochs are done"

    def _tell(self, event: str) -> None:
        self.trainer.tell(event)
        self._hand_over()

    def _hand_over(self) -> None:
        control, requests = self.trainer.control, self.engine.requests
        requests.log, requests.evaluate = control.should_log, control.should_evaluate
        requests.save, requests.end_epoch = control.should_save, control.should_epoch_stop
        if control.should_training_stop and self.engine.stop_reason is None:
            self.engine.stop_reason = "a callback asked for it"
