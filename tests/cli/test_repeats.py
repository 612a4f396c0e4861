"""`textune train --seeds` and `--cv`."""

from __future__ import annotations

import json
from pathlib import Path

from textune.run import Run

from .conftest import Textune


def test_seeds(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    done = textune("train", *train_flags, "--seeds", "2", "-o", tmp_path / "runs")
    assert done.code == 0
    for words in ("seed-42", "seed-43", "(kept", "mean", "standard deviation", "95 % interval of the mean"):
        assert words in done.out
    whole = Run.open(tmp_path / "runs")
    mean = whole.summary["validation"]["accuracy"]["value"]
    assert f"{100 * mean:.1f}" in done.out
    assert "seed 42 (1 of 2)" in done.err
    assert f"next      textune predict {tmp_path / 'runs'} INPUT" in done.out
    for entry in whole.summary["runs"]:
        assert (f"failed    {entry['name']}: {entry['failed']}" in done.out) == (entry["failed"] is not None)

    again = textune("train", "--resume", tmp_path / "runs", "--quiet", "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out) == {"run": str(tmp_path / "runs"), **whole.summary}


def test_folds(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    done = textune("train", *train_flags, "--cv", "2", "-o", tmp_path / "runs")
    assert done.code == 0
    for words in ("out of fold, 64 rows", "fold-1", "fold-2", "all rows together [95 % interval]", "of all-rows"):
        assert words in done.out
    assert "fold 2 of 2: 32 of 64 training rows are held out" in done.err
    assert "all rows are trained on" in done.err


def test_both_are_refused(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    done = textune("train", *train_flags, "--cv", "2", "--seeds", "2", "-o", tmp_path / "runs")
    assert done.code == 2
    assert "--seeds and --cv: choose one" in done.err


def test_a_folder_of_runs_trains_again_from_its_configuration(
    textune: Textune, train_flags: list[str], tmp_path: Path
) -> None:
    assert textune("train", *train_flags, "--seeds", "2", "-o", tmp_path / "a", "--quiet").code == 0
    assert textune("train", "--config", tmp_path / "a" / "config.yaml", "-o", tmp_path / "b", "--quiet").code == 0
    first, second = (Run.open(tmp_path / name).summary for name in "ab")
    assert first["validation"] == second["validation"]
