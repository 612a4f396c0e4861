"""The whole way, source to saved classifier. `textune.train` and the command line both call it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.audit.auditing import quick_audit
from textune.audit.findings import Audit
from textune.config import SHORT_NAMES, Config
from textune.config_reading import read_config
from textune.cores import threads
from textune.data.cache import workspace
from textune.data.prepare import PreparedData, prepare_evaluation, prepare_training
from textune.data.rows import labels_of
from textune.data.tokenize import length_statistics, tokenize_split
from textune.display import Display, default_display
from textune.environment import describe, find_device
from textune.errors import CheckpointError, ConfigError, DataError, did_you_mean
from textune.evaluation.metrics import metric_names
from textune.evaluation.scoring import Scores, score, with_uncertainty
from textune.files import require_space
from textune.job import ForgetScores, Job, padding_of
from textune.lock import run_lock
from textune.models.layers import freeze
from textune.models.load import Classifier, find_checkpoint, load_classifier
from textune.models.tokenizer import max_tokens
from textune.repeats.members import has_members, require_same_members, without_members
from textune.repeats.training import train_members
from textune.report.trackers import Tracker, open_trackers, require_installed
from textune.results import RunLog, data_json, write_results
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
from textune.run import Run, check_output, next_free_path
from textune.serving.predictor import Predictor
from textune.training.allocator import keep_few_kernels
from textune.training.callbacks import Callback, EarlyStopping
from textune.training.engine import Engine, build_engine
from textune.training.loop import Setup
from textune.training.loop import train as run_loop
from textune.training.parallel import ALONE, Processes, connect
from textune.training.precision import Arithmetic, choose
from textune.training.signals import StopSignals

if TYPE_CHECKING:
    import torch

    from textune.data.tokens import TokenRows


# Rows that audit.json names of each finding; `textune inspect --json` names all.
KEPT_FINDING_ROWS = 1000

# What `evaluate` and its command take of the configuration's short names.
EVALUATE_OPTIONS = ("local_copy", "text", "text_pair", "label", "delimiter", "drop_bad_rows")


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
        TextuneError: see `textune.errors`; the message says what to do. `Interrupted` after SIGTERM, SIGINT or
            SIGUSR1, when the step they came in is committed.
    """
    named, settings = {**({} if data is None else {"data": data}), **options}, settings or {}
    if resume is not None:
        _check_resuming(config, [*named, *settings])
    elif from_checkpoint is not None or allow_changes:
        raise ConfigError("--from and --allow-changes say how a run goes on: they need --resume.")
    with connect() as processes, ExitStack() as stack:
        with processes.main_first():  # so that what is wrong is said once
            run = Run.open(resume.path if isinstance(resume, Run) else resume) if resume is not None else None
            if run is not None and processes.is_main:
                stack.enter_context(run_lock(run.path))
            resolved = resolve_options(config if run is None else run.config, named, settings)
            if run is not None:
                require_same_members(run, resolved, from_checkpoint=from_checkpoint)
        shown = (display or default_display()) if processes.is_main else Display()
        stack.callback(shown.close)
        common: dict[str, Any] = {"display": shown, "callbacks": callbacks, "processes": processes}

        def train_member(member: Config, like: Run | None) -> Run:
            """Begins one run of several, or goes on with it."""
            path = Path(str(member.run.output))
            if not processes.from_main(lambda: (path / "config.yaml").is_file()):
                return fine_tune(member, like=like, **common)
            begun = Run(path)
            with run_lock(path) if processes.is_main else nullcontext():
                changed = resolve_options(begun.config, *without_members(named, settings))
                return _go_on(begun, changed, allow_changes=allow_changes, like=like, **common)

        if has_members(resolved):
            return train_members(resolved, run, train_member=train_member, display=shown, processes=processes)
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
        return run
    resumption = dataclasses.replace(planned, step=step)
    where = f"goes on from step {step}" if step else "has no checkpoint yet and starts anew"
    display.note(f"{run.path} {where}")
    return fine_tune(
        config, display=display, callbacks=callbacks, processes=processes, resumption=resumption, like=like
    )


