from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from textune.display import Display
from textune.errors import CheckpointError, InputNotFoundError, OutputError
from textune.finetune import train
from textune.report.write import write_report
from textune.run import Run

FILES = ("config.yaml", "data.json", "environment.json", "metrics.jsonl", "summary.json", "analysis.json")


@pytest.fixture
def copied(text_run: Run, tmp_path: Path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(text_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "model")))


def test_the_runs_own_page_is_replaced(copied: Path) -> None:
    (copied / "report.html").write_text("old")
    path, problems = write_report([copied])
    assert (path, problems) == (copied / "report.html", [])
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_another_page_is_not_overwritten_unasked(copied: Path, tmp_path: Path) -> None:
    page = tmp_path / "folder" / "page.html"
    write_report([copied], output=page)
    with pytest.raises(OutputError, match=r"--output: '.*page\.html' is there already; nothing was touched\."):
        write_report([copied], output=page)
    page.write_text("old")
    write_report([copied], output=page, overwrite=True)
    assert page.read_text(encoding="utf-8") != "old"


def test_a_page_in_a_folder_that_may_not_be_entered(copied: Path, closed_folder: Path) -> None:
    with pytest.raises(OutputError, match=r"Cannot write '.*page\.html': Permission denied"):
        write_report([copied], output=closed_folder / "page.html")


def test_runs_and_pages_at_home(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copied.parent))
    assert write_report(["~/run"])[0] == copied / "report.html"
    assert write_report(["~/run"], output="~/page.html", figures="~/figures")[0] == copied.parent / "page.html"
    assert (copied.parent / "figures" / "lengths.svg").is_file()


@pytest.mark.parametrize(("fitted_on", "where"), [("validation", "these rows"), ("out_of_fold", "out_of_fold")])
def test_what_the_temperature_gains(copied: Path, fitted_on: str, where: str) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["validation"]["loss"]["value"] = 0.7
    summary["validation"]["calibration"] |= {
        "expected_calibration_error": 0.2,
        "temperature": 2.5,
        "fitted_on": fitted_on,
        "with_temperature": {"expected_calibration_error": 0.04, "brier_score": 0.1, "loss": 0.5},
    }
    (copied / "summary.json").write_text(json.dumps(summary))
    page = write_report([copied])[0].read_text(encoding="utf-8")
    assert (
        f"A temperature of 2.5, fitted on {where} and used by textune predict --calibrated, takes the calibration "
        "error here from 0.200 to 0.040 and the loss from 0.700 to 0.500."
    ) in page


def test_charts_as_files(copied: Path, tmp_path: Path) -> None:
    write_report([copied], figures=tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = {
        "learning-loss", "learning-metric", "confusion-validation", "calibration-validation", "thresholds-validation",
        "scores-validation", "lengths",
    }  # fmt: skip
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png", "csv")}


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="There is no run folder"):
        write_report([tmp_path / "nothing"])
    with pytest.raises(CheckpointError, match="is not a run of textune"):
        write_report([tmp_path])


def test_an_unfinished_run(copied: Path) -> None:
    for name in ("summary.json", "analysis.json", "predictions"):
        path = copied / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path, problems = write_report([copied])
    assert problems == ["This run has not finished: it has no summary.json. What there is so far is shown."]
    page = path.read_text(encoding="utf-8")
    assert problems[0] in page and "Course of training" in page and "Results" not in page


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize(
    "damage", ["cut", "{}", "[]", "null", '{"validation": 3, "splits": [], "schema": "x"}', "\x00"]
)
def test_damaged_files_are_named_and_the_rest_is_shown(copied: Path, name: str, damage: str) -> None:
    file = copied / name
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: len(text) // 2] + "\n{\n" if damage == "cut" else f"{damage}\n", encoding="utf-8")
    path, problems = write_report([copied])
    page = path.read_text(encoding="utf-8")
    assert "The same again" in page
    if damage != "{}":  # an empty object is a file that says nothing
        assert problems
    if damage in {"cut", "\x00", "[]", "null"}:
        assert any(name in problem for problem in problems)


