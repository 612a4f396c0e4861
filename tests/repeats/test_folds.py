"""Cross-validation."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.metrics import log_loss as sklearn_log_loss
from trained import QUICK, multi_label_rows, regression_rows

from faults.material import write_json_lines
from textune.comparison import compare
from textune.config import DataConfig
from textune.data.cache import workspace
from textune.data.prepare import PreparedData, prepare_training
from textune.display import Display
from textune.errors import CheckpointError, ConfigError, DataError, Interrupted
from textune.evaluation.label_errors import LabelErrors
from textune.evaluation.predictions import LabelSet
from textune.evaluation.stored_calibration import Calibration
from textune.finetune import train
from textune.repeats.folds import label_errors_csv, read_label_errors
from textune.report.write import write_report
from textune.run import ALL_ROWS, Run
from textune.serving.predictor import Predictor
from textune.training.callbacks import Callback
from textune.training.state import TrainingState

Begin = Callable[..., Run]
PLANTED = {3, 30, 44}
"""Rows (0-based) whose label is wrong."""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, tiny_rows: list[dict[str, str]]) -> Path:
    """`tiny_rows` twice over, told apart by a word, with three labels turned round."""
    rows = [*tiny_rows, *({**row, "text": f"{row['text']} today"} for row in tiny_rows)]
    other = {"positive": "negative", "negative": "positive"}
    wrong = [{**row, "label": other[row["label"]]} if number in PLANTED else row for number, row in enumerate(rows)]
    return write_json_lines(tmp_path_factory.mktemp("noisy") / "reviews.jsonl", wrong)


@pytest.fixture(scope="module")
def begin(noisy: Path, tiny_checkpoint: Path) -> Begin:
    def call(output: Path, data: Path = noisy, **options: Any) -> Run:
        values = {**QUICK, "epochs": 6, "learning_rate": 1e-2, "cv": 3, **options}
        return train(str(data), model=str(tiny_checkpoint), output=str(output), **values)

    return call


@pytest.fixture(scope="module")
def whole(begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return begin(tmp_path_factory.mktemp("runs") / "whole")


def prepared_for(run: Run, folder: Path) -> PreparedData:
    config = run.config
    return prepare_training(config.data, seed=config.training.seed, folder=folder)


def test_every_row_is_held_out_once_and_no_fold_trains_on_its_own(whole: Run, noisy: Path) -> None:
    held_out: list[str] = []
    for fold in whole.runs:
        with workspace() as folder:
            rows = prepared_for(fold, folder).rows
            texts = {name: set(rows[name]["text"][:]) for name in ("train", "validation")}
            assert not texts["train"] & texts["validation"]
            assert len(rows["train"]) + len(rows["validation"]) == 128
        ids = fold.predictions("validation")["id"].to_pylist()
        assert len(ids) == len(texts["validation"])
        held_out += ids
    assert sorted(held_out) == sorted(whole.predictions("out_of_fold")["id"].to_pylist())
    assert len(set(held_out)) == 128


def test_rows_stand_in_their_own_order(whole: Run, noisy: Path) -> None:
    with workspace() as folder:
        data = DataConfig(source=str(noisy), validation_fraction=0)
        rows = prepare_training(data, seed=0, folder=folder).rows["train"]
        table = whole.predictions("out_of_fold")
        assert table["id"].to_pylist() == rows["id"][:]
        names = whole.data["schema"]["label_names"]
        assert table["label"].to_pylist() == [names[label] for label in rows["labels"][:]]


def test_pooled_figures_are_those_of_the_concatenated_predictions(whole: Run) -> None:
    tables = [fold.predictions("validation") for fold in whole.runs]
    labels, predictions, scores = (
        [value for table in tables for value in table[name].to_pylist()]
        for name in ("label", "prediction", "score_positive")
    )
    found = whole.summary["out_of_fold"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(labels, predictions))
    assert found["f1"]["value"] == pytest.approx(f1_score(labels, predictions, pos_label="positive"))
    assert found["matthews_correlation"]["value"] == pytest.approx(matthews_corrcoef(labels, predictions))
    assert found["loss"]["value"] == pytest.approx(sklearn_log_loss(labels, scores), rel=1e-4)
    assert found["num_rows"] == 128
    values = [fold.summary["validation"]["accuracy"]["value"] for fold in whole.runs]
    assert found["accuracy"]["values"] == values
    assert found["accuracy"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    low, high = found["accuracy"]["interval"]
    assert low < found["accuracy"]["value"] < high


def test_nothing_is_chosen_on_the_rows_that_measure(whole: Run) -> None:
    for fold in whole.runs:
        assert fold.summary["selected"]["weights"] == "last"
        assert fold.summary["selected"]["note"] is None
    assert "Nothing was chosen by these rows" in whole.summary["selected"]["note"]


def test_the_model_is_that_of_all_rows(whole: Run, begin: Begin, noisy: Path, tmp_path: Path) -> None:
    alone = begin(tmp_path / "alone", cv=None, validation_fraction=0, select="last")
    expected = load_file(alone.model_path / "model.safetensors")
    for folder in (whole.model_path, whole.path / ALL_ROWS / "model"):
        found = load_file(folder / "model.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert whole.data["splits"]["train"]["rows"] == 128
    assert whole.summary["selected"]["run"] == ALL_ROWS
    assert "## Cross-validation" in (whole.model_path / "README.md").read_text()


def test_the_folder_is_used_like_a_run(whole: Run, tmp_path: Path) -> None:
    predictor = Predictor.load(whole, calibrated=True, threshold="f1")
    assert len(predictor.predict(["the film was good ."])) == 1
    assert predictor.decision.temperature == whole.summary["out_of_fold"]["calibration"]["temperature"]
    comparison = compare(whole.path, whole.path / "fold-1" / ".." / ".." / whole.path.name)
    assert (comparison.split, comparison.num_rows) == ("out_of_fold", 128)
    page, problems = write_report([whole.path], output=tmp_path / "page.html")
    assert problems == []
    assert "Predictions on out_of_fold" in page.read_text()


def test_suspects_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = ["first\rsecond", "long " * 30_000, 'a "b", c\n']
    rows = Dataset.from_dict({"id": [7, 8, 9], "row": [0, 1, 2], "text": texts, "labels": [0, 1, 0]})
    found = LabelErrors(
        np.array([1, 0, 2]), np.array([0, 1, 1]), np.array([-0.5, -0.75, -0.25]), np.eye(2, dtype=int), 1.0
    )
    label_set = LabelSet("single_label_classification", ("no", "yes"))
    (tmp_path / "label_errors.csv").write_text(
        label_errors_csv(found, rows, np.array([0, 1, 0]), label_set), encoding="utf-8", newline=""
    )
    read = read_label_errors(Run(tmp_path), limit=3)
    assert [row["text"] for row in read] == [texts[1], texts[0], texts[2]]
    assert read[1] == {"row": "1", "id": "7", "label": "no", "suggested": "yes", "margin": "-0.5000", "text": texts[0]}


def test_planted_label_errors_are_found(whole: Run) -> None:
    assert not any(fold["failed"] for fold in whole.summary["runs"])
    with (whole.path / "label_errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == whole.summary["label_errors"]["suspects"]
    assert {int(row["row"]) - 1 for row in rows[: len(PLANTED)]} == PLANTED
    assert all(row["label"] != row["suggested"] for row in rows)
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins)
    assert read_label_errors(whole, limit=2) == rows[:2]


def test_interrupted_within_a_fold(whole: Run, begin: Begin, tmp_path: Path) -> None:
    class Interrupting(Callback):
        begun = -1

        def on_train_begin(self, state: TrainingState) -> None:
            self.begun += 1

        def on_step(self, state: TrainingState) -> None:
            if (self.begun, state.step) == (1, 2):
                state.requests.interrupt = 2

    with pytest.raises(Interrupted) as caught:
        begin(tmp_path / "cut", callbacks=[Interrupting()])
    assert str(tmp_path / "cut") in str(caught.value.hint)
    found = train(resume=tmp_path / "cut", display=Display())
    for part in ("out_of_fold", "runs", "selected", "label_errors"):
        assert found.summary[part] == whole.summary[part]
    assert found.predictions("out_of_fold").equals(whole.predictions("out_of_fold"))


def test_data_that_have_changed_do_not_fit_together(whole: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    (folder / "summary.json").unlink()
    fold = Run(folder / "fold-2")
    fold.write_predictions("validation", fold.predictions("validation").slice(1))
    with pytest.raises(CheckpointError, match="the data have changed since its folds were trained"):
        train(resume=folder, display=Display())


def test_texts_that_changed_between_folds_are_refused(whole: Run, noisy: Path, tmp_path: Path) -> None:
    """Their ids, which are row numbers, are the same."""
    folder, corrected = tmp_path / "runs", tmp_path / "corrected.jsonl"
    shutil.copytree(whole.path, folder)
    corrected.write_text(noisy.read_text().replace("good", "good good", 1))
    for gone in ("summary.json", f"{ALL_ROWS}/summary.json"):
        (folder / gone).unlink()
        with pytest.raises(CheckpointError, match=r"fold-1.* data, fingerprint: recorded"):
            train(str(corrected), resume=folder, display=Display())
    longer = tmp_path / "longer.jsonl"
    longer.write_text(noisy.read_text() + '{"text": "one more", "label": "positive"}\n')
    with pytest.raises(CheckpointError, match=r"fold-\d' predicted other rows of validation than there are now"):
        train(str(longer), resume=folder, allow_changes=True, display=Display())
    assert train(str(corrected), resume=folder, allow_changes=True, display=Display()).is_finished


def test_labels_that_changed_between_folds_are_refused(whole: Run, noisy: Path, tmp_path: Path) -> None:
    folder, corrected = tmp_path / "runs", tmp_path / "corrected.jsonl"
    shutil.copytree(whole.path, folder)
    (folder / "summary.json").unlink()
    corrected.write_text(noisy.read_text().replace("good", "good good", 1))
    fold = Run(folder / "fold-2")
    table = fold.predictions("validation")
    other = {"positive": "negative", "negative": "positive"}
    labels = [other[table["label"][0].as_py()], *table["label"].to_pylist()[1:]]
    fold.write_predictions("validation", table.set_column(1, "label", [labels]))
    first = table["id"][0].as_py()
    with pytest.raises(CheckpointError, match=rf"fold-2' .*: 1 of 4\d rows of validation .*, first id {first}\."):
        train(str(corrected), resume=folder, allow_changes=True, display=Display())


def test_own_validation_and_test_rows_stay_apart(
    begin: Begin, tiny_csv: Path, tiny_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    validation = write_json_lines(tmp_path / "validation.jsonl", tiny_rows[:12])
    test = write_json_lines(tmp_path / "test.jsonl", tiny_rows[:20])
    found = begin(
        tmp_path / "runs", tiny_csv, cv=2, epochs=1, validation=str(validation), test=str(test), learning_rate=1e-3
    )
    assert found.summary["out_of_fold"]["num_rows"] == 64
    assert (found.summary["validation"]["num_rows"], found.summary["test"]["num_rows"]) == (12, 20)
    fold = found.runs[0]
    assert [fold.summary[name]["num_rows"] for name in ("validation", "validation_own", "test")] == [32, 12, 20]
    assert fold.summary["test"]["calibration"]["fitted_on"] == "validation"
    last = Run(found.path / ALL_ROWS)
    of_test = found.summary["test"]
    calibration = of_test.pop("calibration")
    assert of_test.items() <= last.summary["test"].items()
    assert calibration["fitted_on"] == "out_of_fold"
    assert calibration["temperature"] == Calibration.read(found.model_path).temperature
    assert found.predictions("test").equals(last.predictions("test"))
    analysis, of_last = (json.loads((run.path / "analysis.json").read_text()) for run in (found, last))
    assert list(analysis) == ["out_of_fold", "validation", "test"]
    assert all(analysis[split] == of_last[split] for split in ("validation", "test"))


def test_several_labels_and_numbers(begin: Begin, tmp_path: Path) -> None:
    from scipy.stats import pearsonr

    topics = write_json_lines(tmp_path / "topics.jsonl", multi_label_rows())
    found = begin(tmp_path / "topics", topics, cv=2, epochs=1)
    table = found.predictions("out_of_fold")
    right = [a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)]
    assert found.summary["out_of_fold"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert "label_errors" not in found.summary

    scores = write_json_lines(tmp_path / "scores.jsonl", regression_rows())
    found = begin(tmp_path / "scores", scores, cv=2, epochs=1)
    table = found.predictions("out_of_fold")
    expected = pearsonr(table["label"].to_numpy(), table["prediction"].to_numpy()).statistic
    assert found.summary["out_of_fold"]["pearson"]["value"] == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_cross_validated(whole: Run, begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--patience would stop by the rows that are to measure it"):
        begin(tmp_path / "runs", patience=2)
    with pytest.raises(ConfigError, match="expected a whole number at most 20, found 21"):
        begin(tmp_path / "runs", cv=21)
    with pytest.raises(ConfigError, match=r"data\.fold: expected a number from 1 to data\.folds \(3\), found 4"):
        begin(tmp_path / "runs", settings={"data.fold": 4})
    few = write_json_lines(tmp_path / "few.jsonl", [{"text": "one", "label": number % 2} for number in range(9)])
    with pytest.raises(DataError, match="3 folds need as many different texts to train on, found 1"):
        begin(tmp_path / "runs", few)
    with pytest.raises(ConfigError, match=r"data\.folds: recorded 3, now 4"):
        train(resume=whole.path, cv=4)
    assert not (tmp_path / "runs").exists()
