"""Which examples go together, and in which order: a pure function of seed, epoch and, where they matter, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

import numpy as np

from textune.data.tokens import IntArray
from textune.seeds import derive_seed

GROUP_STEPS = 50
"""Steps in a group of rows that are sorted by length together, as in transformers' LengthGroupedSampler."""
MIN_GROUPS = 4
"""Fewer would leave nothing to chance in a small training split; also transformers'."""


class Plan(Protocol):
    """The batches of a training: in each epoch every row once, in as many steps as in any other epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the rows."""
        ...

    @property
    def rows_per_step(self) -> int | Fraction:
        """Rows in one step, for lengths of training in examples; their mean where steps differ."""
        ...

    @property
    def rows_per_pass(self) -> int:
        """Rows in the largest pass."""
        ...

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[IntArray]]:
        """Yields, for each optimiser step of an epoch from `start` on, its row numbers as a list of passes."""
        ...

    def cut(self, passes: Sequence[IntArray], rows: int) -> list[IntArray]:
        """Cuts the passes of a step into smaller ones, whose largest has `rows` rows in the whole training."""
        ...


@dataclass(frozen=True)
class BatchPlan:
    """Random batches without replacement; every row once per epoch.

    Attributes:
        num_rows: rows in the training split.
        batch_size: rows in one forward and backward pass.
        accumulation: passes that make one optimiser step. Plans with the same `batch_size * accumulation` give the
            same rows to the same steps.
        seed: the run's seed; the order comes from its "order" stream.
    """

    num_rows: int
    batch_size: int
    accumulation: int
    seed: int

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.accumulation

    @property
    def rows_per_pass(self) -> int:
        return self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_rows // self.rows_per_step)

    def order(self, epoch: int) -> IntArray:
        """The row numbers of one epoch (0-based) in training order, int64 [num_rows]."""
        return _random_order(self.num_rows, seed=self.seed, purpose="order", epoch=epoch)

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[IntArray]]:
        """Yields, for each optimiser step of an epoch from `start` on, its row numbers as a list of passes."""
        order = self.order(epoch)
        for first in range(start * self.rows_per_step, self.num_rows, self.rows_per_step):
            rows = order[first : first + self.rows_per_step]
            yield _cut(rows, self.batch_size)

    def cut(self, passes: Sequence[IntArray], rows: int) -> list[IntArray]:
        """Cuts the passes of a step into smaller ones of `rows` rows; the last part of a pass may have fewer."""
        return [part for whole in passes for part in _cut(whole, rows)]


