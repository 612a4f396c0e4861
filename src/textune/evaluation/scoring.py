"""Metrics of one split, in the form in which summary.json, tables and cards show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from textune.evaluation.baseline import Baseline, judged_by
from textune.evaluation.calibration import calibration_quality
from textune.evaluation.intervals import Interval, ends, metric_intervals, per_class_intervals
from textune.evaluation.metrics import LOSS, METRICS, compute_metrics, outcome_of, per_class_metrics, why_undefined
from textune.evaluation.predictions import FloatArray, LabelSet, to_scores
from textune.evaluation.sums import row_losses
from textune.problem_types import REGRESSION

RESAMPLING_SEED = 0


@dataclass(frozen=True)
class Scores:
    """What one split was scored.

    Attributes:
        num_rows: labelled rows behind the figures.
        metrics: by name, the task's first; the mean loss last. None stands for undefined.
        per_class: precision, recall, F1 and support by label name; None stands for undefined.
        undefined: why a metric is None, by its name.
        intervals: of the metrics, None where there is none to give; empty where none were computed.
        per_class_intervals: of precision, recall and F1 by label name.
        calibration: expected calibration error and Brier score; empty for regression.
        positive_label: what F1, precision and recall of two labels speak of; None of other labels.
        baseline: the same answer for every row; None where it was not computed.
    """

    num_rows: int
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | int | None]]
    undefined: dict[str, str] = field(default_factory=dict)
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    per_class_intervals: dict[str, dict[str, Interval | None]] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    positive_label: str | None = None
    baseline: Baseline | None = None

    def as_json(self) -> dict[str, Any]:
        """`{"accuracy": {"value": 0.8, "interval": [0.76, 0.84]}, ..., "per_class": {...}, "num_rows": 408}`."""
        values: dict[str, Any] = {}
        for name, value in self.metrics.items():
            values[name] = {"value": value}
            if name in self.intervals:
                values[name]["interval"] = ends(self.intervals[name])
            if name in self.undefined:
                values[name]["undefined"] = self.undefined[name]
        if self.per_class:
            values["per_class"] = {name: self._class_json(name) for name in self.per_class}
        if self.calibration:
            values["calibration"] = self.calibration
        if self.positive_label is not None:
            values["positive_label"] = self.positive_label
        if self.baseline is not None:
            values["baseline"] = dataclasses.asdict(self.baseline)
        return values | {"num_rows": self.num_rows}

    def _class_json(self, name: str) -> dict[str, Any]:
        intervals = self.per_class_intervals.get(name)
        if intervals is None:
            return dict(self.per_class[name])
        return self.per_class[name] | {"intervals": {of: ends(interval) for of, interval in intervals.items()}}


def score(logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, metric_names: Sequence[str]) -> Scores:
    """Compares logits, float32 [num_rows, num_outputs], with the labels of the same rows."""
    metrics = compute_metrics(logits, labels, label_set, names=metric_names)
    metrics[LOSS] = mean_loss(logits, labels)
    outcome = outcome_of(logits, labels, label_set)
    missing = [name for name, value in metrics.items() if value is None]
    reasons = {name: why_undefined(name, outcome, label_names=label_set.names) for name in missing}
    undefined = {name: reason for name, reason in reasons.items() if reason is not None}
    binary = any(METRICS[name].binary_only for name in metric_names)
    return Scores(
        len(labels),
        metrics,
        per_class_metrics(outcome, label_set),
        undefined,
        positive_label=label_set.names[1] if binary else None,
    )


def with_uncertainty(
    scores: Scores, logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, seed: int = RESAMPLING_SEED
) -> Scores:
    """Adds the intervals, the calibration and the baseline, which the evaluations during training do without.

    Args:
        scores: of these logits and labels.
        seed: of the bootstrap. Always the same unless said otherwise, whatever the seed of a training: so intervals of
            several runs on the same rows do not differ by chance.
    """
    kind = label_set.problem_type
    calibration = {} if kind == REGRESSION else calibration_quality(to_scores(logits, kind), labels)
    outcome, names = outcome_of(logits, labels, label_set), list(scores.metrics)
    return dataclasses.replace(
        scores,
        intervals=metric_intervals(logits, labels, label_set, names, seed=seed),
        per_class_intervals=per_class_intervals(outcome, label_set, seed=seed),
        calibration=calibration,
        baseline=Baseline.of(outcome, judged_by(names[0], names), label_set.names),
    )


def mean_loss(logits: FloatArray, labels: npt.NDArray[Any]) -> float:
    """The mean loss per row, without class weights or smoothing, so that runs can be compared."""
    return float(row_losses(logits, labels).mean())
