"""The ten GLUE tasks: columns, label names, metrics and splits as the hub's nyu-mll/glue has them, and a reader for the
layout of the official download.

The official TSV files differ from task to task: CoLA has no header line in train and dev, STS-B has ten columns, test
files have no labels, MRPC may come as Microsoft's text files, MNLI has matched and mismatched splits. In all of them
quotes are ordinary characters. The numbering (`idx`) is the hub's: the row's place in its file, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from textune.data.delimited import read_header, read_rows, rows_of_width
from textune.data.labels import is_whole_number
from textune.data.lines import BadRows, batches_of
from textune.errors import DataError

if TYPE_CHECKING:
    from datasets import Features

HUB_REPOSITORY = "nyu-mll/glue"

UNLABELLED = -1
"""The label of rows without one, as on the hub."""


@dataclass(frozen=True)
class GlueTask:
    """One task, and how its official files name things."""

    name: str
    """The hub's configuration name, such as "mrpc"."""
    folder: str
    """The folder of the official download, such as "MRPC"."""
    text_columns: tuple[str, ...]
    """One or two columns, as the hub names them."""
    label_names: tuple[str, ...]
    """In the order of their ids; () for regression."""
    metrics: tuple[str, ...]
    """As GLUE and scikit-learn name them; the first is the task's own."""
    num_rows: Mapping[str, int]
    """Rows per split on the hub."""
    official_text_columns: tuple[str, ...]
    """Headers of the text columns in the official files."""
    official_label_column: str
    """Header of the label column in the official files; "" where no file has labels."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The hub's split names."""
        return tuple(self.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The hub's columns in their order: the texts, label, idx."""
        return (*self.text_columns, "label", "idx")

    def features(self) -> Features:
        """The hub's column types: strings, ClassLabel (float32 for regression), int32."""
        from datasets import ClassLabel, Features, Value

        label = ClassLabel(names=list(self.label_names)) if self.label_names else Value("float32")
        return Features({**dict.fromkeys(self.text_columns, Value("string")), "label": label, "idx": Value("int32")})


def _splits(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


_SENTENCE = ("sentence",)
_PAIR = ("sentence1", "sentence2")
_INFERENCE = ("premise", "hypothesis")
_ENTAILMENT = ("entailment", "neutral", "contradiction")
_MNLI_ROWS = {
    "train": 392_702,
    "validation_matched": 9_815,
    "validation_mismatched": 9_832,
    "test_matched": 9_796,
    "test_mismatched": 9_847,
}

# fmt: off
_TASKS = (
    GlueTask("cola", "CoLA", _SENTENCE, ("unacceptable", "acceptable"), ("matthews_correlation",),
             _splits(8_551, 1_043, 1_063), _SENTENCE, "label"),
    GlueTask("sst2", "SST-2", _SENTENCE, ("negative", "positive"), ("accuracy",),
             _splits(67_349, 872, 1_821), _SENTENCE, "label"),
    GlueTask("mrpc", "MRPC", _PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1"),
             _splits(3_668, 408, 1_725), ("#1 String", "#2 String"), "Quality"),
    GlueTask("stsb", "STS-B", _PAIR, (), ("pearson", "spearmanr"),
             _splits(5_749, 1_500, 1_379), _PAIR, "score"),
    GlueTask("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1"),
             _splits(363_846, 40_430, 390_965), ("question1", "question2"), "is_duplicate"),
    GlueTask("mnli", "MNLI", _INFERENCE, _ENTAILMENT, ("accuracy",),
             _MNLI_ROWS, _PAIR, "gold_label"),
    GlueTask("qnli", "QNLI", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",),
             _splits(104_743, 5_463, 5_463), ("question", "sentence"), "label"),
    GlueTask("rte", "RTE", _PAIR, ("entailment", "not_entailment"), ("accuracy",),
             _splits(2_490, 277, 3_000), _PAIR, "label"),
    GlueTask("wnli", "WNLI", _PAIR, ("not_entailment", "entailment"), ("accuracy",),
             _splits(635, 71, 146), _PAIR, "label"),
    GlueTask("ax", "AX", _INFERENCE, _ENTAILMENT, ("matthews_correlation",),
             {"test": 1_104}, _PAIR, ""),
)
# fmt: on

GLUE_TASKS: dict[str, GlueTask] = {task.name: task for task in _TASKS}

_MRPC_TRAIN, _MRPC_TEST, _MRPC_DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"
_AX_FILES = ("AX.tsv", "diagnostic.tsv", "test.tsv")
_COLA_NAMES = ["source", "label", "author_label", "sentence"]
_QQP_HINT = (
    "The official QQP train.tsv holds a few questions with a line break inside, which tear their row in two; the "
    "hub's copy leaves them out. --drop-bad-rows does the same and counts them."
)


def task_of_folder(name: str) -> GlueTask | None:
    """Returns the task a folder is named after: by the official name ("SST-2", "diagnostic") or the hub's, in any
    case."""
    plain = name.lower().replace("-", "").replace("_", "")
    return GLUE_TASKS.get({"diagnostic": "ax"}.get(plain, plain))


def official_files(folder: Path, task: GlueTask) -> dict[str, tuple[Path, ...]]:
    """Returns the official files of each split that is there, {} if the folder is not in the official layout.

    MRPC's train and validation come from msr_paraphrase_train.txt and dev_ids.tsv where both are there, as on the hub.
    """
    if task.name == "ax":
        found = [folder / name for name in _AX_FILES if (folder / name).is_file()]
        return {"test": (found[0],)} if found and _is_official(found[0], task) else {}
    files: dict[str, tuple[Path, ...]] = {
        split: (folder / f"{split.replace('validation', 'dev')}.tsv",) for split in task.splits
    }
    if task.name == "mrpc":
        train, dev_ids = folder / _MRPC_TRAIN, folder / _MRPC_DEV_IDS
        if train.is_file() and dev_ids.is_file():
            files["train"] = files["validation"] = (train, dev_ids)
        if (folder / _MRPC_TEST).is_file():
            files["test"] = (folder / _MRPC_TEST,)
    files = {split: paths for split, paths in files.items() if paths[0].is_file()}
    return files if files and all(_is_official(paths[0], task) for paths in files.values()) else {}


def _is_official(path: Path, task: GlueTask) -> bool:
    """Whether the first line has the official columns; CoLA's train and dev have four fields and no header."""
    try:
        _, first = next(read_rows(path, delimiter="\t", quotes=False, bad=BadRows(path)), (0, []))
    except DataError:
        return False
    if set(task.official_text_columns) <= set(first):
        return True
    return task.name == "cola" and len(first) == len(_COLA_NAMES) and first[1] in ("0", "1")


def read_official(
    task: GlueTask, split: str, files: tuple[Path, ...], *, drop_bad_rows: bool = False
) -> tuple[Iterator[pa.Table], dict[str, int]]:
    """Reads one split of the official download.

    Args:
        files: what `official_files` gave for the split.
        drop_bad_rows: leave out and count rows that are broken.

    Returns:
        Tables with the hub's columns and types, and the counts of dropped rows by reason, complete after the last one.

    Raises:
        DataError: a line with the wrong number of fields or with a label the task does not have; all lines are named.
            No row is ever left out unasked.
    """
    bad = BadRows(files[0], drop=drop_bad_rows)
    if task.name == "qqp":
        bad.hint = _QQP_HINT
    return _official_tables(task, split, files, bad), bad.dropped


def _official_tables(task: GlueTask, split: str, files: tuple[Path, ...], bad: BadRows) -> Iterator[pa.Table]:
    rows = read_rows(files[0], delimiter="\t", quotes=False, bad=bad)
    headerless = task.name == "cola" and split != "test"
    names = _COLA_NAMES if headerless else read_header(rows, bad)
    text_positions = [names.index(name) for name in task.official_text_columns]
    label_position = names.index(task.official_label_column) if task.official_label_column in names else None
    first_line = 1 if headerless else 2
    keep = _mrpc_split_filter(split, files, names)

    def examples() -> Iterator[tuple[int, dict[str, Any], int]]:
        for number, fields in rows_of_width(rows, names, bad):
            if not keep(fields):
                continue
            example: dict[str, Any] = {"idx": number - first_line}
            for column, position in zip(task.text_columns, text_positions, strict=True):
                example[column] = fields[position]
            try:
                example["label"] = UNLABELLED if label_position is None else label_value(fields[label_position], task)
            except ValueError as error:
                bad.add(number, "unknown label", str(error))
                continue
            yield number, example, sum(map(len, fields))

    schema = task.features().arrow_schema
    for batch in batches_of(examples(), 4096, bad):
        yield pa.Table.from_pylist([example for _, example in batch], schema=schema)


def _mrpc_split_filter(split: str, files: tuple[Path, ...], names: list[str]) -> Callable[[list[str]], bool]:
    """Microsoft's training file holds train and validation; dev_ids.tsv lists the pairs of ids of the latter."""
    if len(files) == 1:
        return lambda fields: True
    dev_ids = {tuple(ids) for _, ids in read_rows(files[1], delimiter="\t", quotes=False, bad=BadRows(files[1]))}
    if not {"#1 ID", "#2 ID"} <= set(names):
        raise DataError(
            f"{files[0]}: expected the columns '#1 ID' and '#2 ID', as dev_ids.tsv has them; found {', '.join(names)}."
        )
    first, second = names.index("#1 ID"), names.index("#2 ID")
    return lambda fields: ((fields[first], fields[second]) in dev_ids) == (split == "validation")


def label_value(label: object, task: GlueTask) -> int | float:
    """Returns a label as the hub stores it: the id of its name or the number; -1 for None and -1.

    Raises:
        ValueError: the task has no such label.
    """
    if label is None or label == UNLABELLED:
        return UNLABELLED
    if not task.label_names:
        try:
            return float(str(label))
        except ValueError:
            raise ValueError(f"expected a number as label, found {label!r}") from None
    if label in task.label_names:
        return task.label_names.index(str(label))
    if is_whole_number(str(label)) and 0 <= float(str(label)) < len(task.label_names):
        return int(float(str(label)))
    known = ", ".join(f"{name} ({number})" for number, name in enumerate(task.label_names))
    raise ValueError(f"expected one of the labels {known}, found {label!r}")


def as_hub_tables(
    tables: Iterable[pa.Table], task: GlueTask, *, path: Path, drop_bad_rows: bool = False
) -> tuple[Iterator[pa.Table], dict[str, int]]:
    """Gives tables that were read from files with the hub's column names the hub's types and column order.

    Labels may be ids, names or missing (null, blank or -1; -1 then); `idx` is counted where it is missing.

    Args:
        drop_bad_rows: leave out and count rows whose label the task does not have.

    Returns:
        The tables, and the counts of dropped rows by reason, complete after the last one.

    Raises:
        DataError: a text column is missing, or a value is not what its column holds on the hub.
    """
    hint = (
        "Correct the labels, leave such rows out with --drop-bad-rows, or give the folder another name to read it as "
        "plain data."
    )
    bad = BadRows(path, drop=drop_bad_rows, unit="row", hint=hint)
    return _hub_tables(tables, task, bad), bad.dropped


def _hub_tables(tables: Iterable[pa.Table], task: GlueTask, bad: BadRows) -> Iterator[pa.Table]:
    schema = task.features().arrow_schema
    rows_before = 0
    for table in tables:
        missing = [column for column in task.text_columns if column not in table.column_names]
        if missing:
            found = ", ".join(table.column_names)
            raise DataError(f"{bad.path}: glue/{task.name} needs the column {missing[0]!r}; found {found}.")
        numbers = range(rows_before, rows_before + table.num_rows)
        rows_before += table.num_rows
        columns: dict[str, Any] = {column: table[column] for column in task.text_columns}
        columns["label"] = labels = _label_values(table, numbers, task, bad)
        columns["idx"] = table["idx"] if "idx" in table.column_names else pa.array(numbers)
        try:
            hub_table = pa.table(columns).filter(pa.array([label is not None for label in labels], pa.bool_()))
            hub_table = hub_table.select(schema.names).cast(schema)
        except pa.ArrowException as error:
            raise DataError(f"{bad.path}: expected the columns of glue/{task.name} on the hub: {error}.") from error
        if hub_table.num_rows:
            yield hub_table


def _label_values(table: pa.Table, numbers: range, task: GlueTask, bad: BadRows) -> list[int | float | None]:
    """The labels as the hub stores them; None in rows to drop."""
    labels = table["label"].to_pylist() if "label" in table.column_names else [None] * table.num_rows
    values: list[int | float | None] = []
    for number, label in zip(numbers, labels, strict=True):
        try:
            values.append(UNLABELLED if _is_missing(label) else label_value(label, task))
        except ValueError as error:
            bad.add(number + 1, "unknown label", str(error))
            values.append(None)
    bad.stop()
    return values


def _is_missing(label: object) -> bool:
    """Whether a row has no label, as types other than the hub's say it: NaN, or text in CSV and TSV."""
    if isinstance(label, str):
        return label.strip() in ("", "-1", "-1.0")
    return isinstance(label, float) and math.isnan(label)