def test_damaged_predictions(copied: Path) -> None:
    (copied / "predictions" / "validation.parquet").write_bytes(b"PAR1 no more")
    _, problems = write_report([copied])
    assert len(problems) == 1 and "validation.parquet" in problems[0]


def test_a_damaged_configuration(copied: Path) -> None:
    (copied / "config.yaml").write_text("training: {seed: -1}\n")
    path, problems = write_report([copied])
    assert len(problems) == 1 and "training.seed" in problems[0]
    assert "Most confident mistakes" in path.read_text(encoding="utf-8")


def test_runs_side_by_side(copied: Path, text_run: Run, in_empty_folder: Path) -> None:
    config = copied / "config.yaml"
    changed = re.sub(r"seed: \d+", "seed: 7", config.read_text())
    config.write_text(re.sub(r"trackers: .*", "trackers: [tensorboard, wandb]", changed))
    summary = json.loads((copied / "summary.json").read_text())
    summary["selected"]["failed"] = "it says 'positive' of every row"
    (copied / "summary.json").write_text(json.dumps(summary))
    path, problems = write_report([text_run.path, copied])
    assert (path, problems) == (Path("comparison.html"), [])
    page = path.read_text(encoding="utf-8")
    assert "text and run have the same accuracy: they predict alike on every row." in page
    assert "note: one training each of text, run: another seed of the same recipe" in page
    assert "note: run has learned nothing: on validation it says &#39;positive&#39; of every row" in page
    assert "training.seed" in page and '<td class="name">7</td>' in page
    assert '<td class="name">none</td><td class="name">[tensorboard, wandb]</td>' in page
    assert "training.learning_rate" not in page
    with pytest.raises(OutputError, match=r"comparison\.html"):
        write_report([text_run.path, copied])


def test_runs_of_different_tasks(text_run: Run, regression_run: Run, tmp_path: Path) -> None:
    path, _ = write_report([text_run.path, regression_run.path], output=tmp_path / "both.html")
    page = path.read_text(encoding="utf-8")
    assert "Whether one is better cannot be said. Runs of different tasks cannot be compared" in page
    assert "accuracy" in page and "pearson" in page


def test_an_unfinished_run_beside_another(text_run: Run, copied: Path, tmp_path: Path) -> None:
    (copied / "summary.json").unlink()
    path, problems = write_report([text_run.path, copied], output=tmp_path / "both.html")
    assert problems == ["This run has not finished: it has no summary.json. What there is so far is shown."]
    assert f"run: {problems[0]}" in path.read_text(encoding="utf-8")


@pytest.fixture
def trained(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Run, list[str]]]:
    """Trains one step with reports as they are made outside of tests; gives the run and its warnings."""
    monkeypatch.setattr("textune.results.write_report", write_report)

    class Warnings(Display):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warning(self, text: str) -> None:
            self.warnings.append(text)

    def run(**settings: object) -> tuple[Run, list[str]]:
        display = Warnings()
        found = train(
            str(tiny_csv),
            model=str(tiny_checkpoint),
            output=str(tmp_path / "run"),
            duration="1steps",
            precision="fp32",
            settings=settings,
            display=display,
        )
        return found, display.warnings

    return run


def test_training_ends_with_a_report(trained: Callable[..., tuple[Run, list[str]]]) -> None:
    run, warnings = trained()
    assert not any("report.html" in text for text in warnings)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Most confident mistakes" in page
    assert "positive label: &#39;positive&#39; (the second label; --label-names changes the order)" in page
    assert "always &#39;negative&#39;: accuracy 50.0 % on validation" in page
    assert "This model has learned nothing: it says &#39;positive&#39; of every row." in page


def test_a_report_can_be_left_out(trained: Callable[..., tuple[Run, list[str]]]) -> None:
    run, _ = trained(**{"run.report": False})
    assert not (run.path / "report.html").exists()
    assert (run.path / "analysis.json").exists()


def test_a_report_that_fails_does_not_end_the_training(
    trained: Callable[..., tuple[Run, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(runs: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("textune.results.write_report", fail)
    run, warnings = trained()
    assert warnings[-1] == f"report.html could not be written (no fonts); `textune report {run.path}` tries again"
    assert run.summary["training"]["steps"] == 1
