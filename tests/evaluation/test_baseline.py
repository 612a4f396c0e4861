from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textune.evaluation.baseline import Baseline, judged_by, why_failed
from textune.evaluation.sums import Outcome

NAMES = ("no", "yes")
LABELS = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def reason(labels: list[Any], predictions: list[Any], metric: str = "accuracy", names: tuple[str, ...] = NAMES) -> Any:
    return why_failed(Outcome(np.array(labels), np.array(predictions), len(names)), metric, names)


@pytest.mark.parametrize(
    ("labels", "names", "metric", "baseline"),
    [
        ([0, 0, 1, 0], NAMES, "accuracy", Baseline("'no'", "accuracy", 0.75)),
        ([0, 0, 1, 0], NAMES, "f1", Baseline("'no'", "f1", 0.0)),
        ([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]], NAMES, "f1_micro", Baseline("no, yes", "f1_micro", 10 / 11)),
        ([1.0, 2.0, 6.0], (), "rmse", Baseline("3", "rmse", (14 / 3) ** 0.5)),
    ],
)
def test_the_best_answer_for_all(labels: list[Any], names: tuple[str, ...], metric: str, baseline: Baseline) -> None:
    values = np.array(labels)
    found = Baseline.of(Outcome(values, values, len(names)), metric, names)
    assert (found.answer, found.metric) == (baseline.answer, baseline.metric)
    assert found.score == pytest.approx(baseline.score)


def test_the_same_label_for_every_row() -> None:
    assert reason(LABELS, [1] * 10) == "it says 'yes' of every row"


def test_no_better_than_the_most_frequent_label() -> None:
    found = reason(LABELS, [1, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    assert found == "its accuracy, 0.600, is no better than saying 'no' of every row, 0.600"


def test_better_by_the_metric_that_decides() -> None:
    predictions = [1, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    assert "its accuracy, 0.600" in reason(LABELS, predictions)
    assert reason(LABELS, predictions, "f1_macro") is None
    assert reason(LABELS, LABELS) is None


def test_rows_of_one_label_say_nothing() -> None:
    assert reason([1, 1, 1], [1, 1, 1]) is None


def test_several_labels_per_row() -> None:
    labels = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert reason(labels, [[0.0, 0.0]] * 3, "f1_micro") == "it says no label of every row"
    assert reason(labels, [[1.0, 1.0]] * 3, "f1_micro") == "it says no, yes of every row"
    assert reason(labels, labels, "f1_micro") is None


def test_numbers() -> None:
    labels = [0.0, 1.0, 2.0, 3.0]
    assert reason(labels, [1.0] * 4, "pearson", ()) == "it says 1 of every row"
    found = reason(labels, [3.0, 2.0, 1.0, 0.0], "pearson", ())
    assert found == "its pearson, -1.000, is no better than saying 1.5 of every row, 0.000"
    assert "rmse" in reason(labels, [9.0, 2.0, 1.0, 0.0], "rmse", ())
    assert reason(labels, [0.0, 1.0, 2.0, 2.0], "rmse", ()) is None


@pytest.mark.parametrize(("metric", "judge"), [("loss", "accuracy"), ("recall", "accuracy"), ("f1", "f1")])
def test_metrics_that_the_same_answer_does_best_in_do_not_judge(metric: str, judge: str) -> None:
    assert judged_by(metric, ["accuracy", "f1", "recall"]) == judge
