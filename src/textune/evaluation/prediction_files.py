"""Predictions to compare: of runs, of runs with several seeds, and files of other tools, brought to the same rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.data.labels import is_number, is_whole_number, natural_sorted
from textune.data.readers import FORMATS, read_batches
from textune.data.schema import Schema
from textune.data.wording import listed, near_name
from textune.errors import ConfigError, DataError, InputNotFoundError, did_you_mean
from textune.evaluation.comparison import Candidate
from textune.evaluation.metrics import metric_names
from textune.evaluation.predictions import LIST_SEPARATOR, FloatArray, LabelSet
from textune.evaluation.sums import Outcome, whole_rows
from textune.files import reading_errors, user_path
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from textune.run import Run
from textune.summary import metric_entries, scored_splits

SCORE = "score_"


@dataclass(frozen=True)
class Predicted:
    """The predictions of one model as they were read.

    Attributes:
        source: the file or run, for messages.
        ids: of the rows, as text.
        labels: as they stand there; None where there are none.
        predictions: as they stand there; None where scores stand for them.
        scores: float64 [num_rows, num_names], of files without predictions: what they decide depends on the task,
            which another file or run may tell.
        label_set: what a run says of its outputs; None for a file.
        names: label names that scores are given for, in their order.
        metrics: of the run's data, the main one first; empty for a file.
    """

    source: str
    ids: list[str]
    labels: list[Any] | None
    predictions: list[Any] | None
    scores: FloatArray | None
    label_set: LabelSet | None
    names: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Rivals:
    """What `comparison.compare` needs, and what should be said about it."""

    candidates: tuple[Candidate, ...]
    label_set: LabelSet
    metrics: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...]


def read_rivals(sources: Sequence[str], *, split: str | None = None) -> Rivals:
    """Reads what is to be compared.

    Args:
        sources: each a run folder; a folder with runs `seed-N` in it; a file with the columns id, prediction (or one
            `score_NAME` per label) and label; or several of the same recipe as `NAME=SOURCE,SOURCE`.
        split: of the runs; None for the test split where all have labels for it, else validation.

    Raises:
        ConfigError: fewer than two, or two of one name.
        InputNotFoundError: one is not there, or has no predictions for the split.
        DataError: ids are missing or doubled, or rows, labels or tasks differ.
    """
    if len(sources) < 2:
        raise ConfigError("compare: expected two or more runs or prediction files, found one.")
    notes: list[str] = []
    members = _named_members(sources, notes)
    runs = [member for group in members.values() for member in group if isinstance(member, Run)]
    split = _common_split(runs, split) if runs else None
    read = {name: [_read(member, split) for member in group] for name, group in members.items()}
    every = [predicted for group in read.values() for predicted in group]
    label_set = _common_label_set(every)
    ids, labels = _reference_rows(every, label_set)
    candidates = tuple(
        Candidate(
            name,
            tuple(_outcome(predicted, ids, labels, label_set) for predicted in group),
            cross_validated=any(_is_cross_validated(member, split) for member in members[name]),
        )
        for name, group in read.items()
    )
    first = next((predicted.metrics for predicted in every if predicted.metrics), ())
    if runs and any(predicted.label_set is None for predicted in every):
        notes.append(f"runs are compared on their {split} split")
    notes += _failures(members)
    return Rivals(candidates, label_set, tuple(metric_names(label_set, first=first)), split, tuple(notes))


def _failures(members: Mapping[str, Sequence[Run | Path]]) -> list[str]:
    """Which of the runs have learned nothing, as they say themselves; files say nothing of it."""
    notes: list[str] = []
    for name, group in members.items():
        for run in (member for member in group if isinstance(member, Run)):
            summary, who = run.summary, name if len(group) == 1 else f"{name}, {run.path.name}"
            failed = [(who, summary["selected"].get("failed"))]
            failed += [(f"{who}, {fold['name']}", fold["failed"]) for fold in summary.get("runs", ())]
            split = summary["selected"]["split"]
            notes += [f"{model} has learned nothing: on {split} {reason}" for model, reason in failed if reason]
    return notes


def read_outcomes(runs: Sequence[Run], split: str) -> tuple[Outcome, ...]:
    """What runs of the same task predicted on the same rows of a split, all in the order of the first.

    Raises:
        InputNotFoundError, DataError: see `read_rivals`.
    """
    read = [_read(run, split) for run in runs]
    label_set = _common_label_set(read)
    ids, labels = _reference_rows(read, label_set)
    return tuple(_outcome(predicted, ids, labels, label_set) for predicted in read)


def _named_members(sources: Sequence[str], notes: list[str]) -> dict[str, list[Run | Path]]:
    members: dict[str, list[Run | Path]] = {}
    for source in sources:
        name, sign, parts = source.partition("=")
        # os.path.exists is false for what cannot be looked at, such as a list longer than a file's name may be.
        is_group = bool(sign) and not os.path.exists(user_path(source))  # noqa: PTH110
        found = [one for part in (parts.split(",") if is_group else [source]) for one in _members(part, notes)]
        label = name if is_group else source.rstrip("/")
        if label in members:
            raise ConfigError(f"compare: {label!r} is named twice.")
        members[label] = found
    short = [Path(label).name for label in members]
    return dict(zip(short, members.values(), strict=True)) if len(set(short)) == len(short) else members


def _members(source: str, notes: list[str]) -> list[Run | Path]:
    path = user_path(source)
    with reading_errors(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file:
        return [path]
    seeds = Run(path).seeds if is_folder else []
    if not seeds:
        run = Run.open(path)
        run.require_finished()
        return [run]
    finished = [run for run in seeds if run.is_finished]
    if len(finished) < len(seeds):
        missing = [run.path.name for run in seeds if not run.is_finished]
        notes.append(f"{source}: left out, not finished: {', '.join(missing)}")
    if not finished:
        raise InputNotFoundError(
            f"{source!r} holds {len(seeds)} runs, none of which has finished.", hint=Run(path).hint_of_finishing
        )
    return list(finished)


def _common_split(runs: Sequence[Run], asked: str | None) -> str:
    if asked is not None:
        return asked
    labelled = [set(scored_splits(run.summary)) for run in runs]
    common = set.intersection(*labelled)
    if not common:
        found = "; ".join(f"{run.path} has {listed(sorted(names))}" for run, names in zip(runs, labelled, strict=True))
        raise DataError(
            f"Expected a split that is scored in all of the runs, to compare them on; there is none: {found}.",
            hint="Compare runs that were scored on the same rows.",
        )
    chosen = runs[0].summary["selected"]["split"]
    other = sorted(common - {chosen})
    return "test" if "test" in other else other[0] if other else chosen


def _is_cross_validated(member: Run | Path, split: str | None) -> bool:
    """Whether these are the predictions of a cross-validation's folds, not those of its model on other rows."""
    if isinstance(member, Path):
        return False
    summary = member.summary
    return summary.get("kind") == "folds" and split == summary["selected"]["split"]


