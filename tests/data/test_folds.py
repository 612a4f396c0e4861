from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from textune.data.folds import deal_folds, hold_out
from textune.errors import DataError
from textune.problem_types import ProblemType


def rows_of(labels: list[Any], texts: list[str] | None = None, **columns: list[str]) -> Dataset:
    texts = [f"text {number}" for number in range(len(labels))] if texts is None else texts
    return Dataset.from_dict({"row": list(range(len(labels))), "text": texts, "labels": labels, **columns})


def deal(
    rows: Dataset, num_folds: int, *, seed: int = 42, problem_type: ProblemType = "single_label_classification"
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    return deal_folds(rows, num_folds=num_folds, seed=seed, problem_type=problem_type)


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=100), num_folds=st.integers(2, 8), seed=st.integers(0, 9)
)
def test_folds_are_a_stratified_partition(labels: list[int], num_folds: int, seed: int) -> None:
    folds, _ = deal(rows_of(labels), num_folds, seed=seed)
    assert folds.shape == (len(labels),)
    sizes = np.bincount(folds, minlength=num_folds + 1)[1:]
    assert sizes.sum() == len(labels)
    assert np.ptp(sizes) <= 1
    for label in set(labels):
        assert np.ptp(np.bincount(folds[np.array(labels) == label], minlength=num_folds + 1)[1:]) <= 1
    assert (folds == deal(rows_of(labels), num_folds, seed=seed)[0]).all()


def test_another_seed_gives_other_folds() -> None:
    rows = rows_of([number % 2 for number in range(40)])
    assert (deal(rows, 4, seed=1)[0] != deal(rows, 4, seed=2)[0]).any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 12), min_size=6, max_size=80), st.integers(2, 4))
def test_equal_texts_lie_in_one_fold(numbers: list[int], num_folds: int) -> None:
    rows = rows_of([number % 2 for number in numbers], [f"text {number}" for number in numbers])
    if len(set(numbers)) < num_folds:
        with pytest.raises(DataError, match=f"{num_folds} folds need as many different texts"):
            deal(rows, num_folds)
        return
    folds, notes = deal(rows, num_folds)
    for number in set(numbers):
        assert len(set(folds[np.array(numbers) == number].tolist())) == 1
    assert any("repeat the text of another" in note for note in notes) == (len(set(numbers)) < len(numbers))


def test_pairs_are_equal_where_both_texts_are() -> None:
    rows = rows_of([0, 1] * 4, ["same"] * 8, text_pair=["a", "b", "c", "d", "a", "b", "c", "d"])
    folds, _ = deal(rows, 4)
    assert folds[:4].tolist() == folds[4:].tolist()
    assert sorted(folds[:4]) == [1, 2, 3, 4]


def test_regression_is_dealt_out_by_quantile() -> None:
    labels = np.linspace(0, 1, 100)
    folds, _ = deal(rows_of(labels.tolist()), 5, problem_type="regression")
    assert all(abs(labels[folds == fold].mean() - 0.5) < 0.05 for fold in range(1, 6))


def test_several_labels_are_dealt_out_by_combination() -> None:
    labels = [[1.0, 0.0]] * 10 + [[1.0, 1.0]] * 10 + [[0.0, 0.0]] * 5
    folds, _ = deal(rows_of(labels), 5, problem_type="multi_label_classification")
    for part in (slice(0, 10), slice(10, 20), slice(20, 25)):
        assert np.ptp(np.bincount(folds[part], minlength=6)[1:]) == 0


def test_rare_labels_are_told() -> None:
    _, notes = deal(rows_of([0] * 20 + [1] * 3 + [2]), 5)
    assert notes == (
        "1 label has fewer than 5 rows, so that some folds have none",
        "1 label has one row alone: the model that is measured on it has never seen the label",
    )


def test_held_out_rows_are_not_trained_on() -> None:
    train, own = rows_of([0, 1] * 10), rows_of([1])
    held_out = np.arange(20) % 5 == 0
    splits, name = hold_out(DatasetDict(train=train, validation=own, test=own), "train", held_out)
    assert splits["validation"]["row"][:] == [0, 5, 10, 15]
    assert splits["train"]["row"][:] == [row for row in range(20) if row % 5]
    assert name == "validation_own"
    assert list(splits) == ["train", "validation", "validation_own", "test"]
    assert len(splits["validation_own"]) == 1


def test_without_a_validation_split_none_is_renamed() -> None:
    splits, name = hold_out(DatasetDict(train=rows_of([0, 1])), "train", np.array([True, False]))
    assert (list(splits), name) == (["train", "validation"], None)
