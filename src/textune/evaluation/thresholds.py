"""From which score on a label is given: the curve of precision and recall, and the threshold that meets a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.errors import ConfigError
from textune.evaluation.predictions import FloatArray
from textune.evaluation.sums import ratio

# Of a label's stored curve.
MAX_POINTS = 1000


@dataclass(frozen=True)
class ThresholdCurve:
    """What each threshold would give: a row is positive where its score is at least the threshold.

    Attributes:
        thresholds: rising, [num_points].
        precision, recall, f1: at each of them, [num_points].
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray

    def frontier(self) -> ThresholdCurve:
        """The points that no other beats in both precision and recall, at most `MAX_POINTS` of them.

        Every target's best threshold is among them, unless they had to be thinned.
        """
        best_below = np.maximum.accumulate(np.concatenate([[-1.0], self.precision[:-1]]))
        places = np.flatnonzero(self.precision > best_below)
        places = places[np.diff(self.recall[places], append=-1.0) != 0]
        if len(places) > MAX_POINTS:
            best = places[np.argmax(self.f1[places])]
            places = np.union1d(places[np.linspace(0, len(places) - 1, MAX_POINTS - 1).astype(np.int64)], [best])
        return ThresholdCurve(self.thresholds[places], self.precision[places], self.recall[places], self.f1[places])

    def as_json(self) -> dict[str, list[float]]:
        """Lists under the names of the attributes; F1 follows from the others."""
        return {name: getattr(self, name).tolist() for name in ("thresholds", "precision", "recall")}

    @classmethod
    def from_json(cls, value: dict[str, list[float]]) -> ThresholdCurve:
        """Reads what `as_json` gave."""
        thresholds, precision, recall = (np.array(value[name], float) for name in ("thresholds", "precision", "recall"))
        return cls(thresholds, precision, recall, ratio(2 * precision * recall, precision + recall))


@dataclass(frozen=True)
class Target:
    """What a threshold is for: `f1`; `precision` or `recall` of at least `least`; or `score`, the threshold itself."""

    kind: str
    least: float = 0.0

    def __str__(self) -> str:
        return {"f1": "f1", "score": f"{self.least:g}"}.get(self.kind, f"{self.kind}:{self.least:g}")

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads `f1`, `precision:0.9`, `recall:0.95` or a score such as `0.37`.

        Raises:
            ConfigError: it is none of these, or the number is not from 0 to 1.
        """
        name, colon, number = text.strip().partition(":")
        try:
            if name == "f1" and not colon:
                return cls("f1")
            if name in {"precision", "recall"}:
                return cls(name, _share(number))
            return cls("score", _share(text))
        except ValueError:
            raise ConfigError(
                f"--threshold: expected f1, precision:X, recall:X or a score, X from 0 to 1; found {text!r}."
            ) from None


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it gave on the rows it was chosen on."""

    value: float
    precision: float
    recall: float
    f1: float


def threshold_curve(scores: FloatArray, labels: npt.NDArray[Any]) -> ThresholdCurve | None:
    """Precision, recall and F1 at every threshold that decides some rows differently.

    A threshold lies half-way between two scores that occur, the lowest on the lowest score: a new row's score is as
    unlikely as may be to fall between it and the row that it was set for.

    Args:
        scores: of the positive label, [num_rows].
        labels: 0 or 1, [num_rows].

    Returns:
        None where the labels are all 0 or all 1.
    """
    positives = np.asarray(labels, np.float64)
    if np.ptp(positives) == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order].astype(np.float64), np.cumsum(positives[order])
    last = np.flatnonzero(np.diff(ordered, append=-np.inf))  # the last of each run of equal scores
    values, hits, predicted = ordered[last], hits[last], last + 1.0
    thresholds = np.append((values[:-1] + values[1:]) / 2, values[-1])
    recall, precision = hits / hits[-1], hits / predicted
    f1 = 2 * hits / (predicted + hits[-1])
    return ThresholdCurve(*(array[::-1].copy() for array in (thresholds, precision, recall, f1)))


def choose_threshold(curve: ThresholdCurve, target: Target) -> Threshold | None:
    """The best threshold for a target: the highest F1; or the highest recall at that precision, and the reverse.

    Returns:
        None where no threshold reaches the target.
    """
    if target.kind == "f1":
        wanted, allowed = curve.f1, np.ones(len(curve.f1), bool)
    elif target.kind == "precision":
        wanted, allowed = curve.recall, curve.precision >= target.least
    else:
        wanted, allowed = curve.precision, curve.recall >= target.least
    if not allowed.any():
        return None
    index = int(np.argmax(np.where(allowed, wanted, -1.0)))
    values = (curve.thresholds, curve.precision, curve.recall, curve.f1)
    return Threshold(*(float(array[index]) for array in values))


def unreachable(target: Target, curve: ThresholdCurve, *, label: str) -> str:
    """Says that no threshold reaches the target, and what the best one would give."""
    best = curve.precision if target.kind == "precision" else curve.recall
    return (
        f"--threshold: no threshold gives {label!r} a {target.kind} of {target.least:g} on the validation rows; "
        f"the highest is {float(best.max()):.3f}."
    )


def label_curves(
    scores: FloatArray, labels: npt.NDArray[Any], names: Sequence[str]
) -> dict[str, ThresholdCurve | None]:
    """The curves of the labels that can have a threshold: the positive one of two, or each of several per row.

    Args:
        scores: [num_rows, num_labels].
        labels: int64 [num_rows] class ids, or [num_rows, num_labels] of 0 and 1.
    """
    if labels.ndim == 2:
        return {name: threshold_curve(scores[:, index], labels[:, index]) for index, name in enumerate(names)}
    return {names[1]: threshold_curve(scores[:, 1], labels == 1)} if len(names) == 2 else {}
