from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from textune.evaluation.comparison import (
    Candidate,
    Comparison,
    Difference,
    compare,
    mcnemar,
    p_text,
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
    assert difference.p_value is not None and difference.p_value < 1e-6
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


def sides_of(labels: npt.NDArray[Any], *predictions: npt.NDArray[Any], num_labels: int = 2) -> list[Candidate]:
    """Candidates A, B and so on of one model each."""
    named = zip("ABCD", predictions, strict=False)
    return [Candidate(name, (Outcome(labels, made, num_labels),)) for name, made in named]


@pytest.mark.parametrize(
    ("num_rows", "certainty"),
    [(4, "which is within noise (McNemar's p = 0.12)"), (40, "more than noise explains (McNemar's p < 0.001)")],
)
def test_one_right_and_the_other_wrong_on_all_rows(num_rows: int, certainty: str) -> None:
    """The accuracies differ alike in every resample, so that nothing but McNemar's test tells how surely."""
    labels = np.arange(num_rows) % 2
    comparison = compare(sides_of(labels, labels, 1 - labels), ["accuracy"])
    difference, test = comparison.differences["accuracy"][0], comparison.mcnemar[0]
    assert test is not None
    assert difference == Difference(-1.0, None, test.p_value)
    assert verdict(comparison, "accuracy", 1) == (
        "B is worse than A by 100.0 points of accuracy (no interval: it is the same whichever of these rows are "
        f"drawn), {certainty}."
    )


def test_a_constant_difference_of_another_metric_has_no_p_value() -> None:
    labels = labels_of(60)
    comparison = compare(sides_of(labels, labels, 1 - labels), ["f1"])
    assert comparison.differences["f1"][0] == Difference(-1.0, None, None)
    assert verdict(comparison, "f1", 1) == (
        "B is worse than A by 100.0 points of f1 (no interval, no p-value: it is the same whichever of these rows are "
        "drawn)."
    )
    assert comparison.as_json()["metrics"]["f1"]["differences"][0]["p_value"] is None
    assert p_text(None) == "no p-value"


def test_a_constant_difference_between_seeds_has_no_p_value() -> None:
    labels = labels_of(50)
    sides = [Candidate(name, (Outcome(labels, made, 2),) * 2) for name, made in (("A", labels), ("B", 1 - labels))]
    comparison = compare(sides, ["accuracy"])
    assert comparison.differences["accuracy"][0].p_value is None
    assert "by 100.0 points of accuracy (no interval, no p-value" in verdict(comparison, "accuracy", 1)


def test_equal_figures_of_different_predictions() -> None:
    """Both are wrong on every row, each in its own way."""
    labels = np.arange(30) % 3
    comparison = compare(sides_of(labels, (labels + 1) % 3, (labels + 2) % 3, num_labels=3), ["accuracy"])
    assert comparison.differences["accuracy"][0] == Difference(0.0, None, 1.0)
    assert verdict(comparison, "accuracy", 1) == "A and B have the same accuracy on these rows, whichever are drawn."


def test_equal_figures_that_other_rows_would_change() -> None:
    labels = np.ones(40, np.int64)
    first, second = labels.copy(), labels.copy()
    first[:5], second[5:10] = 0, 0
    comparison = compare(sides_of(labels, first, second), ["accuracy"])
    assert comparison.differences["accuracy"][0].p_value == pytest.approx(1.0)
    text = verdict(comparison, "accuracy", 1)
    assert text.startswith("A and B have the same accuracy on these rows (95 % interval -")
    assert text.endswith(" of the difference).")


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


def test_mcnemar_of_several_is_adjusted() -> None:
    labels = np.ones(40, np.int64)
    worse, worst = (np.where(np.arange(40) < wrong, 0, 1) for wrong in (5, 8))
    tests = compare(sides_of(labels, labels, worse, worst), ["accuracy"]).mcnemar
    assert [test and test.p_value for test in tests] == pytest.approx([0.5**4, 2 * 0.5**7])


def test_a_difference_without_p_value_counts_among_several() -> None:
    labels = labels_of(40)
    comparison = compare(sides_of(labels, labels, 1 - labels, model(labels, 0.9, 1).predictions), ["f1"])
    (alone,) = compare(sides_of(labels, labels, model(labels, 0.9, 1).predictions), ["f1"]).differences["f1"]
    constant, other = comparison.differences["f1"]
    assert constant.p_value is None
    assert other.p_value is not None and alone.p_value is not None
    assert other.p_value == pytest.approx(2 * alone.p_value, rel=0.35)


def test_notes_say_what_was_trained_once() -> None:
    labels = labels_of(20)
    sides = sides_of(labels, labels, 1 - labels)
    folds = Candidate("C", sides[0].outcomes, cross_validated=True)
    notes = compare([*sides, folds], ["accuracy"]).notes
    once = [note.partition(":")[0] for note in notes[:2]]
    assert once == ["one training each of A, B", "one cross-validation each of C"]


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
