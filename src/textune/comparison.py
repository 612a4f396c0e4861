"""`textune compare` in Python: whether a run is better than another, or within noise."""

from __future__ import annotations

import dataclasses
import os

from textune.evaluation.comparison import Comparison
from textune.evaluation.comparison import compare as compare_candidates
from textune.evaluation.metrics import selection_metric
from textune.evaluation.prediction_files import read_rivals


def compare(
    *sources: str | os.PathLike[str], split: str | None = None, metric: str | None = None, seed: int = 0
) -> Comparison:
    """Says whether runs are better than the first of them; the same as the command `textune compare`.

    Args:
        sources: see `textune.evaluation.prediction_files.read_rivals`.
        split: of the runs; None for the test split where all have labels for it, else validation.
        metric: the first one in the result; None for the task's own.
        seed: of the rows that are drawn.

    Raises:
        TextuneError: see there; or the metric does not fit the task.
    """
    rivals = read_rivals([os.fspath(source) for source in sources], split=split)
    names = list(rivals.metrics)
    if metric is not None:
        selection_metric(metric, names, loss=False)
        names = [metric, *(name for name in names if name != metric)]
    comparison = compare_candidates(rivals.candidates, names, seed=seed)
    return dataclasses.replace(comparison, split=rivals.split, notes=(*rivals.notes, *comparison.notes))
