"""What metrics are functions of: sums over rows. From them a metric of any resample is computed without its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.evaluation.predictions import FloatArray

BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Outcome:
    """Labels and predictions of the same rows, in the same form (`textune.evaluation.predictions.decide`)."""

    labels: npt.NDArray[Any]
    predictions: npt.NDArray[Any]
    num_labels: int


@dataclass(frozen=True)
class Counts:
    """How often each label is predicted and there; [..., num_labels], where `...` stands for any number of resamples.

    Attributes:
        true_positives: rows with the label for which it is also predicted.
        predicted: rows for which the label is predicted.
        support: rows with the label.
        correct: rows of which everything is predicted rightly, [...].
        rows: all rows, [...].
    """

    true_positives: FloatArray
    predicted: FloatArray
    support: FloatArray
    correct: FloatArray
    rows: FloatArray

    @staticmethod
    def columns(outcome: Outcome) -> Any:
        """What each row adds, a sparse float64 [num_rows, 3 * num_labels + 2]."""
        from scipy import sparse

        labels, predictions = (_one_hot(values, outcome.num_labels) for values in (outcome.labels, outcome.predictions))
        right = Counts.rights(outcome)
        last = np.column_stack([right, np.ones(len(right))])
        return sparse.hstack(
            [labels.multiply(predictions), predictions, labels, sparse.csr_array(last.astype(np.float64))], format="csr"
        )

    @staticmethod
    def rights(outcome: Outcome) -> npt.NDArray[np.bool_]:
        """Whether everything is predicted rightly, for each row, [num_rows]."""
        return whole_rows(np.equal(outcome.labels, outcome.predictions))

    @classmethod
    def of(cls, totals: FloatArray) -> Counts:
        """Names the columns of float64 [..., 3 * num_labels + 2]."""
        num_labels = (totals.shape[-1] - 2) // 3
        found, predicted, there, last = np.split(totals, [size * num_labels for size in (1, 2, 3)], axis=-1)
        return cls(found, predicted, there, last[..., 0], last[..., 1])

    @property
    def f1(self) -> FloatArray:
        """Of each label; 0 where it is neither predicted nor there, as scikit-learn's `zero_division=0`."""
        return ratio(2 * self.true_positives, self.predicted + self.support)


def whole_rows(equal: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which rows are true throughout, of [num_rows] or [num_rows, num_labels]."""
    return equal if equal.ndim == 1 else np.all(equal, axis=1)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient, and 0 where the denominator is 0."""
    result: FloatArray = np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator != 0)
    return result


def _one_hot(values: npt.NDArray[Any], num_labels: int) -> Any:
    from scipy import sparse

    if values.ndim == 2:
        return sparse.csr_array(values.astype(np.float64))
    places = np.arange(len(values) + 1)
    return sparse.csr_array((np.ones(len(values)), values, places), shape=(len(values), num_labels))


@dataclass(frozen=True)
class Moments:
    """Sums of targets x, values y, their squares, product and squared differences, each [...].

    x and y are centred on the means of all rows, so that nothing cancels when variances are computed.
    """

    rows: FloatArray
    x: FloatArray
    y: FloatArray
    xx: FloatArray
    yy: FloatArray
    xy: FloatArray
    squared_error: FloatArray

    @staticmethod
    def columns(outcome: Outcome) -> FloatArray:
        """What each row adds, float64 [num_rows, 7]."""
        x, y = (values.astype(np.float64) for values in (outcome.labels, outcome.predictions))
        error = (y - x) ** 2
        x, y = x - x.mean(), y - y.mean()
        return np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y, error])

    @classmethod
    def of(cls, totals: FloatArray) -> Moments:
        """Names the columns of float64 [..., 7]."""
        return cls(*np.moveaxis(totals, -1, 0))

    @property
    def correlation(self) -> FloatArray:
        """Pearson's; NaN where x or y is constant."""
        covariance = self.xy - self.x * self.y / self.rows
        return correlation(
            covariance, self.xx - self.x**2 / self.rows, self.yy - self.y**2 / self.rows, scale=(self.xx, self.yy)
        )


def correlation(
    covariance: FloatArray, x_variance: FloatArray, y_variance: FloatArray, *, scale: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Covariance by standard deviations; NaN where a variance is nothing but rounding of numbers of size `scale`."""
    varies = (x_variance > 1e-12 * scale[0]) & (y_variance > 1e-12 * scale[1])
    # Rooted one by one: the product of two variances may be beyond float64.
    root = np.sqrt(np.where(varies, x_variance, 1.0)) * np.sqrt(np.where(varies, y_variance, 1.0))
    return np.where(varies, np.clip(covariance / root, -1.0, 1.0), np.nan)


def row_losses(logits: FloatArray, labels: npt.NDArray[Any]) -> FloatArray:
    """The loss of each row, float64 [num_rows], as `textune.models.losses.Loss` defines it without weights.

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows] class ids, float32 [num_rows, num_labels] of 0 and 1, or float32 [num_rows] targets.
    """
    losses = np.empty(len(labels))
    for start in range(0, len(labels), BLOCK_ROWS):  # float64 copies of all logits would be large
        block = slice(start, start + BLOCK_ROWS)
        losses[block] = _block_losses(logits[block].astype(np.float64), labels[block])
    return losses


def _block_losses(logits: FloatArray, labels: npt.NDArray[Any]) -> FloatArray:
    from scipy.special import logsumexp

    losses: FloatArray
    if labels.ndim == 2:
        losses = np.mean(np.logaddexp(0, logits) - labels * logits, axis=1)
    elif labels.dtype.kind == "f":
        losses = (logits[:, 0] - labels) ** 2
    else:
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return losses
