"""Which examples go together, and in which order: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from textune.data.tokens import IntArray
from textune.seeds import derive_seed


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
    def steps_per_epoch(self) -> int:
        return -(-self.num_rows // self.rows_per_step)

    def order(self, epoch: int) -> IntArray:
        """The row numbers of one epoch (0-based) in training order, int64 [num_rows]."""
        # Sorting raw bits, which NumPy promises to keep between releases; it does not promise `permutation`.
        keys = np.random.PCG64([derive_seed(self.seed, "order"), epoch]).random_raw(self.num_rows)
        return np.argsort(keys, kind="stable")

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[IntArray]]:
        """Yields, for each optimiser step of an epoch from `start` on, its row numbers as a list of passes."""
        order = self.order(epoch)
        for first in range(start * self.rows_per_step, self.num_rows, self.rows_per_step):
            rows = order[first : first + self.rows_per_step]
            yield [rows[begin : begin + self.batch_size] for begin in range(0, len(rows), self.batch_size)]
