"""Trains the runs one after the other; what is finished stays, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from textune.config import Config
from textune.data.cache import workspace
from textune.data.prepare import PreparedData, prepare_inspection
from textune.display import Display
from textune.errors import TextuneError, TrainingError
from textune.lock import run_lock
from textune.repeats.folds import folds_of, write_folds
from textune.repeats.members import Member, members_of, settled
from textune.repeats.seeds import write_seeds
from textune.results import report_or_warn
from textune.resume import hint_of_resuming
from textune.run import ALL_ROWS, Run, check_output, output_path
from textune.training.parallel import Processes

TrainMember = Callable[[Config, Run | None], Run]


def train_members(
    config: Config, begun: Run | None, *, train_member: TrainMember, display: Display, processes: Processes
) -> Run:
    """Trains what is not finished yet and writes what all runs say together. Of several processes each calls it.

    Args:
        config: of the whole.
        begun: the folder of several runs to go on with, whose lock the main process holds; None to begin.
        train_member: begins a run with this configuration, or goes on with it, in the arithmetic of the run given.

    Raises:
        TextuneError: see `textune.finetune.train`. With several seeds and one process a run that diverges is marked as
            failed, and the others go on, unless all do.
    """
    with ExitStack() as stack:
        prepared: PreparedData | None = None
        with processes.main_first():
            if processes.is_main:  # a mistake shows before a folder is made
                if begun is None and config.run.output is not None:
                    check_output(Path(config.run.output).expanduser(), overwrite=config.run.overwrite)
                prepared = prepare_inspection(config.data, folder=stack.enter_context(workspace()))
        output = processes.from_main(lambda: _output(config, begun, prepared))
        config = settled(config, Path(output))
        whole, members = Run(Path(output)), members_of(config)
        if processes.from_main(lambda: begun is not None and _is_complete(whole, members)):
            display.note(f"{whole.path} is finished: there is nothing to go on with")
            return whole
        with processes.main_first():
            if processes.is_main:
                if config.data.folds is not None and prepared is not None:
                    folds_of(prepared, config)  # whether there are rows enough
                _begin(whole, config, begun, stack)
        if config.data.folds is not None:
            display.note(
                "cross-validation: each run ends with its last weights, so that nothing is chosen on the rows that "
                "measure it"
            )
        try:
            failures = _train(members, train_member, whole, display=display, processes=processes)
        except TextuneError:
            if processes.is_main and begun is None and not whole.runs:
                _unmake(whole, members)
            raise
        if processes.is_main:
            if config.run.seeds is not None:
                write_seeds(whole, members, failures)
            else:
                assert prepared is not None, "this is the main process"
                write_folds(whole, members, prepared)
            if config.run.report:
                report_or_warn(whole, display)
        processes.barrier()
        return whole


def _output(config: Config, begun: Run | None, prepared: PreparedData | None) -> str:
    if begun is not None:
        return str(begun.path)
    assert prepared is not None, "this is the main process"
    return str(output_path(config, prepared.source.name))


def _is_complete(whole: Run, members: list[Member]) -> bool:
    if not whole.is_finished:
        return False
    told = {run["name"] for run in whole.summary["runs"]}
    return told == {member.name for member in members if member.name != ALL_ROWS}


def _begin(whole: Run, config: Config, begun: Run | None, stack: ExitStack) -> None:
    if begun is None:
        check_output(whole.path, overwrite=config.run.overwrite)
        stack.enter_context(run_lock(whole.path))
        Run.create(whole.path, overwrite=config.run.overwrite, config=config)
    else:
        (whole.path / "summary.json").unlink(missing_ok=True)  # without it nothing is taken for finished
        whole.write_config(config)


def _unmake(whole: Run, members: list[Member]) -> None:
    """Leaves the folder empty after a mistake that showed before the first run had begun."""
    (whole.path / "config.yaml").unlink(missing_ok=True)
    for member in members:
        with suppress(OSError):  # not there, or not empty
            (whole.path / member.name).rmdir()


def _train(
    members: list[Member], train_member: TrainMember, whole: Run, *, display: Display, processes: Processes
) -> dict[str, str]:
    """Trains each member and returns what those say that diverged, by name."""
    failures: dict[str, str] = {}
    first: Run | None = None
    for member in members:
        display.note(member.title)
        try:
            with hint_of_resuming(whole.path):
                run = train_member(member.config, first)
        except TrainingError as error:
            # Of several processes another may have ended, which looks the same.
            is_last = len(failures) + 1 == len(members)
            if not member.name.startswith("seed-") or processes.world_size > 1 or is_last:
                raise
            failures[member.name] = error.message
            display.warning(f"{member.name} has failed: {error.message}")
            continue
        first = first or run
    return failures
