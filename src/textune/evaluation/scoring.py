"""Metrics of one split, in the form in which summary.json, tables and cards show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from textune.evaluation.metrics import LOSS, compute_metrics, per_class_metrics
from textune.evaluation.predictions import FloatArray, LabelSet
from textune.models.losses import Loss


@dataclass(frozen=True)
class Scores:
    """What one split was scored.

    Attributes:
        num_rows: labelled rows behind the figures.
        metrics: by name, the task's first; the mean loss last. None stands for undefined.
        per_class: precision, recall, F1 and support by label name.
    """

    num_rows: int
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | int]]

    def as_json(self) -> dict[str, Any]:
        """`{"accuracy": {"value": 0.8}, ..., "per_class": {...}, "num_rows": 408}`."""
        values: dict[str, Any] = {name: {"value": value} for name, value in self.metrics.items()}
        if self.per_class:
            values["per_class"] = self.per_class
        return values | {"num_rows": self.num_rows}


def score(logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, metric_names: Sequence[str]) -> Scores:
    """Compares logits, float32 [num_rows, num_outputs], with the labels of the same rows."""
    metrics = compute_metrics(logits, labels, label_set, names=metric_names)
    metrics[LOSS] = mean_loss(logits, labels, label_set)
    return Scores(len(labels), metrics, per_class_metrics(logits, labels, label_set))


def mean_loss(logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet) -> float:
    """The mean loss per row, without class weights or smoothing, so that runs can be compared."""
    import torch

    loss = Loss(label_set.problem_type)
    # Summed in float64: a mean over many rows should not depend on their order.
    values = torch.from_numpy(labels)
    if labels.dtype.kind == "f":
        values = values.double()
    return float(loss.sum(torch.from_numpy(logits).double(), values)) / loss.weight(labels)
