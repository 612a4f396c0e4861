"""`textune evaluate`."""

from __future__ import annotations

from typing import Any

import click

from textune.cli.options import config_flags, scoring_flags
from textune.cli.output import print_json
from textune.config import EVALUATE_OPTIONS


@click.command()
@click.argument("run")
@click.argument("data", required=False)
@click.option("--data", "data_option", metavar="TEXT", help="The same as DATA.")
@config_flags(
    EVALUATE_OPTIONS,
    text="Column with the text; that of training when not given.",
    text_pair="Column with the second text; that of training when not given.",
    label="Column with the label; that of training when not given.",
)
@scoring_flags
@click.option("--quiet", is_flag=True, help="Show errors and the result, nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    run: str,
    data: str | None,
    data_option: str | None,
    quiet: bool,
    as_json: bool,
    batch_size: int,
    device: str,
    precision: str,
    **flags: Any,
) -> None:
    """Score a finished run on other labelled data.

    RUN is a run folder; DATA a file, a folder, a GLUE task or a hub data set. Every labelled split of the data is
    scored; columns not named are those of training.

    \b
    textune evaluate runs/reviews more-reviews.csv
    """
    from textune.display import Display, default_display
    from textune.environment import set_threads
    from textune.evaluating import evaluate as score

    if data is not None and data_option is not None:
        raise click.UsageError("DATA and --data are the same: name the data once.")
    named = data or data_option
    if named is None:
        raise click.UsageError("Name the data to score: textune evaluate RUN DATA.")
    options = {name: value for name, value in flags.items() if value is not None}
    display = Display() if quiet else default_display()
    set_threads()
    results = score(run, named, display=display, batch_size=batch_size, device=device, precision=precision, **options)
    scores = {name: result.as_json() for name, result in results.items()}
    if as_json:
        print_json(scores)
    else:
        from textune.cli.tables import print_scores

        print_scores(scores)
