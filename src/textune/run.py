"""The run folder: what lies where, in which format. Everything in it is written atomically.

config.yaml            resolved: what was asked and what was chosen
environment.json       versions, machine, arithmetic chosen and the measured reason
data.json              source, fingerprint, rows per split, label names, truncation and length statistics
audit.json             what the data audit found before training, as `textune inspect --json` prints it
metrics.jsonl          one line per logged step or evaluation
summary.json           final metrics per split, timings, samples and tokens per second, peak memory
predictions/SPLIT.parquet   id, label, prediction, one score per label
analysis.json          where it is wrong, per labelled split: see textune.evaluation.analysis
checkpoints/step-N/    committed checkpoints (last and best are kept)
model/                 the classifier in Hugging Face layout
report.html            all of it as one page
run.lock               there while a process trains: see textune.lock
trackers.json          the names by which trackers know the run: see textune.report.trackers
tensorboard/, wandb/   what trackers keep here
label_errors.csv       of a cross-validation: labels that are probably wrong; see textune.repeats
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.config import Config
from textune.config_reading import read_config, to_yaml
from textune.errors import CheckpointError, DataError, InputNotFoundError, OutputError
from textune.files import (
    clear_unfinished,
    read_json,
    reading_errors,
    replacing,
    storage_errors,
    user_path,
    write_json,
    write_text,
)
from textune.lock import LOCK_FILE, require_unlocked

if TYPE_CHECKING:
    import pyarrow as pa

ENTRIES = frozenset(
    {
        "config.yaml",
        "environment.json",
        "data.json",
        "audit.json",
        "metrics.jsonl",
        "summary.json",
        "analysis.json",
        "predictions",
        "checkpoints",
        "model",
        "label_errors.csv",
        "report.html",
        "trackers.json",
        "tensorboard",
        "wandb",
        LOCK_FILE,
    }
)
"""The names in a run folder; a half-written one is `.NAME.tmp`, with or without more behind it."""
ALL_ROWS = "all-rows"
"""In the folder of a cross-validation the run that was trained on every row."""
LABEL_ERRORS = "label_errors.csv"
_MEMBER = re.compile(rf"(?:seed|fold)-(\d+)|{ALL_ROWS}")

_MOST_EXPANSION, _MOST_PREDICTIONS_BYTES = 20, 64 * 2**20
"""Equal labels are stored once, scores differ: a file of predictions expands a few times; small ones may more."""

_RESULTS = {"summary.json", "predictions", "analysis.json", "model", "report.html"}
"""What is written when training has ended."""


class Run:
    """One run of training, finished or not: its folder and what can be read from it.

    With several seeds or folds it holds the runs of each and what they say together (`textune.repeats`).

    `Run.open(path)` opens an existing one; `textune.train` returns one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = user_path(path)
        self.model_path = self.path / "model"
        self.checkpoints_path = self.path / "checkpoints"
        self.predictions_path = self.path / "predictions"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Opens the run in a folder.

        Raises:
            InputNotFoundError: there is no such folder, or it may not be read.
            CheckpointError: the folder is not a run.
        """
        run = cls(path)
        folder = run.path
        with reading_errors(folder):
            exists, is_run = folder.exists(), _is_run(folder)
        if not exists:
            raise InputNotFoundError(
                f"There is no run folder {str(folder)!r}.", hint="`textune train --output FOLDER` makes one."
            )
        if not is_run:
            raise CheckpointError(
                f"{str(folder)!r} is not a run of textune: it has no config.yaml.",
                hint="Name the folder that `textune train` printed, the one with config.yaml and model/ in it.",
            )
        return run

    @classmethod
    def create(cls, path: Path, *, overwrite: bool, config: Config) -> Run:
        """Makes the folder and writes config.yaml into it. See `check_output` for what is refused.

        The caller holds the folder's lock.
        """
        _check_folder(path, overwrite=overwrite)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            # Emptied, not removed: the folder may be a link, a mounted disk or where the user stands.
            _empty(path)
        run = cls(path)
        run.write_config(config)
        return run

    def write_config(self, config: Config) -> None:
        """Writes config.yaml, atomically."""
        write_text(self.path / "config.yaml", to_yaml(config))

    @property
    def config(self) -> Config:
        """The configuration as it was resolved when the run began."""
        return read_config(self.path / "config.yaml")

    @property
    def is_finished(self) -> bool:
        """Whether training came to its end: the summary is written last."""
        return (self.path / "summary.json").exists()

    def require_finished(self) -> None:
        """Refuses a run that has not come to its end.

        Raises:
            InputNotFoundError: it has not; says how it goes on.
        """
        if not self.is_finished:
            raise InputNotFoundError(
                f"The run {str(self.path)!r} has not finished: it has no summary.json.", hint=self.hint_of_finishing
            )

    @property
    def hint_of_finishing(self) -> str:
        """What to do about a run that has not finished."""
        return (
            f"Wait for it while it trains; if it was interrupted, `textune train --resume {self.path}` goes on with it."
        )

    @property
    def runs(self) -> list[Run]:
        """The runs of each seed or fold, in order, finished or not; none in a run of its own."""
        with reading_errors(self.path):
            found = {path: _MEMBER.fullmatch(path.name) for path in self.path.iterdir()}
        numbers = {path: int(match[1]) for path, match in found.items() if match and match[1] and _is_run(path)}
        return [Run(path) for path in sorted(numbers, key=lambda path: numbers[path])]

    @property
    def seeds(self) -> list[Run]:
        """Those of `runs` that differ in nothing but the seed; none of a cross-validation."""
        return [run for run in self.runs if run.path.name.startswith("seed-")]

    @property
    def data(self) -> dict[str, Any]:
        """Source, fingerprint, columns, label names and statistics of the data."""
        return self._read("data.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine and arithmetic."""
        return self._read("environment.json")

    @property
    def summary(self) -> dict[str, Any]:
        """Final metrics per split and the cost of training. Raises InputNotFoundError before the run has finished."""
        self.require_finished()
        return self._read("summary.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per logged step or evaluation, in order; a last line that was cut off is left out.

        Raises:
            DataError: another line is not a JSON object.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        with reading_errors(path):
            lines = path.read_bytes().split(b"\n")[:-1]
        return [_record(line, number, path) for number, line in enumerate(lines, start=1)]

    def predictions(self, split: str) -> pa.Table:
        """The predictions on one split: id, label where known, prediction, one score per label.

        Raises:
            InputNotFoundError: there are none.
            DataError: the file is damaged, or expands to far more than predictions do.
        """
        import pyarrow as pa

        from textune.parquet import read_parquet

        path = self.predictions_path / f"{split}.parquet"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in self.predictions_path.glob("*.parquet"))) or "none"
            raise InputNotFoundError(f"{self.path}: there are no predictions for {split!r}; there are: {known}.")
        tables: list[pa.Table] = []
        limit = _MOST_PREDICTIONS_BYTES + _MOST_EXPANSION * path.stat().st_size
        for table in read_parquet(path, batch_rows=4096):
            tables.append(table)
            limit -= table.nbytes
            if limit < 0:
                raise DataError(f"{path}: expands to over {_MOST_EXPANSION} times its size; these are no predictions.")
        if not tables:
            raise DataError(f"{path}: found no rows.")
        return pa.concat_tables(tables)

    def write_predictions(self, split: str, predictions: pa.Table) -> None:
        """Writes the predictions on one split, atomically."""
        import pyarrow.parquet

        path = self.predictions_path / f"{split}.parquet"
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(predictions, temporary)

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Writes one of the JSON files, atomically."""
        write_json(self.path / name, value)

    def log(self, record: dict[str, Any]) -> None:
        """Appends one record to metrics.jsonl; the line reaches the operating system before this returns."""
        path = self.path / "metrics.jsonl"
        with storage_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def clear_unfinished(self) -> None:
        """Takes away what a killed process left half written, and puts back what it was about to replace."""
        with storage_errors(self.path):
            for name in ENTRIES:
                clear_unfinished(self.path, names=name)

    def go_back(self, checkpoint: Path) -> None:
        """Makes the log what it was at a checkpoint, and takes away results and what was half written."""
        with storage_errors(self.path):
            # The summary first: without it the others mean nothing.
            for entry in [self.path / "summary.json", *self.path.iterdir()]:
                if _is_unfinished(entry.name) or entry.name in _RESULTS:
                    _remove(entry)
        with replacing(self.path / "metrics.jsonl") as temporary:
            shutil.copyfile(checkpoint / "metrics.jsonl", temporary)

    def _read(self, name: str) -> dict[str, Any]:
        value = read_json(self.path / name)
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.path / name}: expected a JSON object, found a {type(value).__name__}.")
        return value


def _record(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in line {number} of {str(path)!r}; it cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"Expected a JSON object in line {number} of {str(path)!r}, found {line[:40]!r}.")
    return record


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuses an output folder that would overwrite something or cannot be made.

    Raises:
        OutputError: it is a file, holds something else than a run, holds a run and `overwrite` is false, another
            process trains there, or it may not be written.
    """
    require_unlocked(path)
    _check_folder(path, overwrite=overwrite)
    for run in Run(path).runs if path.is_dir() else []:
        require_unlocked(run.path)


