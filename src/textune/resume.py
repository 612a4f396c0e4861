"""Going on with a run: from which checkpoint, and whether it is still the same training.

Besides the files of textune.training.checkpoint a run's checkpoints have two more:

    run.json        what the run is made from and with: `Origin`; how far its untrained embeddings have decayed, and
                    which are trained (`embedding_rows`, a hash); and `seconds`, how long the run has taken
    metrics.jsonl   the log up to this step
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.config_reading import option_fields, plain_options
from textune.environment import describe, software_changes, software_of
from textune.errors import CheckpointError, ConfigError, DataError, InputNotFoundError, Interrupted
from textune.files import json_text, misfits, read_json, remove_folder
from textune.models.load import CHECKPOINT_FILES
from textune.training.checkpoint import (
    STEP_FOLDERS,
    CheckpointFolders,
    best_step,
    found,
    load_optimizer,
    load_weights,
    verify,
    verify_best,
)
from textune.training.state import TrainingState

if TYPE_CHECKING:
    from textune.config import Config
    from textune.data.prepare import PreparedData
    from textune.display import Display
    from textune.job import Job
    from textune.run import Run
    from textune.training.engine import Engine
    from textune.training.parallel import Processes
    from textune.training.setup import Setup

# Where data and checkpoint lie; what they hold is compared.
_PLACES = frozenset(
    {"data.source", "data.validation", "data.test", "data.local_copy", "model.checkpoint", "model.revision"}
)
# Options that leave weights and predictions as they are. Every other option alters the result.
WITHOUT_EFFECT = _PLACES | frozenset(
    {
        *("tokens.num_workers", "engine.keep_memory", "engine.few_kernels", "training.log_every"),
        *("checkpoint.every", "checkpoint.keep"),
        *("run.output", "run.overwrite", "run.report", "run.trackers", "run.seeds"),
    }
)
# Evaluations before and behind a change of these cannot be compared.
_OF_EVALUATIONS = ("data.", "evaluation.metric:")


@dataclass(frozen=True)
class Origin:
    """What a run is made from and with, as plain values.

    Attributes:
        options: those that alter the result, by dotted name.
        data: fingerprint, task, columns, labels and rows per split.
        files: SHA-256 of the files of the checkpoint that training began with.
        processes: how many train together.
        software: versions, processor, device, and what else chooses the kernels.
        arithmetic: how products are computed: `Arithmetic.as_json`.
        threads: of the CPU, in each process.
    """

    options: dict[str, Any]
    data: dict[str, Any]
    files: dict[str, str]
    processes: int
    software: dict[str, Any]
    arithmetic: dict[str, Any]
    threads: int

    @classmethod
    def read(cls, checkpoint: Path) -> Origin:
        """That of a verified checkpoint of a run.

        Raises:
            CheckpointError: it has been forged.
        """
        values = read_json(checkpoint / "run.json")
        if odd := misfits(cls, values):
            raise CheckpointError(
                f"The checkpoint {str(checkpoint)!r}: {odd[0]!r} in its run.json is not what a run writes there.",
                hint="Go on from another checkpoint: --from step-N.",
            )
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def option(self, name: str) -> Any:
        """The value of an option; its default where an older textune did not know it."""
        return self.options.get(name, option_fields()[name][0].default)


@dataclass(frozen=True)
class Resumption:
    """How a run goes on.

    Attributes:
        config: as it was recorded, with what is given now laid over it.
        allow_changes: whether what alters the result may have changed.
        step: that of the checkpoint to go on from; 0 for the beginning of the run.
    """

    run: Run
    config: Config
    allow_changes: bool
    step: int = 0

    @property
    def checkpoint(self) -> Path | None:
        """The folder to go on from; None for the beginning."""
        return STEP_FOLDERS.folder(self.run.checkpoints_path, self.step) if self.step else None

    @functools.cached_property
    def origin(self) -> Origin | None:
        """What that checkpoint was made from."""
        return None if self.checkpoint is None else Origin.read(self.checkpoint)

    @functools.cached_property
    def environment(self) -> dict[str, Any] | None:
        """The run's environment.json; None where it is lost: what going on needs is in the checkpoint, too."""
        try:
            return self.run.environment
        except (InputNotFoundError, DataError, CheckpointError):
            return None

    @property
    def seconds(self) -> float:
        """How long the run had taken up to that checkpoint; 0 where an older textune wrote it."""
        seconds = 0.0 if self.checkpoint is None else read_json(self.checkpoint / "run.json").get("seconds")
        return seconds if isinstance(seconds, float) else 0.0

    @property
    def changed_options(self) -> list[str]:
        """The options that alter the result and are others than those of the checkpoint, in words."""
        if self.origin is None:
            return []
        now = altering_options(self.config)
        then = {name: self.origin.option(name) for name in now}
        return [f"{name}: recorded {before!r}, now {after!r}" for name, before, after in _differences(then, now)]

    def has_other_data(self, prepared: PreparedData) -> bool:
        """Whether the data are others than those of the checkpoint, or there is no checkpoint."""
        return self.origin is None or self.origin.data != describe_data(prepared)

    def refused(self, changes: Sequence[str]) -> list[str]:
        """Those that are allowed neither now nor were when the run last went on from this checkpoint.

        For a run that was killed before its next checkpoint goes on as it was about to.
        """
        if not changes or self.allow_changes:
            return []
        resumed = reversed((self.environment or {}).get("resumed", []))
        allowed: list[str] = next((entry.get("changes", []) for entry in resumed if entry["step"] == self.step), [])
        return [change for change in changes if change not in allowed]


