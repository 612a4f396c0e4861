"""Trackers, through their own libraries where these are installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from textune.config import Config
from textune.errors import UnavailableError
from textune.files import read_json
from textune.report.trackers import Tracker, open_trackers, require_installed
from textune.run import Run
from textune.training.state import TrainingState

SUMMARY = {
    "validation": {"accuracy": {"value": 0.75}, "pearson": {"value": None}, "num_rows": 8},
    "training": {"steps": 4, "seconds": 1.0},
}


class Notes:
    """A writer that keeps what it is given, and fails when it is told to."""

    run_id = "1"

    def __init__(self, *, fails: bool = False) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []
        self.closed, self.fails = False, fails

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.fails:
            raise OSError("the server has gone")
        self.values.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


def test_what_a_tracker_is_given() -> None:
    writer, warnings_said = Notes(), []
    tracker = Tracker("notes", writer, split="validation", warn=warnings_said.append)
    state = TrainingState(total_steps=4, step=2)
    tracker.on_log(state, {"step": 2, "epoch": 0.5, "loss": 0.7})
    tracker.on_evaluate(state, {"step": 2, "accuracy": 0.5, "f1": None, "best": True})
    tracker.finish(SUMMARY)
    assert writer.values == [
        (2, {"train/epoch": 0.5, "train/loss": 0.7}),
        (2, {"validation/accuracy": 0.5}),
        (4, {"final/validation/accuracy": 0.75}),
    ]
    assert writer.closed and not warnings_said


def test_a_tracker_that_fails_is_given_up() -> None:
    said: list[str] = []
    tracker = Tracker("notes", Notes(fails=True), split="validation", warn=said.append)
    for step in (1, 2):
        tracker.on_log(TrainingState(total_steps=4, step=step), {"loss": 0.7})
    tracker.finish(SUMMARY)
    assert said == ["notes failed and gets nothing more: OSError: the server has gone"]


def test_what_was_opened_is_closed_where_another_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Notes()

    def fail(*arguments: object) -> Notes:
        raise OSError("no server")

    monkeypatch.setattr("textune.report.trackers.require_installed", lambda names: None)
    monkeypatch.setattr("textune.report.trackers._OPEN", {"mlflow": lambda *arguments: first, "wandb": fail})
    with pytest.raises(UnavailableError, match="wandb cannot be started: OSError: no server"):
        open_trackers(["mlflow", "wandb"], Run(tmp_path), Config(), split=None, warn=lambda text: None)
    assert first.closed


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="--tracker mlflow needs the package mlflow") as caught:
        require_installed(["mlflow"])
    assert caught.value.hint == "pip install mlflow"


def test_tensorboard_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (1, 2):  # the second time as after a resume
        write(tmp_path, "tensorboard", step)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(item.step, round(item.value, 6)) for item in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [item.step for item in events.Scalars("final/validation/accuracy")] == [4, 4]
    assert len(events.Tensors("config/text_summary")) == 1


@pytest.mark.filterwarnings("ignore")  # of the libraries' own dependencies
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    try:
        for step in (1, 2):
            write(tmp_path, "mlflow", step)
        run = mlflow.get_run(read_json(tmp_path / "trackers.json")["mlflow"])
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
        assert [(item.step, item.value) for item in history] == [(1, 0.5), (2, 0.25)]
        assert run.data.params["training.seed"] == "42" and run.info.status == "FINISHED"
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_stay_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "wandb", 1)
    name = read_json(tmp_path / "trackers.json")["wandb"]
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))


def write(folder: Path, name: str, step: int) -> None:
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tracker,) = open_trackers([name], Run(folder), Config(), split="validation", warn=said.append)
        tracker.on_log(TrainingState(total_steps=4, step=step), record(step))
        tracker.finish(SUMMARY)
    assert not said


def record(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 0.1, "loss": 0.5 / step}
