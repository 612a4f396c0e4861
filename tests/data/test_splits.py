from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from textune.data.splits import add_validation_split, choose_texts, split_roles, train_split
from textune.errors import ConfigError, DataError
from textune.problem_types import ProblemType


def rows_of(labels: list[Any], texts: list[str] | None = None, **columns: list[str]) -> DatasetDict:
    texts = [f"text {number}" for number in range(len(labels))] if texts is None else texts
    rows = {"row": list(range(len(labels))), "text": texts, "labels": labels, **columns}
    return DatasetDict(train=Dataset.from_dict(rows))


def split(
    labels: list[Any],
    *,
    fraction: float = 0.25,
    seed: int = 42,
    problem_type: ProblemType = "single_label_classification",
) -> tuple[list[int], list[int]]:
    result, _ = add_validation_split(rows_of(labels), fraction=fraction, seed=seed, problem_type=problem_type)
    return result["train"]["row"][:], result["validation"]["row"][:]


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=120),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**64),
)
def test_validation_is_a_stratified_share(labels: list[int], fraction: float, seed: int) -> None:
    try:
        train, validation = split(labels, fraction=fraction, seed=seed)
    except ConfigError:
        # Less than half a row wanted, or every row is the one that its class keeps in train, or few classes can give.
        counts = np.bincount(labels)
        assert len(labels) * fraction < 0.5 + 1e-9 or (counts <= 1).all()
        return

    assert sorted(train + validation) == list(range(len(labels)))
    assert train == sorted(train)
    assert validation == sorted(validation)
    assert (train, validation) == split(labels, fraction=fraction, seed=seed)
    wanted = round(fraction * len(labels))
    assert len(validation) <= wanted + 1
    counts, chosen = np.bincount(labels, minlength=5), np.bincount([labels[row] for row in validation], minlength=5)
    assert (np.abs(chosen - counts * fraction) <= 1.0 + counts / (2 * len(labels))).all()
    assert set(labels) == {labels[row] for row in train}


@given(st.integers(40, 2000), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_size_is_the_fraction_where_classes_are_large(num_rows: int, fraction: float, seed: int) -> None:
    keys = np.random.PCG64(seed).random_raw(num_rows)
    strata = (keys % 3).astype(np.int64)

    none = np.zeros(num_rows, dtype=np.bool_)
    chosen = choose_texts(strata, keys, fraction=fraction, excluded=none, last=none)

    assert abs(int(chosen.sum()) - fraction * num_rows) <= 0.5 + 1e-9


def test_the_fraction_is_taken_as_it_is_written() -> None:
    keys = np.arange(10, dtype=np.uint64)
    strata = np.zeros(10, dtype=np.int64)
    none = np.zeros(10, dtype=np.bool_)

    assert choose_texts(strata, keys, fraction=0.15, excluded=none, last=none).tolist() == [True, True, *[False] * 8]


def test_the_choice_is_pinned() -> None:
    """The same rows on every machine and with every version of NumPy: bit generators keep their streams."""
    assert split([0, 1] * 10, seed=42)[1] == [1, 8, 10, 14, 15]


def test_other_seeds_choose_other_rows_and_numpy_keeps_its_state() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]

    assert split([0, 1] * 50, seed=1) != split([0, 1] * 50, seed=2)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_labels_of_one_row_stay_in_train() -> None:
    train, validation = split([0] * 20 + [1], fraction=0.5)

    assert 20 in train
    assert len(validation) == 11


def test_numbers_are_stratified_by_quantile() -> None:
    labels = [float(row) for row in range(100)]

    _, validation = split(labels, fraction=0.2, problem_type="regression")

    assert np.bincount(np.array(validation) // 10).tolist() == [2] * 10


def test_every_label_combination_gives_its_share_and_every_label_stays() -> None:
    labels = [[1.0, 0.0, 0.0]] * 40 + [[0.0, 1.0, 0.0]] * 20 + [[1.0, 1.0, 0.0]] * 8 + [[0.0, 0.0, 1.0]]

    for seed in range(20):
        train, validation = split(labels, seed=seed, problem_type="multi_label_classification")
        assert 68 in train
        assert np.histogram(validation, [0, 40, 60, 68, 69])[0].tolist() == [10, 5, 2, 0]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=2, max_size=120),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 9),
)
def test_equal_texts_lie_on_one_side(rows: list[tuple[int, int]], fraction: float, seed: int) -> None:
    labels, numbers = map(list, zip(*rows, strict=True))
    data = rows_of(labels, [f"text {number}" for number in numbers])
    try:
        result, note = add_validation_split(
            data, fraction=fraction, seed=seed, problem_type="single_label_classification"
        )
    except ConfigError:
        return
    assert not set(result["train"]["text"][:]) & set(result["validation"]["text"][:])
    assert set(result["train"]["labels"][:]) == set(labels)
    repeats = len(rows) - len(set(numbers))
    assert note.endswith(f"{repeats} rows repeat the text of another and lie on its side") == (repeats > 0)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "regression", "multi_label_classification"])