def choose_step(resumption: Resumption, *, asked: str | None, display: Display) -> int | None:
    """The step of the checkpoint to go on from; 0 for the beginning, None for a finished run that needs nothing more.

    Args:
        resumption: without a step.
        asked: the checkpoint that is wanted, as "step-4"; None for the last whole one.

    Raises:
        ConfigError: an option that alters the result has changed.
        InputNotFoundError: there is no checkpoint such as the one asked for.
        CheckpointError: no checkpoint is whole, or not the one asked for.
    """
    run, config = resumption.run, resumption.config
    is_asked_for_more = asked is not None or altering_options(run.config) != altering_options(config)
    if run.is_finished and not is_asked_for_more and not lies_elsewhere(run, config):
        return None
    needs_best = config.evaluation.select == "best"
    step = choose_checkpoint(run.checkpoints_path, asked=asked, needs_best=needs_best, display=display)
    if not step and run.is_finished:
        raise CheckpointError(
            f"The run {str(run.path)!r} is finished and has no checkpoint left to go on from.",
            hint="Choose another folder with --output and train anew.",
        )
    resumption = dataclasses.replace(resumption, step=step)
    changes = resumption.changed_options
    if refused := resumption.refused(changes):
        raise ConfigError(
            [f"{change}." for change in refused],
            hint=f"These alter the result of {run.path}, so that it would no longer be the run that was begun. Leave "
            "them out, or say --allow-changes.",
        )
    for change in changes:
        display.warning(f"changed: {change}")
    return step


def choose_checkpoint(root: Path, *, asked: str | None, needs_best: bool, display: Display) -> int:
    """The step to go on from: the one asked for, or that of the last whole checkpoint; 0 where there has been none.

    Damaged ones are named.

    Args:
        needs_best: whether the weights of the best evaluation so far have to be whole too.

    Raises:
        InputNotFoundError: there is none such as the one asked for.
        CheckpointError: none is whole, or not the one asked for.
    """
    STEP_FOLDERS.clear_unfinished(root)
    steps = found(root)
    if asked is not None:
        if asked not in {name for step in steps for name in (str(step), f"step-{step}")}:
            known = ", ".join(f"step-{step}" for step in steps) or "none"
            raise InputNotFoundError(f"--from: there is no checkpoint {asked!r} in {str(root)!r}; there are: {known}.")
        folder = STEP_FOLDERS.folder(root, int(asked.removeprefix("step-")))
        _require_whole(folder, needs_best=needs_best)
        return int(asked.removeprefix("step-"))
    damages = []
    for step in reversed(steps):
        folder = STEP_FOLDERS.folder(root, step)
        try:
            _require_whole(folder, needs_best=needs_best)
        except CheckpointError as error:
            damages.append(error.message)
            continue
        for damage in damages:
            display.warning(f"{damage} Going on from {folder.name}, the last one that is whole.")
        return step
    if not damages:
        return 0
    raise CheckpointError(
        f"No checkpoint in {str(root)!r} can be gone on from. " + " ".join(damages),
        hint=f"Train anew with `textune train --config {root.parent / 'config.yaml'} --output FOLDER`. If the best "
        "weights alone are damaged, --select last --allow-changes goes on without them.",
    )


