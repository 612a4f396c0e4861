from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from textune.errors import ConfigError
from textune.evaluation import thresholds
from textune.evaluation.thresholds import (
    Target,
    ThresholdCurve,
    choose_threshold,
    label_curves,
    threshold_curve,
    unreachable,
)

Rows = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 0.9]), st.booleans()), min_size=2, max_size=30)


def curve_of(scores: list[float], labels: list[int]) -> ThresholdCurve:
    curve = threshold_curve(np.array(scores), np.array(labels))
    assert curve is not None
    return curve


def test_curve_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    scores = (labels * 0.2 + generator.random(300)).round(2)
    precision, recall, used = sklearn_metrics.precision_recall_curve(labels, scores)
    curve = curve_of(list(scores), list(labels))
    np.testing.assert_allclose(curve.precision, precision[:-1], rtol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[:-1], rtol=1e-12)
    assert (curve.thresholds <= used).all() and (curve.thresholds[1:] > used[:-1]).all()


@given(Rows)
def test_each_point_is_what_its_threshold_gives(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    curve = threshold_curve(scores, labels)
    if labels.all() or not labels.any():
        assert curve is None
        return
    assert curve is not None
    for threshold, precision, recall, f1 in zip(curve.thresholds, curve.precision, curve.recall, curve.f1, strict=True):
        values = sklearn_metrics.precision_recall_fscore_support(labels, scores >= threshold, average="binary")
        assert (precision, recall, f1) == pytest.approx(values[:3])


@given(Rows, st.sampled_from(["f1", "precision:0.6", "precision:0.9", "recall:0.5", "recall:1"]))
def test_the_frontier_answers_as_the_whole_curve(rows: list[tuple[float, bool]], text: str) -> None:
    curve = threshold_curve(np.array([score for score, _ in rows]), np.array([label for _, label in rows]))
    if curve is None:
        return
    whole, short = (choose_threshold(one, Target.parse(text)) for one in (curve, curve.frontier()))
    if whole is None:
        assert short is None
        return
    assert short is not None
    assert short.f1 == pytest.approx(whole.f1) if text == "f1" else True
    kind = Target.parse(text).kind
    if kind != "f1":
        other = {"precision": "recall", "recall": "precision"}[kind]
        assert getattr(short, other) == pytest.approx(getattr(whole, other))
        assert getattr(short, kind) >= getattr(whole, kind)


def test_long_frontiers_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 5000)
    curve = curve_of(list(labels * 0.5 + generator.random(5000)), list(labels))
    monkeypatch.setattr(thresholds, "MAX_POINTS", 20)
    short = curve.frontier()
    assert 10 < len(short.thresholds) <= 20
    assert short.f1.max() == curve.f1.max()
    assert (short.recall[0], short.precision[-1]) == (1.0, curve.precision.max())


def test_choice() -> None:
    curve = curve_of([0.9, 0.8, 0.7, 0.6, 0.3], [1, 1, 0, 1, 0])
    best = choose_threshold(curve, Target.parse("f1"))
    assert best is not None and best.value == pytest.approx(0.45)
    assert (best.precision, best.recall) == (0.75, 1.0)
    precise = choose_threshold(curve, Target.parse("precision:0.9"))
    assert precise is not None and precise.value == pytest.approx(0.75)
    assert (precise.precision, precise.recall) == (1.0, pytest.approx(2 / 3))
    found = choose_threshold(curve, Target.parse("recall:0.6"))
    assert found is not None and found.precision == 1.0 and found.recall >= 0.6


def test_targets_that_cannot_be_reached_are_said() -> None:
    curve = curve_of([0.9, 0.8, 0.7], [0, 1, 0])
    target = Target.parse("precision:0.9")
    assert choose_threshold(curve, target) is None
    assert unreachable(target, curve, label="yes") == (
        "--threshold: no threshold gives 'yes' a precision of 0.9 on the validation rows; the highest is 0.500."
    )


@pytest.mark.parametrize("text", ["f1", "precision:0.9", "recall:1", "0.37"])
def test_targets_are_written_as_they_are_read(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize("text", ["", "F2", "f1:0.5", "precision", "precision:", "recall:90", "1.5", "-1", "nan"])
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Target.parse(text)
    assert f"expected f1, precision:X, recall:X or a score, X from 0 to 1; found {text!r}" in caught.value.message


def test_curves_of_labels() -> None:
    scores = np.array([[0.2, 0.8], [0.7, 0.3]])
    single = label_curves(scores, np.array([1, 0]), ("no", "yes"))
    assert list(single) == ["yes"]
    several = label_curves(scores, np.array([[1, 1], [0, 1]]), ("a", "b"))
    assert several["b"] is None, "all rows have it"
    assert several["a"] is not None
    assert label_curves(np.zeros((2, 3)), np.array([0, 1]), ("a", "b", "c")) == {}


def test_curve_as_json() -> None:
    curve = curve_of([0.9, 0.8, 0.7, 0.6, 0.3], [1, 1, 0, 1, 0])
    again = ThresholdCurve.from_json(curve.as_json())
    np.testing.assert_array_equal(again.thresholds, curve.thresholds)
    np.testing.assert_allclose(again.f1, curve.f1)
