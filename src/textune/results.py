"""What a finished training leaves in its run folder: data.json at its start, the rest at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from textune.data.lengths import length_histogram, padding_share
from textune.data.prepare import PreparedData
from textune.data.rows import labels_of
from textune.data.tokenize import length_statistics
from textune.data.tokens import TokenRows
from textune.display import Display
from textune.environment import peak_memory_mib
from textune.errors import CheckpointError
from textune.evaluation.analysis import analyse, further_columns
from textune.evaluation.baseline import judged_by, why_failed
from textune.evaluation.metrics import outcome_of
from textune.evaluation.predictions import FloatArray, LabelSet, predictions_table
from textune.evaluation.scoring import with_uncertainty
from textune.evaluation.stored_calibration import Calibration
from textune.files import write_text
from textune.job import Job
from textune.models.load import save_classifier
from textune.report.card import model_card
from textune.report.write import RUN_PAGE, write_report
from textune.run import Run
from textune.training.callbacks import Callback, Record
from textune.training.checkpoint import STEP_FOLDERS, load_weights
from textune.training.setup import Setup
from textune.training.state import TrainingState


class RunLog(Callback):
    """Writes logs, evaluations, and what went wrong on the way to metrics.jsonl."""

    def __init__(self, run: Run, *, split: str | None) -> None:
        self._run = run
        self._split = split

    def on_log(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "training", **record})

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "evaluation", "split": self._split, **record})

    def on_skip(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "skipped", **record})

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        self._run.log({"kind": "out_of_memory", **record})


def data_json(job: Job) -> dict[str, Any]:
    """The contents of data.json."""
    splits = {
        name: {
            "rows": len(split),
            "labelled": "labels" in split.column_names,
            "lengths": length_statistics(job.tokens[name]).as_json(),
            "length_histogram": length_histogram(job.tokens[name].lengths),
            "padding_share": padding_share(job.tokens[name].lengths, job.config.training.batch_size),
        }
        for name, split in job.prepared.rows.items()
        if name in job.tokens
    }
    return {**job.prepared.as_json(), "max_length": job.config.tokens.max_length, "splits": splits}


def write_results(job: Job, run: Run, setup: Setup, state: TrainingState, *, started: float) -> None:
    """Chooses the weights, scores every split with them, and writes model, predictions and, last, the summary.

    Of several processes all score and the main one writes; the others wait for it.

    Args:
        started: `time.perf_counter()` when the work began.
    """
    chosen, step = _choose_weights(job, run, state)
    summary: dict[str, Any] = {
        "selected": {
            "weights": chosen,
            "step": step,
            "epoch": round(step / setup.work.steps_per_epoch, 4),
            "split": job.validation,
            "metric": None if setup.selection is None else setup.selection.metric,
            "failed": None,
        }
    }
    analysis: dict[str, Any] = {}
    calibration: Calibration | None = None
    for split in (*job.prepared.roles.validation, *job.prepared.roles.test):
        rows = job.prepared.rows[split]
        labels = labels_of(rows)
        if labels is None:
            logits = job.logits(split)
            job.display.note(f"{split}: no labels, so predictions only")
        else:
            logits, scores = job.latest.get(split) or job.score(split)
        if job.processes.is_main:
            run.write_predictions(split, predictions_table(logits, job.label_set, ids=rows["id"][:], labels=labels))
            if labels is not None:
                summary[split] = with_uncertainty(scores, logits, labels, job.label_set).as_json()
                analysis[split] = analyse_split(
                    job.prepared, split, logits, labels, tokens=job.tokens[split], label_set=job.label_set
                )
                if split == job.validation:
                    calibration = Calibration.fit(logits, labels, job.label_set, split=split)
                    summary["selected"]["failed"] = _why_failed(job, summary["selected"]["metric"], logits, labels)
                if calibration is not None:
                    calibration.add_to(summary[split], logits, labels, job.label_set)
    if job.processes.is_main:
        run.write("analysis.json", analysis)
        summary["selected"]["note"] = selection_note(
            summary["selected"],
            stopped_early=state.stop_reason is not None,
            tested=[split for split in job.prepared.roles.test if split in summary],
        )
        _write_model_and_summary(job, run, setup, state, summary, calibration, started=started)
        if job.config.run.report:
            report_or_warn(run, job.display)
    job.processes.barrier()


def _why_failed(job: Job, metric: str, logits: FloatArray, labels: npt.NDArray[Any]) -> str | None:
    """Says, and tells the user at once, in what the model has failed on these rows; None where it has not.

    A fold of a cross-validation has few rows and is judged beside the others: `textune.repeats.folds`.
    """
    if job.config.data.fold is not None:
        return None
    judge = judged_by(metric, job.metric_names)
    reason = why_failed(outcome_of(logits, labels, job.label_set), judge, job.label_set.names)
    if reason is not None:
        job.display.warning(
            f"this model has learned nothing: {reason}. More --epochs, another --learning-rate or --seed may help"
        )
    return reason


def report_or_warn(run: Run, display: Display) -> None:
    """Writes report.html. The run is complete without it, so that nothing that fails here may end it."""
    try:
        write_report([run.path])
    except Exception as error:
        display.warning(f"report.html could not be written ({error}); `textune report {run.path}` tries again")


def complete(run: Run, display: Display, *, report: bool) -> None:
    """Does what a process that was killed after the summary has left undone.

    Args:
        report: whether the run is to have one.
    """
    run.clear_unfinished()
    page = run.path / RUN_PAGE
    if report and not page.exists():
        report_or_warn(run, display)
        if page.exists():
            display.note(f"{page.name} was missing and has been written")


def analyse_split(
    prepared: PreparedData,
    split: str,
    logits: FloatArray,
    labels: npt.NDArray[Any],
    *,
    tokens: TokenRows,
    label_set: LabelSet,
) -> dict[str, Any]:
    """What `analysis.json` holds of a split: `textune.evaluation.analysis`, with the data's further columns."""
    schema, rows = prepared.schema, prepared.rows[split]
    columns = further_columns(
        prepared.source.splits[prepared.origins.get(split, split)],
        rows["row"][:],
        used=(schema.text, schema.text_pair, schema.label, schema.id),
    )
    return analyse(
        logits,
        labels,
        label_set,
        rows=rows,
        lengths=tokens.lengths,
        full_lengths=tokens.full_lengths,
        columns=columns,
    )


