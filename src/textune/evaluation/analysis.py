"""Where a classifier is wrong: what analysis.json holds for each labelled split that was scored.

Figures of each label are in summary.json.

rows        how many there are
metric, value, interval    what slices are compared with: accuracy (multi-label: of whole rows) or mean absolute error
confusion   single-label: {label, prediction, rows} for each pair that occurs
mistakes    the most confident ones first, for regression the largest residuals: row (1-based, in the source), id, text,
            text_pair, label, prediction, confidence or residual (prediction - label), scores by label
slices      see `textune.evaluation.slices.Slice`
words       see `textune.evaluation.marked_words.MarkedWord`; in regression an "error" is one of the largest quarter
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.data.column_names import arrow_batches
from textune.data.tokens import IntArray
from textune.evaluation.marked_words import marked_words
from textune.evaluation.predictions import FloatArray, LabelSet, decide, name_labels, to_scores
from textune.evaluation.slices import MAX_VALUES, RowScores, find_slices
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    from datasets import Dataset

MAX_MISTAKES = 200
MAX_SCORES = 20
"""Of a mistake among more labels than this, the highest scores are kept."""
MAX_TEXT = 20_000
"""Characters kept of a text among the mistakes."""


def analyse(
    logits: FloatArray,
    labels: npt.NDArray[Any],
    label_set: LabelSet,
    *,
    rows: Dataset,
    lengths: IntArray,
    full_lengths: IntArray,
    columns: Mapping[str, pa.ChunkedArray],
) -> dict[str, Any]:
    """Finds out where the model is wrong on one split; see the top of this module for what comes back.

    Args:
        logits: float32 [num_rows, num_outputs].
        labels: int64 [num_rows], float32 [num_rows, num_labels] or float32 [num_rows].
        rows: typed rows (`textune.data.rows.Rows`).
        lengths: tokens of each row after truncation; `full_lengths` before it.
        columns: further columns of the same rows (`further_columns`).
    """
    predictions = decide(logits, label_set.problem_type)
    scores = _row_scores(labels, predictions)
    wrong = scores.values == 0
    if label_set.problem_type == REGRESSION:
        wrong = scores.values > np.quantile(scores.values, 0.75)
    overall = scores.overall()
    found: dict[str, Any] = {
        "rows": overall.rows,
        "metric": scores.metric,
        "value": overall.value,
        "interval": overall.as_json()["interval"],
    }
    if label_set.problem_type == SINGLE_LABEL:
        found["confusion"] = _confusion(labels, predictions, label_set.names)
    slices = find_slices(
        scores,
        labels=labels,
        label_names=label_set.names,
        lengths=lengths,
        full_lengths=full_lengths,
        columns=columns,
    )
    return found | {
        "mistakes": _mistakes(logits, labels, predictions, label_set, rows=rows),
        "slices": [part.as_json() for part in slices],
        "words": [word.as_json() for word in marked_words(_texts(rows), wrong)],
    }


def further_columns(raw: Dataset, row_indices: Sequence[int], *, used: Sequence[str | None]) -> dict[str, Any]:
    """The columns of the source besides those used that cut the rows into few parts, as Arrow arrays of those rows.

    Args:
        raw: the split as it was read.
        row_indices: the rows of it (0-based) that are analysed.
        used: columns that have a meaning already; None stands for one that the data lack.
    """
    types = raw.data.schema
    simple = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    names = [
        name
        for name in raw.column_names
        if name not in used and any(is_type(types.field(name).type) for is_type in simple)
    ]
    chosen = raw.select(row_indices).with_format("arrow")
    # Columns of many values are found out on the first rows, before they are read whole.
    first = chosen.select(range(min(1000, len(chosen)))).select_columns(names)[:] if names else {}
    few = [name for name in names if len(first[name].unique()) <= MAX_VALUES]
    table = chosen.select_columns(few)[:] if few else {}
    return {name: table[name] for name in few}


def _row_scores(labels: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> RowScores:
    if labels.ndim == 2:
        return RowScores("accuracy", (labels == predictions).all(axis=1).astype(np.float64))
    if labels.dtype.kind == "f":
        return RowScores("mean_absolute_error", np.abs(labels.astype(np.float64) - predictions))
    return RowScores("accuracy", (labels == predictions).astype(np.float64))


def _confusion(labels: IntArray, predictions: IntArray, names: Sequence[str]) -> list[dict[str, Any]]:
    pairs, counts = np.unique(labels.astype(np.int64) * len(names) + predictions, return_counts=True)
    return [
        {"label": names[pair // len(names)], "prediction": names[pair % len(names)], "rows": int(count)}
        for pair, count in zip(pairs, counts, strict=True)
    ]


def _mistakes(
    logits: FloatArray,
    labels: npt.NDArray[Any],
    predictions: npt.NDArray[Any],
    label_set: LabelSet,
    *,
    rows: Dataset,
) -> list[dict[str, Any]]:
    """The worst rows, and how far off each is: the score of its (most confident) wrong decision, or its residual."""
    scores = to_scores(logits, label_set.problem_type)
    if label_set.problem_type == REGRESSION:
        name, distance = "residual", (predictions - labels).astype(np.float64)
    elif label_set.problem_type == MULTI_LABEL:
        sureness = np.where(labels == predictions, 0.0, np.maximum(scores, 1 - scores))
        name, distance = "confidence", sureness.max(axis=1).astype(np.float64)
    else:
        name, distance = "confidence", np.where(labels == predictions, 0.0, scores.max(axis=1)).astype(np.float64)
    worst = np.argsort(-np.abs(distance), kind="stable")[:MAX_MISTAKES]
    worst = worst[distance[worst] != 0]
    texts = rows.select(worst)
    return [
        {
            "row": texts["row"][place] + 1,
            "id": texts["id"][place],
            **{column: texts[column][place][:MAX_TEXT] for column in _text_columns(rows)},
            "label": label,
            "prediction": prediction,
            name: float(distance[row]),
            **({"scores": _named_scores(scores[row], label_set.names)} if label_set.names else {}),
        }
        for place, (row, label, prediction) in enumerate(
            zip(worst, name_labels(labels[worst], label_set), name_labels(predictions[worst], label_set), strict=True)
        )
    ]


def _named_scores(scores: FloatArray, names: Sequence[str]) -> dict[str, float]:
    highest = np.sort(np.argsort(-scores, kind="stable")[:MAX_SCORES])
    return {names[place]: float(scores[place]) for place in highest}


def _text_columns(rows: Dataset) -> list[str]:
    return [name for name in ("text", "text_pair") if name in rows.column_names]


def _texts(rows: Dataset) -> Iterator[tuple[str, ...]]:
    columns = _text_columns(rows)
    for batch in arrow_batches(rows, columns):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