def _require_whole(folder: Path, *, needs_best: bool) -> None:
    verify(folder)
    best = best_step(folder) if needs_best else None
    verify_best(folder, None if best is None else STEP_FOLDERS.folder(folder.parent, best))


def lies_elsewhere(run: Run, config: Config) -> bool:
    """Whether data or checkpoint are to be looked for where the run did not, and so have to be compared."""
    before, now = plain_options(run.config), plain_options(config)
    return any(before[name] != now[name] for name in _PLACES)


def altering_options(config: Config) -> dict[str, Any]:
    """The options that alter the result, by dotted name."""
    return {name: value for name, value in plain_options(config).items() if name not in WITHOUT_EFFECT}


def origin_of(config: Config, prepared: PreparedData, checkpoint: Path, engine: Engine, processes: Processes) -> Origin:
    """What a run with these parts is made from and with.

    Args:
        checkpoint: the folder that training begins with.
    """
    environment = describe(engine.device, engine.arithmetic)
    return Origin(
        options=altering_options(config),
        data=describe_data(prepared),
        files=hash_checkpoint(checkpoint),
        processes=processes.world_size,
        software=software_of(environment),
        arithmetic=environment["arithmetic"],
        threads=environment["threads"],
    )


def describe_data(prepared: PreparedData) -> dict[str, Any]:
    """What of the data alters the result."""
    return {
        **describe_source(prepared.as_json()),
        **{f"rows of {name}": len(split) for name, split in prepared.rows.items()},
    }


def describe_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """What alters the result, of what data.json holds; however the rows are split."""
    schema = {name: value for name, value in data["schema"].items() if name != "notes"}
    return {"fingerprint": data["fingerprint"], "task": data["task"], **schema}