def _read(member: Run | Path, split: str | None) -> Predicted:
    if isinstance(member, Path):
        return _read_file(member)
    assert split is not None, "there is a run"
    table = member.predictions(split)
    schema = Schema.from_json(member.data["schema"])
    label_set = LabelSet.of_schema(schema)
    if "label" not in table.column_names:
        raise DataError(
            f"{member.path}: the rows of {split!r} have no labels, so that nothing can be compared on them.",
            hint="Choose another split with --split.",
        )
    metrics = tuple(metric_entries(member.summary.get(split, {})))
    return _predicted(str(member.path), table, label_set=label_set, metrics=metrics)


def _read_file(path: Path) -> Predicted:
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: expected a file that ends in {', '.join(FORMATS)}.")
    return _predicted(str(path), pa.concat_tables(list(read_batches(path)), promote_options="permissive"))


def _predicted(
    source: str, table: pa.Table, *, label_set: LabelSet | None = None, metrics: tuple[str, ...] = ()
) -> Predicted:
    columns = table.column_names
    scored = tuple(name for name in columns if name.startswith(SCORE))
    if "id" not in columns or not ("prediction" in columns or scored):
        missing = "id" if "id" not in columns else "prediction"
        raise DataError(
            f"{source}: expected the columns id, label, and prediction or {SCORE}NAME for each label; found "
            f"{listed(columns)}.{near_name(missing, columns)}",
            hint="Rename the columns of the file.",
        )
    names = tuple(name.removeprefix(SCORE) for name in scored)
    predictions, scores = None, None
    if "prediction" in columns:
        predictions = table["prediction"].to_pylist()
    else:
        scores = np.column_stack([_numbers(table[name], name, source) for name in scored])
    ids = ["" if value is None else _text(value) for value in table["id"].to_pylist()]
    _require_full(ids, source, "id")
    labels = table["label"].to_pylist() if "label" in columns else None
    return Predicted(source, ids, labels, predictions, scores, label_set, names, metrics)


def _require_full(values: Sequence[Any], source: str, what: str) -> None:
    empty = [row for row, value in enumerate(values, start=1) if value is None or value == ""]
    if empty:
        raise DataError(f"{source}: {len(empty):,} of {len(values):,} rows have no {what}, first row {empty[0]:,}.")


