"""Whether one model is better than another on the same rows, or whether the difference is within noise.

Rows are drawn with replacement, the same for all models (paired bootstrap; Efron and Tibshirani 1993, Berg-Kirkpatrick
et al. 2012). The spread of the difference over resamples is its standard error; interval and p-value are those of
Student's t with it. Where a candidate is one recipe trained with several seeds, seeds and rows vary at once. As when
several readers judge the same cases (Obuchowski and Rockette 1995), the variance of its mean is then taken apart:

    rows    the bootstrap variance of the mean over seeds, for rows that are drawn jointly for all seeds
    seeds   the variance over seeds, less what of it is rows' noise (each seed errs on rows of its own), by their number

and the degrees of freedom are Satterthwaite's. Resampling seeds and rows at once, as the Multi-Bootstrap (Sellam et al.
2022) does, counts the rows' noise of each seed several times over and takes few seeds for many.

Accuracies of two single models are also compared by McNemar's test (McNemar 1947; Dietterich 1998).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.evaluation.intervals import LEVEL, NUM_RESAMPLES, Interval, ends, outcome_intervals
from textune.evaluation.metrics import METRICS, defined_values, statistics_of
from textune.evaluation.predictions import FloatArray
from textune.evaluation.resampling import resample
from textune.evaluation.sums import Counts, Outcome
from textune.seeds import derive_seed

# With fewer rows on which two models differ, McNemar's test is computed exactly.
EXACT_BELOW = 25
# What rounding alone makes of no variance at all.
_ROUNDING = 1e-20


@dataclass(frozen=True)
class Candidate:
    """One side of a comparison.

    Attributes:
        outcomes: of one model, or of the same recipe trained with several seeds; all candidates have the same rows.
        cross_validated: the models of several folds made each outcome, each row by the one that had not seen it.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    cross_validated: bool = False


@dataclass(frozen=True)
class Figure:
    """A candidate's value of one metric.

    Attributes:
        value: the mean over seeds.
        values: of each seed.
        deviation: standard deviation over seeds; None of a single one.
        interval: of a single model's value; None for several seeds, and where there is none to give.
    """

    value: float
    values: tuple[float, ...]
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """How much better a candidate is than the first by one metric.

    Attributes:
        value: its value less the first's; below 0 for an error that has fallen.
        interval: of `value`; None where it is the same whichever rows are drawn, or there is but one.
        p_value: how often so large a difference, either way, would arise if there were none. Of several candidates
            adjusted for their number (Holm 1979). Where a difference is the same whichever rows are drawn, it is
            McNemar's for the accuracy of two single models, else None.
    """

    value: float
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two models' accuracy.

    Attributes:
        only_first, only_second: rows that only one of them has right.
        p_value: in a `Comparison` of several candidates adjusted for their number (Holm 1979).
        exact: by the binomial distribution; else by chi-squared with continuity correction.
    """

    only_first: int
    only_second: int
    p_value: float
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """Candidates side by side.

    Attributes:
        names: of the candidates.
        num_rows: rows that all of them predicted.
        metrics: names of the metrics that are defined for all candidates.
        undefined: names of those that are not.
        figures: metric -> one per candidate.
        differences: metric -> one per candidate after the first.
        mcnemar: one per candidate after the first; None for several seeds, or numbers instead of classes.
        alike: one per candidate after the first: whether it predicts what the first does on every row.
        split: of the runs that are compared; None where there are none.
        notes: what should be said about the comparison.
    """

    names: tuple[str, ...]
    num_rows: int
    metrics: tuple[str, ...]
    undefined: tuple[str, ...]
    figures: dict[str, tuple[Figure, ...]]
    differences: dict[str, tuple[Difference, ...]]
    mcnemar: tuple[McNemar | None, ...]
    alike: tuple[bool, ...]
    split: str | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it; each difference with its sentence."""
        return {
            "names": list(self.names),
            "split": self.split,
            "num_rows": self.num_rows,
            "metrics": {name: self._metric_json(name) for name in self.metrics},
            "undefined": list(self.undefined),
            "mcnemar": [test and asdict(test) for test in self.mcnemar],
            "alike": list(self.alike),
            "notes": list(self.notes),
        }

    def _metric_json(self, name: str) -> dict[str, Any]:
        return {
            "values": [
                {
                    "name": candidate,
                    "value": one.value,
                    "interval": ends(one.interval),
                    "of_each": list(one.values),
                    "deviation": one.deviation,
                }
                for candidate, one in zip(self.names, self.figures[name], strict=True)
            ],
            "differences": [
                {
                    "name": self.names[index],
                    "value": one.value,
                    "interval": ends(one.interval),
                    "p_value": one.p_value,
                    "sentence": verdict(self, name, index),
                }
                for index, one in enumerate(self.differences[name], start=1)
            ],
        }


