"""Training data of the Trainer: the order of examples, and data sets of texts as the engine takes them.

The order is that of transformers 5 with accelerate: a random permutation from a generator that is seeded with
`data_seed` (or `seed`) plus the number of the epoch. It depends on nothing else.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from textune.data.batching import BatchPlan
from textune.data.tokens import IntArray, TokenRows
from textune.errors import DataError, did_you_mean, first_rows
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from textune.training.parallel import Processes

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""Where transformers' collators look for labels; they all become `labels`."""

LEFT_OUT = -100
"""The label of rows that torch's cross entropy leaves out."""

_logger = logging.getLogger(__name__)


class EpochSampler(torch.utils.data.Sampler[int]):
    """Row numbers of an epoch in the order of `train_sampling_strategy`.

    Args:
        num_rows: rows in the data set.
        strategy: "random", "sequential" or "group_by_length".
        seed: the first epoch's seed.
        lengths: tokens per row, for "group_by_length".
        group: rows of one step; as many of similar length come together.
    """

    def __init__(
        self, num_rows: int, *, strategy: str, seed: int, lengths: Sequence[int] | None = None, group: int = 1
    ) -> None:
        self.num_rows, self.strategy, self.seed, self.lengths, self.group = num_rows, strategy, seed, lengths, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self, epoch: int) -> IntArray:
        """The row numbers (0-based) of an epoch, int64 [num_rows]."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if self.strategy == "sequential":
            return np.arange(self.num_rows)
        if self.strategy == "group_by_length":
            return np.asarray(get_length_grouped_indices(self.lengths, self.group, generator=generator))
        order: IntArray = torch.randperm(self.num_rows, generator=generator).numpy()
        return order

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        yield from self.order(self.epoch).tolist()


class SharedSampler(torch.utils.data.Sampler[int]):
    """The rows of one of several processes: of the sampler's batches every `world_size`-th, as accelerate deals them.

    Each row comes once; where the batches do not go round, the last processes have one less.
    """

    def __init__(self, sampler: Any, batch_size: int, processes: Processes) -> None:
        self.sampler, self.batch_size, self.processes = sampler, batch_size, processes

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        rows, size, processes = len(self.sampler), self.batch_size, self.processes
        own = processes.share(range(0, rows, size))
        return sum(min(size, rows - first) for first in own)

    def __iter__(self) -> Iterator[int]:
        for number, row in enumerate(self.sampler):
            if number // self.batch_size % self.processes.world_size == self.processes.rank:
                yield row


class SharedLoader:
    """The batches of one of several processes, from a loader that gives all; other attributes are the loader's."""

    def __init__(self, loader: Any, processes: Processes) -> None:
        self.loader, self.processes = loader, processes

    def __len__(self) -> int:
        return len(self.processes.share(range(len(self.loader))))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.loader), self.processes.rank, None, self.processes.world_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def own_batches(loader: Any, processes: Processes) -> Any:
    """A loader of this process's batches, which is the loader itself where its sampler shares them out already."""
    dealt_out = (SharedSampler, torch.utils.data.DistributedSampler)
    if processes.world_size == 1 or isinstance(loader, SharedLoader):
        return loader
    return loader if isinstance(getattr(loader, "sampler", None), dealt_out) else SharedLoader(loader, processes)


@dataclass(frozen=True)
class SampledPlan(BatchPlan):
    """Batches in a sampler's order; `num_rows` may be fewer than there are, so that the last batch is left out."""

    sampler: EpochSampler

    def order(self, epoch: int) -> IntArray:
        return self.sampler.order(epoch)[: self.num_rows]


class NotTextError(Exception):
    """A data set or a model is none for the path of texts; its text says why."""


@dataclass(frozen=True)
class TextRows:
    """A tokenised training set.

    Attributes:
        tokens: its token ids.
        labels: int64 [rows], float32 [rows] for regression, float32 [rows, labels] for several labels.
        problem_type: transformers' name of it.
    """

    tokens: TokenRows
    labels: npt.NDArray[Any]
    problem_type: str


def is_arrow_dataset(dataset: Any) -> bool:
    """Whether it is a `datasets.Dataset`. Does not import `datasets`."""
    module = sys.modules.get("datasets")
    return module is not None and isinstance(dataset, module.Dataset)


def _is_at_hand(dataset: Any) -> bool:
    """Whether its columns can be read before training: a `datasets.Dataset`, or rows in a list."""
    return is_arrow_dataset(dataset) or isinstance(dataset, (list, tuple))


def _is_transformed(dataset: Any) -> bool:
    """Whether its rows are made by `with_transform` while they are read, and may have other columns than the file."""
    return is_arrow_dataset(dataset) and dataset.format["type"] == "custom"


