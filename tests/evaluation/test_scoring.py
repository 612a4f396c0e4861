from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from textune.evaluation.metrics import metric_names
from textune.evaluation.predictions import LabelSet
from textune.evaluation.scoring import mean_loss, score, with_uncertainty

LABEL_SETS = {
    "single": LabelSet("single_label_classification", ("a", "b", "c")),
    "multi": LabelSet("multi_label_classification", ("a", "b", "c")),
    "regression": LabelSet("regression", ()),
}


def example(kind: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(50, 1 if kind == "regression" else 3)).astype(np.float32)
    if kind == "single":
        return logits, generator.integers(0, 3, 50)
    shape = (50, 3) if kind == "multi" else (50,)
    labels = generator.integers(0, 2, shape) if kind == "multi" else generator.normal(size=shape)
    return logits, labels.astype(np.float32)


@pytest.mark.parametrize("kind", LABEL_SETS)
def test_mean_loss_equals_torch(kind: str) -> None:
    logits, labels = example(kind)
    exact = torch.from_numpy(logits).double()
    expected = {
        "single": lambda: functional.cross_entropy(exact, torch.from_numpy(labels)),
        "multi": lambda: functional.binary_cross_entropy_with_logits(exact, torch.from_numpy(labels).double()),
        "regression": lambda: functional.mse_loss(exact[:, 0], torch.from_numpy(labels).double()),
    }[kind]()
    assert mean_loss(logits, labels) == pytest.approx(float(expected), rel=1e-12)


def test_scores_as_json() -> None:
    logits, labels = example("single")
    found = score(logits, labels, LABEL_SETS["single"], metric_names=["f1_macro", "accuracy"]).as_json()
    assert list(found) == ["f1_macro", "accuracy", "loss", "per_class", "num_rows"]
    assert found["accuracy"] == {"value": float((logits.argmax(1) == labels).mean())}
    assert list(found["per_class"]) == ["a", "b", "c"]
    assert found["num_rows"] == 50


def test_two_labels_have_a_positive_one_and_every_split_a_baseline() -> None:
    logits, labels = np.float32([[1, 0], [2, 0], [3, 0], [0, 1]]), np.array([0, 0, 0, 0])
    label_set = LabelSet("single_label_classification", ("no", "yes"))
    plain = score(logits, labels, label_set, metric_names=["accuracy", "recall"])
    assert plain.as_json()["positive_label"] == "yes"
    assert plain.undefined["recall"] == "no row has the positive label 'yes'"
    found = with_uncertainty(plain, logits, labels, label_set).as_json()
    assert found["baseline"] == {"answer": "'no'", "metric": "accuracy", "score": 1.0}
    several = score(*example("single"), LABEL_SETS["single"], metric_names=["accuracy"])
    assert "positive_label" not in several.as_json()


def test_regression_has_no_per_class_entry() -> None:
    found = score(*example("regression"), LABEL_SETS["regression"], metric_names=["rmse"]).as_json()
    assert list(found) == ["rmse", "loss", "num_rows"]


@pytest.mark.parametrize("kind", LABEL_SETS)
def test_with_uncertainty(kind: str) -> None:
    logits, labels = example(kind)
    label_set = LABEL_SETS[kind]
    names = metric_names(label_set)
    plain = score(logits, labels, label_set, metric_names=names)
    scores = with_uncertainty(plain, logits, labels, label_set)
    assert scores.metrics == plain.metrics
    found = scores.as_json()
    for name in (*names, "loss"):
        low, high = found[name]["interval"]
        assert low < found[name]["value"] < high
    if kind == "regression":
        assert "calibration" not in found and "per_class" not in found
    else:
        assert found["calibration"].keys() == {"expected_calibration_error", "brier_score"}
        low, high = found["per_class"]["a"]["intervals"]["recall"]
        assert low < found["per_class"]["a"]["recall"] < high
    assert found == with_uncertainty(plain, logits, labels, label_set).as_json(), "the same rows, the same intervals"


def test_undefined_metrics_say_why() -> None:
    logits = np.float32([[1, 0], [0, 1]])
    binary = LabelSet("single_label_classification", ("no", "yes"))
    labels = np.array([1, 1])
    scores = with_uncertainty(
        score(logits, labels, binary, metric_names=["matthews_correlation", "recall"]), logits, labels, binary
    )
    found = scores.as_json()
    assert found["matthews_correlation"] == {
        "value": None,
        "interval": None,
        "undefined": "only one class among the labels",
    }
    assert found["recall"]["value"] == 0.5
    assert found["per_class"]["no"]["recall"] is None
    assert found["per_class"]["no"]["intervals"]["recall"] is None
