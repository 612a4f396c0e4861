"""Metrics by name, with scikit-learn's and SciPy's values, no network.

One differs: macro F1 is the mean over all labels of the model, also those that no row has and no prediction names;
scikit-learn leaves these out unless it is told of them by `labels=` (docs/decisions/0013-uncertainty.md).

To add one, write a function of sums over rows (`textune.evaluation.sums`) and give it a line in `METRICS`: its interval
and its comparison follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.errors import ConfigError, did_you_mean
from textune.evaluation.predictions import FloatArray, LabelSet, decide
from textune.evaluation.ranks import RankCorrelation
from textune.evaluation.resampling import Additive
from textune.evaluation.sums import Counts, Moments, Outcome, ratio
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class Metric:
    """A figure computed from labels and predictions.

    Attributes:
        of: what gives the value from `Counts` (classes) or `Moments` (numbers), for many resamples at once, NaN where
            it is undefined; None for the rank correlation, which is no function of sums.
        problem_types: those it makes sense for.
        higher_is_better: False for errors.
        binary_only: it needs a positive label, which is the one with id 1.
        lowest: the least value there can be.
    """

    of: Callable[[Any], FloatArray] | None
    problem_types: tuple[str, ...]
    higher_is_better: bool = True
    binary_only: bool = False
    lowest: float = 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value there can be."""
        return self.lowest, 1.0 if self.higher_is_better else np.inf

    def fits(self, label_set: LabelSet) -> bool:
        """Whether it can be computed for these labels."""
        return label_set.problem_type in self.problem_types and (not self.binary_only or len(label_set.names) == 2)


def _f1_micro(counts: Counts) -> FloatArray:
    return ratio(2 * counts.true_positives.sum(-1), counts.predicted.sum(-1) + counts.support.sum(-1))


def _f1_weighted(counts: Counts) -> FloatArray:
    return ratio((counts.f1 * counts.support).sum(-1), counts.support.sum(-1))


def _matthews(counts: Counts) -> FloatArray:
    """Gorodkin's correlation of K classes; 0 where all labels or all predictions are of one class."""
    covariance = counts.correct * counts.rows - (counts.predicted * counts.support).sum(-1)
    predicted = counts.rows**2 - (counts.predicted**2).sum(-1)
    there = counts.rows**2 - (counts.support**2).sum(-1)
    return ratio(covariance, np.sqrt(predicted * there))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(lambda counts: counts.correct / counts.rows, (SINGLE_LABEL, MULTI_LABEL)),
    "f1": Metric(lambda counts: counts.f1[..., 1], (SINGLE_LABEL,), binary_only=True),
    "precision": Metric(
        lambda counts: ratio(counts.true_positives[..., 1], counts.predicted[..., 1]),
        (SINGLE_LABEL,),
        binary_only=True,
    ),
    "recall": Metric(
        lambda counts: ratio(counts.true_positives[..., 1], counts.support[..., 1]), (SINGLE_LABEL,), binary_only=True
    ),
    "f1_micro": Metric(_f1_micro, (MULTI_LABEL,)),
    "f1_macro": Metric(lambda counts: counts.f1.mean(-1), (SINGLE_LABEL, MULTI_LABEL)),
    "f1_weighted": Metric(_f1_weighted, (SINGLE_LABEL, MULTI_LABEL)),
    "matthews_correlation": Metric(_matthews, (SINGLE_LABEL,), lowest=-1.0),
    "pearson": Metric(lambda moments: moments.correlation, (REGRESSION,), lowest=-1.0),
    "spearmanr": Metric(None, (REGRESSION,), lowest=-1.0),
    "rmse": Metric(
        lambda moments: np.sqrt(moments.squared_error / moments.rows), (REGRESSION,), higher_is_better=False
    ),
}
# The loss is computed where the logits are; it can be chosen to select by.
LOSS = "loss"


def metric_names(label_set: LabelSet, *, first: Sequence[str] = ()) -> list[str]:
    """The names of all metrics that fit, beginning with the task's own."""
    fitting = [name for name, metric in METRICS.items() if metric.fits(label_set)]
    if label_set.problem_type == MULTI_LABEL and not first:
        first = ("f1_micro",)  # accuracy asks for all labels of a row at once, which says little
    own = [name for name in first if name in fitting]  # a task's metrics may not fit a model of other labels
    return [*own, *(name for name in fitting if name not in own)]


