"""What may watch training. Few events; a stop is asked for by setting `state.stop_reason`, not by raising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textune.training.state import TrainingState

Record = dict[str, Any]


class Callback:
    """Does nothing at each event; override those that matter."""

    def on_train_begin(self, state: TrainingState) -> None:
        """Once, before the first step."""

    def on_step(self, state: TrainingState) -> None:
        """After each update of the weights. Keep it quick."""

    def on_log(self, state: TrainingState, record: Record) -> None:
        """When loss and learning rate are logged: see `textune.training.loop` for the record's keys."""

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        """After an evaluation; `record` holds step, epoch, split and the metrics."""

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        """After a checkpoint has been committed."""

    def on_train_end(self, state: TrainingState) -> None:
        """Once, after the last step."""


class EarlyStopping(Callback):
    """Stops after `patience` evaluations in a row without a better one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        if state.evaluations_without_improvement >= self.patience:
            state.stop_reason = f"no better evaluation in {self.patience}"
