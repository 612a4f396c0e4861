"""CSV and TSV: from numbered lines to rows of strings. Values are kept as they stand: "NA", "null" and "007" too."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from textune.data.encodings import UTF_8
from textune.data.lines import BadRows, read_lines
from textune.data.wording import quoted
from textune.errors import ConfigError, DataError
from textune.limits import MAX_RECORD_BYTES, require_few_columns

Row = tuple[int, list[str]]
"""The number of the line a row begins on, from 1, and its fields."""

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 64
_SAMPLE_CHARACTERS = 2**20


class _NeverClosedError(Exception):
    """A quoted field runs on to the end of the file, or beyond the size of a record."""


def read_rows(path: Path, *, delimiter: str, quotes: bool, bad: BadRows) -> Iterator[Row]:
    """Yields the rows of a CSV (`quotes`: RFC 4180, "" inside quotes is one quote) or TSV file (quotes are ordinary).

    Blank lines are skipped, as Python's csv does, and counted in `bad` unless they end the file. Text after a closing
    quote, a carriage return outside quotes and a quote that is never closed go to `bad`; after a dropped record reading
    goes on at the very next line.
    """
    lines = _PushBack(read_lines(path, bad))
    blank = 0
    for number, line in lines:
        if not quotes or '"' not in line:
            text = line.removesuffix("\n").removesuffix("\r")
            if not text:
                blank += 1
                continue
            bad.blank_lines, blank = bad.blank_lines + blank, 0
            if quotes and "\r" in text:
                bad.add(number, "carriage return outside quotes", "a carriage return outside quotes")
                continue
            yield number, text.split(delimiter)
            continue
        used = [(number, line)]
        try:
            fields = _quoted_record(used, lines, delimiter)
        except _NeverClosedError:
            if not bad.drop:
                bad.fail(number, "a quote opened here is never closed", hint='Close it, or double it: ""')
            bad.add(number, "quote never closed")
            lines.push_back(used[1:])
        except csv.Error as error:
            bad.add(number, "misplaced quote", f"{error} (quotes inside a quoted field are doubled)")
            lines.push_back(used[1:])
        else:
            yield number, fields


def _quoted_record(used: list[tuple[int, str]], lines: _PushBack, delimiter: str) -> list[str]:
    """Parses one record that begins with the line in `used`; lines that it takes are added to `used`."""

    def record_lines() -> Iterator[str]:
        yield used[0][1]
        size = len(used[0][1])
        for number, line in lines:
            used.append((number, line))
            size += len(line)
            if size > MAX_RECORD_BYTES:
                raise _NeverClosedError
            yield line
        raise _NeverClosedError

    with _long_fields():
        return next(csv.reader(record_lines(), delimiter=delimiter, strict=True))


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Lets the csv module read fields beyond its default of 131,072 characters; the limit is one for the process."""
    previous = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


