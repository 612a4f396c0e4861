"""Several runs on one page: what differs between them, their figures side by side, their courses on one chart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textune.errors import TextuneError
from textune.evaluation.comparison import compare, verdict
from textune.evaluation.prediction_files import read_rivals
from textune.report import sections
from textune.report.charts import Chart
from textune.report.figures import Points, curves
from textune.report.page import Report, render
from textune.report.reading import RunFiles

MAX_CURVES = 8


def comparison_report(runs: Sequence[RunFiles], *, sources: Sequence[Path], together: RunFiles | None = None) -> Report:
    """The page of several runs; what one of them lacks is left out and said.

    Args:
        sources: what is compared: folders of these runs, or of several seeds, which are one side together.
        together: what they say as seeds of one recipe (`textune.repeats`); None where each is a recipe of its own.
    """
    names = _distinct_names([run.path for run in runs])
    seeds = [] if together is None else [together]
    verdicts, notes = (
        runs[0].attempt("Which run is better", _verdicts, sources)
        if together is None
        else together.attempt("What they say together", _of_seeds, together)
    ) or ([], [])
    charts = _charts(runs, names)
    values: dict[str, Any] = {
        "title": "Runs side by side" if together is None else f"{together.name}: {len(runs)} seeds",
        "names": names,
        "options": _options(runs),
        "tables": _tables([*runs, *seeds], [*names, "mean"]),
        "heading": "Which is better" if together is None else "What they say together",
        "verdicts": verdicts,
        "notes": notes,
        "charts": charts,
    }
    told = [*zip(runs, names, strict=True), *((whole, whole.name) for whole in seeds)]
    sentences = [f"{name}: {problem}" for run, name in told for problem in run.problems]
    return Report(render("comparison.html.j2", values, sentences=sentences), tuple(charts))


def _verdicts(sources: Sequence[Path]) -> tuple[list[str], list[str]]:
    """For each source after the first, whether it is better, or why that cannot be said; and what to keep in mind."""
    try:
        rivals = read_rivals([str(source) for source in sources])
        sides = zip(rivals.candidates, _distinct_names(sources), strict=True)
        candidates = [dataclasses.replace(candidate, name=name) for candidate, name in sides]
        comparison = compare(candidates, list(rivals.metrics))
    except TextuneError as error:
        return [f"Whether one is better cannot be said. {error}"], []
    found = [verdict(comparison, comparison.metrics[0], place) for place in range(1, len(sources))]
    return found, [*rivals.notes, *comparison.notes]


def _of_seeds(together: RunFiles) -> tuple[list[str], list[str]]:
    """Which seeds have failed and which was kept."""
    summary = together.summary
    if not summary:
        return [], []
    failed = [f"{run['name']} has failed: {run['failed']}." for run in summary["runs"] if run["failed"]]
    return [*failed, summary["selected"]["note"]], []


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, or their paths where names alone would not tell them apart."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _options(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """The options in which the runs differ, with each run's value."""
    texts = [{} if run.config is None else sections.option_texts(run.config) for run in runs]
    names = dict.fromkeys(name for options in texts for name in options)
    rows = [(name, [options.get(name, "") for options in texts]) for name in names if name != "run.output"]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _tables(runs: Sequence[RunFiles], names: Sequence[str]) -> list[dict[str, Any]]:
    """For each split one row per metric and one column per run."""
    tables = []
    for split in dict.fromkeys(split for run in runs for split in run.scored_splits):
        parts = {name: run.summary[split] for run, name in zip(runs, names, strict=False) if split in run.scored_splits}
        figures = {name: sections.scores(part) for name, part in parts.items()}
        num_rows = {name: int(part["num_rows"]) for name, part in parts.items()}
        tables.append({"split": split, **sections.table(figures, num_rows)})
    return tables


def _charts(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Chart]:
    """Validation loss and the first run's metric of all runs, as far as they can be told apart."""
    metric = next((found for run in runs if (found := run.attempt("The metric", sections.headline_metric, run))), None)
    charts = []
    for chart_name, chosen in (("learning-loss", "loss"), *((("learning-metric", metric),) if metric else ())):
        lines: dict[str, Points] = {}
        for run, name in list(zip(runs, names, strict=True))[:MAX_CURVES]:
            points = run.attempt("The course of training", sections.evaluation_points, run, chosen) or {}
            if points:
                lines[name] = next(iter(points.values()))
        if lines:
            charts.append(curves(chart_name, f"Validation: {chosen}", lines, ylabel=chosen))
    return charts
