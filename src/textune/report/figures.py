"""The charts of a report: from the numbers of a run to what is drawn and what is said of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textune.data.wording import counted, distinct
from textune.evaluation.calibration import NUM_BINS, brier_score, expected_calibration_error, reliability_curve
from textune.evaluation.predictions import FloatArray
from textune.evaluation.thresholds import ThresholdCurve
from textune.report.charts import INK, SERIES, Chart, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABELS = 20
"""A confusion matrix of more labels cannot be read."""
MAX_POINTS = 400
LONGEST_NAME = 18
Points = Sequence[tuple[float, float]]


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Each name as part of an identifier or file name, with a number where it would be that of one before."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "split"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        found[name] = next(slug for slug in itertools.chain([plain], numbered) if slug not in found.values())
    return found


def curves(name: str, title: str, lines: Mapping[str, Points], *, ylabel: str, best_step: int | None = None) -> Chart:
    """Values over steps, one line per name; the best step is marked.

    Args:
        lines: (step, value) pairs by the name in the legend.
    """

    def draw(axes: Axes) -> None:
        styles = zip(lines.items(), _styles(len(lines)), strict=True)
        for (label, points), (colour, dashes) in styles:
            shown = _thinned(points)
            marker = "o" if len(shown) <= 30 else ""
            axes.plot(*zip(*shown, strict=True), color=colour, ls=dashes, marker=marker, label=short_name(label))
        if best_step is not None:
            axes.axvline(best_step, color=INK, linestyle=":", linewidth=1, label=f"best: step {best_step:,}")
        axes.locator_params("x", integer=True)
        axes.set(xlabel="step", ylabel=ylabel, xlim=(0, None))
        axes.legend()

    said = "; ".join(f"{label}: {' to '.join(_ends(points))}" for label, points in lines.items())
    best = "" if best_step is None else f" The best step, {best_step:,}, is marked."
    rows = [(label, step, value) for label, points in lines.items() for step, value in points]
    return Chart(name, title, f"{said}.{best}", ["line", "step", "value"], rows, draw)


def confusion_matrix(name: str, confusion: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Chart:
    """Rows by label (down) and prediction (across), shaded by the share of the label's rows.

    Args:
        confusion: `{label, prediction, rows}` for each pair that occurs.
        labels: at most `MAX_LABELS` names.
    """
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for cell in confusion:
        counts[places[cell["label"]], places[cell["prediction"]]] = cell["rows"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for (row, column), count in np.ndenumerate(counts):
            corner = (column - 0.47, row - 0.47)
            axes.add_patch(Rectangle(corner, 0.94, 0.94, fc=SERIES[0], alpha=0.04 + 0.46 * shares[row, column], lw=0))
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9 if len(labels) < 10 else 6)
        ticks = range(len(labels))
        names = [short_name(label) for label in labels]
        many = len(labels) > 3
        axes.set_xticks(ticks, names, rotation=45 if many else 0, ha="right" if many else "center")
        axes.set_yticks(ticks, names)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), xlabel="prediction", ylabel="label")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    right = int(np.trace(counts))
    said = f"{right:,} of {int(counts.sum()):,} rows are on the diagonal, where prediction and label agree."
    worst = max((cell for cell in confusion if cell["label"] != cell["prediction"]), key=_rows, default=None)
    if worst is not None:
        times = counted(worst["rows"], "row")
        said += (
            f" Most frequent confusion: {distinct(worst['label'])} taken for {distinct(worst['prediction'])}, {times}."
        )
    rows = [(cell["label"], cell["prediction"], cell["rows"]) for cell in confusion]
    height = max(2.4, 0.3 * len(labels) + 1.2)
    return Chart(name, "Confusion matrix", said, ["label", "prediction", "rows"], rows, draw, (4.3, height))


def reliability(name: str, scores: FloatArray, labels: npt.NDArray[Any]) -> Chart:
    """Confidence beside accuracy, with the calibration error and the Brier score.

    Args:
        scores: probabilities [num_rows, num_labels].
        labels: class ids [num_rows], or bool [num_rows, num_labels].
    """
    bins = reliability_curve(scores, labels)
    confidence, accuracy = ([getattr(part, side) for part in bins] for side in ("confidence", "accuracy"))

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="calibrated")
        reach = [
            [part.accuracy - part.interval.low for part in bins],
            [part.interval.high - part.accuracy for part in bins],
        ]
        axes.errorbar(
            confidence, accuracy, np.maximum(reach, 0), color=SERIES[0], marker="o", elinewidth=1, label="model"
        )
        axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")

    error, brier = expected_calibration_error(scores, labels), brier_score(scores, labels)
    said = (
        f"Expected calibration error {error:.3f} ({NUM_BINS} bins), Brier score {brier:.3f}. Below the dotted line "
        "the model is surer than it should be. Bars are 95 % intervals."
    )
    columns = ["from", "to", "rows", "confidence", "accuracy", "low", "high"]
    rows = [
        (part.lower, part.upper, part.count, part.confidence, part.accuracy, part.interval.low, part.interval.high)
        for part in bins
    ]
    return Chart(name, "Calibration", said, columns, rows, draw)


def threshold_curves(name: str, curve: ThresholdCurve, *, label: str) -> Chart:
    """Precision, recall and F1 of a label over the score from which on it is given."""
    best = int(np.argmax(curve.f1))
    lines = {"precision": curve.precision, "recall": curve.recall, "F1": curve.f1}

    def draw(axes: Axes) -> None:
        for (line, values), (colour, dashes) in zip(lines.items(), _styles(3), strict=True):
            points = _thinned(list(zip(curve.thresholds, values, strict=True)))
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, label=line)
        axes.axvline(curve.thresholds[best], color=INK, linestyle=":", linewidth=1, label="highest F1")
        axes.set(xlabel=f"least score for {short_name(label)}", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend()

    said = (
        f"The highest F1 of {distinct(label)}, {curve.f1[best]:.3f}, is at a threshold of "
        f"{curve.thresholds[best]:.3f}: precision {curve.precision[best]:.3f}, recall {curve.recall[best]:.3f}. "
        "Chosen on these rows, it is optimistic for others."
    )
    rows = [tuple(map(float, row)) for row in zip(curve.thresholds, *lines.values(), strict=True)]
    return Chart(name, "Thresholds", said, ["threshold", *lines], rows, draw)


def score_histogram(name: str, title: str, groups: Mapping[str, npt.NDArray[Any]], *, xlabel: str) -> Chart:
    """How scores, 0 to 1, are spread in up to two groups of rows."""
    edges = np.linspace(0, 1, 21)
    bars = {label: np.histogram(values, edges)[0] for label, values in groups.items()}

    def draw(axes: Axes) -> None:
        for (label, counts), (colour, dashes) in zip(bars.items(), _styles(len(bars)), strict=True):
            axes.stairs(
                counts, edges, color=colour, linestyle=dashes, fill=False, linewidth=1.6, label=short_name(label)
            )
        axes.set(xlabel=xlabel, ylabel="rows", xlim=(0, 1), ylim=(0, None))
        axes.legend()

    said = "; ".join(
        f"{distinct(label)}: {counted(len(values), 'row')}, median {_median(values)}"
        for label, values in groups.items()
    )
    rows = [
        (label, round(float(low), 2), round(float(high), 2), int(count))
        for label, counts in bars.items()
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return Chart(name, title, f"{said}.", ["group", "from", "to", "rows"], rows, draw)


def length_distribution(name: str, edges: Sequence[int], counts: Sequence[int], *, max_length: int | None) -> Chart:
    """How many rows have how many tokens.

    Args:
        edges: the first length of each bar and one behind the last.
        max_length: where rows are cut, marked if the longest row reaches it.
    """

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, color=SERIES[0], fill=True)
        if max_length is not None and edges[-1] > max_length:
            axes.axvline(max_length, color=INK, linestyle=":", linewidth=1, label=f"cut at {max_length}")
            axes.legend()
        axes.set(xlabel="tokens in a row", ylabel="rows", ylim=(0, None))

    most = int(np.argmax(counts))
    said = (
        f"{counted(sum(counts), 'row')} between {edges[0]} and {edges[-1] - 1} tokens; "
        f"most, {counts[most]:,}, have {edges[most]} to {edges[most + 1] - 1}."
    )
    rows = list(zip(edges, [edge - 1 for edge in edges[1:]], counts, strict=False))
    return Chart(name, "Length of the training rows", said, ["from", "to", "rows"], rows, draw)


def targets_and_predictions(name: str, targets: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> Chart:
    """Regression: each row's prediction over its target."""
    shown = np.sort(np.random.default_rng(0).permutation(len(targets))[:MAX_POINTS])

    def draw(axes: Axes) -> None:
        low, high = min(targets.min(), predictions.min()), max(targets.max(), predictions.max())
        axes.plot([low, high], [low, high], color=INK, linestyle=":", linewidth=1, label="prediction = target")
        axes.plot(targets[shown], predictions[shown], ".", color=SERIES[0], alpha=0.5)
        axes.set(xlabel="target", ylabel="prediction")
        axes.legend()

    error = float(np.abs(predictions - targets).mean())
    said = f"{len(targets):,} rows; on average a prediction is {error:.3g} away from its target."
    if len(shown) < len(targets):
        said += f" {len(shown):,} rows, drawn at random, are shown."
    rows = [(float(target), float(value)) for target, value in zip(targets, predictions, strict=True)]
    return Chart(name, "Targets and predictions", said, ["target", "prediction"], rows, draw)


def _styles(count: int) -> list[tuple[str, Any]]:
    """A colour and a kind of line each, so that colour alone never tells lines apart."""
    dashes: list[Any] = ["-", "--", "-.", (0, (1, 1))]
    return [
        (SERIES[place % len(SERIES)], dashes[(place + place // len(SERIES)) % len(dashes)]) for place in range(count)
    ]


def _ends(points: Points) -> list[str]:
    """The first and the last point in words, once if they are the same."""
    return list(dict.fromkeys(f"{value:.4g} at step {step:,.0f}" for step, value in (points[0], points[-1])))


def _thinned(points: Points) -> Points:
    step = -(-len(points) // MAX_POINTS)
    return [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]


def short_name(name: str) -> str:
    """A name as there is room for it in a chart."""
    text = printable(distinct(name), longest=LONGEST_NAME)
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves such names out of legends


def _rows(cell: Mapping[str, Any]) -> int:
    return int(cell["rows"])


def _median(values: npt.NDArray[Any]) -> str:
    return f"{float(np.median(values)):.3f}" if len(values) else "undefined"
