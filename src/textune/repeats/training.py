"""Trains the runs one after the other; what is finished stays, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from textune.config import Config
from textune.data.cache import workspace
from textune.data.folds import VALIDATION
from textune.data.prepare import PreparedData, prepare_inspection, prepare_training
from textune.display import Display
from textune.errors import OutOfMemoryError, TextuneError, TrainingError
from textune.files import user_path
from textune.lock import run_lock_or_warning
from textune.models.load import find_checkpoint
from textune.repeats.beginnings import require_same_beginning, require_same_rows
from textune.repeats.folds import folds_of, write_folds
from textune.repeats.members import Member, members_of, settled
from textune.repeats.seeds import write_seeds
from textune.report.write import RUN_PAGE
from textune.results import complete, report_or_warn
from textune.resume import hash_checkpoint, hint_of_resuming, lies_elsewhere
from textune.run import ALL_ROWS, Run, check_output, output_path
from textune.summary import scored_splits
from textune.training.parallel import Processes

TrainMember = Callable[[Config, Run | None], Run]


def train_members(
    config: Config,
    begun: Run | None,
    *,
    train_member: TrainMember,
    allow_changes: bool,
    display: Display,
    processes: Processes,
) -> Run:
    """Trains what is not finished yet and writes what all runs say together. Of several processes each calls it.

    Args:
        config: of the whole.
        begun: the folder of several runs to go on with, whose lock the main process holds; None to begin.
        train_member: begins a run with this configuration, or goes on with it, as the run given has begun.
        allow_changes: whether what is not finished may go on with other data or another checkpoint.

    Raises:
        TextuneError: see `textune.finetune.train`. With several seeds and one process a run that diverges is marked as
            failed, and the others go on, unless all do.
    """
    if (
        begun is not None
        and not lies_elsewhere(begun, config)
        and processes.from_main(lambda: _is_complete(begun, config))
    ):
        display.note(f"{begun.path} is finished: there is nothing to go on with")
        if processes.is_main:
            complete(begun, display, report=config.run.report)
            _tell_of_diverged(begun, display)
        return begun
    with ExitStack() as stack:
        prepared: PreparedData | None = None
        with processes.main_first():
            if processes.is_main:  # a mistake shows before a folder is made
                if begun is None and config.run.output is not None:
                    check_output(user_path(config.run.output), overwrite=config.run.overwrite)
                prepared = _prepare(config, folder=stack.enter_context(workspace()))
        output = processes.from_main(lambda: _output(config, begun, prepared))
        config = settled(config, Path(output))
        whole, members = Run(Path(output)), members_of(config)
        with processes.main_first():
            if processes.is_main:
                assert prepared is not None, "this is the main process"
                if begun is not None:  # before its summary is taken away
                    require_same_beginning(
                        [Run(whole.path / member.name) for member in members],
                        prepared,
                        _files_of_model(config, whole, members),
                        processes.world_size,
                        allow_changes=allow_changes,
                        display=display,
                    )
                if config.data.folds is not None:
                    folds_of(prepared, config)  # whether there are rows enough
                if begun is not None and allow_changes:
                    _require_same_rows(config, whole, members, prepared)
                _begin(whole, config, begun, stack, display)
        if config.data.folds is not None:
            display.note(
                "cross-validation: each run ends with its last weights, so that nothing is chosen on the rows that "
                "measure it"
            )
        try:
            first = None if begun is None else processes.from_main(lambda: _first_finished(whole, members))
            failures = _train(members, train_member, whole, first=first, display=display, processes=processes)
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
            _tell_of_diverged(whole, display)
        processes.barrier()
        return whole


def _prepare(config: Config, *, folder: Path) -> PreparedData:
    """The data as all seeds have them; of a cross-validation without folds."""
    if config.data.folds is not None:
        return prepare_inspection(config.data, folder=folder)
    return prepare_training(config.data, seed=config.training.seed, folder=folder)


def _require_same_rows(config: Config, whole: Run, members: list[Member], prepared: PreparedData) -> None:
    fold_of_row = None if config.data.folds is None else folds_of(prepared, config)
    for member in members:
        run = Run(whole.path / member.name)
        if not run.is_finished or member.name == ALL_ROWS:
            continue
        if fold_of_row is None:
            for split in scored_splits(run.summary):
                require_same_rows(run, split, prepared.rows[split]["id"][:] if split in prepared.rows else [])
        else:
            held_out = np.flatnonzero(fold_of_row == member.config.data.fold)
            require_same_rows(run, VALIDATION, prepared.rows[prepared.train].select(held_out)["id"][:])


def _output(config: Config, begun: Run | None, prepared: PreparedData | None) -> str:
    if begun is not None:
        return str(begun.path)
    assert prepared is not None, "this is the main process"
    return str(output_path(config, prepared.source.name))


def _is_complete(whole: Run, config: Config) -> bool:
    if not whole.is_finished:
        return False
    told = {run["name"] for run in whole.summary["runs"]}
    members = members_of(settled(config, whole.path))
    retried = any(run.is_finished for run in _diverged(whole))
    return told == {member.name for member in members if member.name != ALL_ROWS} and not retried


def _diverged(whole: Run) -> list[Run]:
    """Those that had no figures when the summary was written."""
    without_figures = {"name", "seed", "failed"}
    found = [entry for entry in whole.summary["runs"] if entry["failed"] and entry.keys() == without_figures]
    return [Run(whole.path / entry["name"]) for entry in found]


def _tell_of_diverged(whole: Run, display: Display) -> None:
    for run in _diverged(whole):
        display.note(
            f"{run.path.name} diverged: `textune train --resume {run.path} --skip-bad-steps 5 --allow-changes` tries "
            f"again, and then `textune train --resume {whole.path}` takes it in"
        )


def _files_of_model(config: Config, whole: Run, members: list[Member]) -> dict[str, str] | None:
    """Hashes of the checkpoint that the next run begins with; None where all are finished."""
    if all(Run(whole.path / member.name).is_finished for member in members):
        return None
    return hash_checkpoint(find_checkpoint(config.model.checkpoint, revision=config.model.revision))


def _first_finished(whole: Run, members: list[Member]) -> str | None:
    return next((member.name for member in members if Run(whole.path / member.name).is_finished), None)


def _begin(whole: Run, config: Config, begun: Run | None, stack: ExitStack, display: Display) -> None:
    if begun is None:
        check_output(whole.path, overwrite=config.run.overwrite)
        stack.enter_context(run_lock_or_warning(whole.path, display.warning))
        Run.create(whole.path, overwrite=config.run.overwrite, config=config)
    else:
        for name in ("summary.json", RUN_PAGE):  # without the first nothing is taken for finished
            (whole.path / name).unlink(missing_ok=True)
        whole.clear_unfinished()
        whole.write_config(config)


def _unmake(whole: Run, members: list[Member]) -> None:
    """Leaves the folder empty after a mistake that showed before the first run had begun."""
    (whole.path / "config.yaml").unlink(missing_ok=True)
    for member in members:
        with suppress(OSError):  # not there, or not empty
            (whole.path / member.name).rmdir()


def _train(
    members: list[Member],
    train_member: TrainMember,
    whole: Run,
    *,
    first: str | None,
    display: Display,
    processes: Processes,
) -> dict[str, str]:
    """Trains each member and returns what those say that diverged, by name.

    Args:
        first: the name of a finished one, as which the others are to begin.
    """
    failures: dict[str, str] = {}
    like = None if first is None else Run(whole.path / first)
    for member in members:
        display.note(member.title)
        try:
            with hint_of_resuming(whole.path):
                run = train_member(member.config, like)
        except OutOfMemoryError as error:
            hint = f"{error.hint} If the memory was only taken, `textune train --resume {whole.path}` goes on."
            raise OutOfMemoryError(error.message, hint=hint) from error
        except TrainingError as error:
            # Of several processes another may have ended, which looks the same.
            is_last = len(failures) + 1 == len(members)
            if not member.name.startswith("seed-") or processes.world_size > 1 or is_last:
                raise
            failures[member.name] = error.message
            display.warning(f"{member.name} has failed: {error.message}")
            continue
        like = like or run
    return failures
