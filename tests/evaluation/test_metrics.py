from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from textune.errors import ConfigError
from textune.evaluation.metrics import (
    METRICS,
    compute_metrics,
    defined_values,
    metric_names,
    per_class_metrics,
    selection_metric,
    why_undefined,
)
from textune.evaluation.predictions import LabelSet
from textune.evaluation.sums import Outcome

BINARY = LabelSet("single_label_classification", ("no", "yes"))
THREE = LabelSet("single_label_classification", ("a", "b", "c"))
SEVERAL = LabelSet("multi_label_classification", ("a", "b", "c"))
NUMBER = LabelSet("regression", ())


def logits_for(predictions: npt.NDArray[Any], label_set: LabelSet) -> npt.NDArray[np.float32]:
    """Logits from which exactly these predictions are decided."""
    if label_set is NUMBER:
        return predictions.astype(np.float32)[:, None]
    if label_set is SEVERAL:
        return np.where(predictions > 0, 1.5, -0.5).astype(np.float32)
    return np.eye(len(label_set.names), dtype=np.float32)[predictions]


def values_of(labels: Any, predictions: Any, label_set: LabelSet, *names: str) -> dict[str, float | None]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    return compute_metrics(
        logits_for(predictions, label_set), labels, label_set, names=names or metric_names(label_set)
    )


@pytest.fixture(params=range(3))
def generator(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_binary_equals_scikit_learn(generator: np.random.Generator) -> None:
    labels, predictions = generator.integers(0, 2, 200), generator.integers(0, 2, 200)
    assert values_of(labels, predictions, BINARY) == {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "f1": sklearn_metrics.f1_score(labels, predictions),
        "precision": sklearn_metrics.precision_score(labels, predictions),
        "recall": sklearn_metrics.recall_score(labels, predictions),
        "f1_macro": sklearn_metrics.f1_score(labels, predictions, average="macro"),
        "f1_weighted": sklearn_metrics.f1_score(labels, predictions, average="weighted"),
        "matthews_correlation": sklearn_metrics.matthews_corrcoef(labels, predictions),
    }


def test_several_classes_equal_scikit_learn(generator: np.random.Generator) -> None:
    labels, predictions = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    assert values_of(labels, predictions, THREE) == {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "f1_macro": sklearn_metrics.f1_score(labels, predictions, average="macro"),
        "f1_weighted": sklearn_metrics.f1_score(labels, predictions, average="weighted"),
        "matthews_correlation": sklearn_metrics.matthews_corrcoef(labels, predictions),
    }


def test_multi_label_equals_scikit_learn(generator: np.random.Generator) -> None:
    labels = generator.integers(0, 2, (200, 3)).astype(np.float32)
    predictions = generator.integers(0, 2, (200, 3)).astype(np.float32)
    assert values_of(labels, predictions, SEVERAL) == {
        "f1_micro": sklearn_metrics.f1_score(labels, predictions, average="micro"),
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "f1_macro": sklearn_metrics.f1_score(labels, predictions, average="macro"),
        "f1_weighted": sklearn_metrics.f1_score(labels, predictions, average="weighted"),
    }


def test_regression_equals_scipy_and_scikit_learn(generator: np.random.Generator) -> None:
    labels = generator.normal(size=100).astype(np.float32)
    predictions = (labels + generator.normal(size=100)).astype(np.float32)
    exact = labels.astype(np.float64), predictions.astype(np.float64)
    assert values_of(labels, predictions, NUMBER) == pytest.approx(
        {
            "pearson": stats.pearsonr(*exact).statistic,
            "spearmanr": stats.spearmanr(*exact).statistic,
            "rmse": sklearn_metrics.root_mean_squared_error(*exact),
        },
        rel=1e-12,
    )


def test_regression_is_computed_in_double_precision() -> None:
    """Targets of a large size, such as prices or years, leave float32 few digits for their differences."""
    generator = np.random.default_rng(0)
    labels = (100_000 + generator.normal(size=5000)).astype(np.float32)
    predictions = (labels + generator.normal(size=5000)).astype(np.float32)
    found = values_of(labels, predictions, NUMBER)
    exact = labels.astype(np.float64), predictions.astype(np.float64)
    assert found["pearson"] == pytest.approx(stats.pearsonr(*exact).statistic, rel=1e-12)
    huge = values_of([1e30, -1e30], [3e30, 1e30], NUMBER, "rmse")
    assert huge["rmse"] == pytest.approx(2e30, rel=1e-6), "squares of it are beyond float32"


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]), ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], [2.0])],
)
def test_undefined_correlations_are_none(labels: list[float], predictions: list[float]) -> None:
    found = values_of(np.float32(labels), np.float32(predictions), NUMBER)
    assert (found["pearson"], found["spearmanr"]) == (None, None)
    assert found["rmse"] is not None


def test_nearly_constant_predictions_do_not_warn() -> None:
    nearly = np.float32([1e6, 1e6, np.nextafter(np.float32(1e6), np.float32(2e6))])
    assert values_of(np.float32([1, 2, 3]), nearly, NUMBER)["pearson"] == pytest.approx(0.866, abs=1e-3)


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_only(label: int) -> None:
    found = values_of([label] * 4, [label] * 4, BINARY)
    assert found["accuracy"] == 1.0
    assert found["f1"] == (1.0 if label else None), "nothing of the positive label was there to find"
    assert found["matthews_correlation"] is None
    assert found["f1_macro"] == 0.5, "the absent label counts in the average"


