from __future__ import annotations

import numpy as np
import pytest

from textune.evaluation.label_errors import label_errors


def test_by_hand() -> None:
    """Class 0 has the mean (0.9 + 0.8 + 0.7 + 0.2) / 4 = 0.65, class 1 (0.8 + 0.6 + 0.1) / 3 = 0.5."""
    own = [(0, 0.9), (0, 0.8), (0, 0.7), (0, 0.2), (1, 0.8), (1, 0.6), (1, 0.1)]
    labels = np.array([label for label, _ in own])
    probabilities = np.array([[p, 1 - p] if label == 0 else [1 - p, p] for label, p in own])
    found = label_errors(labels, probabilities)
    assert found.joint.tolist() == [[3, 1], [1, 2]]
    assert found.rows.tolist() == [6, 3], "0.1 against 0.9 before 0.2 against 0.8"
    assert found.suggested.tolist() == [0, 1]
    assert found.margins == pytest.approx([0.8, 0.6, 0.4, -0.6, 0.6, 0.2, -0.8])
    # A quarter of the four rows with label 0 and a third of the three with label 1.
    assert found.estimated_share == pytest.approx((4 * 1 / 4 + 3 * 1 / 3) / 7)


def test_rows_without_confidence_are_no_suspects() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.3, 0.7]])
    found = label_errors(labels, probabilities)
    assert found.rows.tolist() == []
    assert found.joint.tolist() == [[1, 0], [0, 1]]
    assert found.estimated_share == 0.0


def test_a_label_that_is_the_likeliest_is_no_suspect() -> None:
    """Row 1 is confidently of class 1, whose mean is 0.4, and not of its own, whose mean is 0.75; but 0.55 is more."""
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.95, 0.05], [0.55, 0.45], [0.6, 0.4], [0.6, 0.4]])
    found = label_errors(labels, probabilities)
    assert found.joint.tolist() == [[1, 1], [0, 2]]
    assert found.rows.tolist() == []


def test_a_class_without_rows_is_suggested_to_nobody() -> None:
    labels = np.array([0, 0, 2, 2])
    probabilities = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.5, 0.5], [0.2, 0.0, 0.8]])
    found = label_errors(labels, probabilities)
    assert 1 not in found.suggested
    assert found.joint[:, 1].tolist() == found.joint[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("num_rows", "joint", "rows", "margin", "share"),
    [
        (200, [[65, 4], [5, 64]], [16, 58, 107, 195, 164, 92, 171, 173, 66], 0.8649149082992257, 0.065),
        (
            120,
            [[17, 0, 0, 2], [1, 17, 0, 0], [0, 2, 17, 0], [1, 0, 1, 21]],
            [5, 43, 57, 67, 52, 69, 116],
            0.8632516992837236,
            0.09166666666666656,
        ),
    ],
)
def test_the_figures_are_those_of_cleanlab(
    num_rows: int, joint: list[list[int]], rows: list[int], margin: float, share: float
) -> None:
    """Kept from cleanlab 2.9.0: compute_confident_joint, find_label_issues by normalized_margin, the margin of row 0 on
    its scale from 0 to 1, and what is off the diagonal of estimate_joint."""
    num_classes = len(joint)
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, num_rows)
    scores = rng.normal(size=(num_rows, num_classes)) + 2 * np.eye(num_classes)[labels]
    wrong = rng.random(num_rows) < 0.1
    labels[wrong] = (labels[wrong] + 1) % num_classes
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

    found = label_errors(labels, probabilities)
    assert found.joint.tolist() == joint
    assert found.rows.tolist() == rows
    assert (found.margins[0] + 1) / 2 == pytest.approx(margin)
    assert found.estimated_share == pytest.approx(share, abs=num_classes / num_rows), "cleanlab rounds to rows"
