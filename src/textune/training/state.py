"""Where training stands: plain values, written to and read from a checkpoint's state.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from textune.errors import CheckpointError
from textune.files import misfits

_OF_THE_MOMENT = {"requests", "loss"}
"""What of the state is no part of a checkpoint."""


@dataclass
class Requests:
    """What a callback asks of the loop; the loop takes a request back when it has done it.

    Attributes:
        log: log the loss now.
        evaluate: evaluate now.
        save: commit a checkpoint now.
        end_epoch: go on with the next epoch.
        interrupt: stop after this step, so that training can go on later: the number of the signal that asks for it; 0
            for none. Unlike at an end nothing is evaluated.
    """

    log: bool = False
    evaluate: bool = False
    save: bool = False
    end_epoch: bool = False
    interrupt: int = 0


@dataclass
class TrainingState:
    """Progress of one training.

    Attributes:
        total_steps: updates of the weights in the whole training.
        step: updates done.
        epoch: passes over the training rows that are complete.
        step_in_epoch: updates done in the current pass.
        epoch_over: no more steps belong to it: a callback ended it, or there were no more rows.
        epoch_end_told: the callbacks have heard of its end, and what they asked for then is done or `evaluation_due`.
        examples: training rows seen, repeats counted.
        tokens: real (not padding) tokens seen.
        seconds: time spent in training steps, without evaluation and saving.
        best_value: the chosen metric at its best so far; None before the first evaluation.
        best_step: the step of that evaluation.
        evaluations_without_improvement: since then.
        stop_reason: set by whoever wants training to end before its length; None otherwise.
        skipped_steps: updates left out because loss or gradient were not finite; counted in `step` all the same.
        micro_batch_size: rows that the largest pass has had since memory ran out; None as long as it has not.
        window_loss: losses of the rows since the last log, added up.
        window_rows: how many these are.
        window_seconds: time spent in their steps.
        grad_norm: of the last update that was not left out, before clipping; None before the first, and where the
            gradient overflowed in fp16.
        learning_rate: of that update.
        evaluation_due: an evaluation of this step was left out, because training was interrupted; it comes first when
            training goes on.
        checkpoint_seconds: time that saving kept training waiting.
        loss_scale: where fp16's scale of losses stands, as torch's GradScaler has it; None without one.
        requests: what callbacks ask for at this moment; no part of a checkpoint.
        loss: mean loss of the last step; None before the first. No part of a checkpoint.
    """

    total_steps: int
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    epoch_over: bool = False
    epoch_end_told: bool = False
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    stop_reason: str | None = None
    skipped_steps: int = 0
    micro_batch_size: int | None = None
    window_loss: float = 0.0
    window_rows: int = 0
    window_seconds: float = 0.0
    grad_norm: float | None = None
    learning_rate: float | None = None
    evaluation_due: bool = False
    checkpoint_seconds: float = 0.0
    loss_scale: dict[str, Any] | None = None
    requests: Requests = field(default_factory=Requests)
    loss: float | None = None

    def note_evaluation(self, value: float | None, *, higher_is_better: bool, min_improvement: float) -> bool:
        """Takes an evaluation into account and returns whether it is the best so far. An undefined one never is."""
        if value is not None:
            gain = None if self.best_value is None else (value - self.best_value) * (1 if higher_is_better else -1)
            if gain is None or gain > min_improvement:
                self.best_value, self.best_step = value, self.step
                self.evaluations_without_improvement = 0
                return True
        self.evaluations_without_improvement += 1
        return False

    def forget_best(self) -> None:
        """Lets the next evaluation be the first: those before cannot be compared with it."""
        self.best_value = self.best_step = None
        self.evaluations_without_improvement = 0

    def note_update(self, *, loss: float, grad_norm: float, learning_rate: float, rows: int, seconds: float) -> None:
        """Takes an update into what will be logged: `loss` is the mean over its rows."""
        # JSON has no infinity, which the norm is where a gradient in fp16 overflowed.
        self.grad_norm = grad_norm if math.isfinite(grad_norm) else None
        self.loss, self.learning_rate = loss, learning_rate
        self.window_loss += loss * rows
        self.window_rows += rows
        self.window_seconds += seconds

    def close_window(self) -> dict[str, Any]:
        """What there is to log since the last log, and begins anew."""
        found = {
            "loss": self.window_loss / self.window_rows,
            "samples_per_second": self.window_rows / self.window_seconds,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
        }
        self.window_loss, self.window_rows, self.window_seconds = 0.0, 0, 0.0
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingState:
        """What `as_json` gave.

        Raises:
            CheckpointError: it was another textune's, or has been forged.
        """
        known = {field.name for field in fields(cls)} - _OF_THE_MOMENT
        if odd := sorted(known ^ values.keys()):
            raise CheckpointError(
                f"The checkpoint was written by another textune: {odd[0]!r} in its state.json is not the same here.",
                hint="Go on with the textune that wrote it; environment.json in the run folder says which.",
            )
        if odd := misfits(cls, values, without=_OF_THE_MOMENT):
            raise CheckpointError(
                f"The checkpoint's state.json is no training's: {odd[0]!r} is {values[odd[0]]!r:.60}.",
                hint="Go on from another checkpoint: --from step-N.",
            )
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_MOMENT}
