"""What label values mean: their spelling, their order, and how they become class ids, multi-hot rows or numbers.

Every label is first spelled, whatever it is stored as, and a label name is such a spelling:

| stored as | spelling |
|---|---|
| ClassLabel | the name; -1 is a missing label |
| boolean | "false", "true" |
| integer | "3" |
| float | "3" where it is whole, else "3.5"; NaN is a missing label |
| text | itself, untouched: "01" is not "1", "Spam" is not "spam "; blank text is a missing label |
| list, or text with a separator | the spellings of its parts; an empty list means that no label applies |

null is a missing label, and so is "-1" (the mark of unlabelled GLUE rows) unless "-1" is a label name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textune.data.column_names import arrow_batches
from textune.data.columns import is_text
from textune.problem_types import REGRESSION, SINGLE_LABEL, ProblemType

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

LabelKind = Literal["names", "boolean", "integer", "float", "text", "list", "null", "other"]

MAX_LABELS_COUNTED = 100_000
"""Beyond this many different values counting stops: no classifier has that many classes, and memory stays flat."""

UNLABELLED = "-1"
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER_PATTERN = re.compile(_NUMBER)
_WHOLE_PATTERN = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_DECIMAL_COMMA_PATTERN = re.compile(r"[+-]?[0-9]+,[0-9]+")
_PLAIN_DECIMAL_PATTERN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")


def natural_key(name: str) -> tuple[int, Decimal, tuple[str | tuple[int, str], ...], str]:
    """Returns a key that sorts label names as people do: "-1" < "0" < "2" < "10" < "a2" < "a10" < "B".

    Numbers come first and by their value, then words without regard to case, digits inside words by their value.
    The last part makes the order total, so that it never depends on the order of the rows.
    """
    stripped = name.strip()
    if _PLAIN_DECIMAL_PATTERN.fullmatch(stripped):
        return (0, Decimal(stripped), (), name)
    chunks: list[str | tuple[int, str]] = []
    for position, chunk in enumerate(re.split(r"([0-9]+)", stripped.casefold())):
        digits = chunk.lstrip("0")
        # By length and then by digit: the value's order without building a number of any size.
        chunks.append((len(digits), digits) if position % 2 else chunk)
    return (1, Decimal(0), tuple(chunks), name)


def natural_sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names in natural order (see `natural_key`)."""
    return tuple(sorted(names, key=natural_key))


def is_number(text: str) -> bool:
    """Tells whether text is a finite decimal number in ASCII, such as "3.8", "-1" or "1e-3", blanks around allowed."""
    return _NUMBER_PATTERN.fullmatch(text.strip()) is not None


def is_whole_number(text: str) -> bool:
    """Tells whether text is a whole number, such as "3", "-1" or "3.0", blanks around allowed."""
    return _WHOLE_PATTERN.fullmatch(text.strip()) is not None


def class_names(feature: Any) -> tuple[str, ...] | None:
    """Returns the names of a ClassLabel feature, or of a list of ClassLabel; None for any other feature."""
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    return None if names is None else tuple(names)


def label_kind(arrow_type: Any, feature: Any) -> LabelKind:
    """Returns how a label column is stored."""
    types = pa.types
    if types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type):
        return "other" if label_kind(arrow_type.value_type, None) in ("list", "other") else "list"
    if class_names(feature) is not None:
        return "names"
    tests: tuple[tuple[Any, LabelKind], ...] = (
        (types.is_boolean, "boolean"),
        (types.is_integer, "integer"),
        (types.is_floating, "float"),
        (types.is_decimal, "float"),
        (is_text, "text"),
        (types.is_null, "null"),
    )
    return next((kind for test, kind in tests if test(arrow_type)), "other")


def with_point(text: str) -> str | None:
    """A number with a decimal comma, such as "0,94", with a point; None for any other text."""
    return text.strip().replace(",", ".") if _DECIMAL_COMMA_PATTERN.fullmatch(text.strip()) else None


@dataclass(frozen=True)
class SpelledLabels:
    """The labels of one batch as text."""

    flat: pa.Array
    """Every label of every row, one after the other; never null."""
    rows: NDArray[np.int64]
    """[len(flat)] the row of the batch to which each of them belongs, ascending."""
    missing: NDArray[np.bool_]
    """[rows of the batch] True where a row's label is missing."""