@dataclass(frozen=True, eq=False)
class ShapedPlan:
    """Batches whose shapes (how many rows of which length lie in each pass) are drawn once, before training.

    An epoch fills the shapes with rows: each place takes a random one of the rows of its length, and the steps come in
    random order, the largest first. So epochs have equally many steps, no pass is ever larger than in the first epoch,
    and memory that lasts for the first step lasts for all.

    `shaped_plan` makes one.

    Attributes:
        lengths: tokens per row, int64 [num_rows].
        places: the places of an epoch in the order of the lengths that lie there, int64 [num_rows].
        bounds: first place of each pass, and behind them the number of rows; int64 [num_passes + 1].
        has_budget: whether tokens, not rows, were counted to draw the bounds.
        accumulation: passes that make one optimiser step; the last in `bounds` may have fewer.
        largest: number of the step with the most tokens.
        seed: the run's seed.
    """

    lengths: IntArray
    places: IntArray
    bounds: IntArray
    has_budget: bool
    accumulation: int
    largest: int
    seed: int

    @property
    def rows_per_step(self) -> Fraction:
        return Fraction(len(self.lengths), self.steps_per_epoch)

    @property
    def rows_per_pass(self) -> int:
        return int(np.diff(self.bounds).max())

    @property
    def steps_per_epoch(self) -> int:
        return -(-(len(self.bounds) - 1) // self.accumulation)

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[IntArray]]:
        """Yields, for each optimiser step of an epoch from `start` on, its row numbers as a list of passes."""
        shuffled = _random_order(len(self.lengths), seed=self.seed, purpose="order", epoch=epoch)
        rows = np.empty_like(shuffled)
        rows[self.places] = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        numbers = _random_order(self.steps_per_epoch, seed=self.seed, purpose="order of steps", epoch=epoch)
        for number in [self.largest, *numbers[numbers != self.largest]][start:]:
            first = number * self.accumulation
            bounds = self.bounds[first : first + self.accumulation + 1]
            yield [rows[begin:end] for begin, end in pairwise(bounds)]

    def cut(self, passes: Sequence[IntArray], rows: int) -> list[IntArray]:
        """Cuts the passes of a step into smaller ones: of `rows` rows, or with a budget all in as many parts."""
        parts = -(-self.rows_per_pass // rows)
        sizes = [-(-len(whole) // parts) if self.has_budget else rows for whole in passes]
        return [part for whole, size in zip(passes, sizes, strict=True) for part in _cut(whole, size)]


def shaped_plan(
    lengths: IntArray,
    *,
    batch_size: int,
    tokens_per_batch: int | None,
    accumulation: int,
    by_length: bool,
    padded: bool,
    seed: int,
) -> ShapedPlan:
    """Draws the shapes of batches.

    The rows are shuffled, with `by_length` cut into groups of about 50 steps and sorted inside each, and cut into
    passes; passes that follow each other make a step, so that they are alike and several processes have equally much
    to do. Without a budget, plans with the same `batch_size * accumulation` give the same rows to the same steps.

    Args:
        lengths: tokens per row, int64 [num_rows]; where batches are padded, as wide as a batch of this row alone.
        batch_size: rows in one pass, where there is no budget.
        tokens_per_batch: tokens in one pass at most; a row that has more goes alone.
        accumulation: passes that make one optimiser step.
        padded: whether passes compute their padding too, so that it counts: as many rows times the longest of them.
    """
    order = _random_order(len(lengths), seed=seed, purpose="shapes of batches", epoch=0)
    if by_length:
        rows_per_pass = batch_size if tokens_per_batch is None else max(1.0, tokens_per_batch / lengths.mean())
        order = _grouped_by_length(order, lengths, steps=round(len(order) / (rows_per_pass * accumulation)))
    shape = lengths[order]
    if tokens_per_batch is None:
        bounds = [*range(0, len(shape), batch_size), len(shape)]
    else:
        bounds = _within_budget(shape.tolist(), tokens_per_batch, padded=padded)
    steps = [*bounds[:-1:accumulation], len(shape)]
    sizes = [_tokens(shape[begin:end], padded=padded) for begin, end in pairwise(steps)]
    return ShapedPlan(
        lengths=lengths,
        places=np.argsort(shape, kind="stable"),
        bounds=np.array(bounds),
        has_budget=tokens_per_batch is not None,
        accumulation=accumulation,
        largest=int(np.argmax(sizes)),
        seed=seed,
    )


def _cut(rows: IntArray, size: int) -> list[IntArray]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _random_order(num_items: int, *, seed: int, purpose: str, epoch: int) -> IntArray:
    """Each number below `num_items` once, int64 [num_items]."""
    # Sorting raw bits, which NumPy promises to keep between releases; it does not promise `permutation`.
    keys = np.random.PCG64([derive_seed(seed, purpose), epoch]).random_raw(num_items)
    return np.argsort(keys, kind="stable")


def _grouped_by_length(order: IntArray, lengths: IntArray, *, steps: int) -> IntArray:
    """Sorts by length inside groups. Every second one begins with its longest: a pass may lie across two groups."""
    group_steps = min(GROUP_STEPS, max(1, steps // MIN_GROUPS))
    groups = np.array_split(order, max(1, round(steps / group_steps)))
    ascending = [group[np.argsort(lengths[group], kind="stable")] for group in groups]
    return np.concatenate([group[::-1] if number % 2 else group for number, group in enumerate(ascending)])


def _within_budget(shape: list[int], budget: int, *, padded: bool) -> list[int]:
    """Cuts lengths into passes that take what comes next while it fits; returns their bounds."""
    bounds, rows, longest, total = [0], 0, 0, 0
    for place, length in enumerate(shape):
        rows, longest, total = rows + 1, max(longest, length), total + length
        if rows > 1 and (rows * longest if padded else total) > budget:
            bounds.append(place)
            rows, longest, total = 1, length, length
    return [*bounds, len(shape)]


def _tokens(lengths: IntArray, *, padded: bool) -> int:
    """What a model computes for rows of these lengths."""
    return int(len(lengths) * lengths.max() if padded else lengths.sum())
