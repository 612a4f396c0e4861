"""How sure the mean over seeds is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from textune.evaluation.comparison import mean_intervals
from textune.evaluation.intervals import Interval
from textune.evaluation.sums import Outcome


def outcomes_of(rng: np.random.Generator, *, num_rows: int, num_seeds: int, spread: float) -> tuple[Outcome, ...]:
    """Rows of unequal difficulty, seeds of unequal quality (`spread`: its standard deviation, in logits)."""
    labels, ease = rng.integers(0, 2, num_rows), rng.normal(1.7, 1.5, num_rows)
    right = [rng.random(num_rows) < expit(ease + quality) for quality in rng.normal(0, spread, num_seeds)]
    return tuple(Outcome(labels, np.where(row, labels, 1 - labels), 2) for row in right)


def interval(outcomes: tuple[Outcome, ...], metric: str = "accuracy", **options: int) -> Interval:
    found = mean_intervals(outcomes, [metric], **options)[metric]
    assert found is not None
    return found


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_interval_holds_the_true_mean(spread: float) -> None:
    rng = np.random.default_rng(0)
    ease = rng.normal(1.7, 1.5, 20_000)
    truth = np.mean([expit(ease + quality).mean() for quality in rng.normal(0, spread, 200)])
    covered = 0
    for draw in range(120):
        found = interval(outcomes_of(rng, num_rows=200, num_seeds=5, spread=spread), seed=draw, num_resamples=300)
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 120 <= 1.0  # 0.95 less more than three standard errors


def test_seeds_that_differ_make_it_wider() -> None:
    alike, unlike = (
        outcomes_of(np.random.default_rng(1), num_rows=1000, num_seeds=5, spread=spread) for spread in (0.0, 1.0)
    )
    widths = [found.high - found.low for found in map(interval, (alike, unlike))]
    assert widths[1] > 2 * widths[0]


def test_it_lies_around_the_mean_and_within_what_there_can_be() -> None:
    outcomes = outcomes_of(np.random.default_rng(2), num_rows=12, num_seeds=3, spread=2.0)
    found = interval(outcomes)
    mean = np.mean([np.mean(outcome.labels == outcome.predictions) for outcome in outcomes])
    assert 0 <= found.low <= mean <= found.high <= 1
    assert interval(outcomes, "matthews_correlation").low >= -1
    assert found == interval(outcomes)


def test_nothing_is_claimed_where_nothing_varies_or_a_value_is_undefined() -> None:
    labels = np.array([0, 1] * 10)
    right, one_label = Outcome(labels, labels, 2), Outcome(labels, np.zeros(20, np.int64), 2)
    assert mean_intervals((right, right), ["accuracy"]) == {"accuracy": None}
    assert mean_intervals((right, one_label), ["precision"]) == {"precision": None}
    few = Outcome(labels[:6], labels[:6], 2)  # of six rows some resamples lack a label, whose F1 is then 0
    assert mean_intervals((few, few), ["f1_macro"]) == {"f1_macro": None}


def test_one_row_tells_nothing_of_others() -> None:
    labels = np.array([1])
    seeds = (Outcome(labels, labels, 2), Outcome(labels, 1 - labels, 2))
    assert mean_intervals(seeds, ["accuracy", "f1_macro"]) == {"accuracy": None, "f1_macro": None}
