"""The whole way, source to saved classifier. `textune.train` and the command line both call it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.config import SHORT_NAMES, Config
from textune.config_reading import read_config
from textune.data.batching import BatchPlan
from textune.data.cache import cache_root
from textune.data.collate import Padding
from textune.data.prepare import PreparedData, prepare_evaluation, prepare_training
from textune.data.tokenize import length_statistics, tokenize_split
from textune.display import Display, default_display
from textune.durations import Duration
from textune.environment import cores, describe, find_device, peak_memory_mib
from textune.errors import CheckpointError, ConfigError, DataError, TrainingError, did_you_mean
from textune.evaluation.metrics import metric_names, selection_metric
from textune.evaluation.predictions import LabelSet, first_not_finite, predict_logits, predictions_table
from textune.evaluation.scoring import Scores, score
from textune.files import replacing, storage_errors
from textune.models.layers import freeze
from textune.models.load import Classifier, find_checkpoint, load_classifier, save_classifier
from textune.models.losses import Loss, resolve_class_weights
from textune.models.tokenizer import max_tokens
from textune.report.card import model_card
from textune.run import Run, check_output, next_free_path
from textune.serving.predictor import Predictor
from textune.training.callbacks import Callback, EarlyStopping, Record
from textune.training.checkpoint import load_weights
from textune.training.loop import Intervals, Selection, Setup, TrainingRows
from textune.training.loop import train as run_loop
from textune.training.optimizer import build_optimizer
from textune.training.precision import Arithmetic, choose
from textune.training.schedule import Schedule
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from textune.data.tokens import TokenRows


# What `evaluate` and its command take of the configuration's short names.
EVALUATE_OPTIONS = ("local_copy", "text", "text_pair", "label", "delimiter", "drop_bad_rows")


def train(
    data: str | None = None,
    *,
    config: Config | str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    display: Display | None = None,
    **options: Any,
) -> Run:
    """Fine-tunes a checkpoint on labelled text; the same as the command `textune train`.

    Args:
        data: `sample`, a GLUE task, a hub data set, a file or a folder.
        config: a `Config`, or a YAML file that the other arguments override.
        settings: dotted names and values, {"training.adam_beta2": 0.98}.
        callbacks: told of steps, logs, evaluations and checkpoints.
        display: what a person sees; None means bars on a terminal and plain lines elsewhere, `Display()` nothing.
        options: the short names of the command's flags: model, output, epochs, batch_size, learning_rate, seed, ...

    Returns:
        The finished run: its folder, summary, predictions and model.

    Raises:
        TextuneError: see `textune.errors`; the message says what to do.
    """
    named = {**({} if data is None else {"data": data}), **options}
    resolved = resolve_options(config, named, settings or {})
    shown = default_display() if display is None else display
    try:
        return fine_tune(resolved, display=shown, callbacks=callbacks)
    finally:
        shown.close()


def evaluate(
    run: Run | str | os.PathLike[str], data: str, *, display: Display | None = None, **options: Any
) -> dict[str, Scores]:
    """Scores a finished run on other labelled data; the same as the command `textune evaluate`.

    Args:
        run: a run, its folder, or a folder with a model that textune saved.
        data: as for `train`.
        options: those of `EVALUATE_OPTIONS`, `batch_size` and `device`.

    Returns:
        The scores of each labelled split, by its name.
    """
    shown = default_display() if display is None else display
    batch_size, device = options.pop("batch_size", 32), options.pop("device", "auto")
    _require_known(options, known=EVALUATE_OPTIONS, help_for="textune.evaluate")
    config = resolve_options(None, {"data": data, **options}, {}).data
    predictor = Predictor.load(run, batch_size=batch_size, device=device)
    if predictor.schema is None:
        raise CheckpointError(
            f"{str(run)!r} is not a run of textune, so that the meaning of its columns is not known.",
            hint="Name the run folder that `textune train` made.",
        )
    try:
        with _workspace() as folder:
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
            values["training.duration"] = f"{value}epochs"
        else:
            values[SHORT_NAMES[name]] = value
    path = None if config is None or isinstance(config, Config) else Path(config)
    return read_config(path, {**values, **settings})


def _require_known(options: Iterable[str], *, known: Sequence[str], help_for: str) -> None:
    unknown = [f"There is no option {name!r}.{did_you_mean(name, known)}" for name in options if name not in known]
    if unknown:
        raise ConfigError(unknown, hint=f"The options are {', '.join(known)}: see help({help_for}).")


def fine_tune(config: Config, *, display: Display, callbacks: Sequence[Callback] = ()) -> Run:
    """Reads, tokenises, trains, evaluates and saves. See `train`."""
    import torch

    started = time.perf_counter()
    if config.run.output is not None:  # before minutes are spent
        check_output(Path(config.run.output), overwrite=config.run.overwrite)
    device = find_device(config.training.device)
    torch.set_num_threads(config.training.threads or cores())
    with ExitStack() as stack:
        # Training seeds torch's generators at every step; the caller's are given back as they were.
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        folder = stack.enter_context(_workspace())
        checkpoint = find_checkpoint(config.model.checkpoint, revision=config.model.revision)
        prepared = prepare_training(config.data, seed=config.training.seed, folder=folder)
        for note in (f"data: {prepared.source.location}", *prepared.notes):
            display.note(note)
        classifier = _load(config, checkpoint, prepared, display=display)
        config, tokens = _tokenize(config, prepared, classifier, display=display)
        arithmetic = choose(config.training.precision, device)
        display.note(f"arithmetic: {arithmetic.reason}")
        stack.enter_context(arithmetic.in_force())

        output = config.run.output or next_free_path(prepared.source.name, Path(config.model.checkpoint).name)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, output=str(output)))
        job = _Job(config, prepared, classifier, tokens, arithmetic, device, display)
        setup = job.setup(checkpoints=Path(output, "checkpoints"))
        run = Run.create(Path(output), overwrite=config.run.overwrite, config=config)
        run.write("environment.json", describe(device, arithmetic))
        run.write("data.json", job.data_json())
        watchers = [_Forget(job.latest), *callbacks, _RunLog(run, setup_split=job.validation), display]
        if config.evaluation.patience is not None:
            watchers.insert(0, EarlyStopping(config.evaluation.patience))
        state = run_loop(setup, callbacks=watchers)
        job.finish(run, setup, state, started=started)
    return run


@dataclasses.dataclass(frozen=True)
class _Job:
    """The parts of one training, once they are all there."""

    config: Config
    prepared: PreparedData
    classifier: Classifier
    tokens: dict[str, TokenRows]
    arithmetic: Arithmetic
    device: torch.device
    display: Display
    latest: dict[str, tuple[npt.NDArray[np.floating[Any]], Scores]] = dataclasses.field(default_factory=dict)
    """Logits and scores of each split by the model's current weights."""

    @property
    def validation(self) -> str:
        return self.prepared.roles.validation[0]

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.prepared.schema.problem_type, self.prepared.schema.label_names)

    @property
    def metric_names(self) -> list[str]:
        task = self.prepared.source.task
        return metric_names(self.label_set, first=() if task is None else task.metrics)

    @property
    def padding(self) -> Padding:
        tokens = self.config.tokens
        width = tokens.max_length if tokens.pad_to_max_length else None
        return Padding.of(self.classifier.tokenizer, multiple_of=tokens.pad_to_multiple_of, width=width)

    def setup(self, *, checkpoints: Path) -> Setup:
        """Turns the configuration into the pieces of the loop; durations become steps here, once."""
        config, training, schema = self.config, self.config.training, self.prepared.schema
        train_rows = self.prepared.rows[self.prepared.train]
        labels = _labels(train_rows)
        assert labels is not None, "the training split is labelled"
        plan = BatchPlan(len(train_rows), training.batch_size, training.gradient_accumulation_steps, training.seed)
        scale = {"steps_per_epoch": plan.steps_per_epoch, "batch_size": plan.rows_per_step}
        total_steps = Duration.parse(training.duration).in_steps(**scale)
        warmup = Duration.parse(training.warmup).in_steps(**scale, total_steps=total_steps)
        intervals = {
            name: Duration.parse(text).as_interval(**scale, total_steps=total_steps)
            for name, text in {
                "log": training.log_every,
                "evaluation": config.evaluation.every,
                "checkpoint": config.checkpoint.every,
            }.items()
        }
        metric, higher_is_better = selection_metric(config.evaluation.metric, self.metric_names)
        weights = resolve_class_weights(
            training.class_weights, labels, problem_type=schema.problem_type, num_labels=schema.num_labels
        )
        if config.model.freeze is not None:
            frozen = freeze(self.classifier.model, config.model.freeze)
            self.display.note(f"frozen: {frozen:,} weights ({config.model.freeze})")
        self.classifier.model.to(self.device)
        return Setup(
            model=self.classifier.model,
            device=self.device,
            rows=TrainingRows(self.tokens[self.prepared.train], labels, train_rows["id"]),
            plan=plan,
            padding=self.padding,
            loss=Loss(schema.problem_type, class_weights=weights, label_smoothing=training.label_smoothing),
            optimizer=build_optimizer(self.classifier.model, training),
            schedule=Schedule(training.schedule, warmup, total_steps),
            arithmetic=self.arithmetic,
            learning_rate=training.learning_rate,
            max_grad_norm=training.max_grad_norm,
            seed=training.seed,
            intervals=Intervals(**intervals),
            selection=Selection(
                metric,
                higher_is_better,
                config.evaluation.min_improvement,
                keep_best=config.evaluation.select == "best",
            ),
            evaluate=self.evaluate,
            checkpoints=checkpoints,
            keep_checkpoints=config.checkpoint.keep,
        )

    def logits(self, split: str) -> npt.NDArray[np.floating[Any]]:
        """Runs the model over one split."""
        with self.display.progress(f"scoring {split}", len(self.tokens[split])) as advance:
            logits = predict_logits(
                self.classifier.model,
                self.tokens[split],
                padding=self.padding,
                batch_size=self.config.evaluation.batch_size,
                device=self.device,
                on_progress=advance,
            )
        wrong = first_not_finite(logits)
        if wrong is not None:
            raise TrainingError(
                f"The model's scores for row {wrong + 1} of {split} are not finite numbers: training has diverged.",
                hint="A lower --learning-rate, --warmup 10% or --precision fp32 often helps.",
            )
        return logits

    def evaluate(self) -> dict[str, float | None]:
        """Scores the validation split with the current weights; the loop calls it."""
        self.latest[self.validation] = self.score(self.validation)
        return self.latest[self.validation][1].metrics

    def score(self, split: str) -> tuple[npt.NDArray[np.floating[Any]], Scores]:
        """Returns the logits of a labelled split and their scores."""
        logits, labels = self.logits(split), _labels(self.prepared.rows[split])
        assert labels is not None, "only labelled splits are scored"
        return logits, score(logits, labels, self.label_set, metric_names=self.metric_names)

    def data_json(self) -> dict[str, Any]:
        """The contents of data.json."""
        splits = {
            name: {
                "rows": len(self.prepared.rows[name]),
                "labelled": "labels" in split.column_names,
                "lengths": length_statistics(self.tokens[name]).as_json(),
            }
            for name, split in self.prepared.rows.items()
            if name in self.tokens
        }
        return {**self.prepared.as_json(), "max_length": self.config.tokens.max_length, "splits": splits}

    def finish(self, run: Run, setup: Setup, state: TrainingState, *, started: float) -> None:
        """Chooses the weights, scores every split with them, and writes model, predictions and, last, the summary."""
        select, step = self.config.evaluation.select, state.step
        if select == "best" and state.best_step not in {None, state.step}:
            assert state.best_step is not None
            step = state.best_step
            load_weights(run.checkpoints_path / f"step-{step}", self.classifier.model)
            self.latest.clear()
        summary: dict[str, Any] = {
            "selected": {
                "weights": select,
                "step": step,
                "epoch": round(step / setup.plan.steps_per_epoch, 4),
                "split": self.validation,
                "metric": setup.selection.metric,
            }
        }
        for split in (*self.prepared.roles.validation, *self.prepared.roles.test):
            rows = self.prepared.rows[split]
            labels = _labels(rows)
            if labels is None:
                logits = self.logits(split)
                self.display.note(f"{split}: no labels, so predictions only")
            else:
                logits, scores = self.latest.get(split) or self.score(split)
                summary[split] = scores.as_json()
            table = predictions_table(logits, self.label_set, ids=rows["id"][:], labels=labels)
            _write_parquet(table, run.predictions_path / f"{split}.parquet")
        length = self.config.tokens.max_length
        assert length is not None, "resolved when the rows were tokenised"
        save_classifier(self.classifier, run.model_path, max_length=length)
        summary["training"] = {
            "steps": state.step,
            "epochs": round(state.step / setup.plan.steps_per_epoch, 4),
            "stop_reason": state.stop_reason,
            "seconds": round(state.seconds, 3),
            "seconds_in_all": round(time.perf_counter() - started, 3),
            "samples_per_second": round(state.examples / state.seconds, 2),
            "tokens_per_second": round(state.tokens / state.seconds, 1),
            "peak_memory_mib": round(peak_memory_mib(self.device), 1),
            "precision": self.arithmetic.precision,
        }
        card = model_card(config=self.config, prepared=self.prepared, summary=summary)
        with replacing(run.model_path / "README.md") as temporary:
            temporary.write_text(card, encoding="utf-8")
        run.write("summary.json", summary)


