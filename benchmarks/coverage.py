"""Whether the uncertainties that textune states are true: simulated data sets whose right answer is known.

    python -m benchmarks.coverage [--what intervals comparison] [--draws 2000] [--rows 100 408 2000]

Intervals: how often the 95 % interval of a metric holds its value in the whole population, for classifiers like those
of MRPC and CoLA, one with a rare label, and one with twenty labels. Comparison: how often two models, or two recipes
with several seeds, that are equally good are found to differ at the 5 % level. Prints tables and writes every share to
--output (JSON).
"""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import Results, progress, table
from textune.evaluation.comparison import Candidate, compare
from textune.evaluation.intervals import bootstrap_intervals, proportion_interval
from textune.evaluation.metrics import METRICS, statistics_of
from textune.evaluation.sums import Counts, Outcome

METRIC_NAMES = ("accuracy", "f1", "matthews_correlation", "f1_macro")
METHODS = ("percentile", "bca")
FloatArray = npt.NDArray[np.float64]


def binary(positive: float, *, recall: float, specificity: float) -> FloatArray:
    """The share of each (label, prediction), [2, 2]."""
    return np.array(
        [
            [(1 - positive) * specificity, (1 - positive) * (1 - specificity)],
            [positive * (1 - recall), positive * recall],
        ]
    )


def uniform(num_labels: int, *, accuracy: float) -> FloatArray:
    """Labels equally frequent and equally often mistaken for one another, [num_labels, num_labels]."""
    shares = np.full((num_labels, num_labels), (1 - accuracy) / num_labels / (num_labels - 1))
    np.fill_diagonal(shares, accuracy / num_labels)
    return shares


POPULATIONS = {
    "like MRPC": binary(0.68, recall=0.92, specificity=0.70),
    "like CoLA": binary(0.70, recall=0.90, specificity=0.55),
    "rare label": binary(0.10, recall=0.70, specificity=0.97),
    "20 labels": uniform(20, accuracy=0.70),
}
# Seeds of each side, and how much their quality varies: the deviation of the logarithm of a model's own noise.
RECIPES = ((1, 0.0), (3, 0.2), (5, 0.0), (5, 0.2))


def true_values(population: FloatArray, names: Sequence[str]) -> dict[str, float]:
    """The metrics of a whole population."""
    correct, rows = np.trace(population), np.array(population.sum())
    counts = Counts(np.diag(population), population.sum(axis=0), population.sum(axis=1), correct, rows)
    functions = {name: METRICS[name].of for name in names}
    return {name: float(function(counts)) for name, function in functions.items() if function is not None}


