"""`report_to`: transformers' own callbacks in textune's Trainer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from textune.errors import UnavailableError

from .trainers import losses, trainer


def test_report_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "logs"
    made = trainer(
        tmp_path, report_to="tensorboard", logging_dir=str(folder), max_steps=3, eval_strategy="steps", eval_steps=3
    )
    made.train()
    events = EventAccumulator(str(folder)).Reload()
    assert [round(item.value, 5) for item in events.Scalars("train/loss")] == [round(x, 5) for x in losses(made)]
    assert [item.step for item in events.Scalars("eval/loss")] == [3]


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="report_to='mlflow' needs the package mlflow, which is not installed"):
        trainer(tmp_path, report_to="mlflow")
