"""Tables, bars and dated results."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from textune.cores import cores

RESULTS = Path(__file__).parent / "results"
_CONSOLE = Console(soft_wrap=True)
_PACKAGES = ("textune", "torch", "transformers", "tokenizers", "safetensors", "pyarrow", "datasets")


class Results:
    """A file that holds what was found so far, with date, options, and versions, and what a person is shown.

    Attributes:
        path: the file, rewritten whenever something is added.
    """

    def __init__(self, kind: str, arguments: argparse.Namespace, *, hidden: Path | None = None) -> None:
        """
        Args:
            hidden: a folder that trials lie in; results are published, so no folder of the machine is named in them.
        """
        self.path: Path = arguments.output or _free_path(kind)
        self._hidden = hidden
        options = {name: value for name, value in vars(arguments).items() if name not in ("output", "keep")}
        self._content: dict[str, Any] = {
            "about": {
                "faults": kind,
                "date": str(date.today()),
                "options": options,
                "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
                "python": platform.python_version(),
                "versions": {name: version(name) for name in _PACKAGES},
            }
        }

    def write(self, **parts: Any) -> None:
        """Adds or replaces parts of the file."""
        self._content |= parts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._content, indent=2)
        if self._hidden is not None:
            text = text.replace(str(self._hidden), "FOLDER")
        self.path.write_text(f"{text}\n", encoding="utf-8")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Shows a table."""
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        _CONSOLE.print(table)
        self.say(f"written to {self.path}")

    def say(self, text: str) -> None:
        """Shows a line; words of an input are no markup."""
        _CONSOLE.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar; gives a function that is told how many are done."""
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda done: bars.update(bar, completed=done)


def _free_path(kind: str) -> Path:
    """faults/results/DATE-KIND.json, or with a number where earlier results of the day have that name."""
    stem = f"{date.today()}-{kind}"
    free = (RESULTS / f"{stem}{f'-{number}' if number > 1 else ''}.json" for number in range(1, 1000))
    return next(path for path in free if not path.exists())
