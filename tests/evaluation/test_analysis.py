from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from textune.evaluation.analysis import MAX_MISTAKES, MAX_TEXT, analyse, further_columns
from textune.evaluation.predictions import LabelSet
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL


def analysis_of(logits: Any, labels: Any, label_set: LabelSet, **columns: Any) -> dict[str, Any]:
    labels, num_rows = np.asarray(labels), len(labels)
    rows = {
        "id": [f"id-{row}" for row in range(num_rows)],
        "row": list(range(10, 10 + num_rows)),
        "text": [f"text {row}" for row in range(num_rows)],
    }
    lengths = np.arange(1, num_rows + 1)
    found = analyse(
        np.asarray(logits, np.float32),
        labels,
        label_set,
        rows=Dataset.from_dict({**rows, **columns}),
        lengths=lengths,
        full_lengths=lengths,
        columns={},
    )
    json.dumps(found, allow_nan=False)
    return found


def test_single_label() -> None:
    logits = [[2, 0], [0, 1], [0, 3], [1, 0]]
    found = analysis_of(logits, [0, 0, 0, 1], LabelSet(SINGLE_LABEL, ("no", "yes")), text_pair=["p", "q", "r", "s"])
    assert (found["rows"], found["metric"], found["value"]) == (4, "accuracy", 0.25)
    assert found["confusion"] == [
        {"label": "no", "prediction": "no", "rows": 1},
        {"label": "no", "prediction": "yes", "rows": 2},
        {"label": "yes", "prediction": "no", "rows": 1},
    ]
    worst = found["mistakes"][0]
    assert [mistake["row"] for mistake in found["mistakes"]] == [13, 12, 14]
    assert (worst["id"], worst["text"], worst["text_pair"]) == ("id-2", "text 2", "r")
    assert (worst["label"], worst["prediction"]) == ("no", "yes")
    assert worst["confidence"] == worst["scores"]["yes"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert {part["kind"] for part in found["slices"]} == {"length", "label"}


def test_multi_label() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]], np.float32)
    found = analysis_of([[3, -1], [2, -4], [-1, -1]], labels, LabelSet(MULTI_LABEL, ("art", "food")))
    assert found["value"] == pytest.approx(2 / 3)
    (mistake,) = found["mistakes"]
    assert (mistake["label"], mistake["prediction"]) == (["art", "food"], ["art"])
    assert mistake["confidence"] == pytest.approx(1 / (1 + np.exp(-4)))  # how sure it was that "food" does not apply
    assert "confusion" not in found


def test_regression() -> None:
    labels = np.array([1, 2, 3, 4], np.float32)
    found = analysis_of([[1], [2.5], [1], [4.25]], labels, LabelSet(REGRESSION, ()))
    assert (found["metric"], found["value"]) == ("mean_absolute_error", pytest.approx(2.75 / 4))
    assert [mistake["residual"] for mistake in found["mistakes"]] == [-2.0, 0.5, 0.25]
    assert "scores" not in found["mistakes"][0]
    assert {part["kind"] for part in found["slices"]} == {"length", "target"}


def test_all_right() -> None:
    found = analysis_of([[2, 0], [0, 1]], [0, 1], LabelSet(SINGLE_LABEL, ("no", "yes")))
    assert (found["value"], found["mistakes"], found["words"]) == (1.0, [], [])


def test_long_texts_are_cut_and_many_labels_keep_their_highest_scores() -> None:
    logits = np.zeros((1, 50))
    logits[0, 30] = 5
    names = tuple(f"label {number}" for number in range(50))
    found = analysis_of(logits, [3], LabelSet(SINGLE_LABEL, names), text=["x" * (MAX_TEXT + 1)])
    (mistake,) = found["mistakes"]
    assert len(mistake["text"]) == MAX_TEXT
    assert len(mistake["scores"]) == 20 and mistake["scores"]["label 30"] > 0.5


def test_columns_of_few_values_are_found() -> None:
    raw = Dataset.from_dict(
        {
            "text": ["a", "b", "c", "d"] * 10,
            "label": [0, 1] * 20,
            "source": ["web", "mail"] * 20,
            "checked": [True, False] * 20,
            "number": list(range(40)),
            "weight": [0.5, 1.5] * 20,
            "tags": [["x"], ["y"]] * 20,
        }
    )
    found = further_columns(raw, [0, 3, 5], used=("text", None, "label"))
    assert list(found) == ["source", "checked", "number"]  # three rows have but three numbers
    assert found["source"].to_pylist() == ["web", "mail", "mail"]
    assert list(further_columns(raw, range(40), used=("text", "label"))) == ["source", "checked"]
    assert further_columns(raw.select_columns(["text", "label"]), [0], used=("text", "label")) == {}


def test_many_rows_take_little_memory() -> None:
    num_rows, random = 20_000, np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(2000)])
    texts = [" ".join(words[random.integers(0, 2000, 12)]) for _ in range(num_rows)]
    logits, labels = random.normal(size=(num_rows, 3)), random.integers(0, 3, num_rows)
    tracemalloc.start()
    found = analysis_of(logits, labels, LabelSet(SINGLE_LABEL, ("a", "b", "c")), text=texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found["mistakes"]) == MAX_MISTAKES
    assert peak < 40e6
