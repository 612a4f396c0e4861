from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from textune.evaluation.intervals import (
    Interval,
    bootstrap_intervals,
    ends,
    mean_statistic,
    metric_intervals,
    per_class_intervals,
    proportion_interval,
    wilson,
)
from textune.evaluation.metrics import compute_metrics, metric_names, statistics_of
from textune.evaluation.predictions import LabelSet
from textune.evaluation.resampling import Additive, resample
from textune.evaluation.sums import Outcome

BINARY = LabelSet("single_label_classification", ("no", "yes"))
NUMBER = LabelSet("regression", ())


def binary_rows(num_rows: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(num_rows) < 0.68).astype(np.int64)
    logits = np.eye(2)[labels] * 1.5 + generator.normal(size=(num_rows, 2))
    return logits.astype(np.float32), labels


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.27753279986288926),
        (327, 408, 0.7600314256924449, 0.8372858058082878),
        (10, 10, 0.7224672001371106, 1.0),
        (3, 7, 0.15821985525146964, 0.7495416354723428),
    ],
)
def test_wilson_equals_statsmodels(successes: int, trials: int, low: float, high: float) -> None:
    """The figures are those of statsmodels 0.15.0, proportion_confint(method="wilson")."""
    found = wilson(successes, trials)
    assert ends(found) == pytest.approx([low, high], abs=1e-12)
    scipy = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert ends(found) == pytest.approx([scipy.low, scipy.high], abs=1e-12)