def spell_labels(column: Any, feature: Any, *, separator: str | None = None) -> SpelledLabels:
    """Spells the labels of one batch (see the module's table).

    Args:
        column: `pyarrow.ChunkedArray` of the raw column.
        feature: the `datasets` feature of the column, for the names of a ClassLabel.
        separator: what stands between the labels of one text, for multi-label data; other columns are not split.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if label_kind(values.type, feature) == "list":
        flat, rows = pc.list_flatten(values), pc.list_parent_indices(values).to_numpy()
    elif separator is not None and is_text(values.type):
        parts = pc.split_pattern(pc.cast(values, pa.string()), pattern=separator)
        flat, rows = pc.utf8_trim_whitespace(pc.list_flatten(parts)), pc.list_parent_indices(parts).to_numpy()
        written = pc.not_equal(flat, "")
        flat, rows = flat.filter(written), rows[written.to_numpy(zero_copy_only=False)]
    else:
        flat, rows = values, np.arange(len(values), dtype=np.int64)
    spelled = _spell(flat, class_names(feature))
    unspelled = spelled.is_null().to_numpy(zero_copy_only=False)
    missing = missing.copy()
    missing[rows[unspelled]] = True
    return SpelledLabels(flat=spelled.drop_null(), rows=rows[~unspelled].astype(np.int64), missing=missing)


def read_numbers(column: Any) -> NDArray[np.float32]:
    """Reads the numbers of one batch as float32 targets: NaN where there is none, infinity where it is too large.

    Text counts as a number only in the form of `is_number`; "nan", "inf" and "1_000" are not numbers.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if is_text(values.type):
        values = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.match_substring_regex(values, f"^(?:{_NUMBER})$"), values, None)
    numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = numbers.astype(np.float32)
    return result


@dataclass
class LabelScan:
    """What one pass over a label column found."""

    kind: LabelKind
    counts: Counter[str] = field(default_factory=Counter)
    """Rows per spelled label, for the first `MAX_LABELS_COUNTED` different ones."""
    num_rows: int = 0
    num_missing: int = 0
    num_labels: int = 0
    """Labels read in all: the rows that have one, or more than that in multi-label data."""
    num_whole: int = 0
    """How many of them are whole numbers."""
    num_fractions: int = 0
    """How many of them are numbers that are not whole."""
    looks_multi_hot: bool = False
    """Lists of one length that hold only 0 and 1, with repeats: a row per class, not a list of labels."""

    @property
    def overflowed(self) -> bool:
        """Whether there are more different labels than are counted."""
        return len(self.counts) >= MAX_LABELS_COUNTED

    def stands_for_positions(self, label_names: Sequence[str]) -> bool:
        """Tells whether the labels are positions in `label_names`: all are whole numbers and none is itself a name."""
        known = set(label_names)
        spellings = self.counts.keys() - {UNLABELLED}
        positions = [spelling for spelling in spellings if re.fullmatch("[0-9]+", spelling) and spelling not in known]
        return 0 < len(spellings) == len(positions) and bool(known)

    def is_labelled(self, label_names: Sequence[str]) -> bool:
        """Tells whether any row has a label; "-1" alone is none, unless it is a label name."""
        unlabelled = set() if UNLABELLED in label_names else {UNLABELLED, "-1.0"}
        return bool(self.counts.keys() - unlabelled)


def scan_labels(dataset: Dataset, column: str, *, separator: str | None = None) -> LabelScan:
    """Counts the labels of one split in one pass, memory flat."""
    feature = dataset.features[column]
    scan = LabelScan(kind=label_kind(dataset.data.schema.field(column).type, feature))
    if scan.kind == "other":
        return scan
    lengths: set[int] = set()
    repeats = False
    for batch in arrow_batches(dataset, [column]):
        values = batch.column(column)
        labels = spell_labels(values, feature, separator=separator)
        scan.num_rows += len(values)
        scan.num_missing += int(labels.missing.sum())
        for entry in pc.value_counts(labels.flat).to_pylist():
            spelling, count = entry["values"], entry["counts"]
            if not scan.overflowed or spelling in scan.counts:
                scan.counts[spelling] += count
            scan.num_labels += count
            if is_whole_number(spelling):
                scan.num_whole += count
            elif is_number(spelling):
                scan.num_fractions += count
        if scan.kind == "list":
            lengths.update(np.unique(np.bincount(labels.rows, minlength=len(values))).tolist())
            distinct = pa.table({"row": labels.rows, "label": labels.flat}).group_by(["row", "label"]).aggregate([])
            repeats = repeats or distinct.num_rows < len(labels.flat)
    only_zero_and_one = scan.counts.keys() <= {"0", "1", "false", "true"}
    scan.looks_multi_hot = repeats and only_zero_and_one and len(lengths) == 1
    return scan


