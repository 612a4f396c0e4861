"""`textune evaluate` in Python: the scores of a finished run on other labelled data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from textune.config import EVALUATE_OPTIONS
from textune.data.cache import workspace
from textune.data.prepare import ALL, PreparedData, prepare_evaluation
from textune.data.rows import labels_of
from textune.data.splits import split_roles
from textune.display import Display, default_display
from textune.errors import CheckpointError, DataError
from textune.evaluation.metrics import metric_names
from textune.evaluation.scoring import Scores, score, with_uncertainty
from textune.files import user_path
from textune.options import require_known, resolve_options
from textune.run import Run
from textune.serving.predictor import Predictor


def evaluate(
    run: Run | str | os.PathLike[str], data: str, *, display: Display | None = None, **options: Any
) -> dict[str, Scores]:
    """Scores a finished run on other labelled data; the same as the command `textune evaluate`.

    Args:
        run: a run, its folder, or a folder with a model that textune saved.
        data: as for `train`.
        options: those of `textune.config.EVALUATE_OPTIONS`, and of `Predictor.load` `batch_size`, `device` and
            `precision`.

    Returns:
        The scores of each labelled split, by its name.
    """
    shown = default_display() if display is None else display
    chosen = {name: options.pop(name) for name in ("batch_size", "device", "precision") if name in options}
    require_known(options, known=EVALUATE_OPTIONS, help_for="textune.evaluate")
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
            _warn_of_training_rows(run, prepared, display=shown)
            return _score_splits(prepared, predictor, display=shown)
    finally:
        shown.close()


def _warn_of_training_rows(run: Run | str | os.PathLike[str], prepared: PreparedData, *, display: Display) -> None:
    """Says which figures are of rows that the model has learned: those of the data that the run read for training.

    Single rows are not compared: a run keeps none of the texts.
    """
    path = run.path if isinstance(run, Run) else user_path(run)
    trained_on = Run(path if (path / "data.json").is_file() else path.parent).data  # or the run's model folder is named
    source = prepared.source
    same_place = Path(trained_on.get("source", "")).resolve() == Path(source.location).resolve()
    if same_place or trained_on.get("fingerprint") == source.fingerprint:
        split = split_roles(prepared.rows).train or ALL
        if split in prepared.rows:
            display.warning(
                f"{source.location} is what this run was trained on: the figures of {split} are those of rows that it "
                "has learned, and say nothing about others; summary.json has those of its validation and test rows"
            )


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
