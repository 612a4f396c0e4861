"""How the lengths of tokenised rows are distributed, and what padding would cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from textune.data.tokens import IntArray

MAX_BARS = 40


def length_histogram(lengths: IntArray) -> dict[str, Any]:
    """Counts rows by length in bars of equal width.

    Args:
        lengths: tokens of each row, at least one row.

    Returns:
        `edges`, the first length of each bar and one behind the last; `rows`, how many each bar holds.
    """
    low, high = int(lengths.min()), int(lengths.max()) + 1
    width = -(-(high - low) // MAX_BARS)
    edges = np.arange(low, high + width, width)
    return {"edges": edges.tolist(), "rows": np.histogram(lengths, edges)[0].tolist()}


def padding_share(lengths: IntArray, batch_size: int) -> float:
    """The share of padding, 0 to 1, that batches of rows drawn at random would have if padded to their longest row.

    The expected longest of a batch is computed from the distribution of lengths; nothing is drawn.
    """
    values, counts = np.unique(lengths, return_counts=True)
    at_most = np.cumsum(counts) / len(lengths)
    chance_of_longest = np.diff(at_most**batch_size, prepend=0.0)
    return 1.0 - float(lengths.mean()) / float(values @ chance_of_longest)
