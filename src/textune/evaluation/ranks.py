"""Spearman's correlation of resampled rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from textune.data.tokens import IntArray
from textune.evaluation.predictions import FloatArray
from textune.evaluation.resampling import Additive, Cells, Prepared
from textune.evaluation.sums import correlation


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation. Each resample is ranked anew, with mean ranks for ties.

    Where rows are drawn in groups, and for the jackknife, its first-order expansion around all rows is used: the change
    of the (mid-)distribution functions that a row's weight makes is carried through all three of its moments.
    """

    x: FloatArray
    y: FloatArray
    names: tuple[str, ...] = ("spearmanr",)
    codes: IntArray | None = None

    @property
    def num_rows(self) -> int:
        return len(self.x)

    def value(self) -> FloatArray:
        """The value of the rows as they are, [1]."""
        value: FloatArray = _PreparedRanks(self).evaluate(np.ones((1, len(self.x))))[0]
        return value

    def prepare(self, cells: Cells) -> Prepared:
        return self.expansion().prepare(cells) if cells.first is None else _PreparedRanks(self)

    def expansion(self) -> Additive:
        """The first-order expansion as a function of sums."""
        (x, x_above), (y, y_above) = (_mid_distribution(values) for values in (self.x, self.y))
        derivatives = np.column_stack(
            [
                np.ones(len(x)),
                x * y + x_above(y) + y_above(x),
                x * x + 2 * x_above(x),
                y * y + 2 * y_above(y),
            ]
        )
        moments = np.array([np.mean(x * y), np.mean(x * x), np.mean(y * y)])
        means = derivatives[:, 1:].mean(axis=0)

        def compute(totals: FloatArray) -> FloatArray:
            covariance, x_square, y_square = np.moveaxis(
                moments + totals[..., 1:] / totals[..., :1] - means - 0.25, -1, 0
            )
            scale = np.ones_like(covariance)
            return correlation(covariance, x_square, y_square, scale=(scale, scale))[..., None]

        return Additive(self.names, derivatives, compute)


def _mid_distribution(values: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
    """The share of rows below each row, those equal to it counted half; and its derivative's part of a mean.

    The second is a function of f [num_rows]: the mean over all rows i of f[i] * (value of k below that of i, or half
    where equal), for each row k.
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = (np.cumsum(counts) - counts / 2) / len(values)

    def mean_above(f: FloatArray) -> FloatArray:
        sums = np.bincount(inverse, weights=f)
        above: FloatArray = (np.cumsum(sums[::-1])[::-1] - sums / 2) / len(values)
        return above[inverse]

    return below[inverse], mean_above


class _PreparedRanks:
    def __init__(self, statistic: RankCorrelation) -> None:
        self._statistic = statistic
        self._groups = [np.unique(values, return_inverse=True)[1] for values in (statistic.x, statistic.y)]
        self.width = 4 * len(statistic.x)

    def evaluate(self, weights: FloatArray) -> FloatArray:
        middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
        x, y = (_weighted_ranks(weights, groups) - middle for groups in self._groups)
        weighted = weights * x
        xx, xy = np.sum(weighted * x, axis=1), np.sum(weighted * y, axis=1)
        yy = np.sum(weights * y * y, axis=1)
        scale = middle[:, 0] ** 2
        return correlation(xy, xx, yy, scale=(scale, scale))[:, None]

    def leave_one_out(self) -> FloatArray:
        cells = Cells.of(None, num_rows=self._statistic.num_rows, seed=0)
        return self._statistic.expansion().prepare(cells).leave_one_out()


def _weighted_ranks(weights: FloatArray, groups: IntArray) -> FloatArray:
    """Mean ranks, from 1, of rows that stand `weights` times; `groups` are in the order of the values."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sums = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: FloatArray = np.cumsum(sums, axis=1) - (sums - 1) / 2
    return ranks[:, groups]