@dataclass(frozen=True)
class EncodedLabels:
    """The labels of one batch as a model learns them."""

    values: pa.Array
    """int64 class ids, list<float32> multi-hot rows or float32 numbers; meaningless in missing and wrong rows."""
    missing: NDArray[np.bool_]
    """[rows] True where there is no label."""
    wrong_rows: NDArray[np.int64]
    """Rows whose label is unknown or not a finite number; a row appears once per wrong label."""
    wrong_labels: tuple[str, ...]
    """What stands in these rows."""


@dataclass(frozen=True)
class LabelEncoder:
    """Encodes the raw label column of one split.

    `by_position` says that the labels are positions in `label_names` (see `LabelScan.stands_for_positions`).
    """

    problem_type: ProblemType
    label_names: tuple[str, ...]
    separator: str | None
    feature: Any
    by_position: bool = False

    @property
    def arrow_type(self) -> Any:
        """The `pyarrow.DataType` of the encoded column."""
        if self.problem_type == REGRESSION:
            return pa.float32()
        return pa.int64() if self.problem_type == SINGLE_LABEL else pa.list_(pa.float32())

    def encode(self, column: Any) -> EncodedLabels:
        """Encodes one batch of the raw column (`pyarrow.ChunkedArray`)."""
        labels = spell_labels(column, self.feature, separator=self.separator)
        if self.problem_type == REGRESSION:
            numbers = read_numbers(column)
            wrong = np.flatnonzero(~np.isfinite(numbers) & ~labels.missing)
            raw = labels.flat.take(pa.array(np.searchsorted(labels.rows, wrong)))
            return EncodedLabels(pa.array(numbers), labels.missing, wrong, tuple(raw.to_pylist()))
        missing = labels.missing.copy()
        if UNLABELLED not in self.label_names:
            missing[labels.rows[pc.equal(labels.flat, UNLABELLED).to_numpy(zero_copy_only=False)]] = True
        names = [str(position) for position in range(len(self.label_names))] if self.by_position else self.label_names
        found = pc.index_in(labels.flat, value_set=pa.array(names, pa.string()))
        ids = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        wrong_at = np.flatnonzero((ids < 0) & ~missing[labels.rows])
        values = self._ids_of_rows(labels.rows[ids >= 0], ids[ids >= 0], num_rows=len(missing))
        wrong_labels = tuple(labels.flat.take(pa.array(wrong_at)).to_pylist())
        return EncodedLabels(values, missing, labels.rows[wrong_at], wrong_labels)

    def _ids_of_rows(self, rows: NDArray[np.int64], ids: NDArray[np.int32], *, num_rows: int) -> pa.Array:
        if self.problem_type == SINGLE_LABEL:
            class_ids = np.zeros(num_rows, dtype=np.int64)
            class_ids[rows] = ids
            return pa.array(class_ids)
        num_labels = len(self.label_names)
        multi_hot = np.zeros((num_rows, num_labels), dtype=np.float32)
        multi_hot[rows, ids] = 1.0
        offsets = np.arange(num_rows + 1, dtype=np.int32) * num_labels
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(multi_hot.reshape(-1)))


def _spell(values: pa.Array, names: tuple[str, ...] | None) -> pa.Array:
    """Spells single values; null where there is no label."""
    kind = values.type
    if names is not None and pa.types.is_integer(kind):
        inside = pc.and_(pc.greater_equal(values, 0), pc.less(values, len(names)))
        known = pc.take(pa.array(names, pa.string()), pc.if_else(inside, values, None))
        beyond = pc.if_else(pc.greater_equal(values, len(names)), pc.cast(values, pa.string()), None)
        return pc.coalesce(known, beyond)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = pc.cast(values, pa.float64(), safe=False) if pa.types.is_decimal(kind) else values
        numbers = pc.add(numbers, pa.scalar(0.0, numbers.type))  # -0.0 is spelled "0"
        return pc.cast(pc.if_else(pc.is_nan(numbers), None, numbers), pa.string())
    spelled = pc.cast(values, pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(spelled), ""), None, spelled)
