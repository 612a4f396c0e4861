"""Cross-validation: each training row lies in one fold, and is held out once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from textune.data.splits import equal_texts, row_strata
from textune.errors import DataError
from textune.problem_types import SINGLE_LABEL, ProblemType

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray

VALIDATION = "validation"
OWN_VALIDATION = "validation_own"
"""What the data's own validation split is called beside a fold, which takes its name and its part."""


def deal_folds(
    rows: Dataset, *, num_folds: int, seed: int, problem_type: ProblemType
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Deals the rows out to folds of equal size, stratified as a validation split is (`textune.data.splits`).

    Where no text stands twice, the folds' numbers of rows differ by one at most in every stratum, as scikit-learn's
    StratifiedKFold has it, and also in all. Rows with equal texts go to the same fold, so that no model is
    measured on a text it was trained on. The result depends on texts, labels, their order and the arguments alone.

    Args:
        rows: typed, labelled rows.
        num_folds: two or more.

    Returns:
        The fold of each row, counted from 1, int64 [rows]; and what should be said about it.

    Raises:
        DataError: there are fewer different texts than folds.
    """
    keys = np.random.PCG64(seed).random_raw(len(rows))
    strata = row_strata(rows, keys, fraction=1 / num_folds, problem_type=problem_type)
    texts = equal_texts(rows)
    sizes = np.bincount(texts)
    if len(sizes) < num_folds:
        raise DataError(
            f"--cv: {num_folds} folds need as many different texts to train on, found {len(sizes)}.",
            hint="Give fewer folds.",
        )
    first = np.unique(texts, return_index=True)[1]
    # Of each stratum the texts that stand often come first, while there is room to even them out.
    order = np.lexsort((keys[first], -sizes, strata[first]))
    fold_of_text = np.empty(len(sizes), np.int64)
    in_all, in_stratum, stratum = [0] * num_folds, [0] * num_folds, -1
    for text in order.tolist():
        if strata[first[text]] != stratum:
            stratum, in_stratum = int(strata[first[text]]), [0] * num_folds
        fold = min(range(num_folds), key=lambda number: (in_stratum[number], in_all[number]))
        fold_of_text[text] = fold + 1
        in_stratum[fold] += int(sizes[text])
        in_all[fold] += int(sizes[text])
    notes = []
    if len(sizes) < len(rows):
        notes.append(f"{len(rows) - len(sizes)} rows repeat the text of another and lie in its fold")
    if problem_type == SINGLE_LABEL:
        notes += _rare_labels(strata, num_folds)
    return fold_of_text[texts], tuple(notes)


def hold_out(rows: DatasetDict, train: str, held_out: NDArray[np.bool_]) -> tuple[DatasetDict, str | None]:
    """Moves rows of the split `train` into a split `validation`; both keep the order of their rows.

    Args:
        held_out: which rows, [rows of train].

    Returns:
        The new splits, and the name that the data's own split `validation` has there, if there is one.
    """
    from datasets import DatasetDict

    parts = {
        train: rows[train].select(np.flatnonzero(~held_out)),
        VALIDATION: rows[train].select(np.flatnonzero(held_out)),
    }
    others = {OWN_VALIDATION if name == VALIDATION else name: part for name, part in rows.items() if name != train}
    return DatasetDict({**parts, **others}), OWN_VALIDATION if VALIDATION in rows else None


def _rare_labels(strata: NDArray[np.int64], num_folds: int) -> list[str]:
    sizes = np.bincount(strata)
    notes = []
    if rare := int(((sizes > 1) & (sizes < num_folds)).sum()):
        notes.append(f"{_labels(rare)} fewer than {num_folds} rows, so that some folds have none")
    if single := int((sizes == 1).sum()):
        notes.append(f"{_labels(single)} one row alone: the model that is measured on it has never seen the label")
    return notes


def _labels(number: int) -> str:
    return "1 label has" if number == 1 else f"{number} labels have"
