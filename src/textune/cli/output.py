"""Standard output, on which results are printed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from textune.errors import StorageError


def print_json(value: Any) -> None:
    """Prints a value as indented JSON, with JSON's own escapes where standard output cannot carry every letter."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(json.dumps(value, indent=2, ensure_ascii=not encoding.lower().startswith("utf")))


class Output:
    """Standard output that says what it means when it cannot be written.

    Raises:
        click.exceptions.Exit: its reader, such as `head`, has seen enough; the command is done.
        StorageError: the disk behind it is full, or has failed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._meaning():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with self._meaning():
            self._stream.flush()

    def drop_rest(self) -> None:
        """Drops what could not be written. Python would try it again at its end, and end with another exit code."""
        try:
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _meaning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise click.exceptions.Exit(0) from error
            raise StorageError(
                f"Standard output cannot be written: {error.strerror}.",
                hint="Check where it goes, then print it again.",
            ) from error
