"""JSON: lines, an array of objects, or an object that holds one such array; read piece by piece, memory flat."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from textune.data.encodings import UTF_8
from textune.data.lines import BadRows, open_bytes, read_chunks, read_lines, without_byte_order_mark
from textune.errors import DataError
from textune.limits import MAX_RECORD_BYTES

Record = tuple[int, dict[str, Any], int]
"""The number of the line (JSON lines) or row (JSON array), from 1; the object there; its length in characters."""

_CHUNK_BYTES = 2**20
_BLANKS = " \t\r\n"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def read_json_lines(path: Path, bad: BadRows) -> Iterator[Record]:
    """Yields one object per line; blank lines are skipped, lines that are not a JSON object go to `bad`."""
    bad.unit = "line"
    for number, line in read_lines(path, bad):
        if not (text := line.strip(_BLANKS)):
            continue
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            bad.add(number, "invalid JSON", f"not JSON: {_explain(error)}")
            continue
        if _is_object(value, number, bad):
            yield number, value, len(text)


def read_json_document(path: Path, bad: BadRows) -> Iterator[Record]:
    """Yields the objects of a `.json` file: of its array, of the one list of objects in its object, or one per line.

    What stands between the rows of an array must be right for the rest to be found, so a syntax error there ends the
    reading even where bad rows are dropped; a row that is not an object can be dropped.
    """
    with open_bytes(path, bad.encoding) as stream:
        text = _Text(stream, bad)
        first = text.peek()
        if first == "[" or not _holds_lines(bad):
            yield from _rows_in_document(text, first, bad)
            return
    yield from read_json_lines(path, bad)


def _rows_in_document(text: _Text, first: str, bad: BadRows) -> Iterator[Record]:
    bad.unit = "row"
    match first:
        case "":
            raise DataError(f"{bad.path}: expected JSON, found an empty file.")
        case "[":
            yield from _rows_in_array(text, bad)
        case "{":
            yield from _rows_in_object(text, bad)
        case _:
            raise DataError(f"{bad.path}: expected a JSON array of objects, found {first!r} at the beginning.")
    if text.peek():
        text.fail(f"expected the end of the file, found {text.peek()!r}")


def _holds_lines(bad: BadRows) -> bool:
    """Whether one of the first two lines is a whole object, and the file is more than one object around a list."""
    values: list[Any] = []
    for _, line in read_lines(bad.path, BadRows(bad.path, drop=True, encoding=bad.encoding)):
        if not line.strip(_BLANKS):
            continue
        try:
            values.append(_DECODER.decode(line.strip(_BLANKS)))
        except (ValueError, RecursionError):
            values.append(None)
        if len(values) == 2:
            return any(isinstance(value, dict) for value in values)
    return bool(values) and isinstance(values[0], dict) and not any(map(_is_list_of_objects, values[0].values()))


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_object(value: Any, number: int, bad: BadRows) -> bool:
    if isinstance(value, dict) and value:
        return True
    found = "an empty one" if isinstance(value, dict) else kind_of(value)
    bad.add(number, "not a JSON object with columns", f"expected an object with the columns as keys, found {found}")
    return False


def kind_of(value: Any) -> str:
    """Returns what a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "a number"


def _explain(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _values(text: _Text) -> Iterator[tuple[Any, int]]:
    """Yields the elements of the array that begins here, each with its length in characters; counts `text.row`."""
    text.expect("[")
    text.row = 0
    while text.peek() != "]":
        if text.row:
            text.expect(",")
        text.row += 1
        yield text.value()
    text.expect("]")


def _rows_in_array(text: _Text, bad: BadRows) -> Iterator[Record]:
    for value, length in _values(text):
        if _is_object(value, text.row, bad):
            yield text.row, value, length
        bad.check(text.row)


def _rows_in_object(text: _Text, bad: BadRows) -> Iterator[Record]:
    text.expect("{")
    rows_key: str | None = None
    while text.peek() != "}":
        key, _ = text.value()
        text.expect(":")
        if text.peek() != "[":
            text.value()
        elif rows_key is None and text.peek_into_array() == "{":
            rows_key = key
            yield from _rows_in_array(text, bad)
        elif text.peek_into_array() == "{":
            text.fail(f"found two lists of objects, {rows_key!r} and {key!r}; expected one, the rows")
        else:
            for _ in _values(text):
                pass
        if text.peek() != "}":
            text.expect(",")
    text.expect("}")
    if rows_key is None:
        text.fail("expected an array of objects, or an object with one list of objects; found an object without one")


class _Text:
    """A JSON text read piece by piece, and a position in it."""

    def __init__(self, stream: BinaryIO, bad: BadRows) -> None:
        self.row = 0
        self._bad = bad
        self._chunks = read_chunks(stream, bad.path, _CHUNK_BYTES)
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._buffer = ""
        self._position = 0
        self._lines_before = 0
        self._bytes_before = 0

    def fail(self, found: str, *, position: int | None = None) -> NoReturn:
        """Raises DataError for the present row, with the line of the file."""
        end = self._position if position is None else position
        line = self._lines_before + self._buffer.count("\n", 0, end) + 1
        self._bad.fail(max(1, self.row), f"{found} (line {line})")

    def peek(self) -> str:
        """Moves to the next character that is not blank and returns it; "" at the end of the text."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in _BLANKS:
                    return self._buffer[self._position]
                self._position += 1
            if not self._grow():
                return ""

    def peek_into_array(self) -> str:
        """Returns the first character that is not blank after the "[" at this position."""
        while True:
            inside = self._buffer[self._position + 1 :].lstrip(_BLANKS)
            if inside or not self._grow():
                return inside[:1]

    def expect(self, character: str) -> None:
        """Takes one character."""
        found = self.peek()
        if found != character:
            self.fail(f"expected {character!r}, found {repr(found) if found else 'the end of the file'}")
        self._position += 1

    def value(self) -> tuple[Any, int]:
        """Takes the next JSON value; also returns its length in characters."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                # Wrong, or cut off by the end of the piece.
                if len(self._buffer) - self._position > MAX_RECORD_BYTES:
                    self.fail("a value of more than 8 MiB, or one that is never closed")
                if not self._grow():
                    self.fail(f"not JSON: {error.msg}", position=error.pos)
                continue
            except (ValueError, RecursionError) as error:
                self.fail(f"not JSON: {_explain(error)}")
            # A number at the end of the piece may go on in the next one.
            if end < len(self._buffer) or not self._grow():
                length = end - self._position
                self._position = end
                return value, length

    def _grow(self) -> bool:
        """Appends the next piece and forgets what lies before the position; False at the end of the file."""
        chunk = next(self._chunks, b"")
        if chunk and not self._bytes_before:
            chunk = without_byte_order_mark(chunk, self._bad)
        undecoded = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            self._bad.refuse_other_encoding(max(1, self.row))
            at = self._bytes_before - undecoded + error.start + 1
            if self._bad.encoding != UTF_8:
                self.fail(f"not {self._bad.encoding}")
            self.fail(f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {at:,} of the file")
        self._bytes_before += len(chunk)
        self._lines_before += self._buffer.count("\n", 0, self._position)
        self._buffer = self._buffer[self._position :] + text
        self._position = 0
        return bool(chunk)
