from __future__ import annotations

import json
from pathlib import Path

import pytest

from textune.run import Run

from .conftest import Textune


def test_evaluate(textune: Textune, text_run: Run, tiny_csv: Path) -> None:
    done = textune("evaluate", text_run.path, "--data", tiny_csv)
    assert done.code == 0
    assert "accuracy" in done.out and "data" in done.out and "positive" in done.out
    assert "scoring data: 64 rows" in done.err


def test_the_data_can_be_named_in_two_ways(textune: Textune, text_run: Run, tiny_csv: Path) -> None:
    one, other = (
        textune("evaluate", text_run.path, *data, "--json", "--quiet") for data in ([tiny_csv], ["--data", tiny_csv])
    )
    assert (one.code, other.code) == (0, 0)
    assert one.out == other.out
    both = textune("evaluate", text_run.path, tiny_csv, "--data", tiny_csv)
    assert both.code == 2
    assert "DATA and --data are the same: name the data once." in both.err
    assert "default" not in textune("evaluate", "--help").out.partition("--data")[2].partition("--")[0]


def test_json_and_quiet(textune: Textune, text_run: Run, tiny_csv: Path) -> None:
    done = textune("evaluate", text_run.path, "--data", tiny_csv, "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found) == ["data"]
    assert found["data"]["num_rows"] == 64
    assert 0 <= found["data"]["accuracy"]["value"] <= 1


def test_precision(textune: Textune, text_run: Run, tiny_csv: Path) -> None:
    done = textune("evaluate", text_run.path, "--data", tiny_csv, "--json", "--precision", "bf16")
    assert done.code == 0
    assert "arithmetic: bf16: as asked; measured " in done.err
    found, usual = json.loads(done.out), textune("evaluate", text_run.path, "--data", tiny_csv, "--json", "--quiet")
    # A few rows near the threshold may be given the other label.
    expected = json.loads(usual.out)["data"]["accuracy"]["value"]
    assert abs(found["data"]["accuracy"]["value"] - expected) <= 4 / 64


def test_a_run_at_home(textune: Textune, text_run: Run, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(text_run.path.parent))
    done = textune("evaluate", f"~/{text_run.path.name}", tiny_csv)
    assert done.code == 0
    assert "is what this run was trained on" in done.err


def test_data_without_labels(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    data.write_text("text\nthe film was good\n")
    done = textune("evaluate", text_run.path, "--data", data)
    assert done.code == 65
    assert "no labels" in done.err
    assert done.out == ""
