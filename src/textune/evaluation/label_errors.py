"""Confident learning: which labels are probably wrong, from probabilities that were not fitted to them.

After Northcutt, Jiang and Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, Journal of Artificial
Intelligence Research 70 (2021), and their library cleanlab, whose figures these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelErrors:
    """Rows whose label is probably wrong.

    Attributes:
        rows: their 0-based numbers, int64 [suspects], the most suspicious first.
        suggested: the class that each of them is confidently counted to, int64 [suspects].
        margins: of all rows, float64 [rows]: probability of the label less that of the likeliest other class, -1 to 1;
            the lower the more suspicious.
        joint: confident joint, int64 [classes, classes]: rows by their label and the class they are confidently of.
        estimated_share: share of all rows that have a wrong label, estimated from the joint.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margins: NDArray[np.float64]
    joint: NDArray[np.int64]
    estimated_share: float


def label_errors(labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> LabelErrors:
    """Finds the labels that a model contradicts with confidence.

    A row is confidently of a class where its probability for it reaches the mean of those rows that have the label; of
    several such classes the likeliest counts. Rows that are confidently of another class than their label's, which is
    not the likeliest one either, are suspects, in order of their margin.

    Args:
        labels: class ids, [rows].
        probabilities: [rows, classes], each row from a model that has not seen the row: out of fold.
    """
    num_rows, num_classes = probabilities.shape
    own = probabilities[np.arange(num_rows), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=num_classes)
    # A class without rows has no mean; nothing is confidently of it.
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds - 1e-6, probabilities, -np.inf)
    confident = np.isfinite(reached.max(axis=1))
    classes = reached.argmax(axis=1)

    joint = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(joint, (labels[confident], classes[confident]), 1)
    others = np.array(probabilities, np.float64)
    others[np.arange(num_rows), labels] = -np.inf
    margins = own - others.max(axis=1)
    suspects = np.flatnonzero(confident & (classes != labels) & (margins < 0))
    suspects = suspects[np.argsort(margins[suspects], kind="stable")]
    return LabelErrors(suspects, classes[suspects].astype(np.int64), margins, joint, _estimated_share(joint, counts))


def _estimated_share(joint: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Each row of the joint stands for all rows with that label, also those that were not confidently counted."""
    totals = joint.sum(axis=1)
    wrong = totals - np.diag(joint)
    return float((counts * wrong / np.maximum(totals, 1)).sum() / max(counts.sum(), 1))
