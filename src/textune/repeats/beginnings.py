"""Whether the runs of a whole have begun with the same data and the same checkpoint: only then do they belong together.

A run that goes on from a checkpoint is compared with its own record (`textune.resume`). Here it is compared with those
beside it, which are finished perhaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textune.data.folds import VALIDATION
from textune.data.prepare import PreparedData
from textune.data.rows import labels_of
from textune.data.schema import Schema
from textune.display import Display
from textune.errors import CheckpointError, TextuneError
from textune.evaluation.predictions import LabelSet, name_labels
from textune.resume import Origin, changes_in_words, describe_source
from textune.run import ALL_ROWS, Run
from textune.summary import scored_splits
from textune.training.checkpoint import STEP_FOLDERS, committed


def require_same_beginning(
    begun: Iterable[Run],
    prepared: PreparedData,
    files: Mapping[str, str] | None,
    processes: int,
    *,
    allow_changes: bool,
    display: Display,
) -> None:
    """Compares what runs began with and what is here now for those beside them.

    Args:
        begun: the runs; one that is not finished and has no checkpoint is passed over, for it begins anew.
        files: hashes of the checkpoint to begin with (`textune.resume.hash_checkpoint`); None where none begins.
        processes: how many train together.
        display: told of changes that are allowed.

    Raises:
        CheckpointError: data, labels, checkpoint or processes are others, and `allow_changes` is false; or the rows
            that a finished run was measured on have other labels.
    """
    told = False
    for run in begun:
        changes = _changes_since(run, prepared, files, processes)
        if not changes:
            continue
        if not allow_changes:
            raise CheckpointError(
                f"The run {str(run.path)!r} began with something else than is here now, so that others would not "
                f"belong with it. {'; '.join(changes)}.",
                hint=f"Bring back what it began with. `textune train --resume {run.path.parent} --allow-changes` goes "
                "on with what is here now.",
            )
        if run.is_finished and run.path.name != ALL_ROWS:
            _require_same_labels(run, prepared)
        if not told:  # the others would say the same again
            for change in changes:
                display.warning(f"changed: {change}")
        told = True


def require_same_rows(run: Run, split: str, ids: Sequence[Any]) -> None:
    """Whether a finished run predicted the rows that others will: otherwise nothing can be put together in the end.

    Raises:
        CheckpointError: it did not.
    """
    if run.predictions(split)["id"].to_pylist() != list(ids):
        raise CheckpointError(
            f"The run {str(run.path)!r} predicted other rows of {split} than there are now, so that its figures cannot "
            "be put together with those of others.",
            hint="Bring the data back, or train anew.",
        )


def _require_same_labels(run: Run, prepared: PreparedData) -> None:
    """Whether the rows that a finished run was measured on have the labels they had then.

    Rows that are gone are left to `require_same_rows`.

    Raises:
        CheckpointError: they have others, or there are other label names.
    """
    hint = "Bring the labels back, or train anew."
    before, now = (LabelSet.of_schema(schema) for schema in (Schema.from_json(run.data["schema"]), prepared.schema))
    if before != now:
        raise CheckpointError(
            f"The run {str(run.path)!r} was trained for other labels than the data have now, so that its figures "
            "cannot be put together with those of others.",
            hint=hint,
        )
    is_fold = run.config.data.fold is not None
    for split in [VALIDATION] if is_fold else scored_splits(run.summary):
        rows = prepared.rows.get(prepared.train if is_fold else split)
        if rows is None:
            continue
        labels, table = labels_of(rows), run.predictions(split)
        names = [None] * len(rows) if labels is None else name_labels(labels, now)
        ids = rows["id"][:]
        known, pairs = set(ids), set(zip(ids, map(str, names), strict=True))  # ids may be doubled
        measured = zip(table["id"].to_pylist(), map(str, table["label"].to_pylist()), strict=True)
        if other := [pair[0] for pair in measured if pair[0] in known and pair not in pairs]:
            raise CheckpointError(
                f"The run {str(run.path)!r} was measured with other labels than there are now: {len(other):,} of "
                f"{len(table):,} rows of {split} have another one, first id {other[0]!r}. Its figures cannot be put "
                "together with those of others.",
                hint=hint,
            )


def _changes_since(run: Run, prepared: PreparedData, files: Mapping[str, str] | None, processes: int) -> list[str]:
    origin = _recorded(run)
    if origin is None and not run.is_finished:
        return []
    changes = changes_in_words([("data, ", describe_source(run.data), describe_source(prepared.as_json()))])
    if origin is not None and files is not None:
        changes += changes_in_words([("--model, ", origin.files, files)])
        changes += changes_in_words([("", {"processes": origin.processes}, {"processes": processes})])
    return changes


def _recorded(run: Run) -> Origin | None:
    """What its last checkpoint says; None without one, or where it is damaged."""
    for step in reversed(committed(run.checkpoints_path)):
        try:
            return Origin.read(STEP_FOLDERS.folder(run.checkpoints_path, step))
        except TextuneError:
            continue  # it is named when the run goes on
    return None
