"""What there is of a run, finished or not: each file that can be read, and a sentence for each that cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from textune.config import Config
from textune.config_reading import read_config
from textune.errors import DataError, TextuneError
from textune.files import read_json
from textune.run import Run
from textune.summary import scored_splits

if TYPE_CHECKING:
    import pyarrow as pa

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class RunFiles:
    """The contents of a run folder, None or empty where a file is missing or damaged.

    Attributes:
        name: the folder's name.
        problems: what is missing or damaged, one sentence each, for the reader of the report.
    """

    path: Path
    name: str
    config: Config | None = None
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, pa.Table] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, what: str, build: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Returns what `build` gives, or None and a sentence about it: a damaged file must not hide the others."""
        try:
            return build(*arguments, **options)
        except TextuneError as error:
            self.problems.append(error.message)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, OSError) as error:
            self.problems.append(f"{what} cannot be shown, since a file of the run is damaged: {error!r}")
        return None

    @property
    def scored_splits(self) -> list[str]:
        """Splits with figures in the summary, in its order."""
        return scored_splits(self.summary)


def read_run(path: str | Path) -> RunFiles:
    """Reads everything that a report shows.

    Raises:
        InputNotFoundError: there is no such folder.
        CheckpointError: it is not a run.
    """
    run = Run.open(path)
    files = RunFiles(run.path, run.path.resolve().name)
    files.config = files.attempt("The configuration", read_config, run.path / "config.yaml")
    files.records = files.attempt("The course of training", getattr, run, "metrics") or []
    for name in ("data", "environment", "summary", "analysis", "audit"):
        file = run.path / f"{name}.json"
        if file.exists():
            setattr(files, name, files.attempt(f"What is in {file.name}", _object, file) or {})
    if not (run.path / "summary.json").exists():
        files.problems.insert(0, "This run has not finished: it has no summary.json. What there is so far is shown.")
    for file in sorted(run.predictions_path.glob("*.parquet")):
        table = files.attempt(f"What is in {file.name}", run.predictions, file.stem)
        if table is not None:
            files.predictions[file.stem] = table
    return files


def _object(file: Path) -> dict[str, Any]:
    value = read_json(file)
    if not isinstance(value, dict):
        raise DataError(f"Expected a JSON object in {str(file)!r}, found a {type(value).__name__}.")
    return value
