"""One training with all its parts: what the loop is given, and how its splits are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from textune.config import Config
from textune.data.batching import BatchPlan, Plan, ShapedPlan, shaped_plan
from textune.data.collate import Padding
from textune.data.prepare import PreparedData
from textune.data.rows import labels_of
from textune.data.tokens import TokenRows
from textune.display import Display
from textune.durations import Duration
from textune.errors import TrainingError
from textune.evaluation.forward import why_batches_are_padded
from textune.evaluation.metrics import selection_metric
from textune.evaluation.predictions import FloatArray, LabelSet, first_not_finite, predict_logits
from textune.evaluation.scoring import Scores, score
from textune.models.load import Classifier
from textune.models.losses import Loss, resolve_class_weights
from textune.preparation import metrics_of
from textune.training.callbacks import Callback
from textune.training.checkpoint import STEP_FOLDERS, CheckpointFolders, checkpoint_bytes
from textune.training.engine import Engine
from textune.training.optimizer import build_optimizer
from textune.training.parallel import ALONE, Processes
from textune.training.schedule import Schedule
from textune.training.setup import Intervals, Selection, Setup
from textune.training.state import TrainingState
from textune.training.work import TextWork

BACKGROUND_BYTES = 32 * 2**20
"""Checkpoints smaller than this are written in less time than a thread and copies are worth."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The parts of one training, once they are all there."""

    config: Config
    prepared: PreparedData
    classifier: Classifier
    tokens: dict[str, TokenRows]
    engine: Engine
    display: Display
    processes: Processes = ALONE
    latest: dict[str, tuple[FloatArray, Scores]] = dataclasses.field(default_factory=dict)
    """Logits and scores of each split by the model's current weights."""
    check_signals: Callable[[], None] = lambda: None
    """Called between the batches of an evaluation, which it may end by raising `Interrupted`."""
    rows_at_once: dict[str, int] = dataclasses.field(default_factory=dict)
    """Rows that are scored together, of the splits for which memory ran out."""

    @property
    def validation(self) -> str | None:
        """The split that is evaluated during training; None where there is none."""
        return next(iter(self.prepared.roles.validation), None)

    @property
    def label_set(self) -> LabelSet:
        return LabelSet.of_schema(self.prepared.schema)

    @property
    def metric_names(self) -> list[str]:
        return metrics_of(self.prepared)

    def setup(self, *, checkpoints: Path, folders: CheckpointFolders = STEP_FOLDERS) -> Setup:
        """Turns the configuration into the pieces of the loop; durations become steps here, once.

        Args:
            checkpoints: where they will be.
            folders: what will be in them.
        """
        config, training, schema = self.config, self.config.training, self.prepared.schema
        train_rows = self.prepared.rows[self.prepared.train]
        labels = labels_of(train_rows)
        assert labels is not None, "the training split is labelled"
        plan = self._plan()
        scale: dict[str, Any] = {"steps_per_epoch": plan.steps_per_epoch, "batch_size": plan.rows_per_step}
        total_steps = Duration.parse(training.duration).in_steps(**scale)
        warmup = Duration.parse(training.warmup).in_steps(**scale, total_steps=total_steps)
        scale["total_steps"] = total_steps
        saving = Duration.parse(config.checkpoint.every, by_clock=True)
        by_clock = saving.unit == "seconds"
        intervals = Intervals(
            log=Duration.parse(training.log_every).as_interval(**scale),
            evaluation=Duration.parse(config.evaluation.every).as_interval(**scale),
            checkpoint=None if by_clock else saving.as_interval(**scale),
            checkpoint_seconds=float(saving.value) if by_clock else None,
        )
        metric, higher_is_better = selection_metric(config.evaluation.metric, self.metric_names)
        selection = Selection(
            metric,
            higher_is_better,
            config.evaluation.min_improvement,
            keep_best=config.evaluation.select == "best",
        )
        weights = resolve_class_weights(
            training.class_weights, labels, problem_type=schema.problem_type, num_labels=schema.num_labels
        )
        with self.engine.trained_weights():
            optimizer = build_optimizer(self.classifier.model, training)
        self.engine.watch(optimizer)
        scaler = self.engine.arithmetic.scaler(self.engine.device)
        work = TextWork(
            engine=self.engine,
            tokens=self.tokens[self.prepared.train],
            labels=labels,
            ids=train_rows["id"],
            row_numbers=np.asarray(train_rows["row"][:]) + 1,
            plan=plan,
            loss=Loss(schema.problem_type, class_weights=weights, label_smoothing=training.label_smoothing),
            processes=self.processes,
            scaler=scaler,
        )
        return Setup(
            model=self.classifier.model,
            work=work,
            optimizer=optimizer,
            schedule=Schedule(training.schedule, warmup, total_steps),
            learning_rate=training.learning_rate,
            max_grad_norm=training.max_grad_norm,
            seed=training.seed,
            intervals=intervals,
            selection=None if self.validation is None else selection,
            evaluate=None if self.validation is None else self.evaluate,
            checkpoints=checkpoints,
            keep_checkpoints=config.checkpoint.keep,
            folders=folders,
            background_bytes=BACKGROUND_BYTES,
            processes=self.processes,
            scaler=scaler,
            skip_bad_steps=training.skip_bad_steps,
        )

    def _plan(self) -> Plan:
        """The batches of training, for all processes together."""
        training, tokens = self.config.training, self.tokens[self.prepared.train]
        accumulation = training.gradient_accumulation_steps * self.processes.world_size
        if training.batching == "shuffle" and training.tokens_per_batch is None:
            return BatchPlan(len(tokens), training.batch_size, accumulation, training.seed)
        # Not what the engine does: its switches must not change which rows make a step.
        padding = padding_of(self.config, self.classifier)
        padded = why_batches_are_padded(self.classifier.model, padding) is not None
        plan = shaped_plan(
            padding.widths(tokens.lengths) if padded else tokens.lengths,
            batch_size=training.batch_size,
            tokens_per_batch=training.tokens_per_batch,
            accumulation=accumulation,
            by_length=training.batching == "length",
            padded=padded,
            seed=training.seed,
        )
        self._tell(plan)
        return plan

    def _tell(self, plan: ShapedPlan) -> None:
        budget, sizes = self.config.training.tokens_per_batch, np.diff(plan.bounds)
        rows = " to ".join(f"{size:,}" for size in sorted({sizes.min(), sizes.max()}))
        what = f"batches: {plan.steps_per_epoch:,} steps in an epoch; {rows} rows in a pass"
        if self.config.training.batching == "length":
            what += ", of similar length"
        if budget is not None:
            what += f", at most {budget:,} tokens"
            if beyond := int((plan.lengths > budget).sum()):
                self.display.warning(
                    f"{beyond:,} training rows have more than {budget:,} tokens; each is a batch alone"
                )
        self.display.note(what)

    def logits(self, split: str) -> FloatArray:
        """Runs the model over one split; of several processes each takes its part, and all get the whole."""
        tokens = self.tokens[split]
        self.classifier.model.eval()
        # Long rows go to every process alike.
        own = np.sort(self.processes.share(np.argsort(-tokens.lengths, kind="stable")))
        scored = None
        if len(own):
            with self.display.progress(f"scoring {split}", len(tokens)) as advance:
                scored = predict_logits(
                    self.engine.forward,
                    tokens,
                    batch_size=self.rows_at_once.get(split, self.config.evaluation.batch_size),
                    rows=own,
                    on_progress=lambda done: self._on_progress(advance, done),
                    on_out_of_memory=lambda rows: self._score_fewer(split, rows),
                )
        parts = [part for part in self.processes.gather((own, scored)) if part[1] is not None]
        logits = np.empty((len(tokens), parts[0][1].shape[1]), np.float32)
        for rows, part in parts:
            logits[rows] = part
        wrong = first_not_finite(logits)
        if wrong is not None:
            name = self.prepared.rows[split]["id"][wrong]
            raise TrainingError(
                f"The model's scores for the row with id {name} of {split} are not finite numbers: it has diverged.",
                hint="A lower --learning-rate, --warmup 10% or --precision fp32 often helps.",
            )
        return logits

    def _on_progress(self, advance: Callable[[int], None], done: int) -> None:
        advance(done * self.processes.world_size)
        if self.processes.world_size == 1:  # several stop together, when all have come to the end
            self.check_signals()

    def bytes_needed(self, setup: Setup) -> int:
        """About what the run will write, as most of it lies on the disk at once."""
        checkpoint = checkpoint_bytes(setup.model, setup.optimizer)
        kept = self.config.checkpoint.keep + 2  # the best, and the one being written
        model = sum(parameter.nbytes for parameter in setup.model.parameters())
        scored = [*self.prepared.roles.validation, *self.prepared.roles.test]
        a_prediction = 64 + 8 * len(self.label_set.names)
        predictions = sum(len(self.prepared.rows[split]) for split in scored) * a_prediction
        return kept * checkpoint + model + predictions

    def _score_fewer(self, split: str, rows: int) -> None:
        self.rows_at_once[split] = rows
        self.display.warning(
            f"memory ran out while {split} was scored: from now on {rows:,} rows at once; scores change by rounding"
        )

    def evaluate(self) -> dict[str, float | None]:
        """Scores the validation split with the current weights; the loop calls it."""
        assert self.validation is not None, "without validation rows nothing is evaluated"
        self.latest[self.validation] = self.score(self.validation)
        return self.latest[self.validation][1].metrics

    def score(self, split: str) -> tuple[FloatArray, Scores]:
        """Returns the logits of a labelled split and their scores."""
        logits, labels = self.logits(split), labels_of(self.prepared.rows[split])
        assert labels is not None, "only labelled splits are scored"
        return logits, score(logits, labels, self.label_set, metric_names=self.metric_names)


def padding_of(config: Config, classifier: Classifier) -> Padding:
    """How batches are padded where they are."""
    width = config.tokens.max_length if config.tokens.pad_to_max_length else None
    return Padding.of(classifier.tokenizer, multiple_of=config.tokens.pad_to_multiple_of, width=width)


class ForgetScores(Callback):
    """Forgets what was computed with weights that are no longer the model's."""

    def __init__(self, latest: dict[str, Any]) -> None:
        self._latest = latest

    def on_step(self, state: TrainingState) -> None:
        self._latest.clear()