def _numbers(column: pa.ChunkedArray, name: str, source: str) -> FloatArray:
    return np.array([_number(value, source, repr(name)) for value in column.to_pylist()])


def _common_label_set(every: Sequence[Predicted]) -> LabelSet:
    """The labels of the runs, which must agree; of files alone what their values look like."""
    known = [predicted for predicted in every if predicted.label_set is not None]
    for other in known[1:]:
        ours, theirs = known[0].label_set, other.label_set
        assert ours is not None and theirs is not None
        if ours != theirs:
            kinds = ours.problem_type, theirs.problem_type
            found = kinds if kinds[0] != kinds[1] else (listed(ours.names), listed(theirs.names))
            raise DataError(
                f"Runs of different tasks cannot be compared: {known[0].source} has {found[0]}, {other.source} has "
                f"{found[1]}."
            )
    if known:
        assert known[0].label_set is not None
        return known[0].label_set
    return _inferred_label_set(every)


def _inferred_label_set(every: Sequence[Predicted]) -> LabelSet:
    values = [
        value
        for predicted in every
        for value in (*(predicted.predictions or ()), *(predicted.labels or ()))
        if value is not None and value != ""
    ]
    decided = {name for predicted in every if predicted.scores is not None for name in predicted.names}
    texts = {_text(value) for value in values if not isinstance(value, list)}
    problem_type = SINGLE_LABEL
    if any(isinstance(value, list) for value in values) or _are_joined(texts | decided):
        problem_type = MULTI_LABEL
        texts = {_text(item) for value in values for item in _list(value)}
    elif all(map(is_number, texts)) and not all(map(is_whole_number, texts)):
        return LabelSet(REGRESSION, ())
    scored = next((predicted.names for predicted in every if predicted.names), ())
    others = (texts | decided) - set(scored)
    if not others or (decided and _are_class_ids(others, scored)):
        return LabelSet(problem_type, scored)
    return LabelSet(problem_type, natural_sorted(texts | decided))


def _are_joined(texts: set[str]) -> bool:
    """Whether some text joins several labels: all its parts occur elsewhere, as those of a name with `|` hardly do."""
    parts = {text: set(_list(text)) for text in texts}
    counts = Counter(part for own in parts.values() for part in own)
    return any(len(own) > 1 and all(counts[part] > 1 for part in own) for own in parts.values())


def _reference_rows(every: Sequence[Predicted], label_set: LabelSet) -> tuple[list[str], npt.NDArray[Any]]:
    """The ids that all have in common, and their labels; checks that all have them all."""
    labelled = [predicted for predicted in every if predicted.labels is not None]
    if not labelled:
        raise DataError("None of the files has a column 'label', so that there is nothing to compare with.")
    first = labelled[0]
    for other in every:
        _check_ids(first, other)
    labels = _encoded(first, first.labels or [], label_set, what="label")
    for other in labelled[1:]:
        own = _encoded(other, other.labels or [], label_set, what="label")[_places(other, first.ids)]
        equal = np.isclose(own, labels, rtol=1e-6) if label_set.problem_type == REGRESSION else own == labels
        wrong = np.flatnonzero(~whole_rows(equal))
        if len(wrong):
            raise DataError(
                f"{first.source} and {other.source} are about different rows: {len(wrong):,} of {len(labels):,} rows "
                f"with the same id have different labels, first id {first.ids[wrong[0]]!r}."
            )
    return first.ids, labels


def _check_ids(first: Predicted, other: Predicted) -> None:
    if first.ids == other.ids:
        return  # also where ids are doubled: the rows are the same, in the same order
    for predicted in (first, other):
        doubled = [name for name, count in Counter(predicted.ids).items() if count > 1]
        if doubled:
            raise DataError(
                f"{predicted.source}: rows cannot be matched by their ids, some of which stand for several: "
                f"{listed(doubled, shown=5)}."
            )
    missing = sorted(set(first.ids) - set(other.ids)), sorted(set(other.ids) - set(first.ids))
    for without, (here, there) in zip(missing, ((first, other), (other, first)), strict=True):
        if without:
            raise DataError(
                f"{first.source} ({len(first.ids):,} rows) and {other.source} ({len(other.ids):,} rows) are about "
                f"different rows: {len(without):,} ids of {here.source} are not in {there.source}: "
                f"{listed(without, shown=5)}.",
                hint="Compare models on the same rows; --split chooses those of runs.",
            )


