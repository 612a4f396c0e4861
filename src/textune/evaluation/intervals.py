"""How sure a figure is: 95 % intervals of metrics, from the rows they were computed on.

Proportions have Wilson's interval (Wilson 1927; Brown, Cai and DasGupta 2001), everything else the bootstrap's (Efron
and Tibshirani 1993): percentile, or BCa, which corrects for bias and skewness (Efron 1987). They answer for the rows:
how far the figure would move with other rows from the same source. They say nothing of another seed of the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textune.data.tokens import IntArray
from textune.evaluation.metrics import LOSS, METRICS, outcome_of, statistics_of, why_undefined
from textune.evaluation.predictions import FloatArray, LabelSet
from textune.evaluation.resampling import Additive, Statistic, resample
from textune.evaluation.sums import Counts, Outcome, row_losses
from textune.problem_types import REGRESSION
from textune.seeds import derive_seed

Method = Literal["bca", "percentile"]
LEVEL = 0.95
NUM_RESAMPLES = 2000
_PLAIN = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Interval:
    """A confidence interval of 95 % unless said otherwise.

    Attributes:
        low, high: its ends, in the figure's unit.
        method: `wilson`, `bca` or `percentile`.
    """

    low: float
    high: float
    method: str


def ends(interval: Interval | None) -> list[float] | None:
    """`[low, high]`, as JSON files have it; None stays None."""
    return None if interval is None else [interval.low, interval.high]


def wilson(successes: float, trials: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion, without continuity correction.

    Raises:
        ValueError: there are no trials, or not from 0 to `trials` successes.
    """
    from scipy.special import ndtri

    if not (trials > 0 and 0 <= successes <= trials):
        raise ValueError(f"expected 0 to {trials} successes of at least one trial, found {successes}")
    z = float(ndtri(0.5 + level / 2))
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * ((share * (1 - share) + z * z / (4 * trials)) / trials) ** 0.5
    scale = 1 + z * z / trials
    # Exact at the ends, where rounding would leave 1e-17 or 1 - 1e-16.
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == trials else (middle + half) / scale
    return Interval(low, high, "wilson")


def metric_intervals(
    logits: FloatArray,
    labels: npt.NDArray[Any],
    label_set: LabelSet,
    names: Sequence[str],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    method: Method = "bca",
) -> dict[str, Interval | None]:
    """The 95 % interval of each metric.

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows], float32 [num_rows, num_labels] or float32 [num_rows].
        names: of metrics (`textune.evaluation.metrics`) or `loss`.
        seed: the same one gives the same intervals.
        method: of what is no proportion.

    Returns:
        An interval for each name; None where the metric is undefined or the rows are too few to tell: where there is
        no error among them, or the interval would have no width (it would claim a certainty that nobody has), or
        resamples are all so far from the figure itself that it would not hold it (F1 over many labels with few rows
        each).
    """
    outcome = outcome_of(logits, labels, label_set)
    own = [name for name in names if name in METRICS]
    found = outcome_intervals(outcome, own, seed=seed, num_resamples=num_resamples, method=method)
    if LOSS in names:
        statistic = mean_statistic(LOSS, row_losses(logits, labels))
        found |= _by_one_method(statistic, seed=seed, num_resamples=num_resamples, method=method)
    return {name: found[name] for name in names}


def outcome_intervals(
    outcome: Outcome,
    names: Sequence[str],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    method: Method = "bca",
) -> dict[str, Interval | None]:
    """As `metric_intervals`, of labels and predictions; without the loss, which needs logits."""
    found = {name: proportion_interval(name, outcome) for name in names}
    if Counts.rights(outcome).all():
        return found  # without an error resamples differ only by the labels that they happen to lack
    rest = [name for name in names if found[name] is None and why_undefined(name, outcome) is None]
    for statistic in statistics_of(outcome, rest):
        found |= _by_one_method(statistic, seed=seed, num_resamples=num_resamples, method=method)
    return found


def _by_one_method(
    statistic: Statistic, *, seed: int, num_resamples: int, method: Method
) -> dict[str, Interval | None]:
    values = bootstrap_intervals(
        statistic, seed=derive_seed(seed, "intervals"), num_resamples=num_resamples, methods=(method,)
    )
    return {name: interval for name, (interval,) in values.items()}


def proportion_interval(name: str, outcome: Outcome) -> Interval | None:
    """Wilson's interval of accuracy, and of precision and recall of the positive label; None of another metric."""
    if not outcome.num_labels or name not in {"accuracy", "precision", "recall"}:
        return None
    counts = Counts.of(np.asarray(Counts.columns(outcome).sum(axis=0)))
    if name == "accuracy":
        return wilson(float(counts.correct), float(counts.rows))
    trials = counts.predicted if name == "precision" else counts.support
    return wilson(float(counts.true_positives[1]), float(trials[1])) if trials[1] else None


