from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from textune.errors import ConfigError
from textune.models.losses import Loss, resolve_class_weights
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 0, 1, 0, 2, 0, 0, 1, 0])
HOT = (torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) < 0.4).float()
WEIGHTS = np.array([0.5, 2.0, 3.25])


def mean_of(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, *, cuts: list[int]) -> float:
    """The mean over a batch that is worked through in several passes."""
    passes = list(zip(logits.split(cuts), labels.split(cuts), strict=True))
    total = sum(float(loss.sum(some, wanted)) for some, wanted in passes)
    return total / sum(loss.weight(wanted.numpy()) for _, wanted in passes)


@pytest.mark.parametrize("cuts", [[12], [1, 11], [4, 4, 4], [5, 5, 2]], ids=str)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_single_labels_have_torchs_mean(cuts: list[int], weights: np.ndarray | None, smoothing: float) -> None:
    loss = Loss(SINGLE_LABEL, class_weights=weights, label_smoothing=smoothing)
    rows = functional.cross_entropy(LOGITS, CLASSES, label_smoothing=smoothing, reduction="none").numpy()
    expected = np.average(rows, weights=None if weights is None else weights[CLASSES])
    assert mean_of(loss, LOGITS, CLASSES, cuts=cuts) == pytest.approx(expected, rel=1e-6)


def test_without_smoothing_weights_are_those_of_torch() -> None:
    expected = functional.cross_entropy(LOGITS, CLASSES, weight=torch.tensor(WEIGHTS, dtype=torch.float32))
    found = mean_of(Loss(SINGLE_LABEL, class_weights=WEIGHTS), LOGITS, CLASSES, cuts=[12])
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_smoothing_does_not_make_a_heavy_label_the_best_answer_for_other_rows() -> None:
    """As in torch's loss, which weights the smoothed mass by label: rows of label 0 would be told label 1."""
    loss = Loss(SINGLE_LABEL, class_weights=np.array([0.5, 50.0]), label_smoothing=0.1)
    logits = torch.zeros(1, 2, requires_grad=True)
    loss.sum(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad[0].sign().tolist() == [-1.0, 1.0], "a step down the gradient makes label 0 likelier"


@pytest.mark.parametrize("cuts", [[12], [1, 11], [5, 5, 2]], ids=str)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
def test_several_labels_have_torchs_mean(cuts: list[int], weights: np.ndarray | None) -> None:
    loss = Loss(MULTI_LABEL, class_weights=weights)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, HOT, pos_weight=tensor)
    assert mean_of(loss, LOGITS, HOT, cuts=cuts) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("cuts", [[12], [1, 11], [5, 5, 2]], ids=str)
def test_numbers_have_torchs_mean(cuts: list[int]) -> None:
    targets = LOGITS[:, 1] * 2
    expected = functional.mse_loss(LOGITS[:, 0], targets)
    assert mean_of(Loss(REGRESSION), LOGITS[:, :1], targets, cuts=cuts) == pytest.approx(float(expected), rel=1e-6)


def test_one_row_of_a_regression_keeps_its_dimension() -> None:
    assert Loss(REGRESSION).sum(torch.tensor([[2.0]]), torch.tensor([0.5])).item() == 2.25


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_gradient_is_that_of_the_sum(problem_type: str) -> None:
    logits = LOGITS[:, : 1 if problem_type == REGRESSION else 3].clone().requires_grad_()
    labels = {SINGLE_LABEL: CLASSES, MULTI_LABEL: HOT, REGRESSION: HOT[:, 0]}[problem_type]
    loss = Loss(problem_type)
    (loss.sum(logits, labels) / loss.weight(labels.numpy())).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert torch.isfinite(logits.grad).all()


def test_a_batch_of_labels_without_weight_has_mean_zero_and_not_nan() -> None:
    loss = Loss(SINGLE_LABEL, class_weights=np.array([1.0, 0.0, 1.0]))
    assert mean_of(loss, LOGITS[:2], torch.tensor([1, 1]), cuts=[2]) == 0.0


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    """Labels without rows do not count, and have no weight."""
    present = np.unique(labels)
    found = resolve_class_weights("balanced", np.array(labels), problem_type=SINGLE_LABEL, num_labels=4)
    expected = np.zeros(4)
    expected[present] = compute_class_weight("balanced", classes=present, y=np.array(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_balanced_weights_of_several_labels_are_negatives_per_positive() -> None:
    """A label that all rows have, or none, counts as if one were otherwise."""
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], np.float32)
    found = resolve_class_weights("balanced", labels, problem_type=MULTI_LABEL, num_labels=3)
    assert found is not None
    assert found.tolist() == [3.0, 3.0, 0.25]


def test_a_label_that_all_rows_have_is_trained() -> None:
    labels = np.ones((4, 1), np.float32)
    weights = resolve_class_weights("balanced", labels, problem_type=MULTI_LABEL, num_labels=1)
    logits = torch.zeros(4, 1, requires_grad=True)
    Loss(MULTI_LABEL, class_weights=weights).sum(logits, torch.from_numpy(labels)).backward()
    assert logits.grad is not None
    assert (logits.grad < 0).all(), "a step down the gradient makes the label likelier"


def test_weights_can_be_given_as_numbers_or_not_at_all() -> None:
    labels = np.array([0, 1])
    assert resolve_class_weights(None, labels, problem_type=SINGLE_LABEL, num_labels=2) is None
    found = resolve_class_weights("1, 2.5", labels, problem_type=SINGLE_LABEL, num_labels=2)
    assert found is not None
    assert found.tolist() == [1.0, 2.5]


@pytest.mark.parametrize("asked", ["1", "1,2,3"])
def test_as_many_weights_as_labels_are_expected(asked: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.class_weights\): expected 2 numbers, one per label, found [13]"):
        resolve_class_weights(asked, np.array([0, 1]), problem_type=SINGLE_LABEL, num_labels=2)


@pytest.mark.parametrize("asked", ["balanced", "1"])
def test_a_regression_has_no_classes(asked: str) -> None:
    with pytest.raises(ConfigError, match="a regression problem has no classes to weight"):
        resolve_class_weights(asked, np.array([0.5]), problem_type=REGRESSION, num_labels=1)