def _check_folder(path: Path, *, overwrite: bool) -> None:
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"--output: {str(path)!r} is a file, expected a folder.", hint="Choose another name.")
        if path.is_dir():
            _check_contents(path, sorted(entry.name for entry in path.iterdir()), overwrite=overwrite)
        existing = next(folder for folder in [path, *path.absolute().parents] if folder.exists())
    if not existing.is_dir():
        raise OutputError(f"--output: {str(existing)!r} is a file, expected a folder.", hint="Choose another name.")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"--output: no permission to write in {str(existing)!r}.", hint="Choose another folder.")


def _check_contents(folder: Path, names: list[str], *, overwrite: bool) -> None:
    """Refuses a folder unless it is empty, or a run that may be overwritten and nothing but a run.

    A process killed at its very beginning may have left a lock and half a config.yaml.
    """
    if all(name == LOCK_FILE or _is_unfinished(name) for name in names):
        return
    if not _is_run(folder):
        raise OutputError(
            f"--output: the folder {str(folder)!r} is not empty and is not a run of textune; nothing was touched.",
            hint="Choose another folder.",
        )
    if not overwrite:
        raise OutputError(
            f"--output: {str(folder)!r} already holds a run; nothing was touched.",
            hint=f"Go on with it by --resume {folder}, choose another folder, or say --overwrite to delete it first.",
        )
    foreign = [name for name in names if not _is_entry(name)]
    if foreign:
        raise OutputError(
            f"--output: {str(folder)!r} holds a run and {foreign[0]!r}, which is no part of one; nothing was touched.",
            hint="Choose another folder, or move what is not the run's out of it first.",
        )
    for name in names:
        if _MEMBER.fullmatch(name):
            _check_folder(folder / name, overwrite=overwrite)


