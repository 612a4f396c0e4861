"""The one exception tree of textune. Each error knows the exit code the command line ends with.

    TextuneError                 1
      ConfigError                2   an option, flag or configuration file is wrong
      DataError                 65   rows, columns or labels are wrong           (sysexits EX_DATAERR)
      CheckpointError           65   a model or checkpoint folder is wrong       (sysexits EX_DATAERR)
      InputNotFoundError        66   a file or folder named as input is missing  (sysexits EX_NOINPUT)
      UnavailableError          69   the hub or an optional package is missing   (sysexits EX_UNAVAILABLE)
      OutputError               73   the output cannot be created                (sysexits EX_CANTCREAT)
      StorageError              74   writing failed half way, for example a full disk (sysexits EX_IOERR)
      TrainingError              1   training stopped: a loss or gradient was not finite
        OutOfMemoryError         1   training stopped: memory ran out, however small the passes
      Interrupted         128 + n    signal n asked training to stop: 129 SIGHUP, 130 SIGINT, 138 SIGUSR1,
                                 143 SIGTERM

Exit code 0 is success, 70 (EX_SOFTWARE) an error of textune's own, 130 an interruption by Ctrl-C.

Messages say three things: what was expected, what was found, and what to do. `assert` is kept for textune's own
mistakes.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_BY_SIGNAL = 128
"""Plus the signal's number, as shells have it."""
_LONGEST_NAME = 200
_SHORT_NAME = 4
"""In so few letters one slip is a third of them: "ret" for "rte"."""


class TextuneError(Exception):
    """Base of all errors that textune raises on purpose.

    Args:
        message: what was expected and what was found, as one or a few sentences.
        hint: what to do about it. Shown on its own line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class ConfigError(TextuneError):
    """One or more options are wrong. `problems` holds every mistake that was found, one sentence each."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str], *, hint: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems), hint=hint)


class DataError(TextuneError):
    """Rows, columns or labels are not what the task needs."""

    exit_code = 65


class CheckpointError(TextuneError):
    """A model folder, hub model or training checkpoint cannot be used."""

    exit_code = 65


class InputNotFoundError(TextuneError):
    """A file or folder named as input does not exist or cannot be read."""

    exit_code = 66


class UnavailableError(TextuneError):
    """A service (the hub) or an optional package is not there."""

    exit_code = 69


class OutputError(TextuneError):
    """The output folder or file cannot be created, or would overwrite something."""

    exit_code = 73


class StorageError(TextuneError):
    """Writing failed after the work began: disk full, disk gone, quota reached."""

    exit_code = 74


class TrainingError(TextuneError):
    """Training cannot go on, for example because a loss or a gradient is not finite."""

    exit_code = 1


class OutOfMemoryError(TrainingError):
    """Memory ran out and smaller passes do not help. Nothing is wrong with the weights."""


class Interrupted(TextuneError):  # noqa: N818 - no error: it was asked for
    """A signal asked training to stop; it did so after a whole step, whose checkpoint is committed.

    Args:
        signal_number: 2 for SIGINT, and so on.
    """

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, *, signal_number: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.signal_number = signal_number
        self.exit_code = EXIT_BY_SIGNAL + signal_number


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turns a panic of a library written in Rust (tokenizers, safetensors), which is no `Exception`, into one."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`; None where none is close."""
    if len(name) > _LONGEST_NAME:  # comparing takes time that grows with its square
        return None
    suffix, known = PurePath(name).suffix, list(known)
    # The suffix in common, as of two CSV files, is no likeness.
    same_suffix = {each.removesuffix(suffix): each for each in known if each.endswith(suffix)}
    others = {each: each for each in known if not each.endswith(suffix)}
    for asked, names in ((name.removesuffix(suffix), same_suffix), (name, others)):
        cutoff = 0.6 if len(asked) <= _SHORT_NAME else 0.7
        if close := difflib.get_close_matches(asked, names, n=1, cutoff=cutoff):
            return names[close[0]]
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the known name closest to `name`, or an empty string."""
    match = nearest(name, known)
    return "" if match is None else f" Did you mean {match!r}?"


def first_rows(rows: Sequence[int], *, shown: int = 10) -> str:
    """Returns row numbers as words, in English and cut short: "row 7", "rows 1, 2, 3 and 40 more"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    head = ", ".join(str(row) for row in rows[:shown])
    more = len(rows) - shown
    return f"rows {head} and {more} more" if more > 0 else f"rows {head}"
