"""Metrics by name: exactly scikit-learn's and SciPy's values, no network.

To add one, write a function of `Outcome` and give it a line in `METRICS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.errors import ConfigError, did_you_mean
from textune.evaluation.predictions import FloatArray, LabelSet, decide
from textune.models.losses import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class Outcome:
    """Labels and predictions of the same rows, in the same form (`textune.evaluation.predictions.decide`)."""

    labels: npt.NDArray[Any]
    predictions: npt.NDArray[Any]
    num_labels: int


@dataclass(frozen=True)
class Metric:
    """A figure computed from labels and predictions.

    Attributes:
        compute: returns the value, or None where it is undefined.
        problem_types: those it makes sense for.
        higher_is_better: False for errors.
        binary_only: it needs a positive label, which is the one with id 1.
    """

    compute: Callable[[Outcome], float | None]
    problem_types: tuple[str, ...]
    higher_is_better: bool = True
    binary_only: bool = False

    def fits(self, label_set: LabelSet) -> bool:
        """Whether it can be computed for these labels."""
        return label_set.problem_type in self.problem_types and (not self.binary_only or len(label_set.names) == 2)


def _accuracy(outcome: Outcome) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(outcome.labels, outcome.predictions))


def _from_report(index: int, average: str) -> Callable[[Outcome], float]:
    """Precision (0), recall (1) or F1 (2) of scikit-learn; 0 where nothing was predicted or nothing was there."""

    def compute(outcome: Outcome) -> float:
        from sklearn.metrics import precision_recall_fscore_support

        # All labels count in an average, also those that these rows happen to lack.
        labels = None if average == "binary" else list(range(outcome.num_labels))
        values = precision_recall_fscore_support(
            outcome.labels, outcome.predictions, labels=labels, average=average, zero_division=0.0
        )
        return float(values[index])

    return compute


def _matthews(outcome: Outcome) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        # Its value, 0, is defined where all rows are of one class; the warning is about a matrix nobody asked for.
        warnings.filterwarnings("ignore", message="A single label was found", category=UserWarning)
        return float(matthews_corrcoef(outcome.labels, outcome.predictions))


def _correlation(name: str) -> Callable[[Outcome], float | None]:
    def compute(outcome: Outcome) -> float | None:
        from scipy import stats

        if len(outcome.labels) < 2:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            value = float(getattr(stats, name)(outcome.labels, outcome.predictions).statistic)
        return value if np.isfinite(value) else None

    return compute


def _rmse(outcome: Outcome) -> float:
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(outcome.labels, outcome.predictions))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy, (SINGLE_LABEL, MULTI_LABEL)),
    "f1": Metric(_from_report(2, "binary"), (SINGLE_LABEL,), binary_only=True),
    "precision": Metric(_from_report(0, "binary"), (SINGLE_LABEL,), binary_only=True),
    "recall": Metric(_from_report(1, "binary"), (SINGLE_LABEL,), binary_only=True),
    "f1_micro": Metric(_from_report(2, "micro"), (MULTI_LABEL,)),
    "f1_macro": Metric(_from_report(2, "macro"), (SINGLE_LABEL, MULTI_LABEL)),
    "f1_weighted": Metric(_from_report(2, "weighted"), (SINGLE_LABEL, MULTI_LABEL)),
    "matthews_correlation": Metric(_matthews, (SINGLE_LABEL,)),
    "pearson": Metric(_correlation("pearsonr"), (REGRESSION,)),
    "spearmanr": Metric(_correlation("spearmanr"), (REGRESSION,)),
    "rmse": Metric(_rmse, (REGRESSION,), higher_is_better=False),
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


def selection_metric(asked: str | None, names: Sequence[str]) -> tuple[str, bool]:
    """Returns the metric that decides which weights are best, and whether more of it is better.

    Args:
        asked: a metric's name, `loss`, or None for the first of `names`.

    Raises:
        ConfigError: it does not exist or does not fit the task.
    """
    name = asked or names[0]
    if name == LOSS:
        return name, False
    if name not in names:
        known = [*names, LOSS]
        raise ConfigError(
            f"--metric: expected one of {', '.join(known)} for this task, found {name!r}.{did_you_mean(name, known)}"
        )
    return name, METRICS[name].higher_is_better


def compute_metrics(
    logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, names: Sequence[str]
) -> dict[str, float | None]:
    """Computes metrics by name; None stands for an undefined value, such as a correlation with a constant.

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows], float32 [num_rows, num_labels] or float32 [num_rows].
    """
    predictions = decide(logits, label_set.problem_type)
    if label_set.problem_type == REGRESSION:
        # In float32 the small differences between large targets drown in rounding, and squares overflow.
        labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
    outcome = Outcome(labels, predictions, len(label_set.names))
    return {name: METRICS[name].compute(outcome) for name in names}


def per_class_metrics(
    logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet
) -> dict[str, dict[str, float | int]]:
    """Precision, recall, F1 and number of rows of each label; empty for regression."""
    from sklearn.metrics import precision_recall_fscore_support

    if label_set.problem_type == REGRESSION:
        return {}
    values = precision_recall_fscore_support(
        labels,
        decide(logits, label_set.problem_type),
        labels=list(range(len(label_set.names))),
        average=None,
        zero_division=0.0,
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(label_set.names, *values, strict=True)
    }
