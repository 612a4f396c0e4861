"""The same answer for every row: what a model has to be better than, and often is not.

After Mosbach, Andriushchenko and Klakow: On the Stability of Fine-tuning BERT, ICLR 2021: a run has failed that is no
better than the most frequent label for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.evaluation.metrics import LOSS, METRICS, defined_values
from textune.evaluation.sums import Outcome

# The same answer for every row has the best precision or recall there is, or no loss to be compared.
_UNFIT = {LOSS, "precision", "recall"}


@dataclass(frozen=True)
class Baseline:
    """What the best single answer would be scored.

    Attributes:
        answer: in words: the most frequent label or labels, or the mean of the targets.
        metric: by which it is judged: see `judged_by`.
        score: 0 where the metric is undefined for it.
    """

    answer: str
    metric: str
    score: float

    @classmethod
    def of(cls, outcome: Outcome, metric: str, label_names: Sequence[str]) -> Baseline:
        """That of these labels; the names are in the order of their ids, and empty for regression."""
        answer = _best_constant(outcome)
        constant = Outcome(outcome.labels, np.broadcast_to(answer, outcome.labels.shape), outcome.num_labels)
        return cls(_named(answer, label_names), metric, _value(constant, metric))


def judged_by(metric: str, metric_names: Sequence[str]) -> str:
    """The metric that tells a run that has learned from one that has not: the deciding one where it can."""
    return next(name for name in (metric, *metric_names) if name not in _UNFIT)


def why_failed(outcome: Outcome, metric: str, label_names: Sequence[str]) -> str | None:
    """Says in what a model has failed; None where it has learned something, or where there was nothing to learn.

    Args:
        outcome: of validation rows.
        metric: see `judged_by`.
        label_names: in the order of their ids; empty for regression.
    """
    labels, predictions = outcome.labels, outcome.predictions
    if np.all(labels == labels[0]):
        return None
    if np.all(predictions == predictions[0]):
        return f"it says {_named(predictions[0], label_names)} of every row"
    value, baseline = _value(outcome, metric), Baseline.of(outcome, metric, label_names)
    better = value > baseline.score if METRICS[metric].higher_is_better else value < baseline.score
    if better:
        return None
    same = f"saying {baseline.answer} of every row"
    return f"its {metric}, {value:.3f}, is no better than {same}, {baseline.score:.3f}"


def _value(outcome: Outcome, metric: str) -> float:
    return defined_values(outcome, [metric])[metric] or 0.0


def _best_constant(outcome: Outcome) -> npt.NDArray[Any]:
    """The answer that is right most often; the mean for regression."""
    if not outcome.num_labels:
        return np.asarray(outcome.labels.mean())
    answers, counts = np.unique(outcome.labels, axis=0, return_counts=True)
    return np.asarray(answers[counts.argmax()])


def _named(answer: npt.NDArray[Any], label_names: Sequence[str]) -> str:
    if not label_names:
        return f"{float(answer):.3g}"
    if answer.ndim:
        return ", ".join(name for name, on in zip(label_names, answer, strict=True) if on) or "no label"
    return repr(label_names[int(answer)])
