"""Token ids of many examples: memory-mapped Arrow underneath, NumPy views on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IntArray = npt.NDArray[np.integer[Any]]

_PIECE = 2**22


@dataclass(frozen=True)
class Examples:
    """A few examples, in the order asked for.

    Attributes:
        input_ids: one int32 array of token ids per example, [num_tokens].
        token_type_ids: the same shapes, or None where the tokenizer has none.
    """

    input_ids: list[IntArray]
    token_type_ids: list[IntArray] | None

    def __len__(self) -> int:
        return len(self.input_ids)


class TokenRows:
    """Random access to tokenised rows without copying them into memory.

    Args:
        table: the columns `input_ids` (list<int32>), `full_length` (int32: tokens before truncation) and, where the
            tokenizer has them, `token_type_ids` (list<int8>); as `textune.data.tokenize` writes it.

    Attributes:
        lengths: tokens per row, int64 [num_rows].
        full_lengths: tokens per row before truncation, int64 [num_rows].
    """

    def __init__(self, table: pa.Table) -> None:
        self._ids = _Lists(table.column("input_ids"))
        self._types = _Lists(table.column("token_type_ids")) if "token_type_ids" in table.column_names else None
        self.lengths = self._ids.lengths
        self.full_lengths: IntArray = table.column("full_length").to_numpy().astype(np.int64)

    @classmethod
    def open(cls, path: Path) -> TokenRows:
        """Maps an Arrow stream file into memory; nothing is read until it is needed."""
        with pa.memory_map(str(path)) as source:
            return cls(pa.ipc.open_stream(source).read_all())

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def id_counts(self) -> IntArray:
        """How often each token id occurs in all rows, int64 [largest id + 1]."""
        counts: IntArray = np.zeros(0, np.int64)
        for ids in self._ids.pieces():
            found = np.bincount(ids, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        return counts

    def count_in_rows(self, ids: Sequence[int]) -> IntArray:
        """How many tokens of each row are one of these, int64 [num_rows]."""
        counts = [
            np.diff(np.concatenate([[0], np.cumsum(np.isin(values, ids))])[offsets - offsets[0]])
            for values, offsets in self._ids.chunks()
        ]
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def take(self, rows: Sequence[int] | IntArray) -> Examples:
        """Returns the examples with these row numbers (0-based), in that order, as views."""
        types = None if self._types is None else [self._types[row] for row in rows]
        return Examples([self._ids[row] for row in rows], types)


class _Lists:
    """A chunked Arrow list column as NumPy views, one per row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        lengths = [np.diff(offsets) for offsets in self._offsets]
        self.lengths: IntArray = np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, np.int64)

    def chunks(self) -> Iterator[tuple[IntArray, IntArray]]:
        """The values of each chunk's rows, and its offsets, which need not begin at 0."""
        for values, offsets in zip(self._values, self._offsets, strict=True):
            yield values[offsets[0] : offsets[-1]], offsets

    def pieces(self) -> Iterator[IntArray]:
        """All values, in pieces of a size that memory has room for."""
        for values, _ in self.chunks():
            for start in range(0, len(values), _PIECE):
                yield values[start : start + _PIECE]

    def __getitem__(self, row: int | np.integer[Any]) -> IntArray:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        offsets, local = self._offsets[chunk], row - self._starts[chunk]
        view: IntArray = self._values[chunk][offsets[local] : offsets[local + 1]]
        return view
