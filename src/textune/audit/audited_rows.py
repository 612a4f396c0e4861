"""All rows of a data set in a few arrays, for checks that compare rows: keys of their texts, labels, row numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.audit.findings import Example, Finding
from textune.audit.wording import count_of
from textune.data.column_names import arrow_batches
from textune.data.rows import labels_of
from textune.data.schema import Schema
from textune.data.splits import text_hashes

if TYPE_CHECKING:
    from datasets import DatasetDict
    from numpy.typing import NDArray

MAX_EXAMPLES = 5
MAX_EXAMPLE_CHARACTERS = 300
SEPARATOR = "\x1f"
"""Between the texts of a pair in a key; no blank, so that normalisation leaves it."""

Texts = tuple[list[str], list[str] | None]
_SINGULAR = {"equal": "equals", "are": "is", "have": "has"}


@dataclass(frozen=True)
class AuditedRows:
    """Rows of all splits one behind the other, the training split first.

    Attributes:
        splits: typed rows (`textune.data.rows`).
        starts: of each split in the arrays, and their length at the end: [num_splits + 1].
        numbers: 1-based row numbers in the source.
        keys: 64 bits of the hash of the normalised text or pair: rows with equal keys have equal texts.
        unordered: the same with the texts of a pair in alphabetical order; `keys` itself for single texts.
        labels: float64: class id, number of the label combination (multi-label), or target; NaN where there is none.
        characters: in text and second text together.
    """

    splits: DatasetDict
    schema: Schema
    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    keys: NDArray[np.uint64]
    unordered: NDArray[np.uint64]
    labels: NDArray[np.float64]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def names(self) -> list[str]:
        return list(self.splits)

    def span(self, split: str) -> slice:
        """Where a split lies in the arrays."""
        place = self.names.index(split)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def finding(
        self,
        kind: str,
        split: str,
        chosen: NDArray[np.int64],
        what: str,
        *,
        other_split: str | None = None,
        others: NDArray[np.int64] | None = None,
        details: Sequence[str | None] | None = None,
    ) -> Finding:
        """Makes a finding of some rows of a split.

        Args:
            chosen: where the rows stand in the arrays.
            what: goes on after "12 of 408 validation rows (2.9 %)", with a verb of `_SINGULAR`.
            others: for each of `chosen` the place of a row it is like, in `other_split`.
            details: what is odd about the first `MAX_EXAMPLES` of them.
        """
        rows_in_split = len(self.splits[split])
        if len(chosen) == 1:
            verb, _, rest = what.partition(" ")
            what = f"{_SINGULAR.get(verb, verb)} {rest}"
        first = chosen[:MAX_EXAMPLES].tolist()
        partners = [None] * len(first) if others is None else others[:MAX_EXAMPLES].tolist()
        return Finding(
            kind,
            split,
            len(chosen),
            rows_in_split,
            f"{count_of(len(chosen), rows_in_split, split)} {what}",
            rows=self.numbers[chosen],
            other_split=other_split,
            other_rows=None if others is None else self.numbers[others],
            examples=tuple(map(self._example, first, partners, details or [None] * len(first))),
        )

    def _example(self, place: int, other: int | None, detail: str | None) -> Example:
        shown = self._shown(place)
        partner = {} if other is None else {f"other_{name}": value for name, value in self._shown(other).items()}
        return Example(**shown, **partner, detail=detail)

    def _shown(self, place: int) -> dict[str, Any]:
        """The row at a place: its number, texts cut to `MAX_EXAMPLE_CHARACTERS`, and label in words."""
        at = int(np.searchsorted(self.starts, place, side="right")) - 1
        row = self.splits[self.names[at]][place - int(self.starts[at])]
        pair = row.get("text_pair")
        return {
            "row": int(self.numbers[place]),
            "text": cut(row["text"]),
            "text_pair": None if pair is None else cut(pair),
            "label": self._label_in_words(row.get("labels")),
        }

    def _label_in_words(self, label: Any) -> str | None:
        if label is None:
            return None
        names = self.schema.label_names
        if isinstance(label, list):
            return ", ".join(name for name, flag in zip(names, label, strict=True) if flag) or "none"
        return names[label] if names else f"{label:g}"


def cut(text: str) -> str:
    return text if len(text) <= MAX_EXAMPLE_CHARACTERS else text[: MAX_EXAMPLE_CHARACTERS - 3] + "..."


def normalised(text: str) -> str:
    """The text without differences that nobody means: Unicode form (NFKC), case, and how blanks are written."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def collect(
    splits: DatasetDict, schema: Schema, *, on_batch: Callable[[Texts, list[str]], None] | None = None
) -> AuditedRows:
    """Reads all rows once.

    Args:
        splits: typed rows; the first split is compared with the others, so it should be the training split.
        on_batch: called with the texts of each batch and with their normalised form (pairs in alphabetical order,
            `SEPARATOR` between them), in the order of the arrays.
    """
    keys, unordered, characters, numbers = [], [], [], []
    for split in splits.values():
        for texts, rows in batches(split):
            ordered, sorted_texts, lengths = _normalised(texts)
            keys.append(text_hashes(ordered))
            unordered.append(keys[-1] if texts[1] is None else text_hashes(sorted_texts))
            characters.append(lengths)
            numbers.append(rows + 1)
            if on_batch is not None:
                on_batch(texts, sorted_texts)
    return AuditedRows(
        splits,
        schema,
        np.cumsum([0, *(len(split) for split in splits.values())]),
        np.concatenate(numbers),
        np.concatenate(keys),
        np.concatenate(unordered),
        np.concatenate(_label_numbers({name: labels_of(split) for name, split in splits.items()}, splits)),
        np.concatenate(characters),
    )


def batches(split: Any) -> Iterator[tuple[Texts, NDArray[np.int64]]]:
    """Yields the texts of a typed split and their 0-based row numbers."""
    columns = [name for name in ("row", "text", "text_pair") if name in split.column_names]
    for batch in arrow_batches(split, columns):
        pairs = batch.column("text_pair").to_pylist() if "text_pair" in columns else None
        yield (batch.column("text").to_pylist(), pairs), batch.column("row").to_numpy()


def joined(texts: Texts) -> list[str]:
    """Pairs as one text each."""
    first, second = texts
    return first if second is None else [f"{a} {b}" for a, b in zip(first, second, strict=True)]


def _normalised(texts: Texts) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Normalised texts in their order and, for pairs, in alphabetical order; characters before normalisation."""
    first = list(map(normalised, texts[0]))
    lengths = np.fromiter(map(len, texts[0]), np.int64, len(first))
    if texts[1] is None:
        return first, first, lengths
    second = list(map(normalised, texts[1]))
    ordered = [f"{a}{SEPARATOR}{b}" for a, b in zip(first, second, strict=True)]
    by_alphabet = [text if a <= b else f"{b}{SEPARATOR}{a}" for text, a, b in zip(ordered, first, second, strict=True)]
    return ordered, by_alphabet, lengths + np.fromiter(map(len, texts[1]), np.int64, len(second))


def _label_numbers(labels: Mapping[str, NDArray[Any] | None], splits: DatasetDict) -> list[NDArray[np.float64]]:
    """The labels of each split as numbers that are equal exactly where the labels are."""
    numbers: dict[bytes, int] = {}

    def of(name: str) -> NDArray[np.float64]:
        values = labels[name]
        if values is None:
            return np.full(len(splits[name]), np.nan)
        if values.ndim == 1:
            return values.astype(np.float64)
        combinations = np.packbits(values > 0, axis=1)
        return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in combinations], np.float64)

    return [of(name) for name in splits]