class _Forget(Callback):
    """Forgets what was computed with weights that are no longer the model's."""

    def __init__(self, latest: dict[str, Any]) -> None:
        self._latest = latest

    def on_step(self, state: TrainingState) -> None:
        self._latest.clear()


class _RunLog(Callback):
    """Writes logs and evaluations to metrics.jsonl."""

    def __init__(self, run: Run, *, setup_split: str) -> None:
        self._run = run
        self._split = setup_split

    def on_log(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "training", **record})

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "evaluation", "split": self._split, **record})


def _load(config: Config, checkpoint: Path, prepared: PreparedData, *, display: Display) -> Classifier:
    classifier = load_classifier(
        checkpoint,
        problem_type=prepared.schema.problem_type,
        label_names=prepared.schema.label_names,
        seed=config.training.seed,
        dropout=config.model.dropout,
    )
    for note in classifier.notes:
        display.note(f"{config.model.checkpoint}: {note}")
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


def _score_splits(prepared: PreparedData, predictor: Predictor, *, display: Display) -> dict[str, Scores]:
    results = {}
    for name, rows in prepared.rows.items():
        labels = _labels(rows)
        if labels is None:
            display.note(f"{name}: no labels, so nothing to score")
            continue
        with display.progress(f"scoring {name}", len(rows)) as advance:
            logits = predictor.logits_of(rows, on_progress=advance)
        task = prepared.source.task
        names = metric_names(predictor.label_set, first=() if task is None else task.metrics)
        results[name] = score(logits, labels, predictor.label_set, metric_names=names)
    if not results:
        raise DataError(
            f"{prepared.source.location} has no labels in column {prepared.schema.label!r}, so nothing can be scored.",
            hint="Name the label column with --label; `textune predict` needs none.",
        )
    return results


def _labels(rows: Any) -> npt.NDArray[Any] | None:
    """The labels of typed rows as one array; None where there are none."""
    if "labels" not in rows.column_names:
        return None
    return np.asarray(rows.with_format("numpy")["labels"][:])


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet

    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


@contextmanager
def _workspace() -> Iterator[Path]:
    """A folder for typed rows while they are used; Arrow maps them from there, so that memory stays flat."""
    root = cache_root("rows")
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)