def interval_coverage(
    population: FloatArray, *, num_rows: int, draws: int, num_resamples: int
) -> dict[str, dict[str, float]]:
    """Metric -> method -> how often its interval holds the true value; `none`: how often there was none to give."""
    num_labels = len(population)
    names = [name for name in METRIC_NAMES if num_labels == 2 or not METRICS[name].binary_only]
    expected = true_values(population, names)
    hits: Counter[tuple[str, str]] = Counter()
    given: Counter[tuple[str, str]] = Counter()
    generator = np.random.default_rng(num_rows)
    for draw in range(draws):
        cells = np.repeat(np.arange(population.size), generator.multinomial(num_rows, population.ravel()))
        outcome = Outcome(cells // num_labels, cells % num_labels, num_labels)
        (statistic,) = statistics_of(outcome, names)
        found = bootstrap_intervals(statistic, seed=draw, num_resamples=num_resamples, methods=METHODS)
        for name in names:
            for interval in (*found[name], proportion_interval(name, outcome)):
                if interval is not None:
                    given[name, interval.method] += 1
                    hits[name, interval.method] += interval.low <= expected[name] <= interval.high
    return {
        name: {
            **{method: hits[key] / given[key] for key in sorted(given) if key[0] == name for method in key[1:]},
            "none": 1 - given[name, "bca"] / draws,
        }
        for name in names
    }


def false_alarms(*, num_rows: int, num_seeds: int, spread: float, draws: int, num_resamples: int) -> dict[str, float]:
    """Metric, or `mcnemar` -> how often p is below 0.05 between two equally good recipes."""
    alarms: Counter[str] = Counter()
    generator = np.random.default_rng([num_rows, num_seeds])
    names = METRIC_NAMES[:3]
    for draw in range(draws):
        labels = (generator.random(num_rows) < 0.68).astype(np.int64)
        # What all models see of a row, and what each sees besides.
        shared = 0.2 + 1.1 * (2 * labels - 1) + generator.normal(size=num_rows)
        sides = []
        for name in "AB":
            noise = 0.6 * np.exp(spread * generator.normal(size=(num_seeds, 1)))
            predictions = (shared + noise * generator.normal(size=(num_seeds, num_rows)) > 0).astype(np.int64)
            sides.append(Candidate(name, tuple(Outcome(labels, row, 2) for row in predictions)))
        comparison = compare(sides, names, seed=draw, num_resamples=num_resamples)
        for name in comparison.metrics:
            p_value = comparison.differences[name][0].p_value
            alarms[name] += p_value is not None and p_value < 0.05
        if comparison.mcnemar[0] is not None:
            alarms["mcnemar"] += comparison.mcnemar[0].p_value < 0.05
    return {name: alarms[name] / draws for name in (*names, *(["mcnemar"] if num_seeds == 1 else []))}


def main(options: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--what", nargs="+", choices=["intervals", "comparison"], default=["intervals", "comparison"])
    made.add_argument("--draws", type=int, default=2000, help="simulated data sets of each kind")
    made.add_argument("--rows", type=int, nargs="+", default=[100, 408, 2000])
    made.add_argument("--resamples", type=int, default=2000)
    made.add_argument("--output", type=Path)
    arguments = made.parse_args(options)
    results = Results("coverage", arguments, {"python": platform.python_version(), "numpy": np.__version__})
    shared: dict[str, Any] = {"draws": arguments.draws, "num_resamples": arguments.resamples}
    coverage, alarms = [], []
    for name, population in POPULATIONS.items() if "intervals" in arguments.what else ():
        for num_rows in arguments.rows:
            progress(f"intervals: {name}, {num_rows} rows")
            shares = interval_coverage(population, num_rows=num_rows, **shared)
            coverage.append({"population": name, "rows": num_rows, "coverage": shares})
            results.write(intervals=coverage)
    for num_seeds, spread in RECIPES if "comparison" in arguments.what else ():
        for num_rows in arguments.rows:
            progress(f"comparison: {num_seeds} seeds, {num_rows} rows")
            found = false_alarms(num_rows=num_rows, num_seeds=num_seeds, spread=spread, **shared)
            alarms.append({"seeds": num_seeds, "spread": spread, "rows": num_rows, "false_alarms": found})
            results.write(comparison=alarms)
    if coverage:
        print(coverage_table(coverage) + "\n")
    if alarms:
        print(alarm_table(alarms) + "\n")
    print(results.path)


def coverage_table(coverage: Sequence[dict[str, Any]]) -> str:
    """Markdown: coverage in percent, by metric and method."""
    methods = ("wilson", *METHODS, "none")
    rows = [
        [entry["population"], f"{entry['rows']:,}", name, *(_percent(shares.get(method)) for method in methods)]
        for entry in coverage
        for name, shares in entry["coverage"].items()
    ]
    return table(["population", "rows", "metric", *methods], rows)


def alarm_table(alarms: Sequence[dict[str, Any]]) -> str:
    """Markdown: false alarms in percent."""
    names = (*METRIC_NAMES[:3], "mcnemar")
    rows = [
        [
            str(entry["seeds"]),
            f"{entry['spread']:g}",
            f"{entry['rows']:,}",
            *(_percent(entry["false_alarms"].get(name)) for name in names),
        ]
        for entry in alarms
    ]
    return table(["seeds", "spread", "rows", *names], rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
