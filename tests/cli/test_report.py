from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from textune.run import Run

from .conftest import Textune


@pytest.fixture
def copied(text_run: Run, tmp_path: Path) -> Path:
    """A run of this test's own."""
    return Path(shutil.copytree(text_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "model")))


def test_report(textune: Textune, copied: Path) -> None:
    done = textune("report", copied)
    assert (done.code, done.out, done.err) == (0, f"{copied / 'report.html'}\n", "")
    assert (copied / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_figures_and_output(textune: Textune, copied: Path, tmp_path: Path) -> None:
    done = textune("report", copied, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert (done.code, done.out) == (0, f"{tmp_path / 'page.html'}\n")
    assert (tmp_path / "figures" / "confusion-validation.svg").is_file()
    again = textune("report", copied, "-o", tmp_path / "page.html")
    assert again.code == 73 and "is there already" in again.err
    assert textune("report", copied, "-o", tmp_path / "page.html", "--overwrite").code == 0


def test_what_is_missing_is_said(textune: Textune, copied: Path) -> None:
    (copied / "summary.json").unlink()
    done = textune("report", copied)
    assert done.code == 0
    assert done.err == "note: This run has not finished: it has no summary.json. What there is so far is shown.\n"


def test_several_runs(textune: Textune, text_run: Run, copied: Path, in_empty_folder: Path) -> None:
    done = textune("report", text_run.path, copied)
    assert (done.code, done.out) == (0, "comparison.html\n")


def test_wrong_run(textune: Textune, tmp_path: Path) -> None:
    assert textune("report").code == 2
    done = textune("report", tmp_path / "nothing")
    assert done.code == 66 and "There is no run folder" in done.err
