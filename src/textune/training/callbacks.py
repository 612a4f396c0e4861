"""What may watch training. A stop is asked for by setting `state.stop_reason`, not by raising; a log, an evaluation, a
checkpoint or the end of the epoch by setting `state.requests`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textune.training.state import TrainingState

Record = dict[str, Any]


class Callback:
    """Does nothing at each event; override those that matter."""

    def on_train_begin(self, state: TrainingState) -> None:
        """Once, before the first step."""

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Before the first step of an epoch, also where a resumed one goes on."""

    def on_step_begin(self, state: TrainingState) -> None:
        """Before the passes of a step."""

    def on_gradient(self, state: TrainingState) -> None:
        """When the gradient is there, finite, and the weights are not yet updated.

        The update clips as it reads it (`textune.training.optimizer.clip_gradients`): `.grad` may be unclipped.
        """

    def on_update(self, state: TrainingState) -> None:
        """When the weights are updated and the gradient is still there."""

    def on_skip(self, state: TrainingState, record: Record) -> None:
        """When a step is left out, because its loss or gradient is not finite.

        `record` holds step, epoch, the reason in words, and the `ids` and `row_numbers` of its rows.
        """

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        """When a step that found no memory is about to be tried again in smaller passes.

        `record` holds step, epoch, the phase in words, and `micro_batch_size`, now the rows of the largest pass.
        """

    def on_step(self, state: TrainingState) -> None:
        """After each step, whether it has updated the weights or left that out. Keep it quick."""

    def on_log(self, state: TrainingState, record: Record) -> None:
        """When loss and learning rate are logged: see `textune.training.loop` for the record's keys."""

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        """After an evaluation; `record` holds step, epoch, split and the metrics."""

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        """After a checkpoint has been committed."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """After the last step of an epoch, also of one that was cut short."""

    def on_train_end(self, state: TrainingState) -> None:
        """Once, after the last step."""


class EarlyStopping(Callback):
    """Stops after `patience` evaluations in a row without a better one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        if state.evaluations_without_improvement >= self.patience:
            state.stop_reason = f"no better evaluation in {self.patience}"
