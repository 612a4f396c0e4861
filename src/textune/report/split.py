"""One scored split in a report: where it is right and wrong, how far its scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.data.wording import distinct
from textune.evaluation.metrics import LOSS
from textune.evaluation.thresholds import threshold_curve
from textune.problem_types import MULTI_LABEL, REGRESSION
from textune.report.charts import Chart
from textune.report.figures import (
    MAX_LABELS,
    confusion_matrix,
    reliability,
    score_histogram,
    short_name,
    targets_and_predictions,
    threshold_curves,
)
from textune.report.reading import RunFiles
from textune.report.sections import Figure

MAX_CONFUSIONS = 20
MAX_LABEL_SCORES = 4
MAX_WORDS = 30


def split_section(files: RunFiles, split: str, *, slug: str) -> dict[str, Any]:
    """Charts and tables of one split; a part whose file is missing is empty.

    Args:
        slug: the split's name in identifiers and in the charts' names.
    """
    schema = files.data["schema"]
    labels, problem_type = schema["label_names"], schema["problem_type"]
    summary, analysis = files.summary.get(split, {}), files.analysis.get(split, {})
    charts: list[Chart] = []
    confusion = analysis.get("confusion", [])
    if confusion and len(labels) <= MAX_LABELS:
        charts.append(confusion_matrix(f"confusion-{slug}", confusion, labels))
    table = files.predictions.get(split)
    if table is not None and "label" in table.column_names:
        charts += score_charts(table, labels, problem_type, name=slug)
    wrong = [(_label(cell["label"]), _label(cell["prediction"]), int(cell["rows"])) for cell in confusion]
    wrong = sorted((cell for cell in wrong if cell[0] != cell[1]), key=lambda cell: -cell[2])
    return {
        "name": split,
        "slug": slug,
        "charts": charts,
        "confusions": wrong[:MAX_CONFUSIONS] if len(labels) > MAX_LABELS else [],
        "per_label": per_label(summary.get("per_class", {})),
        "temperature": _temperature(summary, split),
        "overall": Figure.of(analysis["metric"], analysis) if analysis else None,
        "rows": int(analysis.get("rows", 0)),
        "slices": _slices(analysis),
        "words": [_word(word) for word in analysis.get("words", [])[:MAX_WORDS]],
        "mistakes": [_mistake(mistake, labels) for mistake in analysis.get("mistakes", [])],
        "regression": problem_type == REGRESSION,
    }


def score_charts(table: pa.Table, labels: Sequence[str], problem_type: str, *, name: str) -> list[Chart]:
    """Calibration, thresholds and the spread of the scores; for regression targets beside predictions.

    Args:
        table: as `textune.evaluation.predictions.predictions_table` makes it, with labels.
        name: end of the charts' names.
    """
    if problem_type == REGRESSION:
        targets, predictions = (table[column].to_numpy().astype(np.float64) for column in ("label", "prediction"))
        return [targets_and_predictions(f"targets-{name}", targets, predictions)]
    scores = np.stack([table[f"score_{label}"].to_numpy() for label in labels], axis=1)
    if problem_type == MULTI_LABEL:
        actual = _multi_hot(table["label"], labels)
        calibration = reliability(f"calibration-{name}", scores, actual)
        groups = {"label applies": scores[actual], "it does not": scores[~actual]}
        return [calibration, score_histogram(f"scores-{name}", "Scores of all labels", groups, xlabel="score")]
    places = {label: place for place, label in enumerate(labels)}
    actual = np.array([places[label] for label in table["label"].to_pylist()])
    charts = [reliability(f"calibration-{name}", scores, actual)]
    if len(labels) == 2:
        negative, positive = labels
        curve = threshold_curve(scores[:, 1], actual)
        if curve is not None:
            charts.append(threshold_curves(f"thresholds-{name}", curve, label=positive))
        groups = {positive: scores[actual == 1, 1], negative: scores[actual == 0, 1]}
        title, xlabel = "Scores by true label", f"score of {short_name(positive)}"
    else:
        right, confidence = scores.argmax(axis=1) == actual, scores.max(axis=1)
        groups = {"right": confidence[right], "wrong": confidence[~right]}
        title, xlabel = "Confidence", "score of the prediction"
    return [*charts, score_histogram(f"scores-{name}", title, groups, xlabel=xlabel)]


def per_label(per_class: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each label's precision, recall, F1 and number of rows."""
    return [
        {
            "label": distinct(label),
            "rows": int(figures["support"]),
            "figures": [
                Figure.of(name, {"value": figures[name], "interval": figures.get("intervals", {}).get(name)})
                for name in ("precision", "recall", "f1")
            ],
        }
        for label, figures in per_class.items()
    ]


