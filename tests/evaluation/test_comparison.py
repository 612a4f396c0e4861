from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from textune.evaluation.comparison import (
    Candidate,
    Comparison,
    compare,
    mcnemar,
    row_variance,
    seed_variance,
    verdict,
)
from textune.evaluation.intervals import wilson
from textune.evaluation.sums import Outcome


def labels_of(num_rows: int) -> npt.NDArray[np.int64]:
    return (np.random.default_rng(0).random(num_rows) < 0.6).astype(np.int64)


def model(labels: npt.NDArray[Any], accuracy: float, seed: int) -> Outcome:
    generator = np.random.default_rng(seed)
    return Outcome(labels, np.where(generator.random(len(labels)) < accuracy, labels, 1 - labels), 2)


def two(first: float, second: float, num_rows: int = 400) -> Comparison:
    labels = labels_of(num_rows)
    sides = [Candidate("A", (model(labels, first, 1),)), Candidate("B", (model(labels, second, 2),))]
    return compare(sides, ["accuracy", "f1", "matthews_correlation"])


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (6, 2, 0.2890625),
        (12, 12, 1.0),
        (30, 14, 0.023738515250054576),
        (9, 40, 1.8215297148967956e-05),
        (0, 5, 0.0625),
    ],
)
def test_mcnemar_equals_statsmodels(only_first: int, only_second: int, p_value: float) -> None:
    """The figures are those of statsmodels 0.15.0, mcnemar(exact=only_first + only_second < 25, correction=True)."""
    both = 50
    first = np.array([True] * (only_first + both) + [False] * only_second)
    second = np.array([False] * only_first + [True] * (both + only_second))
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(p_value, rel=1e-12)
    assert found.exact == (only_first + only_second < 25)


def test_mcnemar_of_equal_counts_and_of_no_differences() -> None:
    alike = mcnemar(np.array([True, False]), np.array([True, False]))
    assert (alike.p_value, alike.exact) == (1.0, True)
    half = np.arange(60) < 30
    assert mcnemar(half, ~half).p_value == 1.0, "the correction must not make a difference of none"


def test_a_clear_difference() -> None:
    comparison = two(0.7, 0.9)
    difference = comparison.differences["accuracy"][0]
    figures = comparison.figures["accuracy"]
    assert difference.value == pytest.approx(figures[1].value - figures[0].value)
    assert difference.interval is not None
    assert 0 < difference.interval.low < difference.value < difference.interval.high
    assert difference.p_value < 1e-6
    assert comparison.mcnemar[0] is not None and comparison.mcnemar[0].p_value < 1e-6
    assert figures[0].interval == wilson(round(figures[0].value * 400), 400)
    assert figures[0].deviation is None


def test_standard_error_of_accuracy_is_the_exact_one() -> None:
    """Of a mean of paired differences it is known: their deviation by the root of the number of rows."""
    labels = labels_of(2000)
    first, second = model(labels, 0.8, 1), model(labels, 0.82, 2)
    comparison = compare([Candidate("A", (first,)), Candidate("B", (second,))], ["accuracy"], num_resamples=8000)
    rights = [(side.predictions == labels).astype(float) for side in (first, second)]
    error = np.std(rights[1] - rights[0]) / np.sqrt(2000)
    interval = comparison.differences["accuracy"][0].interval
    assert interval is not None
    assert (interval.high - interval.low) / 2 == pytest.approx(1.961 * error, rel=0.03)


def test_the_pairing_counts() -> None:
    """Two models that err on the same rows can be told apart by few others."""
    labels = labels_of(400)
    first = model(labels, 0.7, 1)
    predictions = first.predictions.copy()
    wrong = np.flatnonzero(predictions != labels)[:12]
    predictions[wrong] = labels[wrong]
    alike = compare([Candidate("A", (first,)), Candidate("B", (Outcome(labels, predictions, 2),))], ["accuracy"])
    assert alike.differences["accuracy"][0].p_value < 0.002
    assert two(0.7, 0.73).differences["accuracy"][0].p_value > 0.1


