"""Raw columns -> typed, checked rows: `id`, `row`, `text`, `text_pair`, `labels`. A bad row is named or counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textune.data.column_names import arrow_batches, arrow_type, missing_column
from textune.data.columns import is_text
from textune.data.labels import LabelEncoder, label_kind, scan_labels, with_point
from textune.data.schema import Schema
from textune.data.wording import listed, near_name, quoted
from textune.errors import DataError, first_rows
from textune.files import storage_errors
from textune.problem_types import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray

MAX_WRONG_LABELS_NAMED = 10
_UNUSABLE = "Some rows cannot be used (rows are counted from 1, without a header line):"


@dataclass(frozen=True)
class Rows:
    """Typed rows, ready to be tokenised.

    `splits` is a DatasetDict with exactly these columns: `id` (int64 or string), `row` (int64, 0-based index in the
    source split), `text` (string), `text_pair` (string; only for pairs) and, in labelled splits, `labels`: int64 class
    id, list of float32 (multi-hot, one number per label name), or float32.
    """

    splits: DatasetDict
    notes: tuple[str, ...]
    dropped: dict[str, dict[str, int]]
    """Dropped rows by split and reason; a row with several faults counts under the first."""
    dropped_rows: dict[str, dict[str, list[int]]]
    """Their 1-based numbers."""


@dataclass
class _BadRows:
    """Collects what is wrong with the rows, by split and kind."""

    findings: dict[tuple[str, str], array[int]] = field(default_factory=dict)
    """(split, what is wrong) -> 1-based row numbers."""
    dropped: dict[str, dict[str, array[int]]] = field(default_factory=dict)
    """Per split and reason, the 1-based numbers of the rows left out."""
    wrong_labels: dict[str, set[str]] = field(default_factory=dict)
    """Per split, the wrong labels that are named; there may be far more of them than anyone reads."""

    def add(self, split: str, finding: str, row_numbers: Sequence[int] | NDArray[np.int64]) -> None:
        if len(row_numbers):
            self.findings.setdefault((split, finding), array("q")).extend(int(number) for number in row_numbers)

    def add_label(self, split: str, label: str, row_number: int, *, schema: Schema) -> None:
        named = self.wrong_labels.setdefault(split, set())
        if len(named) < MAX_WRONG_LABELS_NAMED:
            named.add(label)
        if label not in named:
            finding = "further labels of this kind"
        elif schema.problem_type == REGRESSION:
            finding = f"{quoted(label)} is not a finite number"
            if (number := with_point(label)) is not None:
                finding += f": it has a decimal comma; write {number}"
        else:
            finding = f"{quoted(label)} is not a label of the training data.{near_name(label, schema.label_names)}"
        self.add(split, f"column {schema.label!r}: {finding}", [row_number])

    def drop(
        self,
        split: str,
        reason: str,
        faulty: NDArray[np.bool_],
        *,
        good: NDArray[np.bool_],
        row_numbers: NDArray[np.int64],
    ) -> None:
        """Takes faulty rows out of `good` and notes those that were not out before."""
        dropped = row_numbers[faulty & good].tolist()
        if dropped:
            self.dropped.setdefault(split, {}).setdefault(reason, array("q")).extend(dropped)
            good &= ~faulty

    def message(self, *, label_names: Sequence[str] = ()) -> str:
        """One line per split and kind."""
        lines = []
        for (split, finding), row_numbers in self.findings.items():
            place = f"{split}, " if split else ""
            lines.append(f"{place}{first_rows(row_numbers)}: {finding}")
        if any(self.wrong_labels.values()) and label_names:
            lines.append(f"The labels of the training data are {listed(label_names, shown=20)}.")
        return "\n".join(lines)


def to_rows(
    splits: DatasetDict,
    schema: Schema,
    *,
    drop_bad_rows: bool = False,
    require_labels: Sequence[str] = ("train",),
    folder: Path | None = None,
) -> Rows:
    """Reads the columns of every split by the schema, checks every row and gives typed rows.

    Args:
        splits: raw columns. A split without labels (no label column, or only null, blanks and -1) gets no `labels`.
        schema: what the columns mean.
        drop_bad_rows: leave bad rows out and count them, instead of stopping.
        require_labels: splits that must have labels.
        folder: where the rows are written as Arrow files, SPLIT.arrow, and read from, memory-mapped; it must be the
            caller's own. None keeps them in memory.

    Raises:
        DataError: a column is missing or not text; or a text or label is empty, a label is unknown to training, or a
            number is not finite: all kinds at once, with their rows (1-based; the header is not counted).
        OutputError, StorageError: writing failed.
    """
    notes: list[str] = []
    _require_columns(splits, schema, require_labels=require_labels)
    encoders = _label_encoders(splits, schema, require_labels=require_labels, notes=notes)
    id_type = _id_type(splits, schema, notes=notes)
    bad = _BadRows()
    typed = {}
    for name, split in splits.items():
        _note_text_types(name, split, schema, notes=notes)
        batches = _typed_batches(
            name, split, schema, encoder=encoders.get(name), id_type=id_type, bad=bad, drop_bad_rows=drop_bad_rows
        )
        typed[name] = _store(batches, path=None if folder is None else folder / f"{name}.arrow")
    if bad.findings and not drop_bad_rows:
        raise DataError(
            f"{_UNUSABLE}\n{bad.message(label_names=schema.label_names)}",
            hint="Correct these rows, or leave them out with --drop-bad-rows.",
        )
    dropped_rows = {
        name: {reason: numbers.tolist() for reason, numbers in reasons.items()} for name, reasons in bad.dropped.items()
    }
    dropped = {
        name: {reason: len(numbers) for reason, numbers in reasons.items()} for name, reasons in dropped_rows.items()
    }
    for name, reasons in dropped.items():
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        notes.append(f"{name}: {sum(reasons.values())} of {len(splits[name])} rows dropped ({counts})")
    empty = [name for name, split in typed.items() if split.num_rows == 0]
    if empty:
        why = f"\n{bad.message(label_names=schema.label_names)}" if bad.findings else ""
        raise DataError(f"No row is left in split {listed(empty)}.{why}")
    from datasets import DatasetDict

    return Rows(splits=DatasetDict(typed), notes=tuple(notes), dropped=dropped, dropped_rows=dropped_rows)


def texts_of(
    batch: pa.Table | Mapping[str, Sequence[object]], schema: Schema, *, first_row: int = 1
) -> tuple[list[str], list[str] | None]:
    """Reads the texts of one raw batch by the schema, for prediction; labels are neither needed nor looked at.

    Args:
        batch: raw columns, as a table or as lists by column name.
        first_row: 1-based number of the batch's first row, for messages.

    Returns:
        The texts, and the second texts or None where the schema has none. Numbers become their text.

    Raises:
        DataError: a column is missing or not text, or a text is null or blank.
    """
    columns = [schema.text] if schema.text_pair is None else [schema.text, schema.text_pair]
    names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
    problems = [missing_column(name, names) for name in columns if name not in names]
    if problems:
        hint = "Expected columns of the names used in training; --text and --text-pair name others."
        raise DataError("\n".join(problems), hint=hint)
    bad = _BadRows()
    texts = []
    for name in columns:
        column = _as_array(batch[name], name=name, first_row=first_row)
        if not _can_be_text(column.type):
            raise DataError(f"Column {name!r} holds {column.type}, not text.")
        text = _as_text(column)
        bad.add("", _text_finding(name), np.flatnonzero(_is_blank(text)) + first_row)
        texts.append(text)
    if bad.findings:
        raise DataError(f"{_UNUSABLE}\n{bad.message()}", hint="Give every row a text.")
    return texts[0].to_pylist(), texts[1].to_pylist() if len(texts) > 1 else None


def labels_of(rows: Dataset) -> NDArray[Any] | None:
    """The labels of typed rows as one array, as `textune.models.losses.Loss` takes them; None where there are none."""
    if "labels" not in rows.column_names:
        return None
    return np.asarray(rows.with_format("numpy")["labels"][:])


def blank_rows(batch: pa.Table, schema: Schema) -> NDArray[np.bool_]:
    """Which rows of a raw batch `texts_of` would refuse because a text is null or blank: bool [num_rows]."""
    blank = np.zeros(batch.num_rows, dtype=np.bool_)
    for name in (schema.text, schema.text_pair):
        if name is not None and name in batch.column_names:
            blank |= _is_blank(_as_text(batch.column(name).combine_chunks()))
    return blank


def _require_columns(splits: DatasetDict, schema: Schema, *, require_labels: Sequence[str]) -> None:
    """Text columns must be in every split, the label column where labels are required; both hold what they should."""
    problems = []
    for name, split in splits.items():
        for column in (schema.text, schema.text_pair):
            if column is None:
                continue
            if column not in split.column_names:
                problems.append(f"{name}: {missing_column(column, split.column_names)}")
            elif not _can_be_text(arrow_type(split, column)):
                problems.append(f"{name}: column {column!r} holds {arrow_type(split, column)}, not text.")
        if schema.label is None:
            continue
        if schema.label in split.column_names:
            kind = label_kind(arrow_type(split, schema.label), split.features[schema.label])
            lists = kind == "list" or (kind == "text" and schema.label_separator is not None)
            if kind == "other" or (kind != "null" and lists != (schema.problem_type == MULTI_LABEL)):
                holds = arrow_type(split, schema.label)
                problems.append(f"{name}: column {schema.label!r} holds {holds}, no labels for {schema.problem_type}.")
        elif name in require_labels:
            problems.append(f"{name}: {missing_column(schema.label, split.column_names)}")
    if problems:
        raise DataError("\n".join(problems), hint="Name the columns with --text, --text-pair and --label.")


def _label_encoders(
    splits: DatasetDict, schema: Schema, *, require_labels: Sequence[str], notes: list[str]
) -> dict[str, LabelEncoder]:
    """Returns what encodes the labels of each split that has any."""
    encoders = {}
    for name, split in splits.items():
        if schema.label is None or schema.label not in split.column_names:
            notes.append(f"{name}: no labels (there is no label column)")
            continue
        scan = scan_labels(split, schema.label, separator=schema.label_separator)
        if not scan.is_labelled(schema.label_names):
            notes.append(f"{name}: no labels (column {schema.label!r} holds only null, blanks or -1)")
            continue
        encoders[name] = LabelEncoder(
            problem_type=schema.problem_type,
            label_names=schema.label_names,
            separator=schema.label_separator,
            feature=split.features[schema.label],
            by_position=scan.stands_for_positions(schema.label_names),
        )
    unlabelled = [name for name in require_labels if name in splits and name not in encoders]
    if unlabelled:
        raise DataError(
            f"Split {listed(unlabelled)} has no labels: column {schema.label!r} holds only null, blanks or -1.",
            hint="Name the label column with --label.",
        )
    by_position = [name for name, encoder in encoders.items() if encoder.by_position]
    if by_position:
        meaning = ", ".join(f"{position} = {quoted(label)}" for position, label in enumerate(schema.label_names[:10]))
        notes.append(f"{', '.join(by_position)}: labels are positions in the label names ({meaning})")
    return encoders


def _id_type(splits: DatasetDict, schema: Schema, *, notes: list[str]) -> Any:
    """Returns the Arrow type of ids in all splits, or None where row numbers take their place."""
    if schema.id is None:
        return None
    without = [name for name, split in splits.items() if schema.id not in split.column_names]
    if without:
        notes.append(f"rows are known by their numbers: split {listed(without)} has no id column {schema.id!r}")
        return None
    types = {arrow_type(split, schema.id) for split in splits.values()}
    if all(pa.types.is_integer(kind) and kind != pa.uint64() for kind in types):
        return pa.int64()
    if all(_can_be_text(kind) for kind in types):
        return pa.string()
    notes.append(f"rows are known by their numbers: the id column {schema.id!r} holds neither numbers nor text")
    return None


def _note_text_types(name: str, split: Dataset, schema: Schema, *, notes: list[str]) -> None:
    for column in (schema.text, schema.text_pair):
        if column is not None:
            kind = arrow_type(split, column)
            if not is_text(kind) and not pa.types.is_null(kind):
                notes.append(f"{name}: column {column!r} holds {kind}; its values are read as text")


def _typed_batches(
    name: str,
    split: Dataset,
    schema: Schema,
    *,
    encoder: LabelEncoder | None,
    id_type: Any,
    bad: _BadRows,
    drop_bad_rows: bool,
) -> Iterator[pa.Table]:
    """Yields typed tables without the bad rows, which are added to `bad`. The first table is empty: it has types."""
    columns = [schema.text, schema.text_pair, schema.label if encoder else None, schema.id if id_type else None]
    fields = [("id", id_type or pa.int64()), ("row", pa.int64()), ("text", pa.string())]
    if schema.text_pair is not None:
        fields.append(("text_pair", pa.string()))
    if encoder is not None:
        fields.append(("labels", encoder.arrow_type))
    typed_schema = pa.schema(fields)
    yield typed_schema.empty_table()
    start = 0
    for batch in arrow_batches(split, [column for column in columns if column is not None]):
        rows = np.arange(start, start + batch.num_rows, dtype=np.int64)
        start += batch.num_rows
        good = np.ones(len(rows), dtype=np.bool_)
        values = [_ids(batch, rows, schema, id_type=id_type), pa.array(rows)]
        for column, reason in ((schema.text, "empty text"), (schema.text_pair, "empty second text")):
            if column is not None:
                text = _as_text(batch.column(column).combine_chunks())
                values.append(text)
                blank = _is_blank(text)
                bad.add(name, _text_finding(column), rows[blank] + 1)
                bad.drop(name, reason, blank, good=good, row_numbers=rows + 1)
        if encoder is not None:
            values.append(_checked_labels(batch, name, schema, encoder=encoder, rows=rows, bad=bad, good=good))
        if drop_bad_rows or not bad.findings:
            yield pa.Table.from_arrays(values, schema=typed_schema).filter(pa.array(good))


def _checked_labels(
    batch: pa.Table,
    split: str,
    schema: Schema,
    *,
    encoder: LabelEncoder,
    rows: NDArray[np.int64],
    bad: _BadRows,
    good: NDArray[np.bool_],
) -> pa.Array:
    """Encodes the labels of a batch; bad ones are added to `bad` and taken out of `good`."""
    labels = encoder.encode(batch.column(schema.label))
    bad.add(split, f"column {schema.label!r}: the label is empty (null, blank, NaN or -1)", rows[labels.missing] + 1)
    bad.drop(split, "empty label", labels.missing, good=good, row_numbers=rows + 1)
    for row, label in zip(rows[labels.wrong_rows].tolist(), labels.wrong_labels, strict=True):
        bad.add_label(split, label, row + 1, schema=schema)
    wrong = np.zeros(len(rows), dtype=np.bool_)
    wrong[labels.wrong_rows] = True
    reason = "label not a finite number" if schema.problem_type == REGRESSION else "unknown label"
    bad.drop(split, reason, wrong, good=good, row_numbers=rows + 1)
    return labels.values


def _text_finding(column: str) -> str:
    return f"column {column!r}: the text is empty (null or blank)"


def _ids(batch: pa.Table, rows: NDArray[np.int64], schema: Schema, *, id_type: Any) -> pa.Array:
    """The ids of a batch; a row without one is known by its number."""
    numbers = pa.array(rows + 1)
    if id_type is None:
        return numbers
    ids = pc.cast(batch.column(schema.id).combine_chunks(), id_type)
    if pa.types.is_string(id_type):
        ids = pc.if_else(pc.equal(ids, ""), None, ids)
    return pc.coalesce(ids, pc.cast(numbers, id_type))


def _can_be_text(kind: Any) -> bool:
    types = pa.types
    tests = (is_text, types.is_null, types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(test(kind) for test in tests)


def _as_text(values: pa.Array) -> pa.Array:
    """Numbers become their shortest text, NaN becomes null."""
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    return pc.cast(values, pa.string())


def _is_blank(text: pa.Array) -> NDArray[np.bool_]:
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True)
    result: NDArray[np.bool_] = blank.to_numpy(zero_copy_only=False)
    return result


def _as_array(values: Any, *, name: str, first_row: int) -> pa.Array:
    """Returns one column of a raw batch as a single Arrow array."""
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        kinds = [type(value).__name__ for value in values]
        other = next(row for row, kind in enumerate(kinds) if kind not in ("str", "NoneType"))
        raise DataError(f"row {first_row + other}: column {name!r} holds {kinds[other]}, not text.") from None


def _store(batches: Iterator[pa.Table], *, path: Path | None) -> Dataset:
    """Writes tables of one schema as an Arrow stream, into a file or into memory, and opens it as a Dataset."""
    from datasets import Dataset

    first = next(batches)
    if path is None:
        memory = pa.BufferOutputStream()
        _write(memory, first.schema, batches)
        return Dataset.from_buffer(memory.getvalue())
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(path), "wb") as file:
            _write(file, first.schema, batches)
    return Dataset.from_file(str(path))


def _write(sink: Any, schema: Any, tables: Iterator[pa.Table]) -> None:
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
