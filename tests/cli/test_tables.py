from __future__ import annotations

from typing import Any

import pytest

from textune.cli.tables import print_run, print_scores
from textune.run import Run

FIGURES = {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1234}


def scores(**metrics: float | None) -> dict[str, Any]:
    return {**{name: {"value": value} for name, value in metrics.items()}, "num_rows": 4080}


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
    assert ["split", "accuracy", "pearson", "rows"] in rows
    assert ["validation", "0.7966", "undefined", "4,080"] in rows
    assert ["label", "(test)", "precision", "recall", "f1", "rows"] in rows
    assert ["yes", "0.5000", "1.0000", "0.6667", "1,234"] in rows


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "a\\[b]", "\\", "[bold", ":smile:"])
def test_label_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_scores({"test": {**scores(accuracy=0.5), "per_class": {name: FIGURES}}})
    assert [name, "0.5000", "1.0000", "0.6667", "1,234"] in printed(capsys)


def test_run(capsys: pytest.CaptureFixture[str], text_run: Run) -> None:
    print_run(text_run)
    text = capsys.readouterr().out
    summary = text_run.summary
    assert "weights   step 8 of 8 (best by accuracy on validation)" in text
    assert f"{summary['training']['samples_per_second']:.1f} samples/s" in text
    assert f"model     {text_run.model_path}  (loads in transformers.pipeline)" in text
    assert f"next      textune predict {text_run.path} INPUT -o OUTPUT" in text
