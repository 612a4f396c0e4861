"""The loss of each problem type, as a sum and the weight to divide it by.

Sum and weight are kept apart so that a step over several passes, or several processes, divides by the true count of
the whole step and not by an average of averages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textune.config import flag_of
from textune.data.collate import copy_to
from textune.errors import ConfigError
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    import torch


class Loss:
    """Cross-entropy, binary cross-entropy per label, or squared error; as `torch.nn.functional` defines them.

    Only where smoothing and class weights meet it differs: a row has the weight of its label as a whole. torch weights
    the mass that is spread over the labels by each of them, so that a rare label's becomes the best answer for all.

    Args:
        problem_type: transformers' name of it.
        class_weights: one weight per label, float [num_labels]: of its rows (single label) or of its positives
            (multi-label, torch's `pos_weight`).
        label_smoothing: probability mass spread evenly over all labels; single label only.
    """

    def __init__(
        self,
        problem_type: str,
        *,
        class_weights: npt.NDArray[np.float64] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.problem_type = problem_type
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the weighted sum over the batch, a scalar.

        Args:
            logits: float32 [batch, num_labels].
            labels: int64 [batch]; float32 [batch, num_labels] for multi-label; float32 [batch] for regression.
        """
        import torch
        from torch.nn import functional

        weights = None
        if self.class_weights is not None:
            weights = copy_to(torch.as_tensor(self.class_weights, dtype=logits.dtype), logits.device)
        if self.problem_type == SINGLE_LABEL:
            smoothing = self.label_smoothing
            if weights is None:
                return functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
            rows = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
            return (rows * weights[labels]).sum()
        if self.problem_type == MULTI_LABEL:
            return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="sum")
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")

    def weight(self, labels: npt.NDArray[Any]) -> float:
        """What the sum over rows with these labels is divided by to give torch's `reduction="mean"`."""
        if self.problem_type == MULTI_LABEL:
            return float(labels.size)
        if self.class_weights is not None:
            # A batch may hold only labels of weight zero; its sum is then zero and so is its mean.
            return max(float(self.class_weights[labels].sum()), 1e-12)
        return float(len(labels))


def check_class_weights(asked: str | None, *, problem_type: str, num_labels: int) -> None:
    """Whether `training.class_weights` fit the labels.

    Raises:
        ConfigError: a number too many or too few, or a regression problem.
    """
    if asked is None:
        return
    if problem_type == REGRESSION:
        raise ConfigError(f"{flag_of('training.class_weights')}: a regression problem has no classes to weight.")
    if asked != "balanced" and (found := len(asked.split(","))) != num_labels:
        raise ConfigError(
            f"{flag_of('training.class_weights')}: expected {num_labels} numbers, one per label, found {found}."
        )


def resolve_class_weights(
    asked: str | None, labels: npt.NDArray[Any], *, problem_type: str, num_labels: int
) -> npt.NDArray[np.float64] | None:
    """Turns `training.class_weights` into one number per label.

    Args:
        asked: None, "balanced", or numbers in label order, "1,2.5".
        labels: of the training rows: int64 [num_rows] or float32 [num_rows, num_labels].

    Returns:
        For "balanced", scikit-learn's `n / (num_present * count)` for single labels, of which those without rows do
        not count and have 0; and negatives / positives per label for several labels, of each one at least: with a
        weight of 0, a label that all rows have would not be trained.

    Raises:
        ConfigError: see `check_class_weights`.
    """
    check_class_weights(asked, problem_type=problem_type, num_labels=num_labels)
    if asked is None:
        return None
    if asked == "balanced":
        if problem_type == MULTI_LABEL:
            positives = np.maximum(labels.sum(axis=0), 1)
            return np.asarray(np.maximum(len(labels) - positives, 1) / positives, dtype=np.float64)
        counts = np.bincount(labels, minlength=num_labels)
        weights = np.zeros(num_labels)
        np.divide(len(labels), np.count_nonzero(counts) * counts, out=weights, where=counts > 0)
        return weights
    return np.array([float(item) for item in asked.split(",")])
