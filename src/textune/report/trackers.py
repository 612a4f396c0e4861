"""Training's figures for TensorBoard, MLflow and Weights & Biases, each through its own library. None starts by itself.

What a run logs goes there under the names `train/loss`, `validation/accuracy`, ...; its configuration as parameters.
A run that is resumed goes on in the tracker's own run, whose id is kept in the run folder's trackers.json.
"""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from textune.config import Config
from textune.config_reading import plain_options
from textune.errors import DataError, InputNotFoundError, UnavailableError
from textune.files import read_json, write_json
from textune.run import Run
from textune.summary import metric_values, scored_splits
from textune.training.callbacks import Callback, Record
from textune.training.state import TrainingState

IDS_FILE = "trackers.json"


class Writer(Protocol):
    """One tracker's run.

    Attributes:
        run_id: by which the tracker knows it again.
    """

    run_id: str

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Notes figures of a step."""
        ...

    def close(self) -> None:
        """Ends the tracker's run, so that nothing is lost."""
        ...


class Tracker(Callback):
    """Hands what is logged to a tracker. One that fails now is given up with a warning: training goes on.

    Args:
        split: what evaluations are of; None where there are none.
        warn: told of a tracker that failed.
    """

    def __init__(self, name: str, writer: Writer, *, split: str | None, warn: Callable[[str], None]) -> None:
        self._name, self._split, self._warn = name, split, warn
        self._writer: Writer | None = writer

    def on_log(self, state: TrainingState, record: Record) -> None:
        self._write("train", record, state.step)

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        assert self._split is not None, "without validation rows nothing is evaluated"
        self._write(self._split, record, state.step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Notes the final metrics of each split, as `final/SPLIT/METRIC`, and ends the tracker's run."""
        for split in scored_splits(summary):
            known = {name: value for name, value in metric_values(summary[split]).items() if value is not None}
            self._write(f"final/{split}", known, summary["training"]["steps"])
        self.close()

    def close(self) -> None:
        """Ends the tracker's run as it stands."""
        self._try(lambda writer: writer.close())
        self._writer = None

    def _write(self, prefix: str, record: Record, step: int) -> None:
        values = {
            f"{prefix}/{name}": float(value)
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        self._try(lambda writer: writer.scalars(values, step))

    def _try(self, act: Callable[[Writer], None]) -> None:
        if self._writer is None:
            return
        try:
            act(self._writer)
        except Exception as error:  # each library has errors of its own: a lost server must not cost a training
            self._warn(f"{self._name} failed and gets nothing more: {type(error).__name__}: {error}")
            self._writer = None


def open_trackers(
    names: Sequence[str], run: Run, config: Config, *, split: str | None, warn: Callable[[str], None]
) -> list[Tracker]:
    """Starts a run in each of the trackers, or goes on in the one that the run folder knows of.

    Raises:
        UnavailableError: a package is not installed, or a tracker cannot be reached.
    """
    require_installed(names)
    ids, trackers = _known_ids(run), list[Tracker]()
    for name in names:
        try:
            writer = _OPEN[name](run.path, plain_options(config), ids.get(name))
        except Exception as error:
            for tracker in trackers:
                tracker.close()
            raise UnavailableError(
                f"{name} cannot be started: {type(error).__name__}: {error}",
                hint="To train without it, leave it out of --tracker; to resume, say --set run.trackers=null.",
            ) from error
        ids[name] = writer.run_id
        trackers.append(Tracker(name, writer, split=split, warn=warn))
    if names:
        write_json(run.path / IDS_FILE, ids)
    return trackers


def require_installed(names: Sequence[str]) -> None:
    """Looks for the packages of trackers, before anything else is done.

    Raises:
        UnavailableError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"--tracker {name} needs the package {name}, which is not installed.", hint=f"pip install {name}"
            )


def _known_ids(run: Run) -> dict[str, str]:
    try:
        return dict(read_json(run.path / IDS_FILE))
    except (InputNotFoundError, DataError, TypeError, ValueError):
        return {}


class _TensorBoard:
    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run_id = "tensorboard"  # the folder
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        if known is None:
            text = "\n".join(f"    {name}: {value}" for name, value in settings.items())
            self._writer.add_text("config", text)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        import mlflow

        self._mlflow = mlflow
        self.run_id = mlflow.start_run(run_id=known, run_name=None if known else folder.name).info.run_id
        if known is None:
            mlflow.log_params({name: str(value)[:250] for name, value in settings.items()})  # its longest value

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _WandB:
    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        import wandb

        self.run_id = known or uuid.uuid4().hex[:8]
        # Offline unless the person says otherwise: nothing leaves the machine by itself; `wandb sync` uploads it.
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            mode=mode,
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "textune"),
            name=folder.name,
            id=self.run_id,
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_OPEN: dict[str, Callable[[Path, Mapping[str, Any], str | None], Writer]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
}
