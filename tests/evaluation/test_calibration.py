from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from textune.evaluation.calibration import (
    brier_score,
    calibration_quality,
    expected_calibration_error,
    fit_temperature,
    reliability_curve,
    why_no_temperature,
)
from textune.evaluation.intervals import wilson
from textune.evaluation.predictions import to_scores

SINGLE = "single_label_classification"
MULTI = "multi_label_classification"


def rows(
    num_labels: int, *, sharpness: float, num_rows: int = 4000
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Logits `sharpness` times as large as those that the labels were drawn by."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(num_rows, num_labels))
    scores = to_scores(logits, SINGLE)
    labels = (scores.cumsum(axis=1) < generator.random((num_rows, 1))).sum(axis=1)
    return (sharpness * logits).astype(np.float32), labels


def test_curve_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.8, 0.2]])
    curve = reliability_curve(scores, np.array([0, 0, 1, 0]), bins=5)
    assert [(one.lower, one.upper, one.count) for one in curve] == [(0.4, 0.6, 1), (0.6, 0.8, 2), (0.8, 1.0, 1)]
    assert [one.confidence for one in curve] == pytest.approx([0.55, 0.8, 0.9])
    assert [one.accuracy for one in curve] == [1.0, 0.5, 1.0]
    assert curve[1].interval == wilson(1, 2)
    assert expected_calibration_error(scores, np.array([0, 0, 1, 0]), bins=5) == pytest.approx(
        (0.45 + 2 * 0.3 + 0.1) / 4
    )


def test_bins_hold_their_upper_end() -> None:
    """(lower, upper], as Guo et al. have them."""
    scores = np.array([0.0, 0.2, 0.2000001, 1.0])[:, None]
    curve = reliability_curve(scores, np.ones((4, 1)), bins=5)
    assert [(one.upper, one.count) for one in curve] == [(0.2, 2), (0.4, 1), (1.0, 1)]


def test_scores_that_are_probabilities_have_little_error() -> None:
    calibrated, labels = rows(3, sharpness=1)
    sharp, _ = rows(3, sharpness=3)
    assert expected_calibration_error(to_scores(calibrated, SINGLE), labels) < 0.03
    assert expected_calibration_error(to_scores(sharp, SINGLE), labels) > 0.15


@pytest.mark.parametrize("num_labels", [2, 4])
def test_brier_score_equals_scikit_learn(num_labels: int) -> None:
    pytest.importorskip("sklearn", minversion="1.7", reason="brier_score_loss has no `labels` before")
    logits, labels = rows(num_labels, sharpness=2, num_rows=200)
    scores = to_scores(logits.astype(np.float64), SINGLE)
    expected = sklearn_metrics.brier_score_loss(
        labels, scores[:, 1] if num_labels == 2 else scores, labels=list(range(num_labels))
    )
    assert brier_score(scores, labels) == pytest.approx(expected, rel=1e-12)


def test_brier_score_of_several_labels() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.random((50, 3)), generator.integers(0, 2, (50, 3))
    each = [sklearn_metrics.brier_score_loss(labels[:, index], scores[:, index]) for index in range(3)]
    assert brier_score(scores, labels) == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_undoes_the_sharpness(sharpness: float) -> None:
    logits, labels = rows(3, sharpness=sharpness)
    temperature = fit_temperature(logits, labels, SINGLE)
    assert temperature == pytest.approx(sharpness, rel=0.07)
    assert calibration_quality(to_scores(logits / temperature, SINGLE), labels)["expected_calibration_error"] < 0.03


def test_temperature_is_the_lowest_loss_by_torch() -> None:
    logits, labels = rows(2, sharpness=2.5, num_rows=300)
    found = fit_temperature(logits, labels, SINGLE)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(
            torch.from_numpy(logits).double() / log_temperature.exp(), torch.from_numpy(labels)
        )
        value.backward()
        return value

    optimizer.step(loss)
    assert found == pytest.approx(float(log_temperature.detach().exp()), rel=1e-4)


def test_temperature_of_several_labels() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5000, 3))
    labels = (generator.random((5000, 3)) < to_scores(logits, MULTI)).astype(np.float32)
    assert fit_temperature((2 * logits).astype(np.float32), labels, MULTI) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("logits", "labels", "problem_type", "words"),
    [
        ([[1.0]], [1.0], "regression", "a regression has no probabilities"),
        ([[1, 0], [0, 1]], [1, 1], SINGLE, "all rows have the same label"),
        ([[1, 1], [0, 1]], [[1, 0], [1, 0]], MULTI, "all rows have the same label"),
        ([[1, 0], [0, 1]], [0, 1], SINGLE, "the model is right on all rows"),
        ([[5, 0], [0, 5]], [0, 1], SINGLE, "the model is right on all rows"),
        ([[10, 0], [0, 10]], [0, 1], SINGLE, "the model is right on all rows"),
        ([[5, -5], [-5, 5]], [[1, 0], [0, 1]], MULTI, "the model is right on all rows"),
        ([[200, -200], [-200, 200]], [[1, 0], [0, 1]], MULTI, "the model is right on all rows"),
        ([[1, 0], [0, 1], [0, 1]], [1, 0, 1], SINGLE, "3 rows are too few to tell how sure the model may be; it takes"),
        ([[1, 0], [0, 1]] * 25, [1, 0] * 25, SINGLE, "the model's scores tell nothing"),
    ],
)
def test_no_temperature(logits: Any, labels: Any, problem_type: str, words: str) -> None:
    arrays = np.float32(logits), np.array(labels)
    assert fit_temperature(*arrays, problem_type) is None
    assert words in why_no_temperature(*arrays, problem_type)
