"""The schema: which columns are text, second text, label and id, which problem it is, and the names of the labels.

It is resolved once, from the training split, and stored in the run folder (`data.json`), so that evaluation and
prediction read other files in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from textune.data.column_names import HEADER_ADVICE, FoundColumns, arrow_batches, arrow_type, find_columns
from textune.data.labels import (
    UNLABELLED,
    LabelScan,
    class_names,
    is_number,
    label_kind,
    natural_sorted,
    scan_labels,
    spell_labels,
    with_point,
)
from textune.data.splits import train_split
from textune.data.wording import listed, near_name, quoted
from textune.errors import CheckpointError, ConfigError, DataError
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ProblemType

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from textune.data.glue import GlueTask

MAX_LIKELY_CLASSES = 50
"""Up to so many different whole numbers are taken as classes when each stands for at least two rows on average."""
ROWS_PER_LIKELY_CLASS = 10
"""More of them are still classes when there are at least so many rows for each."""
LIKELY_SEPARATORS = "|;,"
CLEARLY_FEWER = 0.75
"""Labels that a separator splits into so many times fewer, or less, are probably several in one."""
_PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)


@dataclass(frozen=True)
class Schema:
    """What the columns of a data set mean."""

    text: str
    """Column of the (first) text."""
    text_pair: str | None
    """Column of the second text, or None where rows are single texts."""
    label: str | None
    """Column of the label, or None where the data has no labels."""
    id: str | None
    """Column that identifies rows, or None: rows are then known by their number."""
    problem_type: ProblemType
    label_names: tuple[str, ...]
    """The name of class 0, 1, ...; empty for regression."""
    label_separator: str | None
    """What stands between the labels of a text, in multi-label data that does not come as lists."""
    notes: tuple[str, ...]
    """What was found by itself or deserves a look, one sentence each."""

    @property
    def num_labels(self) -> int:
        """Outputs of the model: one per label name, one for regression."""
        return len(self.label_names) or 1

    def to_json(self) -> dict[str, Any]:
        """Returns the schema as a JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        """Returns the schema that `to_json` stored.

        Raises:
            CheckpointError: something is missing or of another kind.
        """
        wrong = [name for name in ("text",) if not isinstance(stored.get(name), str)]
        optional = ("text_pair", "label", "id", "label_separator")
        wrong += [name for name in optional if name not in stored or not isinstance(stored[name], str | None)]
        for name in ("label_names", "notes"):
            values = stored.get(name)
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                wrong.append(name)
        if stored.get("problem_type") not in _PROBLEM_TYPES:
            wrong.append("problem_type")
        if wrong:
            raise CheckpointError(f"The stored data schema is damaged: wrong or missing {', '.join(sorted(wrong))}.")
        return cls(
            **{name: stored[name] for name in ("text", *optional, "problem_type")},
            label_names=tuple(stored["label_names"]),
            notes=tuple(stored["notes"]),
        )


def resolve_schema(
    splits: DatasetDict,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    problem_type: ProblemType | None = None,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    task: GlueTask | None = None,
    labels_required: bool = True,
) -> Schema:
    """Decides what the columns mean, from what the user says, a known task, and the training split.

    Problem type, where it is not given: lists, or text with `label_separator`, are multi-label; ClassLabel, booleans
    and words are classes; labels of which half or more are numbers, some with fractions, are regression. Whole numbers
    ("1", "1.0", 1, 1.0) are classes where rows repeat them as rows repeat classes, else regression, with a note that
    names the flag. Whoever gives `label_names` means classes.

    Label names, where they are not given: ClassLabel's own, else the training labels in natural order. Given names
    set the order and must cover the training labels. Labels that are whole numbers and not themselves among the names
    are positions: label 1 is `label_names[1]`.

    Where no labels are required, a data set without any has no label column, and its labels may be all the same.

    Raises:
        ConfigError: a column or option is missing, doubtful or contradictory; all of them at once.
        DataError: no training split, no labels in it, or nothing to tell apart.
    """
    train = splits[train_split(list(splits), task=task)]
    found = find_columns(
        train.column_names,
        number_columns=[name for name in train.column_names if _holds_numbers(train, name)],
        text=text,
        text_pair=text_pair,
        label=label,
        task_text_columns=() if task is None else task.text_columns,
        label_required=labels_required,
    )
    names = None if label_names is None else tuple(label_names)
    problems = [*found.problems, *_name_problems(names)]
    scan = None
    if found.label is not None and found.label in train.column_names:
        scan = scan_labels(train, found.label, separator=label_separator or None)
        problems += _option_problems(found.label, scan, problem_type, names, label_separator)
    if problems:
        raise ConfigError(problems)
    assert found.text is not None, "else there are problems"
    if not labels_required and (scan is None or (scan.num_rows and not scan.is_labelled(names or ()))):
        return _without_labels(found)
    assert scan is not None and found.label is not None, "else there are problems"
    notes = found.notes
    if problem_type is None and task is not None:
        problem_type = SINGLE_LABEL if task.label_names else REGRESSION
    elif problem_type is None:
        problem_type, problem_note = _guess_problem_type(scan, names=names, separator=label_separator)
        notes = [*notes, problem_note]
    _require_labels(scan, column=found.label, problem_type=problem_type)
    if names is None:
        names = () if problem_type == REGRESSION else _names_of(train, found.label, scan, task=task)
    _require_coverage(scan, names, column=found.label)
    if labels_required:
        _require_variety(scan, names, column=found.label, problem_type=problem_type)
    is_plain_text = scan.kind == "text" and label_separator is None
    return Schema(
        text=found.text,
        text_pair=found.text_pair,
        label=found.label,
        id=found.id,
        problem_type=problem_type,
        label_names=names,
        label_separator=label_separator,
        notes=(*notes, *_label_notes(scan, names, column=found.label), *(_misread(names) if is_plain_text else ())),
    )


