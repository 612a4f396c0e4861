"""Metrics by the names of the `evaluate` library: values of scikit-learn and SciPy, and what is refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from textune.compat import evaluate
from textune.data.glue import GLUE_TASKS
from textune.errors import ConfigError, DataError

RANDOM = np.random.default_rng(7)
CLASSES = RANDOM.integers(0, 2, 60), RANDOM.integers(0, 2, 60)
THREE = RANDOM.integers(0, 3, 60), RANDOM.integers(0, 3, 60)
SEVERAL = RANDOM.integers(0, 2, (60, 4)), RANDOM.integers(0, 2, (60, 4))
NUMBERS = RANDOM.normal(size=60), RANDOM.normal(size=60)
WEIGHTS = RANDOM.uniform(0.5, 2, 60)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("cola", ["matthews_correlation"]),
        ("sst2", ["accuracy"]),
        ("mrpc", ["accuracy", "f1"]),
        ("stsb", ["pearson", "spearmanr"]),
        ("qqp", ["accuracy", "f1"]),
        ("mnli", ["accuracy"]),
        ("mnli_matched", ["accuracy"]),
        ("mnli_mismatched", ["accuracy"]),
        ("hans", ["accuracy"]),
        ("qnli", ["accuracy"]),
        ("rte", ["accuracy"]),
        ("wnli", ["accuracy"]),
        ("ax", ["matthews_correlation"]),
    ],
)
def test_glue_gives_the_tasks_metrics(task: str, names: list[str]) -> None:
    references, predictions = NUMBERS if task == "stsb" else CLASSES
    expected = {
        "accuracy": sklearn.metrics.accuracy_score,
        "f1": sklearn.metrics.f1_score,
        "matthews_correlation": sklearn.metrics.matthews_corrcoef,
        "pearson": lambda *columns: stats.pearsonr(*columns).statistic,
        "spearmanr": lambda *columns: stats.spearmanr(*columns).statistic,
    }
    values = evaluate.load("glue", task).compute(predictions=predictions, references=references)
    assert list(values) == names
    for name in names:
        assert values[name] == pytest.approx(expected[name](references, predictions), rel=1e-12)
        assert type(values[name]) is float


def test_glue_has_all_ten_tasks() -> None:
    for task in GLUE_TASKS:
        assert evaluate.load("glue", task).config_name == task


# name, configuration, columns, options, returned names, the reference's value
CASES: list[tuple[str, str | None, Any, dict[str, Any], str, Any]] = [
    ("accuracy", None, CLASSES, {}, "accuracy", sklearn.metrics.accuracy_score),
    ("accuracy", None, CLASSES, {"normalize": False}, "accuracy", sklearn.metrics.accuracy_score),
    ("accuracy", None, THREE, {"sample_weight": WEIGHTS}, "accuracy", sklearn.metrics.accuracy_score),
    ("accuracy", "multilabel", SEVERAL, {}, "accuracy", sklearn.metrics.accuracy_score),
    ("f1", None, CLASSES, {}, "f1", sklearn.metrics.f1_score),
    ("f1", None, CLASSES, {"pos_label": 0}, "f1", sklearn.metrics.f1_score),
    ("f1", None, THREE, {"average": "macro"}, "f1", sklearn.metrics.f1_score),
    ("f1", None, THREE, {"average": "weighted", "sample_weight": WEIGHTS}, "f1", sklearn.metrics.f1_score),
    ("f1", None, THREE, {"average": "micro", "labels": [0, 2]}, "f1", sklearn.metrics.f1_score),
    ("f1", None, THREE, {"average": None}, "f1", sklearn.metrics.f1_score),
    ("f1", "multilabel", SEVERAL, {"average": "macro"}, "f1", sklearn.metrics.f1_score),
    ("precision", None, CLASSES, {}, "precision", sklearn.metrics.precision_score),
    ("precision", None, THREE, {"average": "macro", "zero_division": 0}, "precision", sklearn.metrics.precision_score),
    ("recall", None, CLASSES, {}, "recall", sklearn.metrics.recall_score),
    ("recall", None, THREE, {"average": None}, "recall", sklearn.metrics.recall_score),
    ("matthews_correlation", None, THREE, {}, "matthews_correlation", sklearn.metrics.matthews_corrcoef),
    ("pearsonr", None, NUMBERS, {}, "pearsonr", lambda *columns: stats.pearsonr(*columns).statistic),
    ("spearmanr", None, NUMBERS, {}, "spearmanr", lambda *columns: stats.spearmanr(*columns).statistic),
    ("mse", None, NUMBERS, {}, "mse", sklearn.metrics.mean_squared_error),
    ("mse", None, NUMBERS, {"sample_weight": WEIGHTS}, "mse", sklearn.metrics.mean_squared_error),
    ("mse", "multilist", SEVERAL, {"multioutput": "raw_values"}, "mse", sklearn.metrics.mean_squared_error),
]


@pytest.mark.parametrize(
    ("name", "config", "columns", "options", "key", "reference"),
    CASES,
    ids=[f"{case[0]}-{case[1]}-{'-'.join(case[3])}" for case in CASES],
)
def test_values_are_those_of_the_reference(
    name: str, config: str | None, columns: Any, options: dict[str, Any], key: str, reference: Any
) -> None:
    references, predictions = columns
    values = evaluate.load(name, config).compute(predictions=predictions, references=references, **options)
    assert list(values) == [key]
    np.testing.assert_array_equal(values[key], reference(references, predictions, **options))
    assert isinstance(values[key], np.ndarray if np.ndim(reference(references, predictions, **options)) else float)


def test_mse_squared_false_is_its_root() -> None:
    values = evaluate.load("mse").compute(predictions=[1.0, 5.0], references=[1.0, 2.0], squared=False)
    assert values == {"mse": pytest.approx(math.sqrt(4.5), rel=1e-15)}


def test_p_values() -> None:
    references, predictions = NUMBERS
    pearson = evaluate.load("pearsonr").compute(predictions=predictions, references=references, return_pvalue=True)
    spearman = evaluate.load("spearmanr").compute(predictions=predictions, references=references, return_pvalue=True)
    assert list(pearson) == ["pearsonr", "p-value"]
    assert pearson["p-value"] == stats.pearsonr(references, predictions).pvalue
    assert list(spearman) == ["spearmanr", "spearmanr_pvalue"]
    assert spearman["spearmanr_pvalue"] == stats.spearmanr(references, predictions).pvalue


def test_matthews_correlation_of_several_labels() -> None:
    references, predictions = SEVERAL
    each = [sklearn.metrics.matthews_corrcoef(references[:, i], predictions[:, i]) for i in range(4)]
    metric = evaluate.load("matthews_correlation", "multilabel")
    assert metric.compute(predictions=predictions, references=references) == {"matthews_correlation": each}
    mean = metric.compute(predictions=predictions, references=references, average="macro")
    assert mean == {"matthews_correlation": np.mean(each)}
    with pytest.raises(ConfigError, match="expected average=None or 'macro', found 'micro'"):
        metric.compute(predictions=predictions, references=references, average="micro")


def test_roc_auc() -> None:
    references, scores = CLASSES[0], NUMBERS[0]
    values = evaluate.load("roc_auc").compute(references=references, prediction_scores=scores)
    assert values == {"roc_auc": sklearn.metrics.roc_auc_score(references, scores)}
    values = evaluate.load("roc_auc").compute(references=references, prediction_scores=scores, max_fpr=0.3)
    assert values == {"roc_auc": sklearn.metrics.roc_auc_score(references, scores, max_fpr=0.3)}

    shares = RANDOM.dirichlet([1, 1, 1], 60)
    for way in ("ovr", "ovo"):
        metric = evaluate.load("roc_auc", "multiclass")
        values = metric.compute(references=THREE[0], prediction_scores=shares, multi_class=way)
        assert values == {"roc_auc": sklearn.metrics.roc_auc_score(THREE[0], shares, multi_class=way)}

    scores = RANDOM.uniform(size=(60, 4))
    metric = evaluate.load("roc_auc", "multilabel")
    values = metric.compute(references=SEVERAL[0], prediction_scores=scores, average=None)
    np.testing.assert_array_equal(values["roc_auc"], sklearn.metrics.roc_auc_score(SEVERAL[0], scores, average=None))


def test_an_undefined_correlation_is_nan() -> None:
    values = evaluate.load("glue", "stsb").compute(predictions=[1.0, 1.0, 1.0], references=[1.0, 2.0, 3.0])
    assert all(math.isnan(value) for value in values.values())


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30), st.integers(1, 7))
def test_batches_and_rows_give_what_the_whole_gives(rows: list[tuple[int, int]], size: int) -> None:
    references, predictions = (list(column) for column in zip(*rows, strict=True))
    whole = evaluate.load("glue", "mrpc").compute(predictions=predictions, references=references)

    metric = evaluate.load("glue", "mrpc")
    for start in range(0, len(rows), size):
        metric.add_batch(predictions=predictions[start : start + size], references=references[start : start + size])
    assert len(metric) == len(rows)
    assert metric.compute() == whole

    for reference, prediction in rows:
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == whole
    assert len(metric) == 0


def test_compute_takes_what_was_added_before_and_forgets_it() -> None:
    metric = evaluate.load("accuracy")
    metric.add_batch(predictions=[0, 0], references=[0, 1])
    assert metric.compute(predictions=[1, 1], references=[1, 1]) == {"accuracy": 0.75}
    assert metric.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


def test_a_bad_batch_leaves_the_rows_before_it() -> None:
    metric = evaluate.load("accuracy")
    metric.add_batch(predictions=[0], references=[0])
    with pytest.raises(DataError):
        metric.add_batch(predictions=[0, 1], references=[0])
    assert metric.compute() == {"accuracy": 1.0}


@pytest.mark.parametrize(
    "values",
    [[1, 0, 1], (1, 0, 1), np.array([1, 0, 1], np.int32), np.array([1.0, 0.0, 1.0]), torch.tensor([1, 0, 1])],
    ids=["list", "tuple", "int32", "whole floats", "tensor"],
)
def test_what_classes_may_come_in(values: Any) -> None:
    assert evaluate.load("accuracy").compute(predictions=values, references=[1, 0, 0]) == {"accuracy": 2 / 3}


def test_tensors_of_any_kind_are_read() -> None:
    metric = evaluate.load("mse")
    gradients = torch.tensor([1.0, 2.0], requires_grad=True, dtype=torch.bfloat16)
    assert metric.compute(predictions=gradients, references=torch.tensor([1.0, 4.0])) == {"mse": 2.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.add(prediction=torch.tensor(3.0), reference=torch.tensor(1.0))
    metric.add_batch(predictions=[torch.tensor(3.0)], references=[torch.tensor(3.0)])
    assert metric.compute() == {"mse": 2.0}


# ---- combine ----


def test_combine_by_name() -> None:
    metric = evaluate.combine(["accuracy", "f1"])
    assert metric.compute(predictions=[0, 1], references=[1, 1]) == {"accuracy": 0.5, "f1": pytest.approx(2 / 3)}
    metric.add(prediction=1, reference=1)
    metric.add_batch(predictions=[0], references=[1])
    assert metric.compute() == {"accuracy": 0.5, "f1": pytest.approx(2 / 3)}


def test_combine_prefixes_what_occurs_twice() -> None:
    rows: dict[str, Any] = {"predictions": [0, 1], "references": [1, 1]}
    glue = evaluate.load("glue", "mrpc")
    assert list(evaluate.combine(["accuracy", glue]).compute(**rows)) == ["accuracy_accuracy", "glue_accuracy", "f1"]
    assert list(evaluate.combine(["accuracy", "accuracy"]).compute(**rows)) == [
        "accuracy_0_accuracy",
        "accuracy_1_accuracy",
    ]
    assert list(evaluate.combine(["accuracy", "f1"], force_prefix=True).compute(**rows)) == [
        "accuracy_accuracy",
        "f1_f1",
    ]
    named = evaluate.combine({"first": "f1", "second": evaluate.load("f1")})
    assert list(named.compute(**rows)) == ["first_f1", "second_f1"]


def test_combine_gives_each_its_inputs() -> None:
    metric = evaluate.combine(["accuracy", "roc_auc"])
    rows: dict[str, Any] = {"predictions": [0, 1], "references": [0, 1], "prediction_scores": [0.2, 0.9]}
    assert metric.compute(**rows) == {"accuracy": 1.0, "roc_auc": 1.0}
    metric.add_batch(**rows)
    assert metric.compute() == {"accuracy": 1.0, "roc_auc": 1.0}


def test_combine_is_what_the_library_gives() -> None:
    """The names of a combination, against the library's own rule; its metrics cannot be loaded without network."""
    library = pytest.importorskip("evaluate")
    results = [{"a": 1.0, "b": 2.0}, {"b": 3.0}, {"a": 4.0}]
    theirs = object.__new__(library.CombinedEvaluations)
    theirs.evaluation_module_names = ["x", "y", "x"]
    theirs.force_prefix = False

    class Fixed:
        input_names = ("predictions", "references")

        def __init__(self, name: str, values: dict[str, float]) -> None:
            self.name, self.values = name, values

        def compute(self, **inputs: Any) -> dict[str, float]:
            return self.values

    ours = evaluate.combine([Fixed(name, values) for name, values in zip("xyx", results, strict=True)])
    assert ours.compute(predictions=[0], references=[0]) == theirs._merge_results(results)


