"""The command `textune`: finds the subcommand, and turns errors into one message and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import NoReturn, TextIO, cast

import click

from textune import __version__
from textune.cli.output import Output
from textune.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, ConfigError, Interrupted, TextuneError, did_you_mean
from textune.streams import Unfailing

# Name -> what it does. Each is the function of that name in textune.cli.NAME, imported only when it is called.
COMMANDS = {
    "train": "Fine-tune a checkpoint on labelled text and measure it.",
    "inspect": "Look through labelled text before any training.",
    "predict": "Label the texts of a file with a finished run.",
    "evaluate": "Score a finished run on other labelled data.",
    "compare": "Say whether a run is better than another, or within noise.",
    "report": "Write a page about a run, or one that compares runs.",
    "cache": "Show what textune keeps on this disk, or remove it.",
    "config": "Print every option with its meaning and default.",
    "doctor": "Print versions, cores and the measured speed of this machine.",
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    training stopped: a loss or gradient was not finite; or `inspect --fail-on` found something
  2    an option, flag or configuration is wrong
  65   the data or the checkpoint cannot be used
  66   a file or folder is missing
  69   the hub or an optional package is missing
  70   an error of textune itself
  73   the output cannot be created
  74   writing failed half way, for example a full disk
  129  training interrupted by SIGHUP (its terminal has gone); `textune train --resume RUN` goes on
  130  interrupted (Ctrl-C)
  138  training interrupted by SIGUSR1; `textune train --resume RUN` goes on
  143  training interrupted by SIGTERM; `textune train --resume RUN` goes on"""


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only when it is run, so that `--help` is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"textune.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"There is no command {name!r}.{did_you_mean(name, COMMANDS)}", context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, message="textune %(version)s")
def cli() -> None:
    """Fine-tune pretrained transformer encoders for text classification.

    \b
    textune train                                   the bundled sample, the packaged checkpoint
    textune train --data reviews.csv --model bert-base-uncased --output runs/reviews
    textune predict runs/reviews new.csv -o labelled.csv

    `textune COMMAND --help` explains each command.
    """


def main() -> NoReturn:
    """Runs the command line and ends the process with the exit code of the table above."""
    # A fork after the tokenizer's threads have started makes it warn; textune starts its processes by spawning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: a letter it lacks ends no command
    output = Output(sys.stdout)
    if sys.stdout is not None:  # it has not been closed
        sys.stdout = cast(TextIO, output)
    if sys.stderr is not None:
        sys.stderr = cast(TextIO, Unfailing(sys.stderr))
    code = run(sys.argv[1:])
    if sys.stdout is not None:
        output.drop_rest()
    if code == EXIT_INTERRUPTED:
        # Python's own end takes seconds after a training, and aborts where a thread hangs in the write of a checkpoint.
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs the command line with these arguments and returns the exit code; errors go to standard error."""
    try:
        result = cli.main(arguments, prog_name="textune", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if _process(arguments) == 0:  # it is the same in all of them
            _with_near_flags(error).show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        interruption = error.__cause__ or error  # click hangs the one on the other
        click.echo("\n".join(["interrupted", *map(str, interruption.args)]), err=True)
        return EXIT_INTERRUPTED
    except Interrupted as error:
        if _process(arguments) == 0:
            click.echo(error, err=True)
        return error.exit_code
    except TextuneError as error:
        _say(error, _process(arguments))
        return error.exit_code
    except Exception as error:
        if os.environ.get("TEXTUNE_DEBUG"):
            raise
        click.echo(
            f"error: textune has made a mistake: {type(error).__name__}: {error}\n"
            "TEXTUNE_DEBUG=1 in the environment shows where. Please report it.",
            err=True,
        )
        return EXIT_INTERNAL
    return result if isinstance(result, int) else 0


def _process(arguments: list[str]) -> int:
    """Which process this is of those that train together; 0 for every other command, whoever has started it."""
    if arguments[:1] != ["train"]:
        return 0
    from textune.training.parallel import environment_rank

    try:
        return environment_rank()
    except ConfigError:  # what is wrong with the environment is said by each
        return 0


def _with_near_flags(error: click.ClickException) -> click.ClickException:
    """The error, where it is a flag that other tools have, with what it is called here."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    from textune.cli.options import near_flags

    near = " or ".join(repr(flag) for flag in near_flags(error.option_name, error.ctx.command))
    return click.UsageError(f"{error.message} Did you mean {near}?", error.ctx) if near else error


def _say(error: TextuneError, process: int) -> None:
    of_several = f" (process {process})" if process else ""
    click.echo(f"error{of_several}: {error.message}", err=True)
    if error.hint is not None:
        click.echo(f"  {error.hint}", err=True)
