"""Text files as numbered lines, compressed or not, and the account of the rows that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar, cast

from textune.data.encodings import UTF_8, as_utf_8, likely_encoding, mostly_undecoded
from textune.data.wording import counted
from textune.errors import DataError, InputNotFoundError, UnavailableError
from textune.limits import BATCH_BYTES, MAX_RECORD_BYTES

WORKBOOK_HINT = 'Save the workbook in Excel as "CSV UTF-8".'

RowT = TypeVar("RowT")

_SHOWN = 20
_LOOK_AHEAD = 100_000
_BUFFER_BYTES = 2**20
_SAMPLE_BYTES = 2**16
_WORKBOOK_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # a zip archive as .xlsx is, and .xls
_READ_ERRORS = (EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass
class BadRows:
    """The rows of one file that cannot be read: gathered into one error, or counted when they are to be dropped.

    `blank_lines` counts those that were skipped before a row; whether they are losses is for the reader to say.

    After the first bad row reading goes on for a while (to the twentieth bad row, or 100,000 further lines), so that
    one error names them together.
    """

    path: Path
    drop: bool = False
    encoding: str = UTF_8
    unit: str = "line"
    hint: str = "Correct the file, or leave such rows out with --drop-bad-rows."
    dropped: dict[str, int] = field(default_factory=dict)
    blank_lines: int = 0
    _found: list[tuple[int, str]] = field(default_factory=list)
    _looked_for_encoding: bool = False

    def add(self, number: int, reason: str, found: str | None = None) -> None:
        """Records that line (or row) `number`, 1-based, is unusable.

        Args:
            reason: the kind of defect, in words that can be counted, such as "invalid UTF-8".
            found: the particular defect, where the reason does not say it all.
        """
        if self.drop:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
            return
        self._found.append((number, found or reason))
        if len(self._found) >= _SHOWN:
            self.stop(number)

    def add_undecoded(self, number: int, line: bytes, error: UnicodeDecodeError) -> None:
        """Records that a line is not text in the file's encoding.

        Raises:
            DataError: see `refuse_other_encoding`.
        """
        self.refuse_other_encoding(number, line)
        column = len(line[: error.start].decode()) + 1
        if self.encoding == UTF_8:
            self.add(number, "invalid UTF-8", f"not UTF-8: byte 0x{line[error.start]:02x} at column {column}")
        else:
            self.add(number, f"invalid {self.encoding}", f"not {self.encoding} at column {column}")

    def refuse_other_encoding(self, number: int, line: bytes = b"") -> None:
        """Looks, at the first line that is not UTF-8, whether the whole file is in another encoding.

        Raises:
            DataError: it seems so; where bad rows are dropped, only if most lines or the column names would be lost.
        """
        if self._looked_for_encoding or self.encoding != UTF_8:
            return
        self._looked_for_encoding = True
        with open_bytes(self.path) as stream:
            sample = next(read_chunks(stream, self.path, _SAMPLE_BYTES), b"")
        if len(sample) == _SAMPLE_BYTES:
            # Whole lines; of a JSON array that is one line, up to a quote, which is part of no other character.
            sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b'"')) + 1] + line
        found = likely_encoding(sample)
        if found is None or (self.drop and number > 1 and not mostly_undecoded(sample)):
            return
        codec, name = found
        raise DataError(
            f"{self.path}: {self.unit} {number} is not UTF-8; the text looks like {name}.",
            hint=f"Read it with --encoding {codec}, or save the file as UTF-8 (in Excel: CSV UTF-8).",
        )

    @property
    def any_found(self) -> bool:
        """Whether rows read from now on are read only to find more bad ones."""
        return bool(self._found)

    def check(self, number: int) -> None:
        """Raises what was found once the look-ahead is used up at line `number`."""
        if self._found and number > self._found[0][0] + _LOOK_AHEAD:
            self.stop(number)

    def stop(self, number: int | None = None) -> None:
        """Raises DataError if anything was found; `number` is the last line looked at, None at the end of the file."""
        if not self._found:
            return
        count = counted(len(self._found), self.unit)
        looked = "" if number is None else f" among the first {number:,}"
        most = number is not None and len(self._found) * 2 >= number
        details = "\n".join(f"  {self.unit} {at}: {what}" for at, what in self._found)
        raise DataError(
            f"{self.path}: {count}{looked} cannot be read.\n{details}",
            hint="Correct the file: hardly anything would be left of it without such rows." if most else self.hint,
        )

    def fail(self, number: int, found: str, *, hint: str | None = None) -> NoReturn:
        """Raises DataError for a defect after which nothing more can be read, with what was found before it."""
        details = "\n".join(f"  {self.unit} {at}: {what}" for at, what in [*self._found, (number, found)])
        raise DataError(f"{self.path}: cannot be read further.\n{details}", hint=hint or "Correct the file.")


def open_bytes(path: Path, encoding: str = UTF_8) -> BinaryIO:
    """Opens a text file for reading; .gz, .bz2, .xz and (where Python itself can) .zst are expanded as they are read.

    Args:
        encoding: that of the file; what is read is UTF-8 in any case.

    Raises:
        UnavailableError: a .zst file, and this Python has no `compression.zstd`.
        InputNotFoundError: the file cannot be opened.
    """
    opener = _OPENERS.get(path.suffix.lower())
    try:
        if opener is None:
            stream: BinaryIO = path.open("rb", buffering=_BUFFER_BYTES)
        else:
            stream = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, opener(path, "rb")), _BUFFER_BYTES))
    except OSError as error:
        raise InputNotFoundError(f"Cannot open {str(path)!r}: {error.strerror or error}.") from error
    return as_utf_8(stream, encoding)


def _zstd_open(path: Path, mode: str) -> object:
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError as error:
        raise UnavailableError(
            f"{path}: reading .zst needs Python 3.14 or later.", hint=f"Expand it first: zstd -d {path.name}"
        ) from error
    return zstd.open(path, mode)


_OPENERS: dict[str, Callable[[Path, str], object]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd_open,
}

COMPRESSIONS = tuple(_OPENERS)
"""Endings of compressed files, which are expanded as they are read."""


def read_chunks(stream: BinaryIO, path: Path, size: int) -> Iterator[bytes]:
    """Yields the contents in pieces of up to `size` bytes; damaged compression or a failing disk is a DataError."""
    while chunk := _guarded(stream.read, path, size):
        yield chunk


def _guarded(read: Callable[[int], bytes], path: Path, size: int) -> bytes:
    try:
        return read(size)
    except Exception as error:
        # compression.zstd.ZstdError has no base class of its own and cannot be imported everywhere.
        if not isinstance(error, _READ_ERRORS) and type(error).__name__ != "ZstdError":
            raise
        kind = path.suffix.lower()
        if kind in COMPRESSIONS:
            raise DataError(
                f"{path}: expected {kind[1:]}-compressed data, found damage or an early end ({error}).",
                hint="Fetch or compress the file again.",
            ) from error
        raise InputNotFoundError(f"Cannot read {str(path)!r}: {error}.") from error


def batches_of(
    rows: Iterable[tuple[int, RowT, int]], batch_rows: int, bad: BadRows
) -> Iterator[list[tuple[int, RowT]]]:
    """Groups (number, row, size in characters) into batches of up to `batch_rows` rows and about 8 MiB.

    Nothing is yielded once a bad row was found: the rest is read only to find other bad rows, which are raised here.
    """
    batch: list[tuple[int, RowT]] = []
    characters = 0
    for number, row, size in rows:
        if bad.any_found:
            continue
        batch.append((number, row))
        characters += size
        if len(batch) >= batch_rows or characters > BATCH_BYTES:
            yield batch
            batch, characters = [], 0
    bad.stop()
    if batch:
        yield batch


def read_lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its line end), decoded strictly; a byte order mark is accepted.

    Lines end at "\\n" only: U+2028 or a lone carriage return inside a text does not split it. A line that
    cannot be decoded, a NUL byte or more than 8 MiB goes to `bad`.
    """
    with open_bytes(path, bad.encoding) as stream:
        number = 0
        while line := _guarded(stream.readline, path, MAX_RECORD_BYTES + 1):
            number += 1
            if number == 1:
                line = without_byte_order_mark(line, bad)
            if len(line) > MAX_RECORD_BYTES:
                _skip_long_line(stream, number, bad)
                continue
            if b"\0" in line:
                bad.add(number, "NUL byte", f"a NUL byte at column {line.index(0) + 1}; this is not a text line")
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                bad.add_undecoded(number, line, error)
                continue
            yield number, text
            bad.check(number)


def without_byte_order_mark(line: bytes, bad: BadRows) -> bytes:
    """Returns the first line or piece of a file without the UTF-8 mark; UTF-16 and an Excel workbook are a DataError
    that says so."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        bad.fail(1, "UTF-16 text; expected UTF-8", hint="Read it with --encoding utf-16, or save the file as UTF-8.")
    if line.startswith(_WORKBOOK_STARTS):
        bad.fail(1, "an Excel workbook or a zip archive; expected text", hint=WORKBOOK_HINT)
    return line.removeprefix(b"\xef\xbb\xbf")


def _skip_long_line(stream: BinaryIO, number: int, bad: BadRows) -> None:
    if not bad.drop:
        limit = MAX_RECORD_BYTES // 2**20
        bad.fail(
            number,
            f"a line of more than {limit} MiB",
            hint="Break it up, or leave such rows out with --drop-bad-rows.",
        )
    bad.add(number, "line over 8 MiB")
    while rest := _guarded(stream.readline, bad.path, _BUFFER_BYTES):
        if rest.endswith(b"\n"):
            break
