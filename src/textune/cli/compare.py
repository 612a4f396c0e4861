"""`textune compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from textune.cli.output import print_json
from textune.data.wording import counted

if TYPE_CHECKING:
    from textune.evaluation.comparison import Comparison, Figure


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="RUN RUN ...")
@click.option("--split", metavar="TEXT", help="Which split of the runs; test where all have labels for it.")
@click.option("--metric", metavar="TEXT", help="The one that decides; the task's own when not given.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resampled rows.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare(sources: tuple[str, ...], split: str | None, metric: str | None, seed: int, as_json: bool) -> None:
    """Say whether a run is better than another, or whether the difference is within noise.

    \b
    Each RUN is compared with the first. It is one of
      a run folder                 runs/reviews-1
      a folder of seeds            runs/reviews, with seed-1, seed-2, ... in it
      NAME=RUN,RUN,...             runs of the same recipe, each with another seed
      a file of any tool           .csv, .tsv, .jsonl or .parquet with the columns id, label, and
                                   prediction or one score_NAME per label

    All must be about the same rows, which are matched by their ids.

    \b
    textune compare runs/reviews-1 runs/reviews-2
    textune compare small=runs/a1,runs/a2,runs/a3 large=runs/b1,runs/b2,runs/b3
    textune compare runs/reviews-1 other-tool.csv --split test
    """
    from textune.comparison import compare as compare_runs

    comparison = compare_runs(*sources, split=split, metric=metric, seed=seed)
    if as_json:
        print_json(comparison.as_json())
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    from textune.cli.tables import figure, print_table
    from textune.evaluation.comparison import p_text, verdict
    from textune.evaluation.intervals import ends
    from textune.evaluation.units import title

    first, *others = comparison.names
    several = any(len(one.values) > 1 for figures in comparison.figures.values() for one in figures)
    uncertainty = "± deviation over seeds" if several else "[95 % interval]"
    print_table(
        [f"metric {uncertainty}", first, *others],
        [[title(name), *(_text(name, one) for one in comparison.figures[name])] for name in comparison.metrics],
    )
    print_table(
        [f"difference to {first} [95 % interval]", *others],
        [
            [
                title(name),
                *(
                    f"{figure(name, one.value, ends(one.interval))}  {p_text(one.p_value)}"
                    for one in comparison.differences[name]
                ),
            ]
            for name in comparison.metrics
        ],
    )
    for other, test in zip(others, comparison.mcnemar, strict=True):
        if test is not None:
            kind = "exact" if test.exact else "with continuity correction"
            print(
                f"McNemar: only {first} is right on {counted(test.only_first, 'row')}, "
                f"only {other} on {test.only_second:,}; {p_text(test.p_value)} ({kind})"
            )
    print(f"{counted(comparison.num_rows, 'row')}{f' of {comparison.split}' if comparison.split else ''}")
    for name in comparison.undefined:
        print(f"{name} is undefined for at least one of them")
    for note in comparison.notes:
        print(f"note: {note}")
    if comparison.metrics:
        print()
        for index in range(1, len(comparison.names)):
            print(verdict(comparison, comparison.metrics[0], index))


def _text(name: str, one: Figure) -> str:
    from textune.cli.tables import figure
    from textune.evaluation.intervals import ends

    if one.deviation is None:
        return figure(name, one.value, ends(one.interval))
    return f"{figure(name, one.value)} ± {figure(name, one.deviation)} of {len(one.values)}"
