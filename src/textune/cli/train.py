"""`textune train`."""

from __future__ import annotations

from typing import Any

import click

from textune.cli.options import config_flags
from textune.cli.output import print_json
from textune.config import SHORT_NAMES
from textune.config_reading import parse_assignment


@click.command()
@config_flags(["data", "model", "output"])
@click.option("--epochs", metavar="X", help="Passes over the training rows; the same as --duration Xepochs.")
@config_flags([name for name in SHORT_NAMES if name not in {"data", "model", "output"}])
@click.option("--config", "config", metavar="FILE", help="YAML file with any of the options; flags override it.")
@click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Any other option by its full name, as --set training.adam_beta2=0.98; `textune config` lists them.",
)
@click.option("--resume", metavar="RUN", help="Go on with the run in this folder, as if it had never been interrupted.")
@click.option("--from", "from_checkpoint", metavar="step-N", help="With --resume: the checkpoint to go on from.")
@click.option(
    "--allow-changes",
    is_flag=True,
    help="With --resume: go on although data or options that alter the result have changed.",
)
@click.option("--quiet", is_flag=True, help="Show errors and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's summary as JSON on standard output.")
def train(
    config: str | None,
    assignments: tuple[str, ...],
    resume: str | None,
    from_checkpoint: str | None,
    allow_changes: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fine-tune a checkpoint on labelled text and measure it.

    \b
    textune train                                              the bundled sample, the packaged checkpoint
    textune train --data reviews.csv --text review --label stars --output runs/reviews
    textune train --data glue/mrpc --model bert-base-uncased --epochs 3 --seed 1

    Makes a run folder with the classifier in Hugging Face layout (model/), its metrics (summary.json), every
    prediction (predictions/) and what it was made from. DURATION is a number with its unit: 500steps, 2epochs,
    10%, 2000examples.

    \b
    textune train --resume runs/reviews            goes on after a crash, SIGTERM or Ctrl-C

    \b
    textune train --data reviews.csv --seeds 5     five runs: mean and spread, and the one best on validation
    textune train --data reviews.csv --cv 5        cross-validation, then one model on all rows

    \b
    torchrun --nproc-per-node 2 -m textune train   two processes; --batch-size is that of each
    """
    from textune.display import Display
    from textune.finetune import train as fine_tune
    from textune.training.parallel import environment_rank

    options = {name: value for name, value in flags.items() if value is not None}
    run = fine_tune(
        config=config,
        settings=dict(parse_assignment(text) for text in assignments),
        resume=resume,
        from_checkpoint=from_checkpoint,
        allow_changes=allow_changes,
        display=Display() if quiet else None,
        **options,
    )
    if environment_rank() > 0:
        return  # the main process says it
    if as_json:
        print_json({"run": str(run.path), **run.summary})
    elif not quiet and "kind" in run.summary:
        from textune.cli.member_tables import print_members

        print_members(run)
    elif not quiet:
        from textune.cli.tables import print_run

        print_run(run)
