"""Which split plays which part, and a seeded, stratified validation split where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from textune.data.column_names import arrow_batches
from textune.data.wording import listed, near_name
from textune.errors import ConfigError, DataError
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ProblemType

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray

    from textune.data.glue import GlueTask

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""The parts of a split, and the names of files and splits by which each is known, the most usual one first."""
MAX_QUANTILE_BINS = 10
_LARGEST_KEY = np.iinfo(np.uint64).max


@dataclass(frozen=True)
class SplitRoles:
    """The splits of a data set by the part they play."""

    train: str | None
    validation: tuple[str, ...]
    """The first one is used to choose the best step; the others are measured too."""
    test: tuple[str, ...]
    ignored: tuple[str, ...]
    """Splits without a part, such as "unsupervised"."""


def split_roles(names: Iterable[str]) -> SplitRoles:
    """Gives each split its part by its name: "dev" is a validation split, and so is "validation_matched".

    A plain name comes before one with a suffix, and suffixes in alphabetical order: matched before mismatched.
    """
    names = list(names)
    train = next((name for name in names if name.casefold() in SPLIT_NAMES["train"]), None)
    validation = _with_part(names, SPLIT_NAMES["validation"])
    test = _with_part(names, SPLIT_NAMES["test"])
    used = {train, *validation, *test}
    return SplitRoles(train, validation, test, tuple(name for name in names if name not in used))


def train_split(names: Sequence[str], *, task: GlueTask | None = None) -> str:
    """Returns the name of the training split.

    Raises:
        DataError: there is none.
    """
    train = split_roles(names).train
    if train is not None:
        return train
    if task is not None and task.name == "ax":
        raise DataError(
            "glue/ax is a diagnostic set: it has a test split only and nothing to train on.",
            hint="Train on glue/mnli, then evaluate that run on glue/ax.",
        )
    raise DataError(
        f"There is no training split: expected one called 'train', found {listed(names)}.{near_name('train', names)}",
        hint="Name the file that holds the training rows with --data.",
    )


def add_validation_split(
    rows: DatasetDict, *, fraction: float, seed: int, problem_type: ProblemType
) -> tuple[DatasetDict, str]:
    """Moves a share of the training rows into a new split `validation`; both keep the order of their rows.

    The choice depends on the number of rows, their labels, which texts are equal, `fraction` and `seed` alone. It is
    stratified by class, by quantile of the target (regression), or by combination of labels (multi-label; combinations
    too rare for a validation row of their own are taken together). Every label keeps a row in train.

    It is texts that are chosen: rows with equal texts go to the same side, so that no model is measured on a text it
    was trained on. Each stands in the stratum of its first row.

    Args:
        rows: typed rows with a labelled split `train` and no validation split.
        fraction: share of the training rows, between 0 and 1; where texts repeat, of the different texts.

    Returns:
        The new splits, and a sentence that says what was done.

    Raises:
        ConfigError: fraction or seed out of range, or one of the two parts would be empty.
    """
    names = list(rows)
    train_name = train_split(names)
    train = rows[train_name]
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"--validation-fraction: expected a number between 0 and 1, found {fraction}.")
    if seed < 0:
        raise ConfigError(f"--seed: expected 0 or more, found {seed}.")
    assert not split_roles(names).validation, "there is a validation split already"
    keys = np.random.PCG64(seed).random_raw(len(train))
    strata, kept = _strata(train, keys, fraction=fraction, problem_type=problem_type)
    texts = equal_texts(train)
    first, sizes = np.unique(texts, return_index=True, return_counts=True)[1:]
    chosen = choose_texts(
        strata[first],
        keys[first],
        fraction=fraction,
        excluded=np.bincount(texts, weights=kept) > 0,
        # One text of half of the rows must not make half of them validation rows.
        last=sizes > max(fraction * len(train), 1.0),
    )[texts]
    num_chosen, num_repeats = int(chosen.sum()), len(train) - len(sizes)
    if num_chosen in (0, len(train)):
        part = "validation" if num_chosen == 0 else "training"
        equal = f" with {len(sizes)} different texts" if num_repeats else ""
        raise ConfigError(
            f"--validation-fraction: {fraction} of {len(train)} training rows{equal} leaves no {part} row.",
            hint="Choose another fraction, or name a file of validation rows with --validation.",
        )
    from datasets import DatasetDict

    result = {train_name: train.select(np.flatnonzero(~chosen)), "validation": train.select(np.flatnonzero(chosen))}
    others = {name: split for name, split in rows.items() if name != train_name}
    note = f"no validation split: {num_chosen} of {len(train)} training rows are set aside as one (seed {seed})"
    without = len(np.setdiff1d(np.unique(strata), strata[chosen]))
    if without and problem_type == SINGLE_LABEL:
        note += f"; {without} of {len(np.unique(strata))} classes have no row in it"
    if num_repeats:
        note += f"; {num_repeats} rows repeat the text of another and lie on its side"
    return DatasetDict({**result, **others}), note


def row_strata(
    rows: Dataset, keys: NDArray[np.uint64], *, fraction: float, problem_type: ProblemType
) -> NDArray[np.int64]:
    """The stratum of each row, int64 [rows], 0 or more: see `add_validation_split`.

    Args:
        rows: typed, labelled rows.
        keys: [rows] random numbers.
        fraction: of a stratum that is to be at least one row; combinations of labels too rare for it are one stratum.
    """
    return _strata(rows, keys, fraction=fraction, problem_type=problem_type)[0]


