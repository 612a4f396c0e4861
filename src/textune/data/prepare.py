"""From what the user named to typed rows in splits with known parts: the data half of the way, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.data.folds import VALIDATION, deal_folds, hold_out
from textune.data.rows import to_rows
from textune.data.schema import Schema, resolve_schema
from textune.data.sources import Source, load_source
from textune.data.splits import SplitRoles, add_validation_split, split_roles, train_split
from textune.data.wording import listed
from textune.errors import ConfigError

if TYPE_CHECKING:
    from datasets import DatasetDict

    from textune.config import DataConfig

ALL = "data"
"""What the split of a single file is called when it is scored: all of the data, of which nothing is trained on."""


@dataclass(frozen=True)
class PreparedData:
    """Typed, checked rows and how they came about.

    Attributes:
        source: what was read.
        schema: what its columns mean.
        rows: the splits, with the columns of `textune.data.rows.Rows`.
        notes: what the user should be told, in order.
        dropped: rows left out, by split and reason.
        dropped_rows: numbers (1-based) of those of them that could be read, by split and reason.
        origins: the split of the source that a split's rows come from, where it is called otherwise there.
    """

    source: Source
    schema: Schema
    rows: DatasetDict
    notes: tuple[str, ...]
    dropped: Mapping[str, Mapping[str, int]]
    dropped_rows: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> SplitRoles:
        return split_roles(self.rows)

    @property
    def train(self) -> str:
        return train_split(list(self.rows), task=self.source.task)

    def as_json(self) -> dict[str, Any]:
        """What data.json keeps of it."""
        return {
            "source": self.source.location,
            "name": self.source.name,
            "task": None if self.source.task is None else self.source.task.name,
            "fingerprint": self.source.fingerprint,
            "schema": self.schema.to_json(),
            "notes": list(self.notes),
            "dropped": {split: dict(reasons) for split, reasons in self.dropped.items()},
        }


def prepare_training(config: DataConfig, *, seed: int, folder: Path) -> PreparedData:
    """Reads the data, finds out what its columns mean, checks every row and sees to a validation split.

    There is none where none of the rows are to be set aside (`validation_fraction` 0).

    Args:
        config: where the data are and what is known of them.
        seed: of the validation split or the folds, where they have to be made and have no seed of their own.
        folder: an empty folder for the typed rows; it must live as long as they are used.

    Raises:
        InputNotFoundError, UnavailableError, ConfigError, DataError: see the functions called.
    """
    prepared = prepare_inspection(config, folder=folder)
    if ignored := prepared.roles.ignored:
        note = f"splits other than train, validation and test are not used: {listed(ignored)}"
        prepared = dataclasses.replace(prepared, notes=(*prepared.notes, note))
    seed = seed if config.split_seed is None else config.split_seed
    if config.folds is not None and config.fold is not None:
        return _without_fold(prepared, config.fold, num_folds=config.folds, seed=seed)
    if prepared.roles.validation:
        return prepared
    if config.validation_fraction == 0:
        note = "no validation split: all rows are trained on, and the last weights are the result"
        return dataclasses.replace(prepared, notes=(*prepared.notes, note))
    splits, note = add_validation_split(
        prepared.rows, fraction=config.validation_fraction, seed=seed, problem_type=prepared.schema.problem_type
    )
    notes, origins = (*prepared.notes, note), {"validation": prepared.train}
    return dataclasses.replace(prepared, rows=splits, notes=notes, origins=origins)


def _without_fold(prepared: PreparedData, fold: int, *, num_folds: int, seed: int) -> PreparedData:
    """The same with one fold of the training rows as the validation split."""
    name = prepared.train
    folds, notes = deal_folds(
        prepared.rows[name], num_folds=num_folds, seed=seed, problem_type=prepared.schema.problem_type
    )
    splits, own = hold_out(prepared.rows, name, folds == fold)
    note = f"fold {fold} of {num_folds}: {(folds == fold).sum()} of {len(folds)} training rows are held out"
    if own is not None:
        note += f"; the data's own validation split is called {own}"
    origins = {VALIDATION: name, **({} if own is None else {own: VALIDATION})}
    return dataclasses.replace(prepared, rows=splits, notes=(*prepared.notes, note, *notes), origins=origins)


def prepare_inspection(config: DataConfig, *, folder: Path, labels_required: bool = True) -> PreparedData:
    """The same, with the splits as they are: no validation split is made.

    Args:
        labels_required: whether to refuse data from which nothing can be learned: without labels, or all alike.

    Raises:
        InputNotFoundError, UnavailableError, ConfigError, DataError: see the functions called.
    """
    source = _load(config)
    schema = resolve_schema(
        source.splits,
        text=config.text,
        text_pair=config.text_pair,
        label=config.label,
        problem_type=config.problem_type,
        label_names=config.label_names or source.label_names,
        label_separator=config.label_separator,
        task=source.task,
        labels_required=labels_required,
    )
    train = train_split(list(source.splits), task=source.task)
    rows = to_rows(
        source.splits,
        schema,
        drop_bad_rows=config.drop_bad_rows,
        require_labels=(train, *split_roles(source.splits).validation[:1]) if labels_required else (),
        folder=folder,
    )
    notes = (*source.notes, *schema.notes, *rows.notes)
    dropped = _merged(source.dropped, rows.dropped)
    return PreparedData(source, schema, rows.splits, notes, dropped, rows.dropped_rows)


def prepare_evaluation(config: DataConfig, schema: Schema, *, folder: Path) -> PreparedData:
    """Reads further labelled data for a model that is already trained.

    Args:
        config: where the data are; columns named here replace those of training.
        schema: that of training; its label names are the only ones allowed.
        folder: see `prepare_training`.

    Raises:
        InputNotFoundError, UnavailableError, ConfigError, DataError: see the functions called.
    """
    if config.text_pair is not None and schema.text_pair is None:
        raise ConfigError("--text-pair: this model was trained on single texts; it takes no second one.")
    source = _load(config)
    schema = dataclasses.replace(
        schema,
        text=config.text or schema.text,
        text_pair=config.text_pair or schema.text_pair,
        label=config.label or schema.label,
    )
    # A single file is called "train" by its reader, which here would be wrong.
    splits = type(source.splits)({ALL: source.splits["train"]}) if list(source.splits) == ["train"] else source.splits
    rows = to_rows(splits, schema, drop_bad_rows=config.drop_bad_rows, require_labels=(), folder=folder)
    dropped = _merged(source.dropped, rows.dropped)
    return PreparedData(source, schema, rows.splits, (*source.notes, *rows.notes), dropped)


def _load(config: DataConfig) -> Source:
    return load_source(
        config.source,
        validation=config.validation,
        test=config.test,
        local_copy=config.local_copy,
        delimiter=config.delimiter,
        encoding=config.encoding,
        drop_bad_rows=config.drop_bad_rows,
    )


def _merged(*counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    merged: dict[str, dict[str, int]] = {}
    for splits in counts:
        for split, reasons in splits.items():
            merged.setdefault(split, {}).update(reasons)
    return merged
