"""The learning rate as a pure function of the step, equal to `transformers.get_scheduler`'s."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A linear rise over `warmup_steps`, then `kind` down to zero at `total_steps`.

    Attributes:
        kind: "linear", "cosine" (half a period) or "constant".
        warmup_steps: steps of the rise.
        total_steps: steps of the whole training.
    """

    kind: str
    warmup_steps: int
    total_steps: int

    def factor(self, step: int) -> float:
        """What the highest learning rate is multiplied by for the update after `step` updates (0-based)."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        if self.kind == "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        return max(0.0, 1.0 - progress)
