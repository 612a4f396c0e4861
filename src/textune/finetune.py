"""The whole way, source to saved classifier. `textune.train` and the command line both call it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.audit.findings import Audit
from textune.config import Config
from textune.cores import threads
from textune.data.cache import workspace
from textune.data.prepare import PreparedData, prepare_training
from textune.display import Display, default_display
from textune.environment import describe, find_device
from textune.errors import ConfigError, UnavailableError
from textune.files import require_space, user_path
from textune.job import ForgetScores, Job, padding_of
from textune.lock import run_lock_or_warning
from textune.models.load import Classifier, find_checkpoint
from textune.options import resolve_options
from textune.preparation import audit_quickly, check_options, load, tokenize, warn_of_few_rows
from textune.repeats.beginnings import require_same_beginning
from textune.repeats.members import has_members, require_same_members, without_members
from textune.repeats.training import train_members
from textune.report.trackers import Tracker, open_trackers, require_installed
from textune.results import RunLog, complete, data_json, write_results
from textune.resume import (
    Origin,
    Resumption,
    choose_step,
    go_on,
    hint_of_resuming,
    origin_of,
    require_same_origin,
    rewind_run,
    run_checkpoints,
)
from textune.run import Run, check_output, leave_empty, output_path
from textune.seeds import generators_given_back
from textune.training.allocator import keep_few_kernels
from textune.training.callbacks import Callback, EarlyStopping
from textune.training.engine import Engine, build_engine
from textune.training.loop import train as run_loop
from textune.training.parallel import ALONE, Processes, connect
from textune.training.precision import Arithmetic, check_precision, choose
from textune.training.setup import Setup
from textune.training.signals import StopSignals
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import torch

    from textune.data.tokens import TokenRows


# Rows that audit.json names of each finding; `textune inspect --json` names all.
KEPT_FINDING_ROWS = 1000


def train(
    data: str | None = None,
    *,
    config: Config | str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: Run | str | os.PathLike[str] | None = None,
    from_checkpoint: str | None = None,
    allow_changes: bool = False,
    callbacks: Sequence[Callback] = (),
    display: Display | None = None,
    **options: Any,
) -> Run:
    """Fine-tunes a checkpoint on labelled text; the same as the command `textune train`.

    In several processes, which torchrun starts, all of them call it; the main one alone writes and shows something.

    Args:
        data: `sample`, a GLUE task, a hub data set, a file or a folder.
        config: a `Config`, or a YAML file that the other arguments override.
        settings: dotted names and values, {"training.adam_beta2": 0.98}.
        resume: a run, or its folder, that goes on from its last checkpoint with its recorded configuration, and ends
            with the bits it would have ended with. Options that do not alter the result may be given anew. Of several
            runs (`seeds`, `cv`) those that are not finished go on.
        from_checkpoint: the checkpoint to go on from instead, as "step-40"; later ones are removed.
        allow_changes: go on although data or options that alter the result have changed.
        callbacks: told of steps, logs, evaluations and checkpoints.
        display: what a person sees; None means bars on a terminal and plain lines elsewhere, `Display()` nothing.
        options: the short names of the command's flags: model, output, epochs, batch_size, learning_rate, seed, ...

    Returns:
        The finished run: its folder, summary, predictions and model. With `seeds` or `cv` there are several: `runs`
            has each of them, the summary their figures together (`textune.repeats`).

    Raises:
        TextuneError: see `textune.errors`; the message says what to do. `Interrupted` after SIGTERM, SIGINT,
            SIGUSR1 or SIGHUP, when the step they came in is committed.
    """
    named, settings = {**({} if data is None else {"data": data}), **options}, settings or {}
    if resume is not None:
        _check_resuming(config, [*named, *settings])
    elif from_checkpoint is not None or allow_changes:
        raise ConfigError("--from and --allow-changes say how a run goes on: they need --resume.")
    with connect() as processes, ExitStack() as stack:
        shown = (display or default_display()) if processes.is_main else Display()
        stack.callback(shown.close)
        with processes.main_first():  # so that what is wrong is said once
            run = Run.open(resume.path if isinstance(resume, Run) else resume) if resume is not None else None
            if run is not None and processes.is_main:
                stack.enter_context(run_lock_or_warning(run.path, shown.warning))
            resolved = resolve_options(config if run is None else run.config, named, settings)
            if run is not None:
                require_same_members(run, resolved, from_checkpoint=from_checkpoint)
        common: dict[str, Any] = {"display": shown, "callbacks": callbacks, "processes": processes}

        def train_member(member: Config, like: Run | None) -> Run:
            """Begins one run of several, or goes on with it."""
            path = Path(str(member.run.output))
            if not processes.from_main(lambda: (path / "config.yaml").is_file()):
                return fine_tune(member, like=like, allow_changes=allow_changes, **common)
            begun = Run(path)
            with run_lock_or_warning(path, shown.warning) if processes.is_main else nullcontext():
                changed = resolve_options(begun.config, *without_members(named, settings))
                if begun.is_finished:  # what the others begin with has been compared with what it began with
                    changed = dataclasses.replace(changed, data=begun.config.data, model=begun.config.model)
                return _go_on(begun, changed, allow_changes=allow_changes, like=like, **common)

        if has_members(resolved):
            return train_members(
                resolved,
                run,
                train_member=train_member,
                allow_changes=allow_changes,
                display=shown,
                processes=processes,
            )
        if run is not None:
            return _go_on(run, resolved, from_checkpoint=from_checkpoint, allow_changes=allow_changes, **common)
        return fine_tune(resolved, **common)


def _go_on(
    run: Run,
    config: Config,
    *,
    from_checkpoint: str | None = None,
    allow_changes: bool,
    display: Display,
    callbacks: Sequence[Callback],
    processes: Processes,
    like: Run | None = None,
) -> Run:
    """Goes on with a run whose lock the main process holds; see `train`.

    Args:
        config: as it was recorded, with what is given now laid over it.
        like: see `fine_tune`.
    """
    here = dataclasses.replace(config.run, output=str(run.path), overwrite=False)
    config = dataclasses.replace(config, run=here)
    planned = Resumption(run, config, allow_changes=allow_changes)
    step = processes.from_main(lambda: choose_step(planned, asked=from_checkpoint, display=display))
    if step is None:
        display.note(f"{run.path} is finished: there is nothing to go on with")
        if processes.is_main:
            complete(run, display, report=config.run.report)
        return run
    resumption = dataclasses.replace(planned, step=step)
    where = f"goes on from step {step}" if step else "has no checkpoint yet and starts anew"
    display.note(f"{run.path} {where}")
    return fine_tune(
        config,
        display=display,
        callbacks=callbacks,
        processes=processes,
        resumption=resumption,
        like=like,
        allow_changes=allow_changes,
    )


def _check_resuming(config: Config | str | os.PathLike[str] | None, names: Sequence[str]) -> None:
    if config is not None:
        raise ConfigError(
            "--config: a run goes on with its own config.yaml.",
            hint="Give the options that are to be others one by one.",
        )
    if odd := {"output", "overwrite", "run.output", "run.overwrite"}.intersection(names):
        raise ConfigError(f"--{min(odd)}: a run goes on in its own folder.", hint="Leave out this or --resume.")


def fine_tune(
    config: Config,
    *,
    display: Display,
    callbacks: Sequence[Callback] = (),
    processes: Processes = ALONE,
    resumption: Resumption | None = None,
    like: Run | None = None,
    allow_changes: bool = False,
) -> Run:
    """Reads, tokenises, trains, evaluates and saves. See `train`.

    Args:
        resumption: how the run goes on whose configuration this is; None for a new one.
        like: a run to go with: with the same data, checkpoint and threads, and in its arithmetic where the device is
            of the same kind.
        allow_changes: whether data and checkpoint may be others than those of `like`.
    """
    import torch

    started = time.perf_counter() - (0.0 if resumption is None else resumption.seconds)
    with processes.main_first():
        if resumption is None and config.run.output is not None:  # before minutes are spent
            check_output(user_path(config.run.output), overwrite=config.run.overwrite)
        require_installed(config.run.trackers or ())
        device = processes.device(find_device(config.training.device))
        check_precision(config.training.precision, device)
    with ExitStack() as stack:
        recorded = None if resumption is None else resumption.origin
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(config.training.threads or _usual_threads(processes, recorded, like))
        if config.engine.few_kernels:
            keep_few_kernels()  # before the first product
        # Training seeds torch's generators at every step; the caller's are given back as they were.
        stack.enter_context(generators_given_back(device))
        folder = stack.enter_context(workspace())
        with processes.main_first():  # converts the data, tokenises them and keeps both; the others find them there
            checkpoint = find_checkpoint(config.model.checkpoint, revision=config.model.revision)
            prepared = prepare_training(config.data, seed=config.training.seed, folder=folder)
            for note in (f"data: {prepared.source.location}", *prepared.notes):
                display.note(note)
            check_options(config, prepared)
            classifier = load(config, checkpoint, prepared, device=device, display=display)
            config, tokens = tokenize(config, prepared, classifier, display=display)
        is_told = processes.is_main and (resumption is None or resumption.has_other_data(prepared))
        if is_told and config.data.fold is None:
            warn_of_few_rows(prepared, display=display)
        audit = audit_quickly(prepared, tokens, classifier, display=display) if is_told else None
        processes.share_weights(classifier.model)
        processes.require_same([prepared.source.fingerprint, len(prepared.rows[prepared.train])], what="training data")
        arithmetic = _arithmetic(config, device, processes, recorded, like)
        display.note(f"arithmetic: {arithmetic.reason}")
        stack.enter_context(arithmetic.in_force())
        engine = stack.enter_context(_engine(config, classifier, tokens[prepared.train], arithmetic, device))
        for note in engine.notes:
            display.note(note)

        config = _with_output(config, prepared, processes)
        signals = StopSignals()
        job = Job(config, prepared, classifier, tokens, engine, display, processes, check_signals=signals.check)
        origin = origin_of(config, prepared, checkpoint, engine, processes)
        if like is not None and not allow_changes and processes.is_main:
            require_same_beginning(
                [like], prepared, origin.files, origin.processes, allow_changes=False, display=display
            )
        run, setup, state = _begin(job, origin, resumption, audit, stack, started=started)
        trackers = _trackers(job, run, stack, is_new=resumption is None)
        watchers = [signals, *callbacks, *_logs(job, run), *trackers, display]
        with signals, hint_of_resuming(run.path):
            state = run_loop(setup, callbacks=[*_deciders(job), *watchers], state=state)
            write_results(job, run, setup, state, started=started)
            for tracker in trackers:
                tracker.finish(run.summary)
    return run


def _begin(
    job: Job, origin: Origin, resumption: Resumption | None, audit: Audit | None, stack: ExitStack, *, started: float
) -> tuple[Run, Setup, TrainingState | None]:
    """Takes the run folder, and puts what a resumed training has to go on with in its place.

    Returns:
        The run, what the loop is given, and the state to go on from; None for the beginning.
    """
    run = Run(Path(str(job.config.run.output)))
    changes = [] if resumption is None else require_same_origin(resumption, origin, display=job.display)
    state = None
    folders = run_checkpoints(run, origin, job.engine, started=started)
    with job.processes.main_first():
        setup = job.setup(checkpoints=run.checkpoints_path, folders=folders)
        if job.processes.is_main and resumption is None:
            check_output(run.path, overwrite=job.config.run.overwrite)
            stack.enter_context(run_lock_or_warning(run.path, job.display.warning))
        if resumption is not None and resumption.checkpoint is not None:
            state = go_on(resumption, job, setup, changed=bool(changes))
        if job.processes.is_main:
            _write_run(job, run, setup, resumption, changes)
            if audit is not None:
                run.write("audit.json", audit.as_json(limit=KEPT_FINDING_ROWS))
    return run, setup, state


def _deciders(job: Job) -> list[Callback]:
    """Those who come before all others: they decide or forget what others look at."""
    patience = job.config.evaluation.patience
    early = [] if patience is None else [EarlyStopping(patience)]
    return [*early, ForgetScores(job.latest)]


def _logs(job: Job, run: Run) -> list[Callback]:
    return [RunLog(run, split=job.validation)] if job.processes.is_main else []


def _trackers(job: Job, run: Run, stack: ExitStack, *, is_new: bool) -> list[Tracker]:
    """Starts the trackers; whatever happens, they are closed with the stack.

    Raises:
        UnavailableError: one cannot be started; a new run has taken its folder for nothing then, and leaves it empty.
    """
    if not job.processes.is_main:
        return []
    names, warn = job.config.run.trackers or (), job.display.warning
    try:
        trackers = open_trackers(names, run, job.config, split=job.validation, warn=warn)
    except UnavailableError:
        if is_new:
            leave_empty(run)
        raise
    for tracker in trackers:
        stack.callback(tracker.close)
    return trackers


def _usual_threads(processes: Processes, recorded: Origin | None, like: Run | None) -> int:
    """As many as were recorded, for the bits depend on them."""
    if recorded is not None:
        return recorded.threads
    if like is not None:
        return int(processes.from_main(lambda: like.environment["threads"]))
    return threads(processes=processes.local_world_size)


def _arithmetic(
    config: Config, device: torch.device, processes: Processes, recorded: Origin | None, like: Run | None
) -> Arithmetic:
    """What was recorded, where it is still asked for and the device is of the same kind; else it is measured.

    The main process measures, so that all compute alike and none disturbs the other.
    """
    if (
        recorded is not None
        and recorded.options["training.precision"] == config.training.precision
        and _device_type(recorded.software["device"]) == device.type
    ):
        return Arithmetic.from_json(recorded.arithmetic)
    if like is not None:
        environment = processes.from_main(lambda: like.environment)
        if _device_type(environment["device"]) == device.type:
            return Arithmetic.from_json(environment["arithmetic"])
    return Arithmetic.from_json(processes.from_main(lambda: choose(config.training.precision, device).as_json()))


def _device_type(described: str) -> str:
    """`cuda` of `cuda:0 (NVIDIA ...)`."""
    return described.split(" ")[0].split(":")[0]


def _with_output(config: Config, prepared: PreparedData, processes: Processes) -> Config:
    """The configuration with the run folder, where none was named the next free one."""
    output = processes.from_main(lambda: str(output_path(config, prepared.source.name)))
    return dataclasses.replace(config, run=dataclasses.replace(config.run, output=output))


def _write_run(job: Job, run: Run, setup: Setup, resumption: Resumption | None, changes: Sequence[str]) -> None:
    """What stands in the run folder before the first step. This process holds its lock."""
    environment = {**describe(job.engine.device, job.engine.arithmetic), "engine": list(job.engine.notes)}
    # Before anything is taken away; what the run holds of these gives room to what will be written.
    places = (run.checkpoints_path, run.model_path, run.predictions_path)
    held = sum(file.stat().st_size for place in places for file in place.rglob("*") if file.is_file())
    require_space(run.path, job.bytes_needed(setup) - held, what="its checkpoints, model and predictions")
    if resumption is not None and resumption.checkpoint is not None:
        rewind_run(resumption, environment, changes, display=job.display)
    else:
        Run.create(run.path, overwrite=job.config.run.overwrite or resumption is not None, config=job.config)
        run.write("environment.json", environment)
    run.write("data.json", data_json(job))


def _engine(
    config: Config, classifier: Classifier, tokens: TokenRows, arithmetic: Arithmetic, device: torch.device
) -> AbstractContextManager[Engine]:
    """What computes the passes over the training split's tokens, and evaluations."""
    padding = padding_of(config, classifier)
    return build_engine(
        classifier.model, config.engine, tokens=tokens, padding=padding, arithmetic=arithmetic, device=device
    )