def column_names(dataset: Any) -> list[str] | None:
    """Columns of a data set, or the keys of its first row; None where they cannot be known without reading it."""
    if _is_transformed(dataset):
        return None
    names = getattr(dataset, "column_names", None)
    if names is not None:
        return list(names)
    if isinstance(dataset, (list, tuple)) and dataset and isinstance(dataset[0], Mapping):
        return list(dataset[0])
    return None


def require_labels(dataset: Any, *, label_names: Sequence[str], what: str) -> None:
    """Looks for a column of labels where the columns can be known.

    Raises:
        DataError: there is none, or its labels are texts.
    """
    names = column_names(dataset)
    if names is None:
        return
    found = _label_column(names, label_names)
    if found is None:
        near = next(filter(None, (did_you_mean(name, LABEL_COLUMNS) for name in names)), "")
        listed = ", ".join(names) or "no column"
        raise DataError(
            f"{what}: expected a column 'label', 'labels' or 'label_ids', found {listed}.{near}",
            hint="Rename the column, for example dataset.rename_column('NAME', 'label').",
        )
    first = dataset[0][found] if _is_at_hand(dataset) and len(dataset) else None
    if isinstance(first, str):
        raise DataError(
            f"{what}: column {found!r} holds text ({first!r} in row 1); the model needs numbers.",
            hint=f"Number the labels, for example dataset.class_encode_column({found!r}).",
        )


def _label_column(names: Sequence[str], label_names: Sequence[str]) -> str | None:
    return next((name for name in (*label_names, *LABEL_COLUMNS) if name in names), None)


def label_values(dataset: Any, *, label_names: Sequence[str]) -> tuple[str, pa.ChunkedArray] | None:
    """Name and values of the column of labels; None where there is none, or reading it would read whole rows."""
    name = _label_column(column_names(dataset) or [], label_names)
    if name is None or not _is_at_hand(dataset):
        return None
    try:
        return name, _table(dataset, [name])[name]
    except NotTextError:
        return None


def without_placeholder_labels(dataset: Any, *, label_names: Sequence[str], what: str) -> Any:
    """The data set without its labels where all are missing or -1, as in the test splits of GLUE."""
    found = label_values(dataset, label_names=label_names) if is_arrow_dataset(dataset) else None
    if found is None or not stand_for_none(found[1]):
        return dataset
    _logger.info("The %s data have no labels: %r is -1 or empty in all rows.", what, found[0])
    return dataset.remove_columns(found[0])


def stand_for_none(labels: pa.ChunkedArray) -> bool:
    """Whether there are rows, and all their labels are missing or -1."""
    if not pa.types.is_integer(labels.type) and not pa.types.is_null(labels.type):
        return False
    return bool(len(labels)) and pc.all(pc.equal(pc.fill_null(labels.cast(pa.int64()), -1), -1)).as_py()


def row_lengths(dataset: Any, *, length_column: str, input_name: str) -> list[int]:
    """Tokens per row: from a column of lengths, otherwise counted.

    Raises:
        DataError: the rows have no such column.
    """
    names = column_names(dataset) or []
    if is_arrow_dataset(dataset) and length_column in names:
        return [int(length) for length in dataset[length_column]]
    try:
        return [len(row[input_name]) for row in dataset]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"train_sampling_strategy='group_by_length': the rows have neither {length_column!r} nor {input_name!r}.",
            hint="Name a column of lengths with length_column_name, or use train_sampling_strategy='random'.",
        ) from error


def text_rows(dataset: Any, *, accepted: Sequence[str], num_labels: int, problem_type: str | None) -> TextRows:
    """Takes tokens and labels out of a data set.

    Args:
        accepted: arguments of the model's `forward`.
        num_labels: outputs of the model.
        problem_type: of the model's configuration; None where the labels decide, as in transformers.

    Raises:
        NotTextError: the rows hold something else than plain tokens and labels.
        DataError: a label that the model has no output for, or a token id below 0.
    """
    names = column_names(dataset)
    if names is None or not _is_at_hand(dataset):
        raise NotTextError(f"the training data are a {type(dataset).__name__}")
    used = [name for name in names if name in accepted or name in LABEL_COLUMNS]
    label_columns = [name for name in used if name in LABEL_COLUMNS]
    inputs = [name for name in used if name not in label_columns]
    if "input_ids" not in inputs or len(label_columns) != 1:
        raise NotTextError("the rows have no input_ids, or not one column of labels")
    if odd := set(inputs) - {"input_ids", "attention_mask", "token_type_ids"}:
        raise NotTextError(f"the rows have {', '.join(sorted(odd))}")
    table = _table(dataset, used)
    if "attention_mask" in inputs and len(table) and pc.min(_flat(table["attention_mask"])).as_py() == 0:
        raise NotTextError("the rows have been padded already")
    labels, found = read_labels(
        table[label_columns[0]], num_labels=num_labels, problem_type=problem_type, what="train_dataset"
    )
    return TextRows(TokenRows(_tokens(table, inputs)), labels, found)