def compare(
    candidates: Sequence[Candidate], metric_names: Sequence[str], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Comparison:
    """Compares candidates with the first of them.

    Args:
        candidates: two or more, on the same rows in the same order.
        metric_names: of `textune.evaluation.metrics`.
        seed: of the bootstrap; the same one gives the same result.
    """
    outcomes = [outcome for candidate in candidates for outcome in candidate.outcomes]
    values = [defined_values(outcome, metric_names) for outcome in outcomes]
    drawn = _resampled(outcomes, metric_names, seed=seed, num_resamples=num_resamples)
    num_rows = len(outcomes[0].labels)
    defined = tuple(
        name
        for name in metric_names
        if all(value[name] is not None for value in values) and np.isfinite(drawn[name]).mean() > 0.5
    )
    bounds = np.cumsum([0, *(len(candidate.outcomes) for candidate in candidates)]).tolist()
    sides = [slice(start, end) for start, end in itertools.pairwise(bounds)]
    intervals = [
        outcome_intervals(candidate.outcomes[0], defined, seed=seed, num_resamples=num_resamples)
        if len(candidate.outcomes) == 1
        else {}
        for candidate in candidates
    ]
    tests = [_mcnemar_of(candidates[0], candidate) for candidate in candidates[1:]]
    figures, differences = {}, {}
    for name in defined:
        own = np.array([value[name] for value in values], np.float64)
        figures[name] = tuple(
            _figure(own[side], single.get(name)) for side, single in zip(sides, intervals, strict=True)
        )
        constant = [test.p_value if test and name == "accuracy" else None for test in tests]
        differences[name] = _differences(own, drawn[name], sides, num_rows=num_rows, constant_p_values=constant)
    return Comparison(
        tuple(candidate.name for candidate in candidates),
        num_rows,
        defined,
        tuple(name for name in metric_names if name not in defined),
        figures,
        differences,
        _adjusted_tests(tests),
        tuple(_alike(candidates[0], candidate) for candidate in candidates[1:]),
        notes=_notes(candidates),
    )


def _notes(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    notes = []
    single = [candidate for candidate in candidates if len(candidate.outcomes) == 1]
    for what, cross_validated in (("training", False), ("cross-validation", True)):
        names = [candidate.name for candidate in single if candidate.cross_validated is cross_validated]
        if names:
            notes.append(
                f"one {what} each of {', '.join(names)}: another seed of the same recipe would give other figures, of "
                "which intervals and p-values do not know"
            )
    if len(candidates) > 2:
        notes.append(f"p-values are adjusted for {len(candidates) - 1} comparisons (Holm)")
    return tuple(notes)


def mean_intervals(
    outcomes: Sequence[Outcome], metric_names: Sequence[str], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Interval | None]:
    """How sure the mean of each metric over several seeds is: 95 % intervals for other rows and other seeds at once.

    Args:
        outcomes: of models trained with different seeds, on the same rows in the same order.

    Returns:
        None for a metric that is undefined for one of them, or where neither rows nor seeds make a difference; and of
        all where there is but one row, or no error, which tells nothing of other rows.
    """
    if len(outcomes[0].labels) < 2 or all(Counts.rights(outcome).all() for outcome in outcomes):
        return dict.fromkeys(metric_names)
    values = [defined_values(outcome, metric_names) for outcome in outcomes]
    drawn = _resampled(outcomes, metric_names, seed=seed, num_resamples=num_resamples)
    intervals: dict[str, Interval | None] = dict.fromkeys(metric_names)
    for name in metric_names:
        if any(value[name] is None for value in values) or np.isfinite(drawn[name]).mean() <= 0.5:
            continue
        own = np.array([value[name] for value in values], np.float64)
        rows = row_variance(drawn[name].mean(axis=0), num_rows=len(outcomes[0].labels))
        error, freedom = _combined([rows, seed_variance(own, drawn[name])])
        if error > 0:
            interval = _around(float(own.mean()), error, freedom)
            low, high = METRICS[name].bounds
            intervals[name] = Interval(max(low, interval.low), min(high, interval.high), interval.method)
    return intervals


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> McNemar:
    """McNemar's test; the two say of each row whether the model is right."""
    from scipy.stats import binomtest, chi2

    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    either = only_first + only_second
    if either == 0:
        return McNemar(0, 0, 1.0, exact=True)
    if either < EXACT_BELOW:
        return McNemar(only_first, only_second, float(binomtest(only_first, either).pvalue), exact=True)
    statistic = (max(0, abs(only_first - only_second) - 1)) ** 2 / either
    return McNemar(only_first, only_second, float(chi2.sf(statistic, 1)), exact=False)


def _resampled(
    outcomes: Sequence[Outcome], names: Sequence[str], *, seed: int, num_resamples: int
) -> dict[str, FloatArray]:
    """Metric -> float64 [num_outcomes, num_resamples], all on the same rows of each resample."""
    drawn: dict[str, FloatArray] = {}
    for statistics in zip(*(statistics_of(outcome, names) for outcome in outcomes), strict=True):
        values, _ = resample(statistics, seed=derive_seed(seed, "compare"), num_resamples=num_resamples)
        drawn |= {name: values[:, :, index] for index, name in enumerate(statistics[0].names)}
    return drawn


def _figure(values: FloatArray, interval: Interval | None) -> Figure:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return Figure(float(values.mean()), tuple(map(float, values)), deviation, interval)


def _differences(
    values: FloatArray,
    drawn: FloatArray,
    sides: Sequence[slice],
    *,
    num_rows: int,
    constant_p_values: Sequence[float | None],
) -> tuple[Difference, ...]:
    """Of each side after the first, with p-values adjusted for their number; see `_difference`."""
    found = [
        _difference(values, drawn, sides[0], side, num_rows=num_rows, constant_p_value=p_value)
        for side, p_value in zip(sides[1:], constant_p_values, strict=True)
    ]
    p_values = _adjusted([one.p_value for one in found])
    return tuple(replace(one, p_value=p_value) for one, p_value in zip(found, p_values, strict=True))


def _difference(
    values: FloatArray,
    drawn: FloatArray,
    first: slice,
    second: slice,
    *,
    num_rows: int,
    constant_p_value: float | None,
) -> Difference:
    """Of the second side less the first.

    Args:
        values: of all models.
        drawn: of all models and resamples.
        constant_p_value: of a difference that all resamples agree on, where their spread gives none.
    """
    from scipy.stats import t

    difference = float(values[second].mean() - values[first].mean())
    if num_rows < 2:
        return Difference(difference, None, 1.0)
    parts = [row_variance(drawn[second].mean(axis=0) - drawn[first].mean(axis=0), num_rows=num_rows)]
    parts += [seed_variance(values[side], drawn[side]) for side in (first, second)]
    error, freedom = _combined(parts)
    if error == 0:
        return Difference(difference, None, 1.0 if _is_zero(difference) else constant_p_value)
    p_value = float(2 * t.sf(abs(difference) / error, freedom))
    return Difference(difference, _around(difference, error, freedom), p_value)


def _is_zero(difference: float) -> bool:
    return difference**2 <= _ROUNDING


def _combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The standard error and its degrees of freedom (Satterthwaite), from variances that add up and their doubts."""
    variance = sum(part for part, _ in parts)
    if variance <= _ROUNDING:
        return 0.0, 1.0
    return variance**0.5, variance**2 / sum(doubt for _, doubt in parts)


def _around(value: float, error: float, freedom: float) -> Interval:
    from scipy.stats import t

    half = float(t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return Interval(value - half, value + half, "bootstrap t")


def row_variance(drawn: FloatArray, *, num_rows: int) -> tuple[float, float]:
    """The variance that rows give a value, [num_resamples], and the doubt about it: half its own variance."""
    variance = float(np.nanvar(drawn, ddof=1))
    return variance, variance**2 / (num_rows - 1)


def seed_variance(values: FloatArray, drawn: FloatArray) -> tuple[float, float]:
    """What seeds add to the variance of their mean, and the doubt about it; nothing for a single one.

    It is as doubtful as the whole variance over seeds, of which it is what rows leave: few seeds know little of either.
    """
    num_seeds = len(values)
    if num_seeds == 1:
        return 0.0, 0.0
    whole = float(values.var(ddof=1))
    own_noise = float(np.nanvar(drawn - drawn.mean(axis=0), axis=1).mean()) * num_seeds / (num_seeds - 1)
    return max(0.0, whole - own_noise) / num_seeds, (whole / num_seeds) ** 2 / (num_seeds - 1)


def _adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment for the number of comparisons; one without a p-value counts and stays without."""
    ascending = sorted((p_value, index) for index, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p_value, index) in enumerate(ascending):
        highest = max(highest, min(1.0, p_value * (len(p_values) - place)))
        adjusted[index] = highest
    return adjusted


def _adjusted_tests(tests: Sequence[McNemar | None]) -> tuple[McNemar | None, ...]:
    p_values = _adjusted([None if test is None else test.p_value for test in tests])
    return tuple(
        None if test is None or p_value is None else replace(test, p_value=p_value)
        for test, p_value in zip(tests, p_values, strict=True)
    )


def _alike(first: Candidate, second: Candidate) -> bool:
    """Whether all models of both predict the same on every row."""
    expected = first.outcomes[0].predictions
    return all(np.array_equal(outcome.predictions, expected) for side in (first, second) for outcome in side.outcomes)


def _mcnemar_of(first: Candidate, second: Candidate) -> McNemar | None:
    if len(first.outcomes) > 1 or len(second.outcomes) > 1 or not first.outcomes[0].num_labels:
        return None
    return mcnemar(*(Counts.rights(candidate.outcomes[0]) for candidate in (first, second)))


def verdict(comparison: Comparison, metric: str, index: int) -> str:
    """One plain sentence: whether candidate `index` (1 for the second) is better than the first, and how surely."""
    difference = comparison.differences[metric][index - 1]
    first, second = comparison.names[0], comparison.names[index]
    if comparison.num_rows < 2:
        return f"One row does not tell whether {first} or {second} is better."
    if comparison.alike[index - 1]:
        return f"{first} and {second} have the same {metric}: they predict alike on every row."
    interval = _interval_text(metric, difference)
    if _is_zero(difference.value):
        same = f"{first} and {second} have the same {metric} on these rows"
        return f"{same}, whichever are drawn." if interval is None else f"{same} ({interval} of the difference)."
    better = (difference.value > 0) == METRICS[metric].higher_is_better
    unit = metric if metric == "rmse" else f"points of {metric}"
    by = f"{'better' if better else 'worse'} than {first} by {_size(metric, abs(difference.value))} {unit}"
    if difference.p_value is None:
        return f"{second} is {by} (no interval, no p-value: it is the same whichever of these rows are drawn)."
    noise = "more than noise explains" if difference.p_value < 1 - LEVEL else "which is within noise"
    p_value = p_text(difference.p_value)
    if interval is None:
        interval, p_value = "no interval: it is the same whichever of these rows are drawn", f"McNemar's {p_value}"
    return f"{second} is {by} ({interval}), {noise} ({p_value})."


def _interval_text(metric: str, difference: Difference) -> str | None:
    """The interval of a difference's size, positive for the sign that the difference has."""
    if difference.interval is None:
        return None
    sign = 1 if difference.value >= 0 else -1
    low, high = sorted((sign * difference.interval.low, sign * difference.interval.high))
    return f"95 % interval {_size(metric, low)} to {_size(metric, high)}"


def p_text(p_value: float | None) -> str:
    """`p = 0.24`, `p < 0.001`, or `no p-value`."""
    if p_value is None:
        return "no p-value"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _size(metric: str, value: float) -> str:
    """A difference in points, hundredths of the metric; of an error in its own unit."""
    return f"{value:.3g}" if metric == "rmse" else f"{100 * value:.1f}"