def equal_texts(rows: Dataset) -> NDArray[np.int64]:
    """A number for each row, equal where texts (of pairs both) are; from 0 on, none left out."""
    columns = [name for name in ("text", "text_pair") if name in rows.column_names]
    # Of each its hash: Arrow's own encoding keeps all different texts in memory, and no more than 2 GiB of them.
    hashes = [np.zeros(0, np.uint64)]
    for batch in arrow_batches(rows, columns):
        texts = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        hashes.append(text_hashes(map("\0".join, texts)))
    return np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int64)


def text_hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """A number for each text, equal where texts are: of 64 bits, so that among a million different texts two are alike
    by chance once in 37 million data sets."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.uint64)


def choose_texts(
    strata: NDArray[np.int64],
    keys: NDArray[np.uint64],
    *,
    fraction: float,
    excluded: NDArray[np.bool_],
    last: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Chooses a share of the texts, the same share of every stratum up to rounding (largest remainder).

    Of each stratum the texts with the smallest keys are taken. No stratum gives more than its share rounded up, nor
    any excluded text, so the result can be smaller than `fraction` asks for where many strata are tiny.

    Args:
        strata: [texts] the stratum of each text, 0 or more.
        keys: [texts] random numbers.
        excluded: [texts] those that must not be chosen.
        last: [texts] those to be taken only where the others of their stratum are too few.

    Returns:
        [texts] True where a text is chosen.
    """
    num_texts = len(strata)
    # The fraction as it is written, a half rounded up: 0.15 of 10 texts are 2, though the float 0.15 is a little less.
    wanted = int(Fraction(repr(float(fraction))) * num_texts + Fraction(1, 2))
    sizes = np.bincount(strata)
    available = np.bincount(strata, weights=~excluded).astype(np.int64)
    shares, remainders = np.divmod(sizes * wanted, max(num_texts, 1))
    take = np.minimum(shares, available)
    can_grow = np.flatnonzero((remainders > 0) & (available > shares))
    by_remainder = can_grow[np.argsort(-remainders[can_grow], kind="stable")]
    take[by_remainder[: max(wanted - int(take.sum()), 0)]] += 1

    order = np.lexsort((keys, last, excluded, strata))
    starts = np.cumsum(sizes) - sizes
    rank_in_stratum = np.empty(num_texts, dtype=np.int64)
    rank_in_stratum[order] = np.arange(num_texts) - np.repeat(starts, sizes)
    chosen: NDArray[np.bool_] = rank_in_stratum < take[strata]
    return chosen


def _with_part(names: Sequence[str], stems: Sequence[str]) -> tuple[str, ...]:
    plain = [name for stem in stems for name in names if name.casefold() == stem]
    suffixed = [
        name for stem in stems for name in sorted(names) if name.casefold().startswith((f"{stem}_", f"{stem}-"))
    ]
    return (*plain, *suffixed)


def _strata(
    train: Dataset, keys: NDArray[np.uint64], *, fraction: float, problem_type: ProblemType
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the stratum of each row, and which rows must stay in train so that no label is lost there."""
    kept = np.zeros(len(train), dtype=np.bool_)
    if problem_type == MULTI_LABEL:
        combinations, kept = _label_combinations(train, keys)
        _, strata, sizes = np.unique(combinations, return_inverse=True, return_counts=True)
        rare = sizes * fraction < 1.0
        merged = np.where(rare, 0, np.arange(1, len(sizes) + 1))
        return np.unique(merged[strata], return_inverse=True)[1].astype(np.int64), kept
    columns = [batch.column("labels").to_numpy() for batch in arrow_batches(train, ["labels"])]
    labels = np.concatenate(columns) if columns else np.zeros(0)
    if problem_type == REGRESSION:
        bins = max(1, min(MAX_QUANTILE_BINS, len(labels) // 2))
        edges = np.unique(np.quantile(labels, np.arange(1, bins) / bins)) if len(labels) else labels
        return np.searchsorted(edges, labels, side="right").astype(np.int64), kept
    strata = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((keys, strata))
    kept[order[np.unique(strata[order], return_index=True)[1]]] = True
    return strata, kept


def _label_combinations(train: Dataset, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns a number per combination of labels, and for each label one row that has it and stays in train."""
    numbers: dict[bytes, int] = {}
    combinations = np.empty(len(train), dtype=np.int64)
    keeper: dict[int, int] = {}
    start = 0
    for batch in arrow_batches(train, ["labels"]):
        lists = batch.column("labels").combine_chunks()
        multi_hot = lists.flatten().to_numpy().reshape(len(lists), -1) > 0
        for offset, row in enumerate(np.packbits(multi_hot, axis=1)):
            combinations[start + offset] = numbers.setdefault(row.tobytes(), len(numbers))
        smallest = np.where(multi_hot, keys[start : start + len(lists), None], _LARGEST_KEY).argmin(axis=0) + start
        for label in np.flatnonzero(multi_hot.any(axis=0)).tolist():
            keeper[label] = min(keeper.get(label, smallest[label]), smallest[label], key=keys.__getitem__)
        start += len(lists)
    kept = np.zeros(len(train), dtype=np.bool_)
    kept[list(keeper.values())] = True
    return combinations, kept