def test_what_follows_a_text_does_not_change_the_choice(problem_type: ProblemType) -> None:
    labels: list[Any] = [number % 2 for number in range(40)]
    if problem_type == "multi_label_classification":
        labels = [[1.0, 0.0] if label else [0.0, 1.0] for label in labels]
    result, _ = add_validation_split(
        rows_of(labels * 3, [f"text {number}" for number in range(40)] * 3),
        fraction=0.25,
        seed=1,
        problem_type=problem_type,
    )

    chosen = result["validation"]["row"][:]
    assert len(chosen) == 30
    assert chosen == sorted(row % 40 + 40 * time for time in range(3) for row in chosen[:10])


def test_pairs_are_equal_where_both_texts_are() -> None:
    pairs = ["a", "b", "c", "d"] * 2
    rows = rows_of([0, 1] * 4, ["same"] * 8, text_pair=pairs)
    result, _ = add_validation_split(rows, fraction=0.5, seed=3, problem_type="single_label_classification")
    assert len(set(result["validation"]["text_pair"][:])) == 2
    assert not set(result["train"]["text_pair"][:]) & set(result["validation"]["text_pair"][:])


def test_a_text_of_half_of_the_rows_stays_in_train() -> None:
    texts = ["often"] * 50 + [f"text {number}" for number in range(50)]
    for seed in range(20):
        rows = rows_of([0, 1] * 50, texts)
        result, _ = add_validation_split(rows, fraction=0.2, seed=seed, problem_type="single_label_classification")
        assert len(result["validation"]) == 10
        assert "often" not in result["validation"]["text"][:]

    # Where all are like that, there is no choice.
    rows = rows_of([0, 1] * 50, [f"text {number % 6}" for number in range(100)])
    result, _ = add_validation_split(rows, fraction=0.1, seed=0, problem_type="single_label_classification")
    assert len(set(result["validation"]["text"][:])) == 1


def test_too_few_different_texts() -> None:
    with pytest.raises(ConfigError, match=r"0.1 of 20 training rows with 2 different texts leaves no validation"):
        add_validation_split(
            rows_of([0, 1] * 10, ["good", "bad"] * 10),
            fraction=0.1,
            seed=0,
            problem_type="single_label_classification",
        )


def test_other_splits_are_kept_and_the_note_tells() -> None:
    rows = rows_of([0, 1] * 10)
    rows["test"] = rows["train"].select([3, 1])

    result, note = add_validation_split(rows, fraction=0.1, seed=7, problem_type="single_label_classification")

    assert list(result) == ["train", "validation", "test"]
    assert result["test"]["row"][:] == [3, 1]
    assert note == "no validation split: 2 of 20 training rows are set aside as one (seed 7)"

    _, note = add_validation_split(
        rows_of([0] * 20 + [1, 1]), fraction=0.1, seed=7, problem_type="single_label_classification"
    )
    assert note.endswith("; 1 of 2 classes have no row in it")


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        ([0, 1] * 10, 0.0, "expected a number between 0 and 1, found 0.0"),
        ([0, 1] * 10, 1.0, "expected a number between 0 and 1, found 1.0"),
        ([0, 1] * 10, float("nan"), "expected a number between 0 and 1, found nan"),
        ([0, 1] * 10, 0.01, "0.01 of 20 training rows leaves no validation row"),
        ([0, 1, 2], 0.5, "0.5 of 3 training rows leaves no validation row"),
    ],
)
def test_fractions_that_cannot_be(labels: list[int], fraction: float, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        split(labels, fraction=fraction)
    assert message in str(error.value)
    assert "--validation-fraction" in str(error.value)


def test_no_training_row_left() -> None:
    with pytest.raises(ConfigError, match=r"0.99 of 4 training rows leaves no training row"):
        split([1.0, 2.0, 3.0, 4.0], fraction=0.99, problem_type="regression")


def test_negative_seed() -> None:
    with pytest.raises(ConfigError, match="--seed: expected 0 or more, found -1"):
        split([0, 1] * 10, seed=-1)


def test_roles() -> None:
    roles = split_roles(
        ["test_mismatched", "validation_mismatched", "train", "validation_matched", "test_matched", "x"]
    )

    assert roles.train == "train"
    assert roles.validation == ("validation_matched", "validation_mismatched")
    assert roles.test == ("test_matched", "test_mismatched")
    assert roles.ignored == ("x",)
    assert split_roles(["dev", "Test"]).validation == ("dev",)
    assert split_roles(["dev_b", "dev"]).validation == ("dev", "dev_b")
    assert split_roles(["dev", "Test"]).train is None


def test_no_training_split() -> None:
    with pytest.raises(DataError, match=r"expected one called 'train', found 'trian', 'test'. Did you mean 'trian'\?"):
        train_split(["trian", "test"])
