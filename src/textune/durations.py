"""Lengths of time in training, given in the unit that suits the person and converted to optimiser steps once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["steps", "epochs", "examples", "percent"]

_UNITS: dict[str, Unit] = {
    "step": "steps",
    "steps": "steps",
    "epoch": "epochs",
    "epochs": "epochs",
    "example": "examples",
    "examples": "examples",
    "percent": "percent",
    "%": "percent",
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+|%)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Duration:
    """A length of training: a non-negative number and its unit.

    `percent` is of the whole training; the others speak for themselves. One step is one update of the weights.
    """

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Reads "500steps", "1 epoch", "0.05epochs", "2000examples" or "10%".

        Raises:
            ValueError: `text` is none of these; the message shows how they are written.
        """
        match = _PATTERN.fullmatch(text)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f'expected a number with its unit, as "500steps", "1epoch" or "10%", found {text!r}')
        value = float(match[1])
        if unit == "percent" and value > 100:
            raise ValueError(f"expected at most 100%, found {text!r}")
        return cls(value, unit)

    def __str__(self) -> str:
        return f"{self.value:g}{'%' if self.unit == 'percent' else self.unit}"

    def in_steps(self, *, steps_per_epoch: int, batch_size: int, total_steps: int | None = None) -> int:
        """Converts to whole steps, rounded down (examples and total lengths up, so that none is left out).

        Args:
            steps_per_epoch: optimiser steps in one pass over the training rows.
            batch_size: training rows in one optimiser step.
            total_steps: steps in the whole training; needed for `percent` alone.
        """
        if self.unit == "steps":
            return math.floor(self.value)
        if self.unit == "epochs":
            return math.floor(self.value * steps_per_epoch)
        if self.unit == "examples":
            return math.ceil(self.value / batch_size)
        assert total_steps is not None, "a percentage needs the total to refer to"
        return math.floor(self.value / 100 * total_steps)

    def as_interval(self, *, steps_per_epoch: int, batch_size: int, total_steps: int) -> int:
        """Converts to a number of steps between two events: at least one."""
        return max(1, self.in_steps(steps_per_epoch=steps_per_epoch, batch_size=batch_size, total_steps=total_steps))
