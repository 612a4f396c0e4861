"""Results as tables on standard output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textune.run import Run

# Wide enough for nine metrics; terminals wrap, pipes do not.
PIPE_WIDTH = 160


def print_scores(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints one row per split and one column per metric, then each label's figures.

    Args:
        splits: as in summary.json: `{"validation": {"accuracy": {"value": 0.8}, "per_class": {...}, "num_rows": 408}}`.
    """
    metrics = list(dict.fromkeys(name for scores in splits.values() for name in _values(scores)))
    _print(
        ["split", *metrics, "rows"],
        [
            [split, *(_figure(_values(scores).get(name)) for name in metrics), f"{scores['num_rows']:,}"]
            for split, scores in splits.items()
        ],
    )
    last, scores = list(splits.items())[-1]
    if scores.get("per_class"):
        columns = ["precision", "recall", "f1"]
        _print(
            [f"label ({last})", *columns, "rows"],
            [
                [name, *(_figure(figures[column]) for column in columns), f"{figures['support']:,}"]
                for name, figures in scores["per_class"].items()
            ],
        )


def print_run(run: Run) -> None:
    """Prints a finished run's scores, its cost and where everything lies."""
    summary = run.summary
    training, selected = summary["training"], summary["selected"]
    print_scores({name: scores for name, scores in summary.items() if name not in {"training", "selected"}})
    early = f", stopped: {training['stop_reason']}" if training["stop_reason"] else ""
    chosen = f"best by {selected['metric']} on {selected['split']}" if selected["weights"] == "best" else "the last"
    print(
        f"weights   step {selected['step']} of {training['steps']} ({chosen}{early})\n"
        f"speed     {training['samples_per_second']:.1f} samples/s, {training['tokens_per_second']:,.0f} tokens/s, "
        f"{training['precision']}; {training['seconds_in_all']:.0f} s in all; "
        f"peak memory {training['peak_memory_mib']:,.0f} MiB\n"
        f"run       {run.path}\n"
        f"model     {run.model_path}  (loads in transformers.pipeline)\n"
        f"next      textune predict {run.path} INPUT -o OUTPUT"
    )


def _print(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(names):
        table.add_column(Text(name), justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # not read as markup or as names of emoji
    console.print(table)


def _values(scores: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: entry["value"] for name, entry in scores.items() if isinstance(entry, dict) and "value" in entry}


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
