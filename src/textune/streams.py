"""Standard error, where work goes on when nobody can read it any more."""

from __future__ import annotations

import contextlib
from typing import Any


class Unfailing:
    """A text stream that loses what it cannot write: what is said on the way, never a result.

    A closed pipe (`2>&1 | head`), a terminal that is gone or a full disk below a log end no training.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Gives the length of the text, whatever became of it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