def test_a_model_that_predicts_one_class_has_no_correlation() -> None:
    found = values_of([0, 1, 1, 0], [1, 1, 1, 1], BINARY)
    assert found["matthews_correlation"] == sklearn_metrics.matthews_corrcoef([0, 1, 1, 0], [1, 1, 1, 1]) == 0
    assert (found["precision"], found["recall"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "words"),
    [
        ("matthews_correlation", [1, 1], [0, 1], "only one class among the labels"),
        ("precision", [0, 1], [0, 0], "the positive label is never predicted"),
        ("recall", [0, 0], [0, 1], "no row has the positive label"),
        ("f1", [0, 0], [0, 0], "the positive label is neither there nor predicted"),
        ("pearson", [1.0, 2.0], [3.0, 3.0], "all predictions are the same"),
        ("spearmanr", [2.0, 2.0], [3.0, 4.0], "all labels are the same"),
        ("f1", [0, 1], [0, 0], None),
        ("accuracy", [0, 0], [0, 0], None),
        ("f1_macro", [0, 0], [0, 0], None),
    ],
)
def test_why_undefined(name: str, labels: list[float], predictions: list[float], words: str | None) -> None:
    outcome = Outcome(np.array(labels), np.array(predictions), 0 if isinstance(labels[0], float) else 2)
    assert why_undefined(name, outcome) == words
    assert (defined_values(outcome, [name])[name] is None) == (words is not None)


def test_absent_classes_count_in_averages() -> None:
    found = values_of([0, 0, 1, 1], [0, 0, 1, 1], THREE, "f1_macro", "f1_weighted", "accuracy")
    assert found == {"f1_macro": pytest.approx(2 / 3), "f1_weighted": 1.0, "accuracy": 1.0}


def test_multi_label_rows_without_any_label() -> None:
    found = values_of(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32), SEVERAL)
    assert found == {"f1_micro": 0.0, "accuracy": 1.0, "f1_macro": 0.0, "f1_weighted": 0.0}


def test_positive_label_is_the_one_with_id_1() -> None:
    assert values_of([1, 1, 0, 0], [1, 0, 0, 0], BINARY, "precision", "recall") == {"precision": 1.0, "recall": 0.5}


def test_names_begin_with_the_tasks_own() -> None:
    assert metric_names(BINARY)[:2] == ["accuracy", "f1"]
    assert metric_names(BINARY, first=["matthews_correlation"])[:2] == ["matthews_correlation", "accuracy"]
    assert metric_names(NUMBER, first=["spearmanr"]) == ["spearmanr", "pearson", "rmse"]
    assert metric_names(SEVERAL)[0] == "f1_micro"
    assert metric_names(THREE) == ["accuracy", "f1_macro", "f1_weighted", "matthews_correlation"]


def test_every_metric_fits_some_problem() -> None:
    named = {name for label_set in (BINARY, THREE, SEVERAL, NUMBER) for name in metric_names(label_set)}
    assert named == set(METRICS)


def test_selection_metric() -> None:
    assert selection_metric(None, ["f1", "accuracy"]) == ("f1", True)
    assert selection_metric("rmse", metric_names(NUMBER)) == ("rmse", False)
    assert selection_metric("loss", ["f1"]) == ("loss", False)


@pytest.mark.parametrize(
    ("asked", "words"), [("acuracy", "Did you mean 'accuracy'?"), ("f1", "Did you mean 'f1_macro'?")]
)
def test_unknown_selection_metric(asked: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        selection_metric(asked, metric_names(THREE))
    assert "expected one of accuracy, f1_macro, f1_weighted, matthews_correlation, loss" in caught.value.message
    assert f"found {asked!r}" in caught.value.message
    assert asked == "f1" or words in caught.value.message


def test_per_class_equals_scikit_learn() -> None:
    labels, predictions = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = per_class_metrics(Outcome(labels, predictions, 3), THREE)
    assert list(found) == ["a", "b", "c"]
    assert found["b"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "support": 3}
    assert found["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_per_class_of_several_labels() -> None:
    labels = np.array([[1, 0, 1], [1, 1, 0]], np.float32)
    found = per_class_metrics(Outcome(labels, np.array([[1, 0, 0], [0, 1, 0]], np.float32), 3), SEVERAL)
    assert [found[name]["recall"] for name in "abc"] == [0.5, 1.0, 0.0]
    assert [found[name]["support"] for name in "abc"] == [2, 1, 1]


def test_regression_has_no_classes() -> None:
    assert per_class_metrics(Outcome(np.zeros(2), np.zeros(2), 0), NUMBER) == {}


def test_per_class_equals_scikit_learn_on_random_rows(generator: np.random.Generator) -> None:
    labels, predictions = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    found = per_class_metrics(Outcome(labels, predictions, 3), THREE)
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predictions)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [found[label][name] for label in "abc"] == pytest.approx(list(values), rel=1e-12)
