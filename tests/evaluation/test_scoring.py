from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from textune.evaluation.predictions import LabelSet
from textune.evaluation.scoring import mean_loss, score

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
    assert mean_loss(logits, labels, LABEL_SETS[kind]) == pytest.approx(float(expected), rel=1e-12)


def test_scores_as_json() -> None:
    logits, labels = example("single")
    found = score(logits, labels, LABEL_SETS["single"], metric_names=["f1_macro", "accuracy"]).as_json()
    assert list(found) == ["f1_macro", "accuracy", "loss", "per_class", "num_rows"]
    assert found["accuracy"] == {"value": float((logits.argmax(1) == labels).mean())}
    assert list(found["per_class"]) == ["a", "b", "c"]
    assert found["num_rows"] == 50


def test_regression_has_no_per_class_entry() -> None:
    found = score(*example("regression"), LABEL_SETS["regression"], metric_names=["rmse"]).as_json()
    assert list(found) == ["rmse", "loss", "num_rows"]
