"""`textune evaluate`."""

from __future__ import annotations

import json
from typing import Any

import click

from textune.cli.options import config_flags, scoring_flags


@click.command()
@click.argument("run")
@config_flags(["data"])
@config_flags(["local_copy", "text", "text_pair", "label", "delimiter", "drop_bad_rows"])
@scoring_flags
@click.option("--quiet", is_flag=True, help="Show errors and the result, nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(run: str, quiet: bool, as_json: bool, batch_size: int, device: str, precision: str, **flags: Any) -> None:
    """Score a finished run on other labelled data.

    RUN is a run folder. Every labelled split of the data is scored; columns not named are those of training.

    \b
    textune evaluate runs/reviews --data other-reviews.csv
    """
    from textune.display import Display, default_display
    from textune.environment import set_threads
    from textune.evaluating import evaluate as score

    options = {name: value for name, value in flags.items() if value is not None}
    data = options.pop("data", None)
    if data is None:
        raise click.UsageError("Name the data to score with --data.")
    display = Display() if quiet else default_display()
    set_threads()
    results = score(run, data, display=display, batch_size=batch_size, device=device, precision=precision, **options)
    scores = {name: result.as_json() for name, result in results.items()}
    if as_json:
        click.echo(json.dumps(scores, indent=2, ensure_ascii=False))
    else:
        from textune.cli.tables import print_scores

        print_scores(scores)
