"""Predicting a file: read, predict and write a few thousand rows at a time, so that memory stays flat."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.audit.unknown import unknown_in_words
from textune.data.delimited import csv_line
from textune.data.encodings import UTF_8
from textune.data.readers import blank_lines_in_words, read_batches
from textune.data.rows import blank_rows, texts_of
from textune.data.schema import Schema
from textune.data.unknown import UnknownTokens
from textune.data.wording import counted, listed
from textune.errors import ConfigError, DataError
from textune.evaluation.predictions import LIST_SEPARATOR, predictions_table
from textune.files import check_new_file, replacing
from textune.serving.predictor import Predictor

BATCH_ROWS = 4096
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
EXCEL_FORMATS = (".csv", ".tsv")
Write = Callable[[pa.Table], None]


@dataclass(frozen=True)
class FileReport:
    """What became of a file.

    Attributes:
        rows: predictions written.
        dropped: rows left out, by reason.
        notes: what the user should be told.
    """

    rows: int
    dropped: dict[str, int]
    notes: tuple[str, ...]


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    delimiter: str | None = None,
    encoding: str = UTF_8,
    drop_bad_rows: bool = False,
    input_columns: bool = True,
    for_excel: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> FileReport:
    """Predicts every row of a CSV, TSV, JSON, JSON-lines or Parquet file, in order.

    The result has the input's columns (unless `input_columns` is false), `id` (the id column of training, else a column
    of that name, else the row's number from 1), `prediction` and one `score_NAME` per label. It appears under its name
    when it is complete.

    Args:
        text, text_pair: columns to read; None takes those of training.
        delimiter, encoding: of the source, as for `textune.data.readers.read_batches`.
        drop_bad_rows: leave out rows that cannot be read, and count them, instead of stopping.
        for_excel: begin a CSV or TSV file with the mark by which Excel knows that it is UTF-8.
        on_progress: called with the number of rows done since the last call.

    Raises:
        ConfigError: the target's format is unknown or none for Excel, or no text column is known.
        OutputError: the target is there already, or cannot be written.
        InputNotFoundError, DataError: the source cannot be read, or a row of it cannot be used.
    """
    check_target(target, overwrite=overwrite, for_excel=for_excel)
    schema = _schema_for(predictor, text=text, text_pair=text_pair)
    reader = read_batches(
        source, delimiter=delimiter, encoding=encoding, drop_bad_rows=drop_bad_rows, batch_rows=BATCH_ROWS
    )
    notes: list[str] = []
    unknown: list[UnknownTokens] = []
    written = seen = blank = 0
    with (
        replacing(target) as temporary,
        _open_writer(temporary, target.suffix.lower(), for_excel=for_excel, notes=notes) as write,
    ):
        for batch in reader:
            num_read = len(batch)
            numbers = np.arange(seen + 1, seen + num_read + 1)
            seen += num_read
            if drop_bad_rows:
                usable = ~blank_rows(batch, schema)
                blank += int((~usable).sum())
                batch, numbers = batch.filter(pa.array(usable)), numbers[usable]
            if len(batch):
                write(
                    _predict(predictor, batch, schema, numbers, with_input=input_columns, notes=notes, unknown=unknown)
                )
                written += len(batch)
            if on_progress is not None:
                on_progress(num_read)
        dropped = {**reader.dropped, **({"empty text": blank} if blank else {})}
        if not written:
            reasons = ", ".join(f"{count} ({reason})" for reason, count in dropped.items())
            raise DataError(f"{source}: found no row that can be predicted; left out: {reasons}.")
    if reader.blank_lines:
        notes.append(blank_lines_in_words(reader.blank_lines))
    found = UnknownTokens.together(unknown)
    if found.is_notable:
        where = f"{len(found.rows):,} of {counted(written, 'row')}"
        notes.append(f"warning: words that the tokenizer does not know in {where}: {unknown_in_words(found)}")
    return FileReport(written, dropped, tuple(notes))


def check_target(target: Path, *, overwrite: bool, for_excel: bool = False) -> None:
    """Refuses a target of unknown format or none for Excel, an existing one, or one in a folder that is not there."""
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output: expected a file name ending in {', '.join(FORMATS)}, found {str(target)!r}.")
    if for_excel and target.suffix.lower() not in EXCEL_FORMATS:
        raise ConfigError(
            f"--excel: expected an --output that ends in {' or '.join(EXCEL_FORMATS)}, found {str(target)!r}."
        )
    check_new_file(target, option="--output", overwrite=overwrite)


def _schema_for(predictor: Predictor, *, text: str | None, text_pair: str | None) -> Schema:
    if predictor.schema is not None:
        schema = predictor.schema
        if text_pair is not None and schema.text_pair is None:
            raise ConfigError("--text-pair: this model was trained on single texts; it takes no second one.")
        return replace(schema, text=text or schema.text, text_pair=text_pair or schema.text_pair)
    if text is None:
        raise ConfigError("This model does not say which columns it was trained on.", hint="Name them with --text.")
    label_set = predictor.label_set
    return Schema(text, text_pair, None, None, label_set.problem_type, label_set.names, None, ())  # type: ignore[arg-type]


def _predict(
    predictor: Predictor,
    batch: pa.Table,
    schema: Schema,
    numbers: npt.NDArray[np.int64],
    *,
    with_input: bool,
    notes: list[str],
    unknown: list[UnknownTokens],
) -> pa.Table:
    """Predicts one batch of raw rows; `numbers` are their row numbers in the file, from 1."""
    texts, pairs = texts_of(batch, schema, first_row=int(numbers[0]))
    id_column = next((name for name in (schema.id, "id") if name in batch.column_names), None)
    ids = pa.array(numbers) if id_column is None else batch.column(id_column)
    tokens = predictor.encode(texts, pairs)
    unknown.append(predictor.unknown_tokens(tokens))
    result = predictions_table(
        predictor.logits_of_tokens(tokens), predictor.label_set, ids=ids, decision=predictor.decision
    )
    if not with_input:
        return result
    if id_column not in {None, "id"}:
        result = result.drop_columns(["id"])  # it is there under its own name
    hidden = [name for name in batch.column_names if name in result.column_names and name != "id"]
    if hidden and not notes:
        notes.append(f"input columns replaced by results of the same name: {', '.join(hidden)}")
    kept = batch.select([name for name in batch.column_names if name not in result.column_names])
    columns = {
        name: table.column(name)
        for table in (result.select(["id"] if "id" in result.column_names else []), kept, result)
        for name in table.column_names
    }
    return pa.table(columns)


@contextlib.contextmanager
def _open_writer(path: Path, suffix: str, *, for_excel: bool, notes: list[str]) -> Iterator[Write]:
    """Gives a function that appends a table to the file, and notes at the end what the file could not hold."""
    if suffix == ".parquet":
        with _ParquetWriter(path) as writer:
            yield writer.write
        return
    with path.open("w", encoding="utf-8-sig" if for_excel else "utf-8", newline="") as file:
        if suffix == ".jsonl":
            yield partial(_write_json_lines, file)
            return
        lines = _DelimitedWriter(file, suffix)
        yield lines.write
    if lines.left_out:
        notes.append(
            f"warning: columns left out, because they first appear after row {lines.first_rows:,} of the output, when "
            f"its header is written: {listed(list(lines.left_out))}; .jsonl keeps them"
        )


class _ParquetWriter:
    """Takes its columns from the first table; the types of later ones must fit them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        import pyarrow.parquet

        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        try:
            self._writer.write_table(table.cast(self._writer.schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            late = [name for name in table.column_names if name not in self._writer.schema.names]
            found = f"has columns that its first rows lack: {listed(late)}." if late else f"changes their type: {error}"
            raise DataError(
                f"Parquet has the same columns from the first row to the last; the input {found}",
                hint="Write .jsonl instead, or leave the input's columns out.",
            ) from error


class _DelimitedWriter:
    """CSV with quotes where they are needed; TSV as textune reads it, unquoted, with blanks for tabs and line ends.

    Attributes:
        first_rows: rows of the first table, whose columns are those of the file.
        left_out: columns that only later tables have, in the order in which they appear.
    """

    def __init__(self, file: IO[str], suffix: str) -> None:
        self._file = file
        self._line = _tsv_line if suffix == ".tsv" else csv_line
        self._names: list[str] | None = None
        self.first_rows = 0
        self.left_out: dict[str, None] = {}

    def write(self, table: pa.Table) -> None:
        if self._names is None:
            self._names, self.first_rows = table.column_names, len(table)
            self._file.write(self._line(self._names))
        # A JSON file may lack a column in some rows and bring a new one later; the header is written only once.
        self.left_out |= dict.fromkeys(name for name in table.column_names if name not in self._names)
        empty = pa.nulls(len(table))
        present = [table.column(name) if name in table.column_names else empty for name in self._names]
        columns = [[_as_text(value, column.type) for value in column.to_pylist()] for column in present]
        for row in zip(*columns, strict=True):
            self._file.write(self._line(row))


def _as_text(value: Any, kind: pa.DataType) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return LIST_SEPARATOR.join(str(item) for item in value)
    if pa.types.is_float32(kind):
        return f"{value:.9g}"  # enough to give back the same float32
    return str(value)


def _tsv_line(fields: Iterable[str]) -> str:
    return "\t".join(re.sub(r"\r\n|[\r\n\t]", " ", text) for text in fields) + "\n"


def _write_json_lines(file: IO[str], table: pa.Table) -> None:
    for row in table.to_pylist():
        try:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
        except ValueError:  # NaN and infinity, which JSON does not know
            line = json.dumps(_finite(row), ensure_ascii=False, allow_nan=False, default=str)
        file.write(line + "\n")


def _finite(value: Any) -> Any:
    """The value with null in place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