def evaluate(
    run: Run | str | os.PathLike[str], data: str, *, display: Display | None = None, **options: Any
) -> dict[str, Scores]:
    """Scores a finished run on other labelled data; the same as the command `textune evaluate`.

    Args:
        run: a run, its folder, or a folder with a model that textune saved.
        data: as for `train`.
        options: those of `EVALUATE_OPTIONS` and of `Predictor.load`: `batch_size`, `device` and `precision`.

    Returns:
        The scores of each labelled split, by its name.
    """
    shown = default_display() if display is None else display
    chosen = {name: options.pop(name) for name in ("batch_size", "device", "precision") if name in options}
    _require_known(options, known=EVALUATE_OPTIONS, help_for="textune.evaluate")
    config = resolve_options(None, {"data": data, **options}, {}).data
    predictor = Predictor.load(run, **chosen)
    if chosen.get("precision", "fp32") != "fp32":
        shown.note(f"arithmetic: {predictor.arithmetic.reason}")
    if predictor.schema is None:
        raise CheckpointError(
            f"{str(run)!r} is not a run of textune, so that the meaning of its columns is not known.",
            hint="Name the run folder that `textune train` made.",
        )
    try:
        with workspace() as folder:
            prepared = prepare_evaluation(config, predictor.schema, folder=folder)
            for note in prepared.notes:
                shown.note(note)
            return _score_splits(prepared, predictor, display=shown)
    finally:
        shown.close()