def hash_checkpoint(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that a checkpoint is loaded from."""
    files = sorted({file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern)})
    hashes = {}
    for file in files:
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def require_same_origin(resumption: Resumption, now: Origin, *, display: Display) -> list[str]:
    """Compares what the run was begun with and what is here now; options have been compared before.

    Returns:
        What has changed that alters the result, options included, in words.

    Raises:
        CheckpointError: data, labels, the checkpoint it began with or the number of processes have changed.
        ConfigError: the rows of a step have changed, which nothing allows: training is counted in steps.
    """
    then = resumption.origin
    if then is None:
        return []
    if (before := _rows_of_a_step(then)) != (after := _rows_of_a_step(now)):
        raise ConfigError(
            f"The run {str(resumption.run.path)!r} is counted in steps of {before}; now they would be of {after}.",
            hint="Keep the product of --batch-size, --accumulation and processes: --batch-size 4 --accumulation 2 "
            "--allow-changes goes on with a run of --batch-size 8, in less memory.",
        )
    changes = changes_in_words(
        (
            ("data, ", then.data, now.data),
            ("--model, ", then.files, now.files),
            ("", {"processes": then.processes}, {"processes": now.processes}),
        )
    )
    if refused := resumption.refused(changes):
        raise CheckpointError(
            f"The run {str(resumption.run.path)!r} cannot go on as it began. {'; '.join(refused)}.",
            hint="Bring back what it began with, or say --allow-changes: then it goes on with what is here now.",
        )
    for change in changes:
        display.warning(f"changed: {change}")
    for change in software_changes(then.software, now.software):
        display.warning(change)
    return [*resumption.changed_options, *changes]


def _rows_of_a_step(origin: Origin) -> str:
    """How many rows make a step, in words, and what decides it besides."""
    names = ("batch_size", "gradient_accumulation_steps", "batching", "tokens_per_batch")
    size, passes, batching, budget = (origin.option(f"training.{name}") for name in names)
    passes *= origin.processes
    if batching == "shuffle" and budget is None:
        return f"{size * passes} rows"
    # These plan pass by pass.
    what = f"{size} rows" if budget is None else f"{budget} tokens"
    return f"{passes} x {what}, batching {batching}"


def changes_in_words(parts: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """What has changed, one by one.

    Args:
        parts: how the names of a part begin, what was recorded of it, and what is here now.
    """
    return [
        f"{what}{name}: recorded {_short(before)}, now {_short(after)}"
        for what, then, now in parts
        for name, before, after in _differences(then, now)
    ]


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in [*then, *(name for name in now if name not in then)]:
        if then.get(name) != now.get(name):
            yield name, then.get(name), now.get(name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-12:]}"


def run_checkpoints(run: Run, origin: Origin, engine: Engine, *, started: float) -> CheckpointFolders:
    """The checkpoints of a run, with what only runs have in them.

    Args:
        started: when the run began, by `time.perf_counter`, as if it had never been interrupted.
    """

    def add_files(folder: Path) -> None:
        now = {
            "untrained_decay": engine.untrained_decay,
            "embedding_rows": engine.embedding_rows,
            "seconds": time.perf_counter() - started,
        }
        values = {**dataclasses.asdict(origin), **now}
        (folder / "run.json").write_text(json_text(values), encoding="utf-8")
        log = run.path / "metrics.jsonl"
        if log.exists():
            shutil.copyfile(log, folder / log.name)
        else:
            (folder / log.name).touch()

    return CheckpointFolders(add_files=add_files)


def go_on(resumption: Resumption, job: Job, setup: Setup, *, changed: bool) -> TrainingState:
    """Puts weights, moments and state where the checkpoint stands. Of several processes each calls it.

    Args:
        changed: whether something has changed that alters the result, and with it perhaps the length of training.

    Raises:
        CheckpointError: it is damaged, has been forged, or belongs to another model or textune.
    """
    folder = resumption.checkpoint
    assert folder is not None, "there is a checkpoint to go on from"
    recorded, values = read_json(folder / "run.json"), read_json(folder / "state.json")
    decay = recorded.get("untrained_decay")
    if not isinstance(decay, float):
        raise CheckpointError(
            f"The checkpoint {str(folder)!r}: 'untrained_decay' in its run.json is not what a run writes there.",
            hint="Go on from another checkpoint: --from step-N.",
        )
    state = TrainingState.from_json(values if isinstance(values, dict) else {})
    with job.engine.loading(decay):
        load_weights(folder, job.classifier.model)
    used = job.engine.used
    same_rows = recorded.get("embedding_rows", job.engine.embedding_rows) == job.engine.embedding_rows
    renewed = None if used is None or same_rows else used.weight
    for name in load_optimizer(folder, job.classifier.model, setup.optimizer, partly=changed, renewed=renewed):
        job.display.warning(f"{name}: AdamW's moments begin anew, because other rows of it are trained now")
    if changed:
        assert setup.schedule is not None, "a job has a schedule"
        state.total_steps, state.stop_reason = setup.schedule.total_steps, None
        if resumption.has_other_data(job.prepared) or any(
            change.startswith(_OF_EVALUATIONS) for change in resumption.changed_options
        ):
            state.forget_best()
    return state


@contextlib.contextmanager
def hint_of_resuming(folder: Path) -> Iterator[None]:
    """Says how what was interrupted goes on."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(
            error.message,
            signal_number=error.signal_number,
            hint=f"`textune train --resume {folder}` goes on from there.",
        ) from None
    except KeyboardInterrupt as error:
        error.args = (
            f"`textune train --resume {folder}` goes on from the last checkpoint, or begins anew where there is none.",
        )
        raise


def rewind_run(
    resumption: Resumption, environment: dict[str, Any], changes: Sequence[str], *, display: Display
) -> None:
    """Brings the run folder to where the checkpoint stands, and notes in environment.json that it went on from there.

    Args:
        environment: what the run goes on with.
        changes: what has changed that alters the result, in words.

    Raises:
        OutputError, StorageError: the folder cannot be written.
    """
    run, folder = resumption.run, resumption.checkpoint
    assert folder is not None, "there is a checkpoint to go on from"
    recorded = resumption.environment
    if recorded is None:
        display.warning("environment.json is missing or damaged: it is written anew, with what the run goes on with")
        recorded = environment
    for step in found(run.checkpoints_path):
        if step > resumption.step:  # damaged, or of a course that is left now
            remove_folder(STEP_FOLDERS.folder(run.checkpoints_path, step))
    run.go_back(folder)
    resumed = {
        "step": resumption.step,
        "changes": list(changes),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{name: value for name, value in environment.items() if name != "engine"},
    }
    # Before config.yaml: a kill in between must not leave options that nobody is known to have allowed.
    run.write("environment.json", {**recorded, "resumed": [*recorded.get("resumed", []), resumed]})
    run.write_config(resumption.config)
