"""Lengths of time in training, given in the unit that suits the person and converted to optimiser steps once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Unit = Literal["steps", "epochs", "examples", "percent", "seconds"]

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
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+|%)\s*", re.IGNORECASE)
_LARGEST = 10**15


@dataclass(frozen=True)
class Duration:
    """A length of training: a non-negative number and its unit.

    `percent` is of the whole training; the others speak for themselves. One step is one update of the weights. The
    number is exact, so that 29% of 100 steps are 29 and not, as in floating point, a little less.

    `seconds` are those of a clock, for what does not alter the result: how many steps they are, nobody knows before.
    """

    value: Fraction
    unit: Unit

    @classmethod
    def parse(cls, text: str, *, by_clock: bool = False) -> Duration:
        """Reads "500steps", "1 epoch", "0.05epochs", "2000examples" or "10%".

        Args:
            by_clock: whether "30s", "10min" and "2h" are read too.

        Raises:
            ValueError: `text` is none of these; the message shows how they are written.
        """
        match = _PATTERN.fullmatch(text)
        name = match[2].lower() if match else ""
        if match is not None and name in _SECONDS:
            if not by_clock:
                raise ValueError(
                    f'expected steps, epochs, examples or percent, as "500steps" or "10%", found {text!r}: a time by '
                    "the clock is taken by checkpoint.every alone, because elsewhere it would alter the result"
                )
            return cls._checked(Fraction(match[1]) * _SECONDS[name], "seconds", text)
        unit = _UNITS.get(name)
        if match is None or unit is None:
            clock = ', "10min"' if by_clock else ""
            raise ValueError(
                f'expected a number with its unit, as "500steps", "1epoch"{clock} or "10%", found {text!r}'
            )
        return cls._checked(Fraction(match[1]), unit, text)

    @classmethod
    def _checked(cls, value: Fraction, unit: Unit, text: str) -> Duration:
        if unit == "percent" and value > 100:
            raise ValueError(f"expected at most 100%, found {text!r}")
        if value > _LARGEST:
            raise ValueError(f"expected at most 10^15 {unit}, found {text!r}")
        return cls(value, unit)

    def in_steps(self, *, steps_per_epoch: int, batch_size: int | Fraction, total_steps: int | None = None) -> int:
        """Converts a length to whole steps, rounded up as the reference workflow does.

        Args:
            steps_per_epoch: optimiser steps in one pass over the training rows.
            batch_size: training rows in one optimiser step; their mean where steps differ.
            total_steps: steps in the whole training; needed for `percent` alone.
        """
        return math.ceil(self._exactly(steps_per_epoch, batch_size, total_steps))

    def as_interval(self, *, steps_per_epoch: int, batch_size: int | Fraction, total_steps: int) -> int:
        """Converts to a number of steps between two events: rounded down, so that they are not too few; at least 1."""
        return max(1, math.floor(self._exactly(steps_per_epoch, batch_size, total_steps)))

    def _exactly(self, steps_per_epoch: int, batch_size: int | Fraction, total_steps: int | None) -> Fraction:
        if self.unit == "steps":
            return self.value
        if self.unit == "epochs":
            return self.value * steps_per_epoch
        if self.unit == "examples":
            return self.value / batch_size
        assert self.unit == "percent", "seconds are never converted"
        assert total_steps is not None, "a percentage needs the total to refer to"
        return self.value / 100 * total_steps
