"""Whether scores are probabilities: reliability, calibration error, Brier score, and the temperature that mends them.

Of single labels the confidence is the score of the predicted label and the accuracy how often it is right (Guo et al.
2017, "On calibration of modern neural networks"). Of several labels per row each label's score is taken by itself, and
the accuracy is how often that label is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.data.wording import counted
from textune.evaluation.intervals import Interval, wilson
from textune.evaluation.predictions import FloatArray, decide
from textune.evaluation.sums import row_losses
from textune.problem_types import REGRESSION

NUM_BINS = 15
# A temperature at one of these ends is no fit: scores would become 0 and 1, or all alike.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MIN_ROWS = 50
"""Of fewer rows a temperature is a guess, which often makes other rows' scores worse."""


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence lies in (lower, upper].

    Attributes:
        confidence: its mean.
        accuracy: the share of them that are right, with Wilson's `interval`.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float
    interval: Interval


def reliability_curve(scores: FloatArray, labels: npt.NDArray[Any], *, bins: int = NUM_BINS) -> list[Bin]:
    """Compares confidence with accuracy in bins of equal width; empty ones are left out.

    Args:
        scores: probabilities [num_rows, num_labels].
        labels: int64 [num_rows] class ids, or [num_rows, num_labels] of 0 and 1.
    """
    confidence, right = _confidence(scores, labels)
    # Rounded up: (lower, upper] as in the paper; a confidence of 0 belongs to the first.
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts, sums, hits = (np.bincount(places, weights, bins) for weights in (None, confidence, right))
    return [
        Bin(
            index / bins,
            (index + 1) / bins,
            int(counts[index]),
            float(sums[index] / counts[index]),
            float(hits[index] / counts[index]),
            wilson(float(hits[index]), float(counts[index])),
        )
        for index in np.flatnonzero(counts)
    ]


def expected_calibration_error(scores: FloatArray, labels: npt.NDArray[Any], *, bins: int = NUM_BINS) -> float:
    """The mean distance of confidence and accuracy over bins of equal width, weighted by their rows."""
    curve = reliability_curve(scores, labels, bins=bins)
    return sum(bin.count * abs(bin.accuracy - bin.confidence) for bin in curve) / sum(bin.count for bin in curve)


def brier_score(scores: FloatArray, labels: npt.NDArray[Any]) -> float:
    """The mean squared distance of probabilities from what is (Brier 1950), 0 at best.

    Of two labels and of several per row it is that of one probability, from 0 to 1; of three or more labels the sum
    over labels, from 0 to 2: what scikit-learn's `brier_score_loss` gives.
    """
    scores = scores.astype(np.float64)
    if labels.ndim == 2:
        return float(np.mean((scores - labels) ** 2))
    num_rows, num_labels = scores.shape
    own = scores[np.arange(num_rows), labels]
    distances = np.sum(scores**2, axis=1) - 2 * own + 1
    return float(distances.mean() / (2 if num_labels == 2 else 1))


def calibration_quality(scores: FloatArray, labels: npt.NDArray[Any]) -> dict[str, float]:
    """`expected_calibration_error` and `brier_score` by name."""
    return {
        "expected_calibration_error": expected_calibration_error(scores, labels),
        "brier_score": brier_score(scores, labels),
    }


def fit_temperature(logits: FloatArray, labels: npt.NDArray[Any], problem_type: str) -> float | None:
    """The number that logits are divided by so that the loss of these rows is lowest (Guo et al. 2017).

    It changes no prediction, only how sure the scores are. Fit it on rows that trained nothing.

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows] class ids, or float32 [num_rows, num_labels] of 0 and 1.

    Returns:
        The temperature: above 1 where the model is too sure of itself. None where the rows
        determine none: see `why_no_temperature`.
    """
    if problem_type == REGRESSION or len(labels) < MIN_ROWS or _one_label_only(labels):
        return None
    if _all_right(logits, labels, problem_type):
        return None  # loss falls with the temperature to 0 in float64, and a search would end anywhere from there on

    def loss(log_temperature: float) -> float:
        return float(row_losses(logits / np.exp(log_temperature), labels).mean())

    from scipy.optimize import minimize_scalar

    # The loss is convex in 1 / temperature, so that it has one minimum in its logarithm as well.
    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
    # The search comes as near to an end as its tolerance.
    return temperature if 1.01 * MIN_TEMPERATURE < temperature < MAX_TEMPERATURE / 1.01 else None


def why_no_temperature(logits: FloatArray, labels: npt.NDArray[Any], problem_type: str) -> str:
    """Why `fit_temperature` gave None for these rows, in words."""
    if problem_type == REGRESSION:
        return "a regression has no probabilities"
    if _one_label_only(labels):
        return "all rows have the same label"
    if _all_right(logits, labels, problem_type):
        return "the model is right on all rows, so that they do not tell how sure it may be"
    if len(labels) < MIN_ROWS:
        return (
            f"{counted(len(labels), 'row')} are too few to tell how sure the model may be; it takes at least {MIN_ROWS}"
        )
    return "the model's scores tell nothing of the labels of these rows"


def _one_label_only(labels: npt.NDArray[Any]) -> bool:
    return bool((labels == labels[0]).all())


def _all_right(logits: FloatArray, labels: npt.NDArray[Any], problem_type: str) -> bool:
    return np.array_equal(decide(logits, problem_type), labels)


def _confidence(scores: FloatArray, labels: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """How sure the model is, and whether it is right (1) or not (0): float64 [num_rows] or [num_rows * num_labels]."""
    scores = scores.astype(np.float64)
    if labels.ndim == 2:
        return scores.ravel(), labels.astype(np.float64).ravel()
    return scores.max(axis=1), (scores.argmax(axis=1) == labels).astype(np.float64)