class _PushBack:
    """An iterator of numbered lines that takes lines back."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._returned: deque[tuple[int, str]] = deque()

    def __iter__(self) -> _PushBack:
        return self

    def __next__(self) -> tuple[int, str]:
        return self._returned.popleft() if self._returned else next(self._lines)

    def push_back(self, lines: Sequence[tuple[int, str]]) -> None:
        self._returned.extendleft(reversed(lines))


def read_header(rows: Iterator[Row], bad: BadRows) -> list[str]:
    """Takes the first row as column names. An empty first name, as pandas writes for its index, becomes "column_1".

    Columns without a name at the end, as Excel writes them where cells were once in use, are "": `rows_of_width` leaves
    them out.

    Raises:
        DataError: the file is empty, its first line cannot be read (and cannot be dropped: the next line is no header),
            there are too many names, none at all, or one is there twice or empty before another.
    """
    path = bad.path
    number, names = next(rows, (0, []))
    bad.stop(number or None)
    if bad.dropped:
        raise DataError(
            f"{path}: expected a header line with column names; what stands there cannot be read "
            f"({', '.join(bad.dropped)}).",
            hint="Correct the header line; it cannot be dropped.",
        )
    if not names:
        raise DataError(f"{path}: expected a header line with column names, found an empty file.")
    require_few_columns(path, len(names))
    if any("\r" in name for name in names):
        raise DataError(
            f"{path}: line {number}: found a carriage return inside the header line.",
            hint="Save the file with line feeds (Unix) or CR LF (Windows) as line ends.",
        )
    names = [name if name.strip() else "" for name in names]
    num_named = max((position for position, name in enumerate(names, start=1) if name), default=0)
    if not names[0] and num_named > 1:
        names = ["column_1", *names[1:]]
    if "" in names[:num_named] or num_named == 0:
        raise DataError(
            f"{path}: line {number}: column {names.index('') + 1} has no name in the header.",
            hint="Give it a name in the header line, or delete the column.",
        )
    repeated = [name for name, times in Counter(names[:num_named]).items() if times > 1]
    if repeated:
        raise DataError(f"{path}: line {number}: column name {repeated[0]!r} is there twice in the header.")
    return names


def rows_of_width(rows: Iterator[Row], names: Sequence[str], bad: BadRows) -> Iterator[Row]:
    """Yields the rows that have one field for each name, without the empty fields of columns that have none; others
    go to `bad`, and so does a row with something in a column without a name."""
    width = sum(map(bool, names))
    for number, fields in rows:
        if len(fields) == width:  # also where Excel has left out the delimiters at the end
            yield number, fields
        elif not width < len(fields) <= len(names):
            listed = ", ".join(names[:width]) if width <= 12 else f"{', '.join(names[:12])}, ..."
            expected = f"{width} field{'s' if width > 1 else ''} ({listed})"
            bad.add(number, "wrong number of fields", f"expected {expected}, found {len(fields)}")
        elif any(beyond := [field.strip() for field in fields[width:]]):
            position = next(position for position, field in enumerate(beyond, start=width) if field)
            found = f"found {quoted(fields[position])} in column {position + 1}, which has no name in the header"
            bad.add(number, "something in a column without a name", found)
        else:
            yield number, fields[:width]


def csv_line(fields: Iterable[object]) -> str:
    """One row of a CSV file with its line end, as `read_rows` reads it; None is an empty field.

    Not the csv module's writer: before Python 3.13 that leaves a field with a lone carriage return without quotes.
    """
    return ",".join(_quoted("" if field is None else str(field)) for field in fields) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text


def check_delimiter(delimiter: str) -> str:
    """Returns the delimiter as one character; the two characters \\t and the word "tab" mean a tab.

    Raises:
        ConfigError: it is not one character, or a quote or line end.
    """
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ConfigError(
            f"--delimiter: expected one character such as ',' ';' '|' or tab, found {delimiter!r}.",
            hint="For a tab write --delimiter tab",
        )
    return delimiter


def sniff_delimiter(path: Path, *, encoding: str = UTF_8) -> str:
    """Returns the delimiter among comma, semicolon, tab and vertical bar that splits the header and the first lines
    most evenly; a comma where none does, as in a file with one column."""
    # Bad lines are counted here and forgotten: they are reported when the file itself is read.
    lines: list[str] = []
    complete = True
    for _, line in read_lines(path, BadRows(path, drop=True, encoding=encoding)):
        if len(lines) == _SAMPLE_LINES or sum(map(len, lines)) > _SAMPLE_CHARACTERS:
            complete = False
            break
        lines.append(line)
    return max(_DELIMITERS, key=lambda delimiter: _evenness(lines, delimiter, complete=complete))


def _evenness(lines: list[str], delimiter: str, *, complete: bool) -> tuple[float, int]:
    """The share of rows as wide as the header, then that width; (0, 0) where the header has one field."""
    try:
        with _long_fields():
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0, 0
    if not complete and len(rows) > 2:
        rows.pop()  # the sample may end inside it
    if not rows or len(rows[0]) < 2:
        return 0.0, 0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows), len(rows[0])
