from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest

from textune.run import Run
from textune.serving.predictor import Predictor

from .conftest import Textune


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "new.csv"
    path.write_text("id,text\nx,the film was good\ny,a bad meal\n")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv")
    assert (done.code, done.out) == (0, "")
    assert "predicting new.csv" in done.err
    assert f"2 rows predicted: {tmp_path / 'out.csv'}" in done.err
    found = rows(tmp_path / "out.csv")
    assert [row["id"] for row in found] == ["x", "y"]
    expected = Predictor.load(text_run).predict([row["text"] for row in found])
    assert [row["prediction"] for row in found] == [item.label for item in expected]


def test_swapped_arguments(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", texts, text_run.path, "-o", tmp_path / "labelled.csv")
    assert done.code == 66
    assert "Expected a file, found a folder" in done.err
    assert "RUN comes first: textune predict RUN INPUT" in done.err
    assert "Cannot open" in textune("predict", text_run.path, "a" * 5000, "-o", tmp_path / "labelled.csv").err


def test_at_home(textune: Textune, text_run: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = textune("predict", text_run.path, "~/new.csv", "-o", "~/out.csv")
    assert done.code == 0
    assert len(rows(tmp_path / "out.csv")) == 2


def test_precision(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv", "--precision", "bf16")
    assert done.code == 0
    assert "arithmetic: bf16: as asked; measured " in done.err
    expected = Predictor.load(text_run, precision="bf16").predict(["the film was good", "a bad meal"])
    for row, prediction in zip(rows(tmp_path / "out.csv"), expected, strict=True):
        assert float(row["score_positive"]) == pytest.approx(prediction.scores["positive"], abs=1e-6)


def test_precision_that_is_not_offered(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv", "--precision", "fp16")
    assert done.code == 2
    assert "'fp16' is not one of 'auto', 'fp32', 'bf16'" in done.err
    assert not (tmp_path / "out.csv").exists()


def test_excel(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    assert textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv", "--excel").code == 0
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_quiet(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(rows(tmp_path / "out.csv")) == 2


def test_only_predictions_of_another_column(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    source = tmp_path / "new.tsv"
    source.write_text("review\tstars\nfilm\t1\n")
    done = textune(
        "predict", text_run.path, source, "-o", tmp_path / "out.csv", "--text", "review", "--only-predictions"
    )
    assert done.code == 0
    assert list(rows(tmp_path / "out.csv")[0]) == ["id", "prediction", "score_negative", "score_positive"]


def test_dropped_rows_are_counted(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    source = tmp_path / "new.csv"
    source.write_text("text,n\ngood,1\n,2\nbad,3,4\n")
    done = textune("predict", text_run.path, source, "-o", tmp_path / "out.csv", "--drop-bad-rows")
    assert done.code == 0
    assert "warning: 1 row left out: empty text" in done.err
    assert "warning: 1 row left out: wrong number of fields" in done.err
    assert "1 row predicted" in done.err


def test_in_a_process_of_its_own(textune_process: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune_process("predict", text_run.path, texts, "-o", tmp_path / "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert "Warning" not in done.err and "Traceback" not in done.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def calibrated_run(text_run: Run, tmp_path: Path) -> Run:
    """A copy with a temperature of 2; a run of eight rows may well leave a validation that says nothing."""
    run = Run(shutil.copytree(text_run.path, tmp_path / "run"))
    path = run.model_path / "calibration.json"
    stored = json.loads(path.read_text())
    curve = {"thresholds": [0.0, 1.0], "precision": [0.5, 1.0], "recall": [1.0, 0.5]}
    path.write_text(json.dumps(stored | {"temperature": 2.0, "curves": {"positive": curve}}))
    return run


def test_calibrated(textune: Textune, calibrated_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", calibrated_run.path, texts, "-o", tmp_path / "out.csv", "--calibrated")
    assert done.code == 0
    assert "temperature: 2.000" in done.err
    plain = Predictor.load(calibrated_run).predict(["the film was good", "a bad meal"])
    for row, prediction in zip(rows(tmp_path / "out.csv"), plain, strict=True):
        score = prediction.scores["positive"]
        halved = math.sqrt(score) / (math.sqrt(score) + math.sqrt(1 - score))
        assert float(row["score_positive"]) == pytest.approx(halved, abs=1e-5)
        assert row["prediction"] == prediction.label


@pytest.mark.parametrize(("threshold", "label"), [("0", "positive"), ("1", "negative"), ("recall:1", "positive")])
def test_threshold(
    textune: Textune, calibrated_run: Run, texts: Path, tmp_path: Path, threshold: str, label: str
) -> None:
    done = textune("predict", calibrated_run.path, texts, "-o", tmp_path / "out.csv", "--threshold", threshold)
    assert done.code == 0
    assert {row["prediction"] for row in rows(tmp_path / "out.csv")} == {label}
    assert "threshold: " in done.err


def test_threshold_that_is_none(textune: Textune, text_run: Run, texts: Path, tmp_path: Path) -> None:
    done = textune("predict", text_run.path, texts, "-o", tmp_path / "out.csv", "--threshold", "f2")
    assert done.code == 2
    assert "--threshold: expected f1, precision:X, recall:X or a score, X from 0 to 1; found 'f2'" in done.err
    assert not (tmp_path / "out.csv").exists()