def resolve_options(
    config: Config | str | os.PathLike[str] | None, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> Config:
    """Brings a configuration, short option names and dotted settings together, later ones winning.

    Raises:
        ConfigError: all mistakes at once.
    """
    values: dict[str, Any] = {}
    if isinstance(config, Config):
        values = {
            f"{section.name}.{name}": value
            for section in dataclasses.fields(Config)
            for name, value in dataclasses.asdict(getattr(config, section.name)).items()
        }
    _require_known(options, known=[*SHORT_NAMES, "epochs"], help_for="textune.train")
    for name, value in options.items():
        if name == "epochs":
            values["training.duration"] = _epochs(value)
        else:
            values[SHORT_NAMES[name]] = value
    path = None if config is None or isinstance(config, Config) else Path(config)
    return read_config(path, {**values, **settings})


def _check_resuming(config: Config | str | os.PathLike[str] | None, names: Sequence[str]) -> None:
    if config is not None:
        raise ConfigError(
            "--config: a run goes on with its own config.yaml.",
            hint="Give the options that are to be others one by one.",
        )
    if odd := {"output", "overwrite", "run.output", "run.overwrite"}.intersection(names):
        raise ConfigError(f"--{min(odd)}: a run goes on in its own folder.", hint="Leave out this or --resume.")


def _epochs(value: Any) -> str:
    try:
        return f"{float(value):g}epochs"
    except (TypeError, ValueError):
        raise ConfigError(f"--epochs: expected a number, found {value!r}.") from None


def _require_known(options: Iterable[str], *, known: Sequence[str], help_for: str) -> None:
    unknown = [f"There is no option {name!r}.{did_you_mean(name, known)}" for name in options if name not in known]
    if unknown:
        raise ConfigError(unknown, hint=f"The options are {', '.join(known)}: see help({help_for}).")


def fine_tune(
    config: Config,
    *,
    display: Display,
    callbacks: Sequence[Callback] = (),
    processes: Processes = ALONE,
    resumption: Resumption | None = None,
    like: Run | None = None,
) -> Run:
    """Reads, tokenises, trains, evaluates and saves. See `train`.

    Args:
        resumption: how the run goes on whose configuration this is; None for a new one.
        like: a run in whose arithmetic a new one is computed, where the device is of the same kind.
    """
    import torch

    started = time.perf_counter()
    with processes.main_first():
        if resumption is None and config.run.output is not None:  # before minutes are spent
            check_output(Path(config.run.output).expanduser(), overwrite=config.run.overwrite)
        require_installed(config.run.trackers or ())
        device = processes.device(find_device(config.training.device))
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        recorded = None if resumption is None else resumption.origin
        usual = threads(processes=processes.local_world_size) if recorded is None else recorded.threads
        torch.set_num_threads(config.training.threads or usual)
        if config.engine.few_kernels:
            keep_few_kernels()  # before the first product
        # Training seeds torch's generators at every step; the caller's are given back as they were.
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        folder = stack.enter_context(workspace())
        with processes.main_first():  # converts the data, tokenises them and keeps both; the others find them there
            checkpoint = find_checkpoint(config.model.checkpoint, revision=config.model.revision)
            prepared = prepare_training(config.data, seed=config.training.seed, folder=folder)
            for note in (f"data: {prepared.source.location}", *prepared.notes):
                display.note(note)
            classifier = _load(config, checkpoint, prepared, device=device, display=display)
            config, tokens = _tokenize(config, prepared, classifier, display=display)
        audit = _audit(prepared, tokens, display=display) if processes.is_main and recorded is None else None
        processes.share_weights(classifier.model)
        processes.require_same([prepared.source.fingerprint, len(prepared.rows[prepared.train])], what="training data")
        arithmetic = _arithmetic(config, device, processes, recorded, like)
        display.note(f"arithmetic: {arithmetic.reason}")
        stack.enter_context(arithmetic.in_force())

        engine = stack.enter_context(_engine(config, classifier, tokens[prepared.train], arithmetic, device))
        for note in engine.notes:
            display.note(note)

        config = _with_output(config, prepared, processes)
        output = Path(str(config.run.output))
        run, signals = Run(output), StopSignals()
        job = Job(config, prepared, classifier, tokens, engine, display, processes, check_signals=signals.check)
        origin = origin_of(config, prepared, checkpoint, engine, processes)
        changed = resumption is not None and require_same_origin(resumption, origin, display=display)
        with processes.main_first():
            setup = job.setup(checkpoints=output / "checkpoints", folders=run_checkpoints(run, origin, engine))
            if processes.is_main and resumption is None:
                check_output(output, overwrite=config.run.overwrite)
                stack.enter_context(run_lock(output))
            state = None
            if resumption is not None and resumption.checkpoint is not None:
                state = go_on(resumption, job, setup, changed=changed)
            if processes.is_main:
                _write_run(job, run, setup, resumption)
                if audit is not None:
                    run.write("audit.json", audit.as_json(limit=KEPT_FINDING_ROWS))
        log: list[Callback] = []
        trackers: list[Tracker] = []
        if processes.is_main:
            names = config.run.trackers or ()
            trackers = open_trackers(names, run, config, split=job.validation, warn=display.warning)
            for tracker in trackers:
                stack.callback(tracker.close)
            log = [RunLog(run, split=job.validation), *trackers]
        watchers = [ForgetScores(job.latest), signals, *callbacks, *log, display]
        if config.evaluation.patience is not None:
            watchers.insert(0, EarlyStopping(config.evaluation.patience))
        with signals, hint_of_resuming(run.path):
            state = run_loop(setup, callbacks=watchers, state=state)
            write_results(job, run, setup, state, started=started)
            for tracker in trackers:
                tracker.finish(run.summary)
    return run


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
    output = config.run.output or processes.from_main(
        lambda: str(next_free_path(prepared.source.name, Path(config.model.checkpoint).name))
    )
    return dataclasses.replace(config, run=dataclasses.replace(config.run, output=str(Path(output).expanduser())))


def _write_run(job: Job, run: Run, setup: Setup, resumption: Resumption | None) -> None:
    """What stands in the run folder before the first step. This process holds its lock."""
    environment = {**describe(job.engine.device, job.engine.arithmetic), "engine": list(job.engine.notes)}
    goes_on = resumption is not None and resumption.checkpoint is not None
    if goes_on:
        assert resumption is not None
        rewind_run(resumption, environment)
    held = sum(file.stat().st_size for file in run.checkpoints_path.rglob("*") if file.is_file()) if goes_on else 0
    require_space(run.path, job.bytes_needed(setup) - held, what="its checkpoints, model and predictions")
    if not goes_on:
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


def _load(
    config: Config, checkpoint: Path, prepared: PreparedData, *, device: torch.device, display: Display
) -> Classifier:
    classifier = load_classifier(
        checkpoint,
        problem_type=prepared.schema.problem_type,
        label_names=prepared.schema.label_names,
        seed=config.training.seed,
        dropout=config.model.dropout,
    )
    for note in classifier.notes:
        display.note(f"{config.model.checkpoint}: {note}")
    if config.model.freeze is not None:
        frozen = freeze(classifier.model, config.model.freeze)
        display.note(f"frozen: {frozen:,} weights ({config.model.freeze})")
    classifier.model.to(device)
    return classifier


def _tokenize(
    config: Config, prepared: PreparedData, classifier: Classifier, *, display: Display
) -> tuple[Config, dict[str, TokenRows]]:
    """Tokenises the splits that have a part, and returns the configuration with the length that was chosen."""
    length = max_tokens(
        classifier.model.config,
        classifier.tokenizer,
        asked=config.tokens.max_length,
        multiple_of=config.tokens.pad_to_multiple_of,
    )
    config = dataclasses.replace(config, tokens=dataclasses.replace(config.tokens, max_length=length))
    roles = prepared.roles
    tokens = {}
    for split in (prepared.train, *roles.validation, *roles.test):
        rows = prepared.rows[split]
        with display.progress(f"tokenising {split}", len(rows)) as advance:
            tokens[split] = tokenize_split(
                rows,
                classifier.tokenizer,
                max_length=length,
                num_workers=config.tokens.num_workers,
                on_progress=advance,
            )
        lengths = length_statistics(tokens[split])
        if lengths.truncated_rows:
            display.warning(
                f"{split}: {lengths.truncated_rows:,} of {lengths.rows:,} rows were cut to {length} tokens, "
                f"{lengths.truncated_tokens:,} tokens lost (see --max-length)"
            )
    train = length_statistics(tokens[prepared.train])
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in tokens.items())
    display.note(f"rows: {sizes}; tokens in a training row: median {train.median:.0f}, longest {train.longest}")
    return config, tokens


def _audit(prepared: PreparedData, tokens: Mapping[str, TokenRows], *, display: Display) -> Audit:
    """Says what is wrong with the data, one line each; truncation has been told when they were tokenised."""
    audit = quick_audit(prepared, tokens=tokens)
    for finding in audit.with_severity("warning"):
        if finding.kind != "truncated":
            display.warning(finding.line)
    return audit


def _score_splits(prepared: PreparedData, predictor: Predictor, *, display: Display) -> dict[str, Scores]:
    results = {}
    for name, rows in prepared.rows.items():
        labels = labels_of(rows)
        if labels is None:
            display.note(f"{name}: no labels, so nothing to score")
            continue
        with display.progress(f"scoring {name}", len(rows)) as advance:
            logits = predictor.logits_of(rows, on_progress=advance)
        task = prepared.source.task
        names = metric_names(predictor.label_set, first=() if task is None else task.metrics)
        scores = score(logits, labels, predictor.label_set, metric_names=names)
        results[name] = with_uncertainty(scores, logits, labels, predictor.label_set)
    if not results:
        raise DataError(
            f"{prepared.source.location} has no labels in column {prepared.schema.label!r}, so nothing can be scored.",
            hint="Name the label column with --label; `textune predict` needs none.",
        )
    return results
