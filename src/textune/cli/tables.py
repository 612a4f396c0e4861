"""Results as tables on standard output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textune.data.wording import distinct
from textune.evaluation.captions import captions
from textune.evaluation.units import title, value_text
from textune.run import Run
from textune.summary import metric_entries

# Wide enough for several splits; terminals wrap, pipes do not.
PIPE_WIDTH = 160
SHOWN_LABELS = 20
"""Labels whose figures are printed; more fill screens."""


def print_scores(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints one row per metric and one column per split, then each label's figures on the last split.

    Args:
        splits: as in summary.json: `{"validation": {"accuracy": {"value": 0.8, "interval": [0.76, 0.84]}, "per_class":
            {...}, "calibration": {...}, "num_rows": 408}}`.
    """
    metrics = list(dict.fromkeys(name for scores in splits.values() for name in metric_entries(scores)))
    calibration = ["expected_calibration_error", "brier_score"]
    rows = [[title(name), *(metric_text(name, scores.get(name)) for scores in splits.values())] for name in metrics]
    rows += [
        [title(name), *(figure(name, scores.get("calibration", {}).get(name)) for scores in splits.values())]
        for name in calibration
        if any(name in scores.get("calibration", {}) for scores in splits.values())
    ]
    rows.append(["rows", *(f"{scores['num_rows']:,}" for scores in splits.values())])
    interval = " [95 % interval]" if any("interval" in entry for _, entry in _all_entries(splits)) else ""
    print_table([f"metric{interval}", *splits], rows)
    reasons = {
        f"{name} is undefined: {entry['undefined']}" for name, entry in _all_entries(splits) if "undefined" in entry
    }
    for line in (*sorted(reasons), *captions(splits)):
        print(line)
    last, scores = list(splits.items())[-1]
    if scores.get("per_class"):
        columns = ["precision", "recall", "f1"]
        labels = list(scores["per_class"].items())
        shown = labels
        if len(labels) > SHOWN_LABELS:
            shown = sorted(labels, key=lambda item: -item[1]["support"])[:SHOWN_LABELS]
        print_table(
            [f"label ({last})", *map(title, columns), "rows"],
            [
                [distinct(name), *(_class_text(figures, column) for column in columns), f"{figures['support']:,}"]
                for name, figures in shown
            ],
        )
        if len(shown) < len(labels):
            print(f"the {len(shown)} most frequent of {len(labels):,} labels; --json prints all")


def print_run(run: Run) -> None:
    """Prints a finished run's scores, its cost and where everything lies."""
    summary = run.summary
    training, selected = summary["training"], summary["selected"]
    splits = {name: scores for name, scores in summary.items() if name not in {"training", "selected"}}
    if splits:
        print_scores(splits)
    early = f", stopped: {training['stop_reason']}" if training["stop_reason"] else ""
    chosen = f"best by {selected['metric']} on {selected['split']}" if selected["weights"] == "best" else "the last"
    if selected.get("failed"):
        print(f"failed    this model has learned nothing: {selected['failed']}")
    if selected.get("note"):
        print(f"note      {selected['note']}")
    print(
        f"weights   step {selected['step']} of {training['steps']} ({chosen}{early})\n"
        f"speed     {training['samples_per_second']:.1f} samples/s, {training['tokens_per_second']:,.0f} tokens/s, "
        f"{training['precision']}; {training['seconds_in_all']:.0f} s in all, "
        f"{training['checkpoint_seconds']:.1f} s of them for checkpoints; "
        f"peak memory {training['peak_memory_mib']:,.0f} MiB\n"
        f"run       {run.path}\n"
        f"model     {run.model_path}  (loads in transformers.pipeline)\n"
        f"next      textune predict {run.path} INPUT -o OUTPUT"
    )


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table whose first column is text and whose others are figures."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    for number, (name, width) in enumerate(zip(names, _widths(names, rows, room=console.width), strict=True)):
        table.add_column(Text(name), justify="left" if number == 0 else "right", overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(Text, row))  # not read as markup or as names of emoji
    console.print(table)


def _widths(names: Sequence[str], rows: Sequence[Sequence[str]], *, room: int) -> list[int]:
    """Column widths: the widest gives way first where all do not fit, and none breaks a word of its head."""
    from rich.cells import cell_len

    room -= 3 * len(names) + 1  # what stands around the columns
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    least = [max(map(cell_len, name.split()), default=0) for name in names]
    while sum(widths) > room and (wide := [at for at in range(len(names)) if widths[at] > least[at]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def metric_text(name: str, entry: Mapping[str, Any] | None) -> str:
    """A metric as in summary.json, as text: `85.3 [81.6, 88.5]`."""
    return "" if entry is None else figure(name, entry["value"], entry.get("interval"))


def figure(name: str, value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure of that name with its interval, in percent or in its own unit."""
    if value is None:
        return "undefined"
    numbers = [value_text(name, end) for end in (value, *(interval or ()))]
    return numbers[0] if interval is None else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _class_text(figures: Mapping[str, Any], column: str) -> str:
    return figure(column, figures[column], figures.get("intervals", {}).get(column))


def _all_entries(splits: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [item for scores in splits.values() for item in metric_entries(scores).items()]