def _multi_hot(column: pa.ChunkedArray, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    places = {label: place for place, label in enumerate(labels)}
    hot = np.zeros((len(column), len(labels)), np.bool_)
    for row, names in enumerate(column.to_pylist()):
        hot[row, [places[name] for name in names]] = True
    return hot


def _temperature(summary: dict[str, Any], split: str) -> str | None:
    """What dividing the logits by the stored temperature would do to the calibration error and the loss."""
    calibration = summary.get("calibration", {})
    if calibration.get("temperature") is None:
        return None
    fitted_on = "these rows" if calibration["fitted_on"] == split else calibration["fitted_on"]
    error, after = "expected_calibration_error", calibration["with_temperature"]
    return (
        f"A temperature of {calibration['temperature']:.3g}, fitted on {fitted_on} and used by "
        f"textune predict --calibrated, takes the calibration error here from {calibration[error]:.3f} to "
        f"{after[error]:.3f} and the loss from {summary[LOSS]['value']:.3f} to {after[LOSS]:.3f}."
    )


def _slices(analysis: dict[str, Any]) -> list[dict[str, Any]]:
    """Each part of the rows, with where its figure, its interval and the whole lie on a line from 0 to 100."""
    if not analysis:
        return []
    overall = float(analysis["value"])
    parts = [(part, Figure.of(analysis["metric"], part)) for part in analysis["slices"]]
    ends = [figure.interval[1] for _, figure in parts if figure.interval is not None]
    longest = 1.0 if analysis["metric"] == "accuracy" else max(ends, default=0.0) or 1.0
    found = []
    for part, figure in parts:
        value = figure.value or 0.0
        whisker = None
        if figure.interval is not None:
            places = {"value": value, "overall": overall, "low": figure.interval[0], "high": figure.interval[1]}
            whisker = {name: round(100 * place / longest, 1) for name, place in places.items()}
        found.append(
            {
                "name": f"{part['kind']}: {distinct(part['name'])}",
                "rows": int(part["rows"]),
                "figure": figure,
                "mark": ("▲" if value > overall else "▼") if part["differs"] else "",
                "whisker": whisker,
            }
        )
    return found


def _word(word: dict[str, Any]) -> dict[str, Any]:
    return {
        "word": str(word["word"]),
        "rows": int(word["rows"]),
        "errors": int(word["errors"]),
        "rate": Figure.of("error rate", {"value": word["error_rate"], "interval": word["interval"]}),
        "p_value": float(word["p_value"]),
    }


def _mistake(mistake: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A mistake with its few highest scores in words."""
    scores = sorted(mistake.get("scores", {}).items(), key=lambda item: -item[1])[:MAX_LABEL_SCORES]
    return {
        "row": int(mistake["row"]),
        "texts": [str(mistake[column]) for column in ("text", "text_pair") if column in mistake],
        "label": _label(mistake["label"]),
        "prediction": _label(mistake["prediction"]),
        "distance": float(mistake["confidence"] if "confidence" in mistake else mistake["residual"]),
        "scores": [(distinct(name), float(score)) for name, score in scores] if len(labels) > 2 else [],
    }


def _label(label: Any) -> str:
    """A label, list of labels or number as one text."""
    if isinstance(label, list):
        return ", ".join(map(_label, label)) or "(none)"
    return f"{label:.4g}" if isinstance(label, float) else distinct(str(label))
