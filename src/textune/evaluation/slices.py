"""Parts of a split - short rows, one label, one source, cut rows - and how each fares beside the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.data.tokens import IntArray
from textune.evaluation.intervals import LEVEL, wilson
from textune.evaluation.predictions import FloatArray

MAX_VALUES = 20
"""A further column with more different values than this does not cut the rows into parts worth looking at."""
MIN_ROWS = 5
"""Nor does one with fewer rows than this for each value, on average: dates, names."""


@dataclass(frozen=True)
class RowScores:
    """What each row scored.

    Attributes:
        metric: `accuracy`, values 1 (all of the row is right) and 0; or `mean_absolute_error`, the absolute residuals.
        values: float64 [num_rows].
    """

    metric: str
    values: FloatArray

    def overall(self) -> Slice:
        """All rows as one slice."""
        return self.slices("all", ["all rows"], np.zeros(len(self.values), np.int64))[0]

    def slices(self, kind: str, names: Sequence[str], codes: IntArray, *, overall: float | None = None) -> list[Slice]:
        """One slice per name that has rows.

        Args:
            codes: [num_rows] the place in `names` of each row's slice; -1 for rows in none.
            overall: the value of all rows, with which each slice is compared.
        """
        inside = codes >= 0
        count = np.bincount(codes[inside], minlength=len(names))
        total, squares = (
            np.bincount(codes[inside], weights=values[inside], minlength=len(names))
            for values in (self.values, self.values**2)
        )
        return [
            self._slice(kind, name, int(count[place]), float(total[place]), float(squares[place]), overall)
            for place, name in enumerate(names)
            if count[place]
        ]

    def label_slices(self, names: Sequence[str], labels: npt.NDArray[Any], *, overall: float) -> list[Slice]:
        """One slice per label; in multi-label data, multi-hot [num_rows, num_labels], a row is in several."""
        if labels.ndim == 1:
            return self.slices("label", names, labels, overall=overall)
        count, total = labels.sum(axis=0, dtype=np.float64), self.values @ labels.astype(np.float64)
        return [  # the values are 0 and 1, so that their squares add up to the same
            self._slice("label", name, int(count[place]), float(total[place]), float(total[place]), overall)
            for place, name in enumerate(names)
            if count[place]
        ]

    def _slice(self, kind: str, name: str, count: int, total: float, squares: float, overall: float | None) -> Slice:
        value = total / count
        if self.metric == "accuracy":
            found = wilson(round(total), count)
            interval: tuple[float, float] | None = (found.low, found.high)
        else:
            interval = _mean_interval(value, count, squares)
        differs = overall is not None and interval is not None and not interval[0] <= overall <= interval[1]
        return Slice(kind, name, count, value, interval, differs)


@dataclass(frozen=True)
class Slice:
    """One part of the rows.

    Attributes:
        kind: `length`, `label`, `target`, `truncation`, or `column NAME`.
        value: its metric.
        interval: 95 %: Wilson's for accuracy; for the mean absolute error Student's, not below 0, and None of one row
            or equal ones.
        differs: the figure of all rows lies outside the interval. Of twenty slices that differ from the whole by
            chance only, one is marked so.
    """

    kind: str
    name: str
    rows: int
    value: float
    interval: tuple[float, float] | None
    differs: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "rows": self.rows,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "differs": self.differs,
        }


def find_slices(
    scores: RowScores,
    *,
    labels: npt.NDArray[Any],
    label_names: Sequence[str],
    lengths: IntArray,
    full_lengths: IntArray,
    columns: Mapping[str, pa.ChunkedArray],
) -> list[Slice]:
    """Cuts the rows by length, truncation, label (or quartile of the target) and further columns.

    Args:
        labels: int64 [num_rows], float32 [num_rows, num_labels], or float32 [num_rows] targets.
        label_names: empty for regression.
        lengths: tokens of each row after truncation, int64 [num_rows]; `full_lengths` before it.
        columns: further columns of the data, of the same rows.
    """
    overall = scores.overall().value
    names, codes = quartiles(lengths)
    slices = scores.slices("length", [f"{name} tokens" for name in names], codes, overall=overall)
    cut = (full_lengths > lengths).astype(np.int64)
    if cut.any():
        slices += scores.slices("truncation", ["whole", "cut"], cut, overall=overall)
    if label_names:
        slices += scores.label_slices(label_names, labels, overall=overall)
    else:
        names, codes = quartiles(labels)
        slices += scores.slices("target", names, codes, overall=overall)
    for column, values in columns.items():
        dictionary = values.cast(pa.string()).combine_chunks().dictionary_encode(null_encoding="encode")
        names = ["(none)" if name is None else name for name in dictionary.dictionary.to_pylist()]
        if 2 <= len(names) <= min(MAX_VALUES, len(values) / MIN_ROWS):
            slices += scores.slices(f"column {column}", names, dictionary.indices.to_numpy(), overall=overall)
    return slices


def quartiles(values: npt.NDArray[Any]) -> tuple[list[str], IntArray]:
    """Cuts rows into up to four parts of like size by a number; equal numbers stay together.

    Returns:
        The range of each part in words, "12 to 20", and the part of each row, int64 [num_rows].
    """
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    codes = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1].astype(np.int64)
    parts = [values[codes == part] for part in range(int(codes.max()) + 1)]
    return [_range(float(part.min()), float(part.max())) for part in parts], codes


def _range(low: float, high: float) -> str:
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _mean_interval(mean: float, count: int, squares: float) -> tuple[float, float] | None:
    """Student's interval of a mean of values that are not negative; None of a single value, and of equal ones."""
    from scipy.stats import t

    deviations = squares - count * mean**2
    if count < 2 or deviations <= 1e-12 * squares:  # what rounding alone makes of no spread
        return None
    variance = deviations / (count - 1)
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * math.sqrt(variance / count)
    return max(mean - half, 0.0), mean + half
