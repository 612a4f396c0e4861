"""Where training stands: plain values, written to and read from a checkpoint's state.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Requests:
    """What a callback asks of the loop; the loop takes a request back when it has done it.

    Attributes:
        log: log the loss now.
        evaluate: evaluate now.
        save: commit a checkpoint now.
        end_epoch: go on with the next epoch.
    """

    log: bool = False
    evaluate: bool = False
    save: bool = False
    end_epoch: bool = False


@dataclass
class TrainingState:
    """Progress of one training.

    Attributes:
        total_steps: updates of the weights in the whole training.
        step: updates done.
        epoch: passes over the training rows that are complete.
        step_in_epoch: updates done in the current pass.
        examples: training rows seen, repeats counted.
        tokens: real (not padding) tokens seen.
        seconds: time spent in training steps, without evaluation and saving.
        best_value: the chosen metric at its best so far; None before the first evaluation.
        best_step: the step of that evaluation.
        evaluations_without_improvement: since then.
        stop_reason: set by whoever wants training to end before its length; None otherwise.
        requests: what callbacks ask for at this moment; no part of a checkpoint.
        loss: mean loss of the last step; None before the first. No part of a checkpoint.
    """

    total_steps: int
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    stop_reason: str | None = None
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

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: value for name, value in asdict(self).items() if name not in {"requests", "loss"}}