def test_seeded() -> None:
    labels = labels_of(100)
    sides = [Candidate("A", (model(labels, 0.7, 1),)), Candidate("B", (model(labels, 0.8, 2),))]
    first, again, other = (compare(sides, ["f1"], seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_equal_predictions() -> None:
    labels = labels_of(50)
    sides = [Candidate(name, (model(labels, 0.7, 1),)) for name in "AB"]
    comparison = compare(sides, ["accuracy"])
    assert comparison.differences["accuracy"][0].p_value == 1.0
    assert verdict(comparison, "accuracy", 1) == "A and B have the same accuracy: they predict alike on every row."


def test_one_row_tells_no_difference() -> None:
    labels = np.array([1])
    sides = [Candidate("A", (Outcome(labels, labels, 2),)), Candidate("B", (Outcome(labels, 1 - labels, 2),))]
    comparison = compare(sides, ["accuracy"])
    difference = comparison.differences["accuracy"][0]
    assert (difference.value, difference.interval, difference.p_value) == (-1.0, None, 1.0)
    assert verdict(comparison, "accuracy", 1) == "One row does not tell whether A or B is better."


def test_variance_of_rows_has_the_doubt_of_their_number() -> None:
    variance, doubt = row_variance(np.array([0.0, 1.0, 2.0, 3.0]), num_rows=12)
    assert variance == pytest.approx(5 / 3)
    assert doubt == pytest.approx((5 / 3) ** 2 / 11), "12 rows, 11 degrees of freedom"


def test_variance_of_seeds_is_what_the_noise_of_rows_leaves() -> None:
    values = np.array([0.5, 0.7, 0.9])  # variance 0.04
    # Around the mean of the three, resamples vary by 0.01, 0 and 0.01: 2/3 of each seed's own 0.01.
    drawn = np.array([[0.1, -0.1], [0.0, 0.0], [-0.1, 0.1]])
    variance, doubt = seed_variance(values, drawn)
    assert variance == pytest.approx((0.04 - 0.01) / 3)
    assert doubt == pytest.approx((0.04 / 3) ** 2 / 2)
    assert seed_variance(values[:1], drawn[:1]) == (0.0, 0.0)


def test_numbers() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=300)
    sides = [
        Candidate(name, (Outcome(labels, labels + size * generator.normal(size=300), 0),))
        for name, size in (("A", 1.0), ("B", 0.5))
    ]
    comparison = compare(sides, ["pearson", "spearmanr", "rmse"])
    assert comparison.mcnemar == (None,)
    assert comparison.differences["rmse"][0].value < 0
    for name in comparison.metrics:
        assert verdict(comparison, name, 1).startswith("B is better than A by ")
    assert "points" not in verdict(comparison, "rmse", 1)


def test_seeds_widen_the_interval() -> None:
    labels = labels_of(2000)
    qualities = (0.76, 0.80, 0.84)
    alike = [model(labels, 0.8, seed) for seed in range(6)]
    spread = [model(labels, quality, seed) for seed, quality in enumerate((*qualities, *qualities))]
    widths = []
    for outcomes in (alike, spread):
        comparison = compare([Candidate("A", tuple(outcomes[:3])), Candidate("B", tuple(outcomes[3:]))], ["accuracy"])
        interval = comparison.differences["accuracy"][0].interval
        assert interval is not None
        widths.append(interval.high - interval.low)
        assert comparison.mcnemar == (None,)
        figure = comparison.figures["accuracy"][0]
        assert figure.deviation == pytest.approx(np.std(figure.values, ddof=1))
        assert figure.value == pytest.approx(np.mean(figure.values))
    assert widths[1] > 3 * widths[0]


def test_more_seeds_narrow_the_interval() -> None:
    labels = labels_of(300)
    widths = []
    for num_seeds in (1, 8):
        sides = [
            Candidate(name, tuple(model(labels, 0.8, start + seed) for seed in range(num_seeds)))
            for name, start in (("A", 10), ("B", 50))
        ]
        interval = compare(sides, ["accuracy"]).differences["accuracy"][0].interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths[1] < 0.6 * widths[0]


def test_p_values_of_several_are_adjusted() -> None:
    """Holm: the smallest by the number of comparisons, the next by one less, none below the one before."""
    labels = labels_of(400)
    sides = [Candidate(str(index), (model(labels, quality, index),)) for index, quality in enumerate((0.7, 0.74, 0.77))]
    both = compare(sides, ["accuracy"], num_resamples=8000)
    alone = [
        compare([sides[0], side], ["accuracy"], num_resamples=8000).differences["accuracy"][0].p_value
        for side in sides[1:]
    ]
    smaller, larger = sorted(difference.p_value for difference in both.differences["accuracy"])
    assert smaller == pytest.approx(2 * min(alone), rel=0.35)
    assert larger == pytest.approx(max(smaller, max(alone)), rel=0.35)


def test_undefined_metrics_are_left_out() -> None:
    labels = np.zeros(20, np.int64)
    sides = [Candidate(str(seed), (model(labels, 0.7, seed),)) for seed in (1, 2)]
    comparison = compare(sides, ["accuracy", "recall", "matthews_correlation"])
    assert comparison.metrics == ("accuracy",)
    assert comparison.undefined == ("recall", "matthews_correlation")


def test_verdicts() -> None:
    clear = verdict(two(0.7, 0.9), "accuracy", 1)
    assert clear.startswith("B is better than A by ")
    assert clear.endswith(", more than noise explains (p < 0.001).")
    worse = verdict(two(0.9, 0.7), "accuracy", 1)
    assert worse.startswith("B is worse than A by ")
    by, low, high = (float(worse.split(start)[1].split()[0].strip("),")) for start in ("by ", "interval ", " to "))
    assert 0 < low < by < high
    noise = verdict(two(0.8, 0.81), "f1", 1)
    assert "points of f1 (95 % interval -" in noise
    assert "), which is within noise (p = 0." in noise


def test_false_alarms_are_few() -> None:
    """Of 200 pairs of equally good models about 10 are found to differ at the 5 % level."""
    alarms = 0
    for draw in range(200):
        labels = labels_of(100)
        sides = [Candidate(str(side), (model(labels, 0.8, 2 * draw + side),)) for side in (0, 1)]
        found = compare(sides, ["f1"], num_resamples=300).differences["f1"][0]
        alarms += found.p_value < 0.05
    assert 2 <= alarms <= 21