def _table(dataset: Any, names: list[str]) -> pa.Table:
    if is_arrow_dataset(dataset):
        if _is_transformed(dataset):
            raise NotTextError("the training data are made by a transform while they are read")
        table: pa.Table = dataset.select_columns(names).with_format("arrow")[:]
        return table
    try:
        return pa.table({name: pa.array([_plain(row[name]) for row in dataset]) for name in names})
    except (KeyError, TypeError, pa.ArrowException) as error:
        raise NotTextError(f"the rows are no table: {error}") from error


def _plain(value: Any) -> Any:
    """Tensors and arrays as what Arrow takes."""
    return value.tolist() if hasattr(value, "tolist") else value


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        raise NotTextError(f"a column of tokens holds {column.type}, not lists")
    return pc.list_flatten(column)


def _tokens(table: pa.Table, inputs: list[str]) -> pa.Table:
    columns = {}
    for name, kind in (("input_ids", pa.int32()), ("token_type_ids", pa.int8())):
        if name in inputs:
            flat = _flat(table[name])
            if not pa.types.is_integer(flat.type) or table[name].null_count:
                raise NotTextError(f"{name} holds something else than whole numbers")
            lowest = pc.min(flat).as_py()
            if name == "input_ids" and lowest is not None:
                require_ids_from_zero(lowest, what="train_dataset")
            columns[name] = table[name].cast(pa.list_(kind))
    columns["full_length"] = pc.list_value_length(columns["input_ids"]).cast(pa.int32())
    return pa.table(columns)


def require_ids_from_zero(lowest: int, *, what: str) -> None:
    """Refuses token ids below 0, such as -100, which stands for padding among labels.

    Raises:
        DataError: the lowest is.
    """
    if lowest < 0:
        raise DataError(f"{what}: input_ids: expected token ids, from 0 on, found {lowest}.")


def read_labels(
    column: pa.ChunkedArray, *, num_labels: int, problem_type: str | None, what: str
) -> tuple[npt.NDArray[Any], str]:
    """Labels and problem type, as the model's `forward` would settle it on the first batch.

    Raises:
        NotTextError: labels that the engine's own loss is not for.
        DataError: labels that the model has no output for, or none.
    """
    if column.null_count:
        rows = [row + 1 for row, missing in enumerate(column.is_null().to_pylist()) if missing]
        raise DataError(f"{what}: {first_rows(rows)} {'has' if len(rows) == 1 else 'have'} no label.")
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    is_whole = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if problem_type is None:
        problem_type = REGRESSION if num_labels == 1 else SINGLE_LABEL if is_whole else MULTI_LABEL
    if problem_type == MULTI_LABEL and is_list:
        values = np.array(column.to_pylist(), dtype=np.float32)
        if values.ndim == 2 and values.shape[1] == num_labels:
            return values, problem_type
    elif problem_type == REGRESSION and num_labels == 1 and not is_list:
        return column.cast(pa.float32()).to_numpy(), problem_type
    elif problem_type == SINGLE_LABEL and is_whole:
        labels = column.cast(pa.int64()).to_numpy()
        left_out = labels == LEFT_OUT
        wrong = np.flatnonzero((labels >= num_labels) | ((labels < 0) & ~left_out))
        if len(wrong):
            where = f"{what}: label {labels[wrong[0]]} in {first_rows([int(row) + 1 for row in wrong])}"
            raise _no_output(where, largest=int(labels.max()), num_labels=num_labels)
        if left_out.any():
            raise NotTextError(f"some labels are {LEFT_OUT}, which leaves their rows out of the loss")
        return labels, problem_type
    elif pa.types.is_floating(column.type) and problem_type in (SINGLE_LABEL, MULTI_LABEL):
        raise DataError(
            f"{what}: the labels are decimals ({column[0].as_py()} in row 1), one per row; the model has {num_labels} "
            "outputs.",
            hint="For classes, make them whole numbers: dataset.cast_column('label', datasets.Value('int64')). "
            "To predict a number, load the model with num_labels=1.",
        )
    raise NotTextError(f"labels of type {column.type} for {num_labels} outputs ({problem_type})")


def require_outputs(labels: torch.Tensor, *, num_labels: int) -> None:
    """Whether a classifier has an output for each label of a batch.

    Raises:
        DataError: it has none for one of them.
    """
    wrong = labels[(labels >= num_labels) | ((labels < 0) & (labels != LEFT_OUT))]
    if len(wrong):
        raise _no_output(f"label {int(wrong[0])} in a batch", largest=int(wrong.max()), num_labels=num_labels)


def _no_output(where: str, *, largest: int, num_labels: int) -> DataError:
    return DataError(
        f"{where}; the model has {num_labels} labels, 0 to {num_labels - 1}.",
        hint=f"Load the model with num_labels={largest + 1}."
        if largest >= num_labels
        else "Leave these rows out, for example dataset.filter(lambda row: row['label'] >= 0).",
    )
