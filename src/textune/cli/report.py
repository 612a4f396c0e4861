"""`textune report`."""

from __future__ import annotations

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output", "-o", metavar="FILE", help="The page.  [default: RUN/report.html; of several runs comparison.html]"
)
@click.option("--figures", metavar="FOLDER", help="Write each chart there as well, as .svg, .png and .csv.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it is there; RUN/report.html always is.")
def report(runs: tuple[str, ...], output: str | None, figures: str | None, overwrite: bool) -> None:
    """Write a page about a run, or one that compares runs.

    The page is one HTML file that needs nothing else: no network, no server. A run that has not finished, or has lost
    files, is shown as far as it goes. `textune train` writes it at its end.

    \b
    textune report runs/reviews
    textune report runs/reviews --figures figures
    textune report runs/first runs/second -o first-and-second.html
    """
    from textune.report.write import write_report

    path, problems = write_report(runs, output=output, figures=figures, overwrite=overwrite)
    for problem in problems:
        click.echo(f"note: {problem}", err=True)
    click.echo(path)