def _places(predicted: Predicted, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the rows with these ids stand."""
    if predicted.ids == ids:
        return np.arange(len(ids))
    where = {name: place for place, name in enumerate(predicted.ids)}
    return np.array([where[name] for name in ids])


def _outcome(predicted: Predicted, ids: Sequence[str], labels: npt.NDArray[Any], label_set: LabelSet) -> Outcome:
    if predicted.scores is None:
        predictions = _encoded(predicted, predicted.predictions or [], label_set, what="prediction")
    else:
        predictions = _decided(predicted, predicted.scores, label_set)
    return Outcome(labels, predictions[_places(predicted, ids)], len(label_set.names))


def _decided(predicted: Predicted, scores: FloatArray, label_set: LabelSet) -> npt.NDArray[Any]:
    """What scores decide, in the form of `predictions.decide`."""
    if label_set.problem_type == REGRESSION:
        raise DataError(
            f"{predicted.source}: expected a column 'prediction' with the numbers of a regression; found "
            f"scores of labels: {listed(predicted.names)}."
        )
    ids = _ids_of(set(predicted.names), predicted, label_set, what="scored label")
    places = [ids[name] for name in predicted.names]
    missing = [name for place, name in enumerate(label_set.names) if place not in places]
    if missing:
        raise DataError(
            f"{predicted.source}: expected a column {SCORE}NAME for each label; there is none for {listed(missing)}.",
            hint="Add it, lower than the other scores for a label that the tool does not know; or give a column "
            "'prediction'.",
        )
    scores = scores[:, np.argsort(places)]
    if label_set.problem_type == SINGLE_LABEL:
        return np.asarray(scores.argmax(axis=1))
    beyond = scores[(scores < 0) | (scores > 1)]
    if len(beyond):
        raise DataError(
            f"{predicted.source}: expected scores from 0 to 1, of which at least one half means that a row has the "
            f"label; found {beyond[0]:g}.",
            hint="Write probabilities, not logits.",
        )
    return (scores >= 0.5).astype(np.float32)


def _encoded(predicted: Predicted, values: Sequence[Any], label_set: LabelSet, *, what: str) -> npt.NDArray[Any]:
    """Label names or numbers in the form of `predictions.decide`."""
    is_list = label_set.problem_type == MULTI_LABEL
    if not is_list:  # a row may well have no label at all
        _require_full(values, predicted.source, what)
    if label_set.problem_type == REGRESSION:
        return np.array([_number(value, predicted.source, what) for value in values])
    items = _items(values, label_set)
    ids = _ids_of({name for row in items for name in row}, predicted, label_set, what=what)
    if not is_list:
        return np.array([ids[name] for (name,) in items], np.int64)
    encoded = np.zeros((len(items), len(label_set.names)), np.float32)
    for row, names in enumerate(items):
        encoded[row, [ids[name] for name in names]] = 1
    return encoded


def _items(values: Sequence[Any], label_set: LabelSet) -> list[list[str]]:
    """The labels of each row as text."""
    if label_set.problem_type == MULTI_LABEL:
        return [[_text(item) for item in _list(value)] for value in values]
    return [[] if value is None or value == "" else [_text(value)] for value in values]


def _ids_of(found: set[str], predicted: Predicted, label_set: LabelSet, *, what: str) -> Mapping[str, int]:
    if all(map(str.isdecimal, found)) and _has_class_ids(predicted, label_set):
        return {name: int(name) for name in found}
    known = {name: index for index, name in enumerate(label_set.names)}
    unknown = natural_sorted(found - known.keys())
    if unknown:
        raise DataError(
            f"{predicted.source}: the {what} {unknown[0]!r} is none of the labels {listed(label_set.names)}."
            f"{did_you_mean(unknown[0], label_set.names)}"
        )
    return known


def _has_class_ids(predicted: Predicted, label_set: LabelSet) -> bool:
    """Whether a file's whole numbers are class ids in place of names.

    All of the file are asked: where labels are named 1 to 5, predictions that happen to lie between 1 and 4 may be
    either, and the labels beside them tell.
    """
    columns = [_items(values or [], label_set) for values in (predicted.labels, predicted.predictions)]
    if predicted.scores is not None:
        columns.append([list(predicted.names)])
    found = [{name for row in column for name in row} for column in columns]
    numbers = {name for names in found if all(map(str.isdecimal, names)) for name in names}
    return not numbers <= set(label_set.names) and _are_class_ids(numbers, label_set.names)


def _are_class_ids(texts: set[str], names: Sequence[str]) -> bool:
    return texts <= {str(class_id) for class_id in range(len(names))}


def _number(value: Any, source: str, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{source}: expected a number as {what}, found {value!r:.60}.")
    return number


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [item for item in _text(value).split(LIST_SEPARATOR) if item]


def _text(value: Any) -> str:
    """A cell as text; whole numbers alike, whatever type the file has for them, and the rest as labels are spelled."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