def _without_labels(found: FoundColumns) -> Schema:
    assert found.text is not None, "looked at before"
    notes = (*found.notes, "no labels: the texts alone are looked at")
    return Schema(found.text, found.text_pair, None, found.id, SINGLE_LABEL, (), None, notes)


def _holds_numbers(dataset: Dataset, column: str) -> bool:
    """Tells whether a column holds numbers, as numbers or (by its first hundred rows) as text."""
    kind = label_kind(arrow_type(dataset, column), dataset.features[column])
    if kind != "text":
        return kind in ("integer", "float")
    head = next(arrow_batches(dataset, [column], batch_rows=100), None)
    if head is None:
        return False
    values = spell_labels(head.column(column), None).flat.to_pylist()
    return bool(values) and all(is_number(value) for value in values)


def _name_problems(names: tuple[str, ...] | None) -> list[str]:
    """Checks the label names that the user gives."""
    if names is None:
        return []
    problems = []
    if len(names) < 2:
        problems.append(f"--label-names: at least two names are needed, found {listed(names)}.")
    if any(not name.strip() for name in names):
        problems.append("--label-names: a name is empty.")
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if doubled:
        problems.append(f"--label-names: {listed(doubled)} is named more than once.")
    return problems


def _option_problems(
    column: str,
    scan: LabelScan,
    problem_type: ProblemType | None,
    names: tuple[str, ...] | None,
    separator: str | None,
) -> list[str]:
    """Checks the label options against each other and against what the label column is."""
    stored = {"names": "class ids", "null": "nothing", "other": "values that cannot be labels"}.get(
        scan.kind, {"list": "lists", "boolean": "booleans", "text": "text"}.get(scan.kind, "numbers")
    )
    holds = f"the label column {column!r} holds {stored}"
    problems = []
    if scan.kind == "other":
        problems.append(f"--label: {holds}. Labels are text, numbers, booleans or lists of these.")
    if problem_type is not None and problem_type not in _PROBLEM_TYPES:
        return [*problems, f"--problem-type: {problem_type!r} is not one of {listed(_PROBLEM_TYPES)}."]
    if separator == "":
        problems.append("--label-separator: the separator is empty.")
    elif separator is not None and scan.kind != "text":
        problems.append(f"--label-separator: only text can be split, but {holds}.")
    if problem_type == MULTI_LABEL and scan.kind != "list" and separator is None:
        problems.append(f"--problem-type: multi-label needs lists or --label-separator, but {holds}.")
    if problem_type in (SINGLE_LABEL, REGRESSION):
        if scan.kind == "list":
            problems.append(f"--problem-type: {problem_type} needs one label per row, but {holds}.")
        if separator is not None:
            problems.append(f"--label-separator: it is for multi-label data, not for {problem_type}.")
    if problem_type == REGRESSION:
        if names is not None:
            problems.append("--label-names: regression has no label names.")
        if scan.kind in ("names", "boolean"):
            problems.append(f"--problem-type: regression needs numbers, but {holds}.")
    if scan.looks_multi_hot:
        problems.append(
            f"--label: column {column!r} holds rows of 0 and 1 (multi-hot). "
            "Give each row the list of its labels instead."
        )
    return problems


def _guess_problem_type(
    scan: LabelScan, *, names: tuple[str, ...] | None, separator: str | None
) -> tuple[ProblemType, str]:
    """Returns the problem type that the labels speak for, and the sentence that says so."""
    if scan.kind == "list" or separator is not None:
        return MULTI_LABEL, "problem: multi-label (rows hold lists of labels)"
    single: ProblemType = SINGLE_LABEL
    if names is not None or scan.kind in ("names", "boolean", "null", "other"):
        return single, "problem: single-label classification"
    distinct, rows = len(scan.counts), scan.num_labels
    numbers = scan.num_whole + scan.num_fractions
    # Half is enough: a few words among numbers are faults to be named, not classes of their own.
    if scan.num_fractions and numbers * 2 >= rows:
        return REGRESSION, (
            "problem: regression (labels are numbers with fractions; "
            "if they are classes: --problem-type single_label_classification)"
        )
    if numbers < rows:
        doubt = f" (warning: {distinct} different labels in {rows} rows; is this the label column? See --label)"
        return single, "problem: single-label classification" + (doubt if distinct * 2 > rows > 20 else "")
    few = distinct <= 2 or (distinct <= MAX_LIKELY_CLASSES and distinct * 2 <= rows)
    if few or (distinct * ROWS_PER_LIKELY_CLASS <= rows and not scan.overflowed):
        return single, (
            f"problem: single-label classification ({distinct} different whole numbers as classes; "
            "if they are quantities: --problem-type regression)"
        )
    return REGRESSION, (
        f"problem: regression ({distinct} different whole numbers in {rows} rows; "
        "if they are classes: --problem-type single_label_classification)"
    )


