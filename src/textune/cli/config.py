"""`textune config`."""

from __future__ import annotations

import click


@click.command()
@click.argument("file", required=False)
def config(file: str | None) -> None:
    """Print every option with its meaning and default, as a file for `textune train --config`.

    With FILE, the values are those of that file: a way to check it.

    \b
    textune config > mine.yaml
    """
    from textune.config_reading import read_config, to_yaml

    click.echo(to_yaml(read_config(file), explained=True), nl=False)