# ---- What it says of itself ----


def test_description_and_features() -> None:
    metric = evaluate.load("f1")
    assert (metric.name, metric.config_name, metric.module_type) == ("f1", "default", "metric")
    assert metric.description == "Harmonic mean of precision and recall."
    assert {name: value.dtype for name, value in metric.features.items()} == {
        "predictions": "int32",
        "references": "int32",
    }
    assert "average='binary'" in metric.inputs_description
    assert "stored examples: 0" in repr(metric)
    assert list(evaluate.load("roc_auc", "multiclass").features) == ["prediction_scores", "references"]
    assert "glue" in evaluate.list_evaluation_modules()


# ---- What is refused ----


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("acuracy",), {}, "there is no metric 'acuracy'; there are glue, accuracy, f1, .* Did you mean 'accuracy'?"),
        (("glue",), {}, r"evaluate.load\('glue'\) needs a task as second argument: one of cola, sst2, mrpc"),
        (("glue", "mprc"), {}, "GLUE has no such task; it has cola, .* Did you mean 'mrpc'?"),
        (
            ("f1", "multi"),
            {},
            r"evaluate.load\('f1'\): expected the configuration 'default', 'multilabel', found 'multi'",
        ),
        (("f1",), {"average": "macro"}, "evaluate.load has no option 'average'"),
        (("f1",), {"cache_dri": "x"}, "evaluate.load has no option 'cache_dri'. Did you mean 'cache_dir'?"),
        (("f1",), {"num_process": 2}, "num_process=2 is not supported"),
        (("f1",), {"module_type": "comparison"}, "expected module_type='metric', found 'comparison'"),
    ],
)
def test_what_cannot_be_loaded(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate.load(*arguments, **options)


def test_options_about_storage_do_nothing() -> None:
    metric = evaluate.load(
        "accuracy", cache_dir="x", experiment_id="y", keep_in_memory=True, num_process=1, process_id=0, seed=3
    )
    assert metric.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("accuracy", {"predictions": [1, 0], "references": [1]}, "found 2 predictions and 1 references"),
        ("accuracy", {"predictions": [], "references": []}, "there are no rows to compute on"),
        ("accuracy", {}, "there are no rows to compute on"),
        ("accuracy", {"predictions": [1]}, "accuracy needs predictions and references; references is missing"),
        ("accuracy", {"predictions": ["a"], "references": ["a"]}, "expected class ids, found values such as 'a'"),
        ("accuracy", {"predictions": [[1], [1, 2]], "references": [1, 1]}, "Expected rows of the same shape"),
        ("accuracy", {"predictions": 1, "references": 1}, r"found an array of shape \(\)"),
        (
            "accuracy",
            {"predictions": [[0.1, 2.0], [1.0, 0.3]], "references": [1, 0]},
            r"found an array of shape \(2, 2\).\nLogits are no classes: take np.argmax\(predictions, axis=-1\) first.",
        ),
        (
            "f1",
            {"predictions": [0.3, 0.7], "references": [0, 1]},
            r"f1: predictions: expected class ids, found numbers such as 0\.3\.\nLogits and probabilities are no",
        ),
        ("f1", {"predictions": [0, np.nan, np.inf], "references": [0, 1, 0]}, "found NaN or infinity in rows 2, 3"),
        ("mse", {"predictions": [np.nan, 1], "references": [0, 1]}, "mse: predictions: found NaN or infinity in row 1"),
        (
            "mse",
            {"predictions": [[1.0], [2.0]], "references": [1, 2]},
            r"Take the one column first: predictions\[:, 0\]",
        ),
        ("f1", {"predictions": [0, 2], "references": [0, 1]}, r"compute\(..., average='macro'\)"),
        ("pearsonr", {"predictions": [1.0], "references": [1.0]}, "pearsonr: "),
        (
            "roc_auc",
            {"predictions": [1.0], "references": [1]},
            "takes prediction_scores and references, not predictions",
        ),
        (
            "roc_auc",
            {"prediction_scores": [0.2, 0.7], "references": [1, 1]},
            "roc_auc: expected at least two classes in references, found only 1.\nWith one class there is no curve",
        ),
        (
            "roc_auc",
            {"prediction_scores": [0.2, 0.7, 0.1], "references": [0, 1, 2]},
            "multi_class='ovr' or 'ovo'",
        ),
    ],
)
def test_rows_that_make_no_sense(name: str, rows: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate.load(name).compute(**rows)


def test_labels_that_the_task_does_not_have() -> None:
    metric = evaluate.load("glue", "mrpc")
    with pytest.raises(DataError, match="references: expected class ids from 0 to 1, found 2 in row 3"):
        metric.compute(predictions=[0, 1, 1], references=[0, 1, 2])
    with pytest.raises(DataError, match=r"found -1 in rows 1, 2\.\nLabel -1 marks rows without a label"):
        metric.compute(predictions=[0, 1], references=[-1, -1])


def test_an_option_the_metric_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"f1: no option 'avrage'; there are labels, .* Did you mean 'average'\?"):
        evaluate.load("f1").compute(predictions=[1], references=[1], avrage="macro")
    with pytest.raises(ConfigError, match=r"glue: no option 'average'; there are none"):
        evaluate.load("glue", "mrpc").compute(predictions=[1], references=[1], average="macro")
