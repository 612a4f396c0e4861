from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from textune.evaluation.baseline import Baseline, judged_by, why_failed, why_folds_failed
from textune.evaluation.metrics import METRICS, defined_values
from textune.evaluation.predictions import LabelSet
from textune.evaluation.sums import Outcome
from textune.problem_types import MULTI_LABEL, SINGLE_LABEL

NAMES = ("no", "yes")
LABELS = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def reason(labels: list[Any], predictions: list[Any], metric: str = "accuracy", names: tuple[str, ...] = NAMES) -> Any:
    return why_failed(Outcome(np.array(labels), np.array(predictions), len(names)), metric, names)


@pytest.mark.parametrize(
    ("labels", "names", "metric", "baseline"),
    [
        ([0, 0, 1, 0], NAMES, "accuracy", Baseline("'no'", "accuracy", 0.75)),
        ([0, 0, 1, 0], NAMES, "f1", Baseline("'yes'", "f1", 0.4)),
        ([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], NAMES, "f1_micro", Baseline("yes", "f1_micro", 0.75)),
        ([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], NAMES, "accuracy", Baseline("yes", "accuracy", 0.5)),
        ([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]], NAMES, "f1_micro", Baseline("no, yes", "f1_micro", 10 / 11)),
        ([1.0, 2.0, 6.0], (), "rmse", Baseline("3", "rmse", (14 / 3) ** 0.5)),
    ],
)
def test_the_best_answer_for_all(labels: list[Any], names: tuple[str, ...], metric: str, baseline: Baseline) -> None:
    values = np.array(labels)
    found = Baseline.of(Outcome(values, values, len(names)), metric, names)
    assert (found.answer, found.metric) == (baseline.answer, baseline.metric)
    assert found.score == pytest.approx(baseline.score)


JUDGES = [name for name in METRICS if name not in {"precision", "recall"}]


@pytest.mark.parametrize("metric", [name for name in JUDGES if SINGLE_LABEL in METRICS[name].problem_types])
def test_no_other_label_surpasses_the_best(metric: str) -> None:
    names = NAMES if METRICS[metric].binary_only else ("a", "b", "c", "never")
    labels = np.random.default_rng(0).choice([0, 0, 0, 1] if len(names) == 2 else [0, 1, 1, 2], 50)
    found = Baseline.of(Outcome(labels, labels, len(names)), metric, names)
    values = [
        defined_values(Outcome(labels, np.full_like(labels, answer), len(names)), [metric])[metric] or 0.0
        for answer in range(len(names))
    ]
    assert found.score == max(values)
    assert found.score == values[names.index(found.answer.strip("'"))]


@pytest.mark.parametrize("metric", [name for name in JUDGES if METRICS[name].fits(LabelSet(MULTI_LABEL, NAMES))])
@pytest.mark.parametrize("rates", [(0.7, 0.05, 0.4, 0.0), (0.1, 0.1, 0.2, 0.05), (0.9, 0.8, 0.7, 0.6)])
def test_no_other_set_of_labels_surpasses_the_best(metric: str, rates: tuple[float, ...]) -> None:
    labels = (np.random.default_rng(0).random((60, 4)) < rates).astype(np.float32)
    found = Baseline.of(Outcome(labels, labels, 4), metric, ("a", "b", "c", "d"))
    values = [
        defined_values(Outcome(labels, np.tile(np.float32(answer), (60, 1)), 4), [metric])[metric] or 0.0
        for answer in itertools.product([0, 1], repeat=4)
    ]
    assert found.score == pytest.approx(max(values), rel=1e-12)


def test_what_finds_a_rare_label_by_chance_has_not_learned() -> None:
    labels, predictions = [1] * 20 + [0] * 80, ([1] + [0] * 4) * 20
    found = reason(labels, predictions, "f1")
    assert found == "its f1, 0.200, is no better than saying 'yes' of every row, 0.333"


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


def of_folds(folds: list[tuple[list[Any], list[Any]]], metric: str = "accuracy", names: tuple[str, ...] = NAMES) -> Any:
    labels, predictions = (np.array([value for fold in folds for value in fold[side]]) for side in (0, 1))
    fold_of_row = np.repeat(np.arange(1, len(folds) + 1), [len(fold[0]) for fold in folds])
    return why_folds_failed(Outcome(labels, predictions, len(names)), fold_of_row, metric, names)


ROWS = [0, 0, 0, 1, 1] * 4
GOOD = (ROWS, [0, 0, 1, 1, 1] * 4)


def test_a_fold_that_is_no_better_by_chance_has_not_failed() -> None:
    worse = (ROWS, [0, 1, 1, 1, 1] * 4)
    assert reason(*worse) == "its accuracy, 0.600, is no better than saying 'no' of every row, 0.600"
    assert of_folds([GOOD, GOOD, worse]) == [None, None, None]
    few = (ROWS[:5], [0] * 5)
    assert reason(*few) == "it says 'no' of every row"
    assert of_folds([GOOD, GOOD, few]) == [None, None, None]


def test_a_fold_that_says_one_label_which_the_others_seldom_say() -> None:
    assert of_folds([GOOD, (ROWS, [0] * 20), GOOD]) == [None, "it says 'no' of every row", None]


def test_a_fold_that_errs_more_than_the_others() -> None:
    opposite = (ROWS, [1 - label for label in ROWS])
    found = of_folds([GOOD] * 5 + [opposite])
    assert found == [None] * 5 + ["its accuracy, 0.000, is no better than saying 'no' of every row, 0.600"]
    numbers = [float(number) for number in range(20)]
    close, far = (numbers, [number + 0.5 for number in numbers]), (numbers, numbers[::-1])
    found = of_folds([close, far, close], "pearson", ())
    assert found[0] is None and found[2] is None
    assert found[1] == "its pearson, -1.000, is no better than saying 9.5 of every row, 0.000"


def test_folds_that_have_learned_nothing_together() -> None:
    same = (ROWS, [0] * 20)
    assert of_folds([same, same]) == ["it says 'no' of every row"] * 2
    guess = (ROWS, [1, 0] * 10)
    expected = "its accuracy, 0.500, is no better than saying 'no' of every row, 0.600"
    assert of_folds([guess, guess, guess]) == [expected] * 3
    assert of_folds([guess, guess, GOOD]) == [expected, expected, None]
    assert of_folds([([1, 1], [1, 1]), ([1, 1], [1, 0])]) == [None, None]


def test_folds_of_several_labels_per_row() -> None:
    labels = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 5
    good, nothing = (labels, labels), (labels, [[0.0, 0.0]] * 15)
    assert of_folds([good, nothing, good], "f1_micro") == [None, "it says no label of every row", None]
