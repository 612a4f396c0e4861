"""Local files as Arrow tables, a few thousand rows at a time: CSV, TSV, JSON, JSON lines (also compressed), Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from textune.data.columns import typed_tables
from textune.data.delimited import check_delimiter, read_header, read_rows, rows_of_width, sniff_delimiter
from textune.data.encodings import UTF_8, check_encoding
from textune.data.json_rows import read_json_document, read_json_lines
from textune.data.lines import COMPRESSIONS, WORKBOOK_HINT, BadRows, batches_of
from textune.data.wording import counted
from textune.errors import ConfigError, DataError, InputNotFoundError, did_you_mean
from textune.files import user_path
from textune.parquet import read_parquet

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""File name endings and the formats they stand for."""

_READABLE = ".csv, .tsv, .txt (tab-separated), .json, .jsonl, .ndjson (also with .gz, .bz2 or .xz) or .parquet"
_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb")


class Reader:
    """One pass over the rows of a file, as an iterator of `pyarrow.Table`.

    The first table is read when the reader is made, so a file that is missing, empty or of another format is reported
    then. Columns of CSV and TSV are strings; those of JSON may widen from one table to the next (null to a type,
    integers to floats, a further column); Parquet keeps its types.

    Attributes:
        column_names: columns of the first table.
        dropped: how many rows were left out, by reason; complete after the last table.
        blank_lines: how many blank lines were skipped that may be empty values, which they are in a file of one column.
    """

    def __init__(self, tables: Iterator[pa.Table], bad: BadRows) -> None:
        self._tables = tables
        self._bad = bad
        self._first: pa.Table | None = next(tables, None)
        if self._first is None:
            raise DataError(f"{bad.path}: found no rows{_after_dropping(bad)}.")
        self.column_names: tuple[str, ...] = tuple(self._first.column_names)

    @property
    def dropped(self) -> dict[str, int]:
        return self._bad.dropped

    @property
    def blank_lines(self) -> int:
        return self._bad.blank_lines if len(self.column_names) == 1 else 0

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> pa.Table:
        if self._first is None:
            return next(self._tables)
        table, self._first = self._first, None
        return table


def blank_lines_in_words(count: int) -> str:
    """Returns "2 blank lines between the rows were skipped; ..."."""
    verb = "was" if count == 1 else "were"
    return f"{counted(count, 'blank line')} between the rows {verb} skipped; rows are counted without them"


def _after_dropping(bad: BadRows) -> str:
    if not bad.dropped:
        return ""
    return " that can be read; left out: " + ", ".join(f"{count} ({reason})" for reason, count in bad.dropped.items())


def read_batches(
    path: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    encoding: str = UTF_8,
    drop_bad_rows: bool = False,
    batch_rows: int = 4096,
) -> Reader:
    """Opens a data file; the format is known by the ending of its name.

    Args:
        delimiter: between the fields of a CSV or TSV file; None finds it among , ; tab | for CSV, and is tab for TSV.
        encoding: of the file, where it is no Parquet file: one that Python knows.
        drop_bad_rows: leave out and count rows that cannot be read, instead of raising DataError with their lines.
        batch_rows: rows per table at most; fewer where rows are very long.

    Raises:
        InputNotFoundError: there is no such file, or it cannot be opened.
        DataError: unknown format, damaged or empty file, bad rows; raised while iterating where it is found late.
        ConfigError: a delimiter or an encoding for a format that has none, or an encoding that is none.
        UnavailableError: .zst where Python cannot read it.
    """
    path = existing_file(path)
    kind = format_of(path)
    if delimiter is not None and kind not in ("csv", "tsv"):
        raise ConfigError(f"--delimiter is for .csv and .tsv files; {path.name!r} is not one.")
    encoding = check_encoding(encoding)
    if encoding != UTF_8 and kind == "parquet":
        raise ConfigError(f"--encoding is for text files; {path.name!r} is not one.")
    bad = BadRows(path, drop=drop_bad_rows, encoding=encoding)
    match kind:
        case "csv" | "tsv":
            tables = _delimited_tables(path, delimiter, kind == "csv", bad, batch_rows)
        case "jsonl":
            tables = typed_tables(read_json_lines(path, bad), bad, batch_rows=batch_rows)
        case "json":
            tables = typed_tables(read_json_document(path, bad), bad, batch_rows=batch_rows)
        case _:
            tables = read_parquet(path, batch_rows=batch_rows)
    return Reader(tables, bad)


def existing_file(path: str | os.PathLike[str], *, folder_hint: str | None = None) -> Path:
    """Returns the path of a regular file.

    Args:
        folder_hint: what to do where it is a folder.

    Raises:
        InputNotFoundError: there is none; names a similar one in the same folder.
    """
    path = user_path(path)
    try:
        if path.is_file():
            path.open("rb").close()  # says now whether it may be read
            return path
        if path.is_dir():
            raise InputNotFoundError(f"Expected a file, found a folder: {str(path)!r}.", hint=folder_hint)
        if path.exists():
            raise InputNotFoundError(f"Expected a regular file, found a device or pipe: {str(path)!r}.")
        siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else None
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        raise InputNotFoundError(f"Cannot open {str(path)!r}: {error}.") from error
    if siblings is None:
        raise InputNotFoundError(f"There is no file {str(path)!r}: there is no folder {str(path.parent)!r}.")
    raise InputNotFoundError(f"There is no file {str(path)!r}.{did_you_mean(path.name, siblings)}")


def format_of(path: Path) -> str:
    """Returns "csv", "tsv", "json", "jsonl" or "parquet".

    Raises:
        DataError: the name has another ending.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
        if suffixes and suffixes[-1] == ".parquet":
            raise DataError(
                f"{path}: a compressed Parquet file cannot be read in pieces.",
                hint="Expand it first; Parquet compresses its own columns.",
            )
    kind = FORMATS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        hint = "Rename the file if it holds one of these formats, or convert it."
        if path.suffix.lower() in _WORKBOOKS:
            hint = WORKBOOK_HINT
        raise DataError(f"{path}: expected a file name that ends in {_READABLE}.", hint=hint)
    return kind


def stem_of(path: Path) -> str:
    """Returns the file name without the endings for format and compression."""
    name = path.name
    if Path(name).suffix.lower() in COMPRESSIONS:
        name = Path(name).stem
    return Path(name).stem


def is_data_file(path: Path) -> bool:
    """Whether the name has the ending of a format that can be read."""
    try:
        format_of(path)
    except DataError:
        return False
    return True


def _delimited_tables(
    path: Path, delimiter: str | None, quotes: bool, bad: BadRows, batch_rows: int
) -> Iterator[pa.Table]:
    if delimiter is None:
        delimiter = sniff_delimiter(path, encoding=bad.encoding) if quotes else "\t"
    rows = read_rows(path, delimiter=check_delimiter(delimiter), quotes=quotes, bad=bad)
    header = read_header(rows, bad)
    sized = ((number, fields, sum(map(len, fields))) for number, fields in rows_of_width(rows, header, bad))
    names = [name for name in header if name]
    schema = pa.schema([(name, pa.string()) for name in names])
    found = False
    for batch in batches_of(sized, batch_rows, bad):
        found = True
        columns = zip(*(fields for _, fields in batch), strict=True)
        yield pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)
    if not found and not bad.dropped:
        raise DataError(f"{path}: found a header line ({', '.join(names)}) but no rows after it.")