def per_class_intervals(
    outcome: Outcome, label_set: LabelSet, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> dict[str, dict[str, Interval | None]]:
    """The 95 % intervals of precision and recall (Wilson) and F1 (BCa bootstrap) of each label."""
    if label_set.problem_type == REGRESSION:
        return {}
    columns = Counts.columns(outcome)
    counts = Counts.of(np.asarray(columns.sum(axis=0)))
    alike = (outcome.labels, outcome.predictions)
    f1 = Additive(label_set.names, columns, lambda totals: Counts.of(totals).f1, alike)
    intervals = _by_one_method(f1, seed=seed, num_resamples=num_resamples, method="bca")
    return {
        name: {
            "precision": wilson(right, predicted) if predicted else None,
            "recall": wilson(right, support) if support else None,
            "f1": None if right == predicted == support else intervals[name],
        }
        for name, right, predicted, support in zip(
            label_set.names, counts.true_positives, counts.predicted, counts.support, strict=True
        )
    }


def mean_statistic(name: str, values: FloatArray) -> Additive:
    """The mean of one number per row, float [num_rows]."""
    columns = np.column_stack([values.astype(np.float64), np.ones(len(values))])
    return Additive((name,), columns, lambda totals: (totals[..., 0] / totals[..., 1])[..., None])


def bootstrap_intervals(
    statistic: Statistic, *, seed: int, num_resamples: int, methods: Sequence[Method]
) -> dict[str, tuple[Interval | None, ...]]:
    """The 95 % intervals of a statistic's metrics by each of the methods, all from the same resamples.

    None where the rows are too few to tell: see `metric_intervals`. One row is, whatever the metric.
    """
    if statistic.num_rows < 2:
        return {name: (None,) * len(methods) for name in statistic.names}
    (values,), cells = resample([statistic], seed=seed, num_resamples=num_resamples)
    prepared = statistic.prepare(cells)
    estimate = prepared.evaluate(cells.units[None].astype(np.float64))[0]
    left_out = prepared.leave_one_out() if "bca" in methods else None
    results: dict[str, tuple[Interval | None, ...]] = {}
    for index, name in enumerate(statistic.names):
        drawn = values[:, index]
        drawn = drawn[np.isfinite(drawn)]
        # Where most resamples are undefined, they tell nothing.
        if 2 * len(drawn) < num_resamples or not np.isfinite(estimate[index]):
            results[name] = (None,) * len(methods)
            continue
        levels: dict[Method, tuple[float, float]] = {"percentile": _PLAIN}
        if left_out is not None:
            levels["bca"] = bca_levels(drawn, float(estimate[index]), left_out[:, index], cells.units)
        results[name] = tuple(
            _between(drawn, levels[method], method, holding=float(estimate[index])) for method in methods
        )
    return results


def _between(drawn: FloatArray, levels: tuple[float, float], method: Method, *, holding: float) -> Interval | None:
    low, high = (float(end) for end in np.quantile(drawn, levels))
    # Rounding: two ways to sum the same numbers.
    if math.isclose(low, high) or not low - 1e-9 <= holding <= high + 1e-9:
        return None
    return Interval(low, high, method)


def bca_levels(drawn: FloatArray, estimate: float, left_out: FloatArray, units: IntArray) -> tuple[float, float]:
    """Which quantiles of the resamples the BCa interval takes (Efron 1987, equation 5.3).

    Args:
        drawn: the metric of each resample, [num_resamples].
        left_out: the metric without one unit of each cell, [num_cells].
        units: how many units each cell has, [num_cells].

    Returns:
        The lower and upper quantile; those of the percentile interval where all resamples lie on one side of the
        estimate, or leaving rows out changes nothing.
    """
    from scipy.special import ndtr, ndtri

    # Metrics of few rows take few values: those equal to the estimate count half, as in SciPy.
    bias = ndtri((np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2)
    known = np.isfinite(left_out)
    units, left_out = units[known], left_out[known]
    change = np.average(left_out, weights=units) - left_out
    spread = np.sum(units * change**2)
    if not (np.isfinite(bias) and spread > 0):
        return _PLAIN
    acceleration = np.sum(units * change**3) / (6 * spread**1.5)
    low, high = (float(ndtr(bias + z / (1 - acceleration * z))) for z in bias + ndtri(np.array(_PLAIN)))
    return low, high
