"""`textune inspect`."""

from __future__ import annotations

from typing import Any

import click

from textune.cli.options import config_flags
from textune.cli.output import print_json
from textune.config import INSPECT_OPTIONS


@click.command()
@click.argument("data")
@config_flags(INSPECT_OPTIONS, seed="Seed of the folds of --label-errors.")
@click.option("--max-length", type=click.IntRange(min=4), metavar="N", help="Tokens after which a row is cut.")
@click.option(
    "--label-errors", is_flag=True, help="Look for wrong labels as well, with the frozen model; takes longer."
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Rows and examples listed for each finding.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, by default with all row numbers.")
@click.option("--page", metavar="FILE", help="Write a web page as well, one file that needs no other.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it is there.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="End with exit code 1 where something at least so grave is found; without it the exit code is 0.",
)
@click.option("--quiet", is_flag=True, help="Show errors and the result, nothing else.")
def inspect(
    data: str,
    max_length: int | None,
    label_errors: bool,
    limit: int | None,
    as_json: bool,
    page: str | None,
    overwrite: bool,
    fail_on: Any,
    quiet: bool,
    **flags: Any,
) -> int:
    """Look through labelled text before any training.

    DATA is what `textune train --data` takes. Finds equal and nearly equal rows, within a split and across splits;
    equal texts with different labels; empty, very long and truncated rows; odd characters; and what is unusual about
    the labels. Rows are counted from 1 without the header line, as in every message of textune: row 34 is row 35 in
    Excel.

    \b
    textune inspect reviews.csv
    textune inspect glue/mrpc --page mrpc.html
    textune inspect reviews.csv --json --fail-on error
    """
    from textune.display import Display, default_display
    from textune.environment import set_threads
    from textune.files import check_new_file, user_path, write_text
    from textune.inspection import inspect as look_through

    options = {name: value for name, value in flags.items() if value is not None}
    target = None if page is None else user_path(page)
    if target is not None:
        check_new_file(target, option="--page", overwrite=overwrite)
    set_threads()
    display = Display() if quiet else default_display()
    audit = look_through(data, max_length=max_length, label_errors=label_errors, display=display, **options)
    try:
        if as_json:
            print_json(audit.as_json(limit=limit))
        else:
            from textune.cli.audit_tables import print_audit

            print_audit(audit, limit=3 if limit is None else limit)
    finally:  # also where `head` has read enough of it
        if target is not None:
            from textune.report.audit_page import audit_page

            write_text(target, audit_page(audit))
    return 1 if fail_on is not None and audit.with_severity(fail_on) else 0
