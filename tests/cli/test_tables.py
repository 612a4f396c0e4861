from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from textune.cli.tables import print_run, print_scores, print_table
from textune.run import Run

FIGURES = {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1234}


def scores(**metrics: float | None) -> dict[str, Any]:
    return {**{name: {"value": value} for name, value in metrics.items()}, "num_rows": 4080}


def with_interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "interval": [low, high]}


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_scores(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(
        {
            "validation": {**scores(accuracy=0.79656, pearson=None), "per_class": {"no": FIGURES, "yes": FIGURES}},
            "test": {**scores(accuracy=0.5, pearson=1.0), "per_class": {"no": FIGURES, "yes": FIGURES}},
        }
    )
    rows = printed(capsys)
    assert ["metric", "validation", "test"] in rows
    assert ["accuracy", "%", "79.7", "50.0"] in rows
    assert ["pearson", "%", "undefined", "100.0"] in rows
    assert ["rows", "4,080", "4,080"] in rows
    assert ["label", "(test)", "precision", "%", "recall", "%", "f1", "%", "rows"] in rows
    assert ["yes", "50.0", "100.0", "66.7", "1,234"] in rows


def test_of_many_labels_the_most_frequent_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    labels = {f"label-{number}": {**FIGURES, "support": number} for number in range(30)}
    print_scores({"test": {**scores(accuracy=0.5), "per_class": labels}})
    text = capsys.readouterr().out
    assert [f"label-{number} " in text for number in range(30)] == [number >= 10 for number in range(30)]
    assert "the 20 most frequent of 30 labels; --json prints all\n" in text


def test_what_the_figures_speak_of(capsys: pytest.CaptureFixture[str]) -> None:
    def split(baseline: float) -> dict[str, Any]:
        told = {"answer": "'긍정'", "metric": "accuracy", "score": baseline}
        return {**scores(accuracy=0.9), "positive_label": "부정", "baseline": told}

    print_scores({"validation": split(0.5), "test": split(0.482)})
    lines = capsys.readouterr().out.splitlines()
    assert "positive label: '부정' (the second label; --label-names changes the order)" in lines
    assert "always '긍정': accuracy 50.0 % on validation, 48.2 % on test" in lines


def test_a_run_that_has_learned_nothing(capsys: pytest.CaptureFixture[str], text_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path)
    summary = text_run.summary
    summary["selected"]["failed"] = "it says 'no' of every row"
    run.write("summary.json", summary)
    print_run(run)
    assert "failed    this model has learned nothing: it says 'no' of every row\n" in capsys.readouterr().out


def test_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {**FIGURES, "intervals": {"precision": [0.4, 0.6], "recall": [0.9, 1.0], "f1": None}}
    print_scores(
        {
            "test": {
                "accuracy": with_interval(0.853, 0.816, 0.8852),
                "f1": {"value": 0.9, "interval": None},
                "loss": with_interval(0.31234567, 0.25, 0.4),
                "matthews_correlation": {"value": None, "interval": None, "undefined": "only one class"},
                "calibration": {"expected_calibration_error": 0.043, "brier_score": 0.1234},
                "per_class": {"yes": figures},
                "num_rows": 408,
            }
        }
    )
    rows = printed(capsys)
    assert ["metric", "[95", "%", "interval]", "test"] in rows
    assert ["accuracy", "%", "85.3", "[81.6,", "88.5]"] in rows
    assert ["f1", "%", "90.0"] in rows
    assert ["loss", "0.3123", "[0.25,", "0.4]"] in rows
    assert ["expected_calibration_error", "%", "4.3"] in rows
    assert ["brier_score", "0.1234"] in rows
    assert ["yes", "50.0", "[40.0,", "60.0]", "100.0", "[90.0,", "100.0]", "66.7", "1,234"] in rows
    assert ["matthews_correlation", "is", "undefined:", "only", "one", "class"] in rows


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "a\\[b]", "\\", "[bold", ":smile:"])
def test_label_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_scores({"test": {**scores(accuracy=0.5), "per_class": {name: FIGURES}}})
    assert [name, "50.0", "100.0", "66.7", "1,234"] in printed(capsys)


def test_labels_that_look_alike_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"test": {**scores(accuracy=0.5), "per_class": {" yes": FIGURES, "yes": FIGURES}}})
    lines = printed(capsys)
    assert ["'", "yes'", "50.0", "100.0", "66.7", "1,234"] in lines
    assert ["yes", "50.0", "100.0", "66.7", "1,234"] in lines


def test_a_narrow_terminal_breaks_no_head_within_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    heads = ["accuracy %", "f1_macro %", "f1_weighted %", "matthews_correlation %"]
    print_table(["검증, 1,234 rows", *heads], [["95 % interval of the mean", *["81.6 to 88.5"] * 4]])
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert {word for head in heads for word in head.split()} < set(text.split())
    assert max(map(cell_len, text.splitlines())) <= 80


def test_run(capsys: pytest.CaptureFixture[str], text_run: Run) -> None:
    print_run(text_run)
    text = capsys.readouterr().out
    summary = text_run.summary
    low, high = summary["validation"]["accuracy"]["interval"]
    assert f"{100 * summary['validation']['accuracy']['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert (
        "note      accuracy on validation chose the weights, so the figures of validation are optimistic, "
        "and there is no labelled test split to say by how much.\n"
    ) in text
    assert "weights   step 8 of 8 (best by accuracy on validation)" in text
    assert f"{summary['training']['samples_per_second']:.1f} samples/s" in text
    assert f"model     {text_run.model_path}  (loads in transformers.pipeline)" in text
    assert f"next      textune predict {text_run.path} INPUT -o OUTPUT" in text
