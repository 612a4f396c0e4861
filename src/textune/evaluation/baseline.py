"""The same answer for every row: what a model has to be better than, and often is not.

After Mosbach, Andriushchenko and Klakow: On the Stability of Fine-tuning BERT, ICLR 2021: a run has failed that is no
better than the most frequent label for every row. Here it is compared with the answer that does best by the metric in
question, which is the most frequent label by most metrics, but not by F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.evaluation.metrics import LOSS, METRICS, defined_values
from textune.evaluation.sums import Counts, Outcome, whole_rows

# The same answer for every row has the best precision or recall there is, or no loss to be compared.
_UNFIT = {LOSS, "precision", "recall"}
# What a fold does has to be less probable than this, by chance, for it to have failed.
_IMPROBABLE = 0.01


@dataclass(frozen=True)
class Baseline:
    """What the best single answer would be scored.

    Attributes:
        answer: in words: the label or labels that do best by the metric, or the mean of the targets.
        metric: by which it is judged: see `judged_by`.
        score: 0 where the metric is undefined for it.
    """

    answer: str
    metric: str
    score: float

    @classmethod
    def of(cls, outcome: Outcome, metric: str, label_names: Sequence[str]) -> Baseline:
        """That of these labels; the names are in the order of their ids, and empty for regression."""
        answer = _best_constant(outcome, metric)
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


def why_folds_failed(
    outcome: Outcome, fold_of_row: npt.NDArray[np.int64], metric: str, label_names: Sequence[str]
) -> list[str | None]:
    """Says of each fold of a cross-validation in what its model has failed; None of one that has learned something.

    A fold has few rows, on which a model that has learned something may be no better than one answer for all of them by
    chance. So a fold that `why_failed` speaks of has failed only where the rows of all folds together are no better
    than that either, or where one of these has a probability below 1 %:

        that it says one answer of its n rows: s ** n, where s is how often the other folds give that answer,
            (times + 1) / (rows + 2) by Laplace's rule of succession
        that it errs so much more than the other folds, by the test of Mann and Whitney (1947)

    Args:
        outcome: of the rows of all folds, each predicted by the model that has not seen it.
        fold_of_row: from 1.
        metric, label_names: see `why_failed`.
    """
    nothing_learned = why_failed(outcome, metric, label_names) is not None
    reasons: list[str | None] = []
    for number in range(1, int(fold_of_row.max()) + 1):
        held_out = fold_of_row == number
        own, others = _of_rows(outcome, held_out), _of_rows(outcome, ~held_out)
        reason = why_failed(own, metric, label_names)
        if reason is not None and not (
            nothing_learned or _is_improbably_constant(own, others) or _errs_more(own, others)
        ):
            reason = None
        reasons.append(reason)
    return reasons


def _of_rows(outcome: Outcome, chosen: npt.NDArray[np.bool_]) -> Outcome:
    return Outcome(outcome.labels[chosen], outcome.predictions[chosen], outcome.num_labels)


def _is_improbably_constant(own: Outcome, others: Outcome) -> bool:
    """Whether all of a fold's predictions are one that the other folds do not give often enough for that."""
    answer, rows = own.predictions[0], len(own.predictions)
    if not whole_rows(own.predictions == answer).all():
        return False
    share = (int(whole_rows(others.predictions == answer).sum()) + 1) / (len(others.predictions) + 2)
    return bool(share**rows < _IMPROBABLE)


def _errs_more(own: Outcome, others: Outcome) -> bool:
    """Whether a fold's rows are predicted worse than those of the other folds."""
    from scipy.stats import mannwhitneyu

    errors, of_others = _errors(own), _errors(others)
    if errors.mean() <= of_others.mean():
        return False
    return bool(mannwhitneyu(errors, of_others, alternative="greater").pvalue < _IMPROBABLE)


def _errors(outcome: Outcome) -> npt.NDArray[Any]:
    """Of each row: 1 where anything is predicted wrongly, else 0; the squared error of a number."""
    if not outcome.num_labels:
        return np.asarray((outcome.predictions - outcome.labels) ** 2)
    return (~Counts.rights(outcome)).astype(np.float64)


def _value(outcome: Outcome, metric: str) -> float:
    return defined_values(outcome, [metric])[metric] or 0.0


def _best_constant(outcome: Outcome, metric: str) -> npt.NDArray[Any]:
    """The answer for all rows that no other one surpasses by this metric.

    The mean for regression; the positive label by the F1 that speaks of it; by the F1 of several labels per row some of
    the most frequent ones, or all. By every other metric what is right most often: the most frequent label, or set of
    labels.
    """
    if not outcome.num_labels:
        return np.asarray(outcome.labels.mean())
    if METRICS[metric].binary_only:
        return np.asarray(1)
    if outcome.labels.ndim == 2 and metric != "accuracy":
        return _best_labels(outcome.labels, metric)
    answers, counts = np.unique(outcome.labels, axis=0, return_counts=True)
    return np.asarray(answers[counts.argmax()])


def _best_labels(labels: npt.NDArray[Any], metric: str) -> npt.NDArray[Any]:
    """Which labels to give to every row, as 0 and 1; labels are [num_rows, num_labels].

    Of equally many labels the most frequent are best by micro-F1. A mean of the labels' own F1 is best with all.
    """
    support = labels.sum(axis=0)
    if metric != "f1_micro":
        return np.asarray(support > 0, labels.dtype)
    order = np.argsort(-support, kind="stable")
    given = len(labels) * np.arange(1, len(order) + 1)
    scores = 2 * np.cumsum(support[order]) / (given + support.sum())
    chosen = order[: int(scores.argmax()) + 1]
    return np.isin(np.arange(len(order)), chosen).astype(labels.dtype)


def _named(answer: npt.NDArray[Any], label_names: Sequence[str]) -> str:
    if not label_names:
        return f"{float(answer):.3g}"
    if answer.ndim:
        return ", ".join(name for name, on in zip(label_names, answer, strict=True) if on) or "no label"
    return repr(label_names[int(answer)])