def _names_of(dataset: Dataset, column: str, scan: LabelScan, *, task: GlueTask | None) -> tuple[str, ...]:
    names = class_names(dataset.features[column])
    if names is not None:
        return names
    if task is not None and task.label_names:
        return tuple(task.label_names)
    return ("false", "true") if scan.kind == "boolean" else natural_sorted(scan.counts)


def _require_labels(scan: LabelScan, *, column: str, problem_type: ProblemType) -> None:
    if scan.num_rows == 0:
        raise DataError("The training split has no rows.")
    if not scan.is_labelled(()):
        raise DataError(
            f"The training split has no labels: column {column!r} holds only null, blanks or -1.",
            hint="Name the label column with --label.",
        )
    if scan.overflowed and problem_type != REGRESSION:
        raise DataError(
            f"Column {column!r} holds at least {len(scan.counts)} different labels: it is hardly a label column.",
            hint="Name the label column with --label.",
        )


def _require_coverage(scan: LabelScan, names: tuple[str, ...], *, column: str) -> None:
    """Label names must cover every training label."""
    if not names:
        return
    by_position = scan.stands_for_positions(names)
    known = {str(position) for position in range(len(names))} if by_position else set(names)
    uncovered = natural_sorted(scan.counts.keys() - known - {UNLABELLED})
    if by_position and set(scan.counts) - {UNLABELLED} == {str(number) for number in range(1, len(names) + 1)}:
        raise ConfigError(
            f"--label-names: they name the labels 0, 1, 2, ..., but those of column {column!r} in the training split "
            "start at 1. Subtract 1 from them, or leave the names out."
        )
    if uncovered:
        near = "" if by_position else near_name(uncovered[0], names)
        raise ConfigError(
            f"--label-names: {listed(names)} do not cover the labels {listed(uncovered)} of column {column!r} "
            f"in the training split.{near}"
        )


def _require_variety(scan: LabelScan, names: tuple[str, ...], *, column: str, problem_type: ProblemType) -> None:
    """There must be something to tell apart."""
    present = scan.counts.keys() - ({UNLABELLED} if names and UNLABELLED not in names else set())
    # Multi-label rows can differ by having a label or not, so there the names count.
    distinct = names if problem_type == MULTI_LABEL else present
    if len(distinct) < 2:
        kind = "number" if problem_type == REGRESSION else "label"
        raise DataError(
            f"Every training row has the same {kind} {listed(natural_sorted(present))} in column {column!r}: "
            "there is nothing to learn.",
            hint="Training needs rows of at least two labels.",
        )


def _label_notes(scan: LabelScan, names: tuple[str, ...], *, column: str) -> list[str]:
    """Says what is odd about the labels of the training split."""
    header = []
    if column in scan.counts:
        doubt = f"column {column!r} holds its own name as a label: is the header line missing, or there twice?"
        header.append(f"warning: {doubt} {HEADER_ADVICE}")
    if not names:
        return header
    by_position = scan.stands_for_positions(names)
    rows = {name: scan.counts[str(position) if by_position else name] for position, name in enumerate(names)}
    notes = [*header, f"labels: {listed(names)}"]
    absent = [name for name in names if rows[name] == 0]
    if absent:
        notes.append(f"labels without a training row: {listed(absent)}")
    single = [name for name in names if rows[name] == 1]
    if single:
        notes.append(f"labels with one training row only: {listed(single)}")
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.strip().casefold(), []).append(name)
    for spellings in alike.values():
        if len(spellings) > 1:
            shown = ", ".join(f"{quoted(name)} ({rows[name]} rows)" for name in spellings)
            notes.append(f"warning: labels that differ only in case or surrounding blanks are kept apart: {shown}")
    return notes


def _misread(names: tuple[str, ...]) -> list[str]:
    """Says where one label per row seems to be something else: a number with a comma, or several labels."""
    points = [with_point(name) for name in names]
    if any(points) and all(point or is_number(name) for name, point in zip(names, points, strict=True)):
        name, point = next((name, point) for name, point in zip(names, points, strict=True) if point)
        return [f"warning: {quoted(name)} has a decimal comma; write {point}, if the labels are quantities"]
    for separator in LIKELY_SEPARATORS:
        joined = [name for name in names if separator in name]
        parts = {part.strip() for name in names for part in name.split(separator)}
        if joined and len(parts) <= CLEARLY_FEWER * len(names):
            longest = quoted(max(joined, key=len))
            advice = f"--label-separator {separator!r} takes them apart"
            return [f"warning: labels such as {longest} look like several labels in one: {advice}"]
    return []
