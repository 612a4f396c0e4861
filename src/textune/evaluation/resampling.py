"""The bootstrap's resamples, fast: rows that are alike are counted instead of drawn one by one.

A resample is a weight for each cell. A cell holds rows that are alike (the same label, the same predictions): how often
they are drawn is then multinomial, which gives exactly the distribution of drawing rows. Where more than `MAX_CELLS`
rows differ, cells are random groups of rows that are drawn whole: sums over so many groups vary as sums over rows do,
and time and memory stay flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textune.data.tokens import IntArray
from textune.evaluation.predictions import FloatArray

MAX_CELLS = 4000
# Numbers held at once while resamples are computed: 32 MB.
CHUNK = 4_000_000


@dataclass(frozen=True)
class Cells:
    """Rows put together.

    Attributes:
        of_rows: the cell of each row, int64 [num_rows].
        units: how many things can be drawn in each cell, int64 [num_cells]: its rows, or 1 for a group drawn whole.
        first: a row of each cell, int64 [num_cells]; None where cells are groups of rows that differ.
    """

    of_rows: IntArray
    units: IntArray
    first: IntArray | None

    @classmethod
    def of(cls, codes: IntArray | None, *, num_rows: int, seed: int) -> Cells:
        """Puts rows together.

        Args:
            codes: int64 [num_rows], equal for rows that are alike; None where none are.
            seed: decides which rows make a random group.
        """
        if codes is None:
            codes = np.arange(num_rows)
        _, first, of_rows, units = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        if len(units) <= MAX_CELLS:
            return cls(of_rows, units, first)
        of_rows = np.random.default_rng(seed).permutation(num_rows) % MAX_CELLS
        return cls(of_rows, np.ones(MAX_CELLS, np.int64), None)

    def per_unit(self, columns: Any) -> Any:
        """What one draw from each cell adds, sparse float64 [num_cells, num_columns]; `columns` is what rows add."""
        from scipy import sparse

        columns = sparse.csr_array(columns)
        if self.first is not None:
            return columns[self.first]  # not a mean over the cell, whose rounding would tell equal counts apart
        num_rows = len(self.of_rows)
        places = (self.of_rows, np.arange(num_rows))
        sums = sparse.coo_array((np.ones(num_rows), places), shape=(len(self.units), num_rows)).tocsr()
        return sparse.csr_array(sums @ columns)

    def draw(self, num_resamples: int, *, seed: int, chunk: int) -> Iterator[FloatArray]:
        """Yields how often each cell is drawn, float64 [at most `chunk` resamples, num_cells]."""
        generator = np.random.default_rng(seed)
        total, num_cells = int(self.units.sum()), len(self.units)
        for start in range(0, num_resamples, chunk):
            size = min(chunk, num_resamples - start)
            if total == num_cells:
                drawn = generator.integers(num_cells, size=(size, num_cells))
                drawn += np.arange(size)[:, None] * num_cells
                counts = np.bincount(drawn.ravel(), minlength=size * num_cells).reshape(size, num_cells)
            else:
                counts = generator.multinomial(total, self.units / total, size=size)
            yield counts.astype(np.float64)


class Prepared(Protocol):
    """A statistic whose rows have been put into cells."""

    width: int
    """Numbers it holds for each resample at once."""

    def evaluate(self, weights: FloatArray) -> FloatArray:
        """[num_resamples, num_cells] -> [num_resamples, num_names]; NaN where undefined."""

    def leave_one_out(self) -> FloatArray:
        """The values without one unit of each cell: [num_cells, num_names]."""


class Statistic(Protocol):
    """Metrics of one set of rows that can be computed for rows drawn with replacement."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def codes(self) -> IntArray | None:
        """int64 [num_rows], equal for rows that are alike; None where none are."""

    @property
    def num_rows(self) -> int: ...

    def prepare(self, cells: Cells) -> Prepared: ...


@dataclass(frozen=True)
class Additive:
    """Metrics that are functions of sums over rows.

    Attributes:
        names: of the metrics.
        columns: what each row adds, float64 [num_rows, num_columns], dense or sparse.
        compute: sums [..., num_columns] -> values [..., num_names].
        alike: arrays [num_rows, ...] that tell rows apart: those that are equal in all add the same. Empty where each
            row adds something of its own.
    """

    names: tuple[str, ...]
    columns: Any
    compute: Callable[[FloatArray], FloatArray]
    alike: tuple[npt.NDArray[Any], ...] = ()

    @property
    def codes(self) -> IntArray | None:
        return codes_of(*self.alike) if self.alike else None

    @property
    def num_rows(self) -> int:
        return int(self.columns.shape[0])

    def value(self) -> FloatArray:
        """The values of the rows as they are, [num_names]."""
        return self.compute(np.asarray(self.columns.sum(axis=0)))

    def prepare(self, cells: Cells) -> _PreparedSums:
        return _PreparedSums(cells.per_unit(self.columns), cells.units, self.compute)


class _PreparedSums:
    def __init__(self, per_unit: Any, units: IntArray, compute: Callable[[FloatArray], FloatArray]) -> None:
        self._per_unit = per_unit
        self._units = units
        self._compute = compute
        self.width = per_unit.shape[1]

    def evaluate(self, weights: FloatArray) -> FloatArray:
        return self._compute(weights @ self._per_unit)

    def leave_one_out(self) -> FloatArray:
        totals = self._units @ self._per_unit
        size = max(1, CHUNK // self.width)
        starts = range(0, len(self._units), size)
        return np.concatenate(
            [self._compute(totals - self._per_unit[start : start + size].toarray()) for start in starts]
        )


def codes_of(*columns: npt.NDArray[Any]) -> IntArray:
    """A number for each row, equal where all columns are; [num_rows] or [num_rows, num_labels] of 0 and 1."""
    codes: IntArray = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        if column.ndim == 2:
            bits = np.ascontiguousarray(np.packbits(column.astype(bool), axis=1))
            column = bits.view(np.dtype((np.void, bits.shape[1])))[:, 0]
        _, inverse = np.unique(column, return_inverse=True)
        _, codes = np.unique(codes * (inverse.max() + 1) + inverse, return_inverse=True)
    return codes


def resample(statistics: Sequence[Statistic], *, seed: int, num_resamples: int) -> tuple[FloatArray, Cells]:
    """Draws rows with replacement, the same for all statistics, which are of the same rows (of several models, say).

    Returns:
        Their values, float64 [num_statistics, num_resamples, num_names], NaN where undefined; and the cells.
    """
    num_rows = statistics[0].num_rows
    assert all(statistic.num_rows == num_rows for statistic in statistics), "all are of the same rows"
    known = [codes for statistic in statistics if (codes := statistic.codes) is not None]
    codes = codes_of(*known) if len(known) == len(statistics) else None
    cells = Cells.of(codes, num_rows=num_rows, seed=seed)
    prepared = [statistic.prepare(cells) for statistic in statistics]
    chunk = max(1, CHUNK // max(len(cells.units), *(one.width for one in prepared)))
    parts = [
        np.stack([one.evaluate(weights) for one in prepared])
        for weights in cells.draw(num_resamples, seed=seed + 1, chunk=chunk)
    ]
    return np.concatenate(parts, axis=1), cells