@given(st.integers(1, 10_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_holds_the_share(counts: tuple[int, int]) -> None:
    interval = wilson(*counts)
    assert 0 <= interval.low <= counts[0] / counts[1] <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        wilson(successes, trials)


def pearson(x: Any, y: Any) -> float:
    return float(stats.pearsonr(x, y).statistic)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_to_scipys_bootstrap(method: Any) -> None:
    """SciPy computes the interval from our resamples and its own jackknife."""
    generator = np.random.default_rng(0)
    labels = generator.normal(size=40)
    outcome = Outcome(labels, labels + generator.exponential(size=40), 0)
    (statistic,) = statistics_of(outcome, ["pearson"])
    (values,), _ = resample([statistic], seed=7, num_resamples=1000)
    drawn = stats.bootstrap(
        (outcome.labels, outcome.predictions),
        pearson,
        paired=True,
        vectorized=False,
        n_resamples=0,
        method={"bca": "BCa"}.get(method, method),
        bootstrap_result=_Drawn(values[:, 0]),
    )
    (found,) = bootstrap_intervals(statistic, seed=7, num_resamples=1000, methods=(method,))["pearson"]
    expected = drawn.confidence_interval
    assert ends(found) == pytest.approx([expected.low, expected.high], abs=1e-9)


class _Drawn:
    """What SciPy asks of an earlier result that it goes on from."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self.bootstrap_distribution = values


def test_bca_of_a_mean_equals_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=30)
    statistic = mean_statistic("loss", values)
    (drawn,), _ = resample([statistic], seed=1, num_resamples=2000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=0, method="BCa", bootstrap_result=_Drawn(drawn[:, 0])
    ).confidence_interval
    (found,) = bootstrap_intervals(statistic, seed=1, num_resamples=2000, methods=("bca",))["loss"]
    assert ends(found) == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_every_metric_has_an_interval_around_its_value() -> None:
    logits, labels = binary_rows(408)
    names = [*metric_names(BINARY), "loss"]
    found = metric_intervals(logits, labels, BINARY, names, seed=1)
    assert list(found) == names
    values = compute_metrics(logits, labels, BINARY, names=names[:-1])
    for name, value in values.items():
        interval = found[name]
        assert interval is not None and value is not None
        assert interval.low < value < interval.high
        assert interval.high - interval.low < 0.2
        assert interval.method == ("wilson" if name in {"accuracy", "precision", "recall"} else "bca")


def test_seeded() -> None:
    logits, labels = binary_rows(100)
    first, again, other = (metric_intervals(logits, labels, BINARY, ["f1"], seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert metric_intervals(logits, labels, BINARY, ["f1", "accuracy"], seed=1)["f1"] == first["f1"]


def test_undefined_metrics_have_no_interval() -> None:
    logits, _ = binary_rows(10)
    labels = np.zeros(10, np.int64)
    found = metric_intervals(logits, labels, BINARY, ["matthews_correlation", "recall", "accuracy"], seed=0)
    assert found["matthews_correlation"] is None and found["recall"] is None
    assert isinstance(found["accuracy"], Interval)
    constant = metric_intervals(np.ones((5, 1), np.float32), np.float32(range(5)), NUMBER, ["pearson", "rmse"], seed=0)
    assert constant["pearson"] is None and constant["rmse"] is not None


def test_one_row_has_no_bootstrap_interval() -> None:
    logits, labels = np.array([[0.5, 1.0]], np.float32), np.array([1])
    found = metric_intervals(logits, labels, BINARY, ["accuracy", "f1_macro", "loss"], seed=0)
    assert found["accuracy"] == wilson(1, 1)
    assert (found["f1_macro"], found["loss"]) == (None, None)


@pytest.mark.parametrize("of_each", [1, 2, 4, 20])
def test_no_interval_without_an_error(of_each: int) -> None:
    """Of few rows some resamples lack a label, whose F1 is then 0; that says nothing of the model."""
    labels = np.array([0, 1] * of_each)
    logits = np.eye(2, dtype=np.float32)[labels]
    names = ["accuracy", "f1", "f1_macro", "matthews_correlation"]
    accuracy, *others = metric_intervals(logits, labels, BINARY, names, seed=0).values()
    assert others == [None, None, None]
    assert accuracy == wilson(2 * of_each, 2 * of_each)
    found = per_class_intervals(Outcome(labels, labels, 2), BINARY, seed=0)
    assert [figures["f1"] for figures in found.values()] == [None, None]


def test_no_f1_interval_of_a_label_without_an_error_beside_others() -> None:
    labels = np.array([0] * 4 + [1] * 20 + [2] * 20)
    predictions = np.where(np.arange(44) % 10 == 9, 3 - labels, labels)
    assert (predictions[:4] == 0).all() and not (predictions == labels).all()
    found = per_class_intervals(Outcome(labels, predictions, 3), LabelSet(BINARY.problem_type, ("a", "b", "c")), seed=0)
    assert found["a"]["f1"] is None
    assert found["b"]["f1"] is not None


def test_no_interval_of_no_width() -> None:
    """Also where a few resamples differ, fewer than an interval leaves out."""
    values = np.full(30, 0.1) + np.arange(30) * 1e-13
    rare = Additive(("any",), np.eye(1, 30).T, lambda totals: (totals > 4).astype(np.float64))
    for statistic in (mean_statistic("loss", values), rare):
        found = bootstrap_intervals(statistic, seed=0, num_resamples=2000, methods=("bca", "percentile"))
        assert list(found.values()) == [(None, None)]


def test_no_interval_that_does_not_hold_its_figure() -> None:
    """With two rows of each label a resample lacks many labels, whose F1 is then 0."""
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 150
    logits = (np.eye(150)[labels] * 2 + generator.normal(size=(300, 150))).astype(np.float32)
    many = LabelSet("single_label_classification", tuple(map(str, range(150))))
    assert metric_intervals(logits, labels, many, ["f1_macro"], seed=0, method="percentile") == {"f1_macro": None}


def test_per_class() -> None:
    labels = np.array([0] * 20 + [1] * 30)
    predictions = np.array([0] * 15 + [1] * 33 + [0] * 2)
    found = per_class_intervals(Outcome(labels, predictions, 3), LabelSet(BINARY.problem_type, ("a", "b", "c")), seed=0)
    assert found["a"]["recall"] == wilson(15, 20)
    assert found["b"]["precision"] == wilson(28, 33)
    f1 = found["b"]["f1"]
    assert f1 is not None and f1.low < 56 / 63 < f1.high
    assert found["c"] == {"precision": None, "recall": None, "f1": None}
    assert per_class_intervals(Outcome(labels, predictions, 0), NUMBER, seed=0) == {}


def test_only_proportions_have_wilsons_interval() -> None:
    outcome = Outcome(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    assert proportion_interval("accuracy", outcome) == wilson(2, 3)
    assert proportion_interval("precision", outcome) == wilson(1, 1)
    assert proportion_interval("recall", outcome) == wilson(1, 2)
    assert proportion_interval("f1", outcome) is None
    assert proportion_interval("recall", Outcome(np.zeros(3, int), np.array([0, 1, 0]), 2)) is None


def test_a_million_rows_take_little() -> None:
    """Sums over random groups stand for rows; the interval is that of the normal distribution."""
    generator = np.random.default_rng(0)
    labels = generator.normal(size=200_000).astype(np.float32)
    logits = (labels + generator.normal(size=200_000).astype(np.float32))[:, None]
    found = metric_intervals(logits, labels, NUMBER, ["rmse", "pearson"], seed=0, num_resamples=500)
    rmse = found["rmse"]
    assert rmse is not None
    assert rmse.high - rmse.low == pytest.approx(2 * 1.96 * np.sqrt(0.5 / 200_000), rel=0.15)