def leave_empty(run: Run) -> None:
    """Takes a new run out of its folder after a mistake that showed before training. The caller holds the lock."""
    with storage_errors(run.path):
        _empty(run.path)
        (run.path / "config.yaml").unlink()


def output_path(config: Config, data_name: str) -> Path:
    """The run folder that a configuration asks for, where it names none the next free one, which is made."""
    if config.run.output is not None:
        return user_path(config.run.output)
    return claim_free_path(data_name, Path(config.model.checkpoint).name)


def claim_free_path(data_name: str, model_name: str) -> Path:
    """Makes the default output, `runs/DATA-MODEL-N`, with the lowest N that is free: no other process gets the same.

    Raises:
        OutputError, StorageError: it cannot be made.
    """
    stem = re.sub(r"[^\w.-]+", "-", f"{data_name}-{model_name}").strip("-.").lower()
    paths = (Path("runs", f"{stem}-{number}") for number in itertools.count(1))
    return next(path for path in paths if _is_made(path))


def _is_made(path: Path) -> bool:
    """Makes a folder, or says that somebody else has."""
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            return False
    return True


def _empty(folder: Path) -> None:
    """Takes away all but the lock and config.yaml.

    A process killed amid it leaves a run that may be overwritten again, and one without a summary: not a finished one.
    """
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name != "summary.json"):
        if _MEMBER.fullmatch(entry.name) and not entry.is_symlink():
            _empty(entry)
        if entry.name not in {LOCK_FILE, "config.yaml"}:
            _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def _is_entry(name: str) -> bool:
    return name in ENTRIES or _MEMBER.fullmatch(name) is not None or _is_unfinished(name)


def _is_unfinished(name: str) -> bool:
    unfinished = re.fullmatch(r"\.(.+?)\.(?:tmp|old).*", name)
    return unfinished is not None and unfinished[1] in ENTRIES


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()