def selection_metric(asked: str | None, names: Sequence[str], *, loss: bool = True) -> tuple[str, bool]:
    """Returns the metric that decides which weights are best, and whether more of it is better.

    Args:
        asked: a metric's name, `loss`, or None for the first of `names`.
        loss: whether the loss may be chosen.

    Raises:
        ConfigError: it does not exist or does not fit the task.
    """
    name = asked or names[0]
    if loss and name == LOSS:
        return name, False
    if name not in names:
        known = [*names, LOSS] if loss else list(names)
        raise ConfigError(
            f"--metric: expected one of {', '.join(known)} for this task, found {name!r}.{did_you_mean(name, known)}"
        )
    return name, METRICS[name].higher_is_better


def outcome_of(logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet) -> Outcome:
    """Puts labels and what the logits decide side by side; shapes as for `compute_metrics`."""
    return Outcome(labels, decide(logits, label_set.problem_type), len(label_set.names))


def statistics_of(outcome: Outcome, names: Sequence[str]) -> list[Additive | RankCorrelation]:
    """Metrics by name as functions of resampled rows: those of sums together, the rank correlation by itself."""
    additive = tuple(name for name in names if METRICS[name].of is not None)
    statistics: list[Additive | RankCorrelation] = []
    if additive and outcome.num_labels:
        columns, alike = Counts.columns(outcome), (outcome.labels, outcome.predictions)
        statistics.append(Additive(additive, columns, lambda totals: _values(additive, Counts.of(totals)), alike))
    elif additive:
        columns = Moments.columns(outcome)
        statistics.append(Additive(additive, columns, lambda totals: _values(additive, Moments.of(totals))))
    if len(additive) < len(names):
        statistics.append(RankCorrelation(outcome.labels.astype(np.float64), outcome.predictions.astype(np.float64)))
    return statistics


def _values(names: Sequence[str], sums: Counts | Moments) -> FloatArray:
    functions = [METRICS[name].of for name in names]
    return np.stack([function(sums) for function in functions if function is not None], axis=-1)


def metric_values(outcome: Outcome, names: Sequence[str]) -> dict[str, float | None]:
    """The values of metrics by name, 0 for 0/0 as scikit-learn has it; None for a correlation with a constant."""
    values: dict[str, float | None] = {}
    for statistic in statistics_of(outcome, names):
        for name, value in zip(statistic.names, statistic.value(), strict=True):
            values[name] = float(value) if np.isfinite(value) else None
    return {name: values[name] for name in names}


def why_undefined(name: str, outcome: Outcome, *, label_names: Sequence[str] = ()) -> str | None:
    """Why a metric is 0/0 for these rows, in words; None where it is defined.

    A model that predicts one label for all rows has a Matthews correlation of 0, its limit, as everywhere.

    Args:
        label_names: in the order of their ids, for messages that name the positive one.
    """
    labels, predictions = outcome.labels, outcome.predictions
    if name in {"pearson", "spearmanr"}:
        constant = [what for what, values in (("labels", labels), ("predictions", predictions)) if np.ptp(values) == 0]
        return f"all {constant[0]} are the same" if constant else None
    if name == "matthews_correlation" and np.ptp(labels) == 0:
        return "only one class among the labels"
    if name in {"f1", "precision", "recall"}:
        missing = {"precision": not predictions.any(), "recall": not labels.any()}
        if missing.get(name, all(missing.values())):
            positive = f"the positive label{f' {label_names[1]!r}' if label_names else ''}"
            return {
                "precision": f"{positive} is never predicted",
                "recall": f"no row has {positive}",
                "f1": f"{positive} is neither there nor predicted",
            }[name]
    return None


def defined_values(outcome: Outcome, names: Sequence[str]) -> dict[str, float | None]:
    """The values of metrics by name; None stands for an undefined one (`why_undefined`)."""
    values = metric_values(outcome, names)
    return {name: None if why_undefined(name, outcome) else value for name, value in values.items()}


def compute_metrics(
    logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, names: Sequence[str]
) -> dict[str, float | None]:
    """Computes metrics by name; None stands for an undefined value (`why_undefined`).

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows], float32 [num_rows, num_labels] or float32 [num_rows].
    """
    return defined_values(outcome_of(logits, labels, label_set), names)


def per_class_metrics(outcome: Outcome, label_set: LabelSet) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall, F1 and number of rows of each label, None for 0/0; empty for regression."""
    if label_set.problem_type == REGRESSION:
        return {}
    counts = Counts.of(np.asarray(Counts.columns(outcome).sum(axis=0)))
    pairs = {"precision": counts.predicted, "recall": counts.support, "f1": (counts.predicted + counts.support) / 2}
    values = {
        name: [
            float(top / bottom) if bottom else None for top, bottom in zip(counts.true_positives, below, strict=True)
        ]
        for name, below in pairs.items()
    }
    return {
        label: {**{name: values[name][index] for name in values}, "support": int(counts.support[index])}
        for index, label in enumerate(label_set.names)
    }