def _write_model_and_summary(
    job: Job,
    run: Run,
    setup: Setup,
    state: TrainingState,
    summary: dict[str, Any],
    calibration: Calibration | None,
    *,
    started: float,
) -> None:
    length = job.config.tokens.max_length
    assert length is not None, "resolved when the rows were tokenised"
    save_classifier(job.classifier, run.model_path, max_length=length)
    summary["training"] = {
        "steps": state.step,
        "epochs": round(state.step / setup.work.steps_per_epoch, 4),
        "stop_reason": state.stop_reason,
        "seconds": round(state.seconds, 3),
        "seconds_in_all": round(time.perf_counter() - started, 3),
        "checkpoint_seconds": round(state.checkpoint_seconds, 3),
        "samples_per_second": round(state.examples / state.seconds, 2),
        "tokens_per_second": round(state.tokens / state.seconds, 1),
        "peak_memory_mib": round(peak_memory_mib(job.engine.device), 1),
        "precision": job.engine.arithmetic.precision,
        "processes": job.processes.world_size,
        "skipped_steps": state.skipped_steps,
        "micro_batch_size": state.micro_batch_size,
    }
    card = model_card(config=job.config, prepared=job.prepared, summary=summary)
    write_text(run.model_path / "README.md", card)
    if calibration is not None:
        calibration.save(run.model_path)
    run.write("summary.json", summary)


def selection_note(selected: Mapping[str, Any], *, stopped_early: bool, tested: Sequence[str]) -> str | None:
    """Says which figures are optimistic, because a choice was made by them; None where none was.

    Args:
        selected: as in summary.json; without a split where there are no validation rows.
        stopped_early: whether it also ended the training.
        tested: labelled splits that nothing was chosen on.
    """
    if selected["split"] is None or (selected["weights"] != "best" and not stopped_early):
        return None
    split = selected["split"]
    what = "the weights" if selected["weights"] == "best" else "when to stop"
    note = f"{selected['metric']} on {split} chose {what}, so the figures of {split} are optimistic"
    if tested:
        return f"{note}; those of {' and '.join(tested)} are not."
    return f"{note}, and there is no labelled test split to say by how much."


def _choose_weights(job: Job, run: Run, state: TrainingState) -> tuple[str, int]:
    """Puts the best evaluation's weights into the model if they are wanted; returns "best" or "last", and the step.

    Where the metric was undefined at every evaluation, there is no best one and the last weights stay.
    """
    if job.config.evaluation.select == "last" or state.best_step is None:
        return "last", state.step
    if state.best_step != state.step:
        if job.processes.is_main:
            _load_best(run, state.best_step, job)
        job.processes.share_weights(job.classifier.model)
        job.latest.clear()
    return "best", state.best_step


def _load_best(run: Run, step: int, job: Job) -> None:
    try:
        load_weights(STEP_FOLDERS.folder(run.checkpoints_path, step), job.classifier.model)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error.message} It holds the weights of the best evaluation, which were to be the result.",
            hint=f"`textune train --resume {run.path}` trains again from the last checkpoint before it; with "
            "--select last --allow-changes the last weights are the result.",
        ) from error
