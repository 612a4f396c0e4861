from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from textune.data.labels import (
    LabelEncoder,
    is_number,
    is_whole_number,
    natural_key,
    natural_sorted,
    read_numbers,
    scan_labels,
    spell_labels,
)


def test_natural_order() -> None:
    names = ["10", "b", "2", "-1", "a10", "a2", "0", "B", "1.5", "A2"]

    assert natural_sorted(names) == ("-1", "0", "1.5", "2", "10", "A2", "a2", "a10", "B", "b")


@given(st.lists(st.integers(), unique=True))
def test_whole_numbers_sort_by_value(numbers: list[int]) -> None:
    assert natural_sorted(map(str, numbers)) == tuple(str(number) for number in sorted(numbers))


@given(st.lists(st.text() | st.from_regex(r"[aA]?[0-9]{1,3}b?", fullmatch=True), unique=True), st.randoms())
def test_natural_order_is_total_and_does_not_depend_on_the_order_of_rows(
    names: list[str], shuffler: random.Random
) -> None:
    shuffled = names[:]
    shuffler.shuffle(shuffled)

    assert natural_sorted(shuffled) == natural_sorted(names)
    assert len({natural_key(name) for name in names}) == len(names)


def test_natural_order_takes_numbers_of_any_length() -> None:
    long = "9" * 5000

    assert natural_sorted([f"a{long}", "a1", long, "1"]) == ("1", long, "a1", f"a{long}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_as_python_reads_it(number: float) -> None:
    text = repr(number)

    assert is_number(text)
    with np.errstate(over="ignore"):
        assert read_numbers(pa.array([f" {text} "]))[0] == np.float32(number)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-Infinity", "1_000", "1,5", "0x10", "١", "1e", ".", "1.0.0", "+"])
def test_what_is_not_a_number(text: str) -> None:
    assert not is_number(text)
    assert np.isnan(read_numbers(pa.array([text]))[0])


def test_whole_numbers() -> None:
    assert all(is_whole_number(text) for text in ("0", "-1", "+3", "3.0", "3.", "007", " 2 "))
    assert not any(is_whole_number(text) for text in ("3.5", "1e3", "", "a", "1.0.0"))


@pytest.mark.parametrize(
    ("values", "spelled"),
    [
        (pa.array([1, None, -1]), ["1", None, "-1"]),
        (pa.array([1.0, 0.5, -0.0, float("nan"), None]), ["1", "0.5", "0", None, None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["01", "Spam ", "", "  ", None]), ["01", "Spam ", None, None, None]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (pa.array([None, None]), [None, None]),
    ],
)
def test_spelling(values: pa.Array, spelled: list[str | None]) -> None:
    labels = spell_labels(pa.chunked_array([values]), None)

    assert labels.flat.to_pylist() == [spelling for spelling in spelled if spelling is not None]
    assert labels.rows.tolist() == [row for row, spelling in enumerate(spelled) if spelling is not None]
    assert labels.missing.tolist() == [spelling is None for spelling in spelled]


def test_class_ids_are_spelled_by_name_and_minus_one_is_missing() -> None:
    labels = spell_labels(pa.array([1, -1, 0, None, 7]), ClassLabel(names=["no", "yes"]))

    assert labels.flat.to_pylist() == ["yes", "no", "7"]
    assert labels.missing.tolist() == [False, True, False, True, False]


def test_lists_and_separated_text_are_spelled_alike() -> None:
    as_lists = spell_labels(pa.array([["a", "b"], [], None, ["c"]]), None)
    as_text = spell_labels(pa.array(["a; b", ";", None, "c;"]), None, separator=";")

    for labels in (as_lists, as_text):
        assert labels.flat.to_pylist() == ["a", "b", "c"]
        assert labels.rows.tolist() == [0, 0, 3]
        assert labels.missing.tolist() == [False, False, True, False]


def test_a_list_with_an_empty_label_is_missing_one() -> None:
    assert spell_labels(pa.array([["a", None], ["b"]]), None).missing.tolist() == [True, False]


def test_scan_counts_over_batches() -> None:
    dataset = Dataset.from_dict({"label": ["1", "2.5", "x", ""] * 3000})

    scan = scan_labels(dataset, "label")

    assert scan.counts == {"1": 3000, "2.5": 3000, "x": 3000}
    assert (scan.kind, scan.num_rows, scan.num_missing, scan.num_labels) == ("text", 12000, 3000, 9000)
    assert (scan.num_whole, scan.num_fractions) == (3000, 3000)


def test_rows_of_zero_and_one_are_told_from_lists_of_ids() -> None:
    assert scan_labels(Dataset.from_dict({"label": [[0, 1, 0], [1, 1, 0]]}), "label").looks_multi_hot
    assert scan_labels(Dataset.from_dict({"label": [[0.0, 1.0, 0.0]]}), "label").looks_multi_hot
    assert not scan_labels(Dataset.from_dict({"label": [[0, 1], [1, 0]]}), "label").looks_multi_hot
    assert not scan_labels(Dataset.from_dict({"label": [[0], [1], [0, 1]]}), "label").looks_multi_hot


def test_positions_are_told_from_names() -> None:
    def scan(labels: list[str]) -> bool:
        return scan_labels(Dataset.from_dict({"label": labels}), "label").stands_for_positions(("no", "yes"))

    assert scan(["0", "1", "-1"])
    assert not scan(["0", "yes"])
    assert not scan(["no"])
    assert not scan_labels(Dataset.from_dict({"label": ["0", "1"]}), "label").stands_for_positions(("0", "1", "2"))


names_and_labels = st.lists(
    st.text(min_size=1).filter(lambda name: name.strip() not in ("", "-1")), min_size=1, unique=True
)


@given(names_and_labels, st.data())
def test_single_labels_survive_encoding(names: list[str], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.sampled_from(names), min_size=1))
    encoder = LabelEncoder("single_label_classification", tuple(names), None, Value("string"))

    encoded = encoder.encode(pa.chunked_array([pa.array(labels)]))

    assert [names[label_id] for label_id in encoded.values.to_pylist()] == labels
    assert encoded.values.type == encoder.arrow_type == pa.int64()
    assert not encoded.missing.any()
    assert encoded.wrong_labels == ()


@given(names_and_labels, st.data())
def test_multi_labels_survive_encoding(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.sampled_from(names), unique=True), min_size=1))
    encoder = LabelEncoder("multi_label_classification", tuple(names), None, None)

    encoded = encoder.encode(pa.chunked_array([pa.array(rows, pa.list_(pa.string()))]))

    assert encoded.values.type == encoder.arrow_type
    for row, multi_hot in zip(rows, encoded.values.to_pylist(), strict=True):
        assert {name for name, there in zip(names, multi_hot, strict=True) if there} == set(row)
        assert sum(multi_hot) == len(row)


def test_unknown_and_missing_labels_are_told_apart() -> None:
    encoder = LabelEncoder("single_label_classification", ("no", "yes"), None, Value("string"))

    encoded = encoder.encode(pa.array(["yes", "maybe", None, "-1", "no"]))

    assert encoded.missing.tolist() == [False, False, True, True, False]
    assert (encoded.wrong_rows.tolist(), encoded.wrong_labels) == ([1], ("maybe",))
    assert encoded.values.to_pylist()[0::4] == [1, 0]


def test_minus_one_is_a_label_where_it_is_a_name() -> None:
    encoder = LabelEncoder("single_label_classification", ("-1", "0", "1"), None, Value("int64"))

    encoded = encoder.encode(pa.array([-1, 1]))

    assert encoded.values.to_pylist() == [0, 2]
    assert not encoded.missing.any()


def test_positions_are_encoded_as_they_are() -> None:
    encoder = LabelEncoder("single_label_classification", ("no", "yes"), None, Value("int64"), by_position=True)

    encoded = encoder.encode(pa.array([1, 0, 2]))

    assert encoded.values.to_pylist()[:2] == [1, 0]
    assert encoded.wrong_labels == ("2",)


def test_class_ids_follow_the_names_not_the_numbers() -> None:
    feature = Features({"label": ClassLabel(names=["yes", "no"])})["label"]
    encoder = LabelEncoder("single_label_classification", ("no", "yes"), None, feature)

    assert encoder.encode(pa.array([0, 1])).values.to_pylist() == [1, 0]


def test_numbers_are_float32_and_finite() -> None:
    encoder = LabelEncoder("regression", (), None, Value("string"))

    encoded = encoder.encode(pa.array(["3.8", "", "nan", "1e39", "-1", "x"]))

    assert encoded.values.type == pa.float32()
    assert encoded.values[0].as_py() == pytest.approx(3.8, rel=1e-7)
    assert encoded.values[4].as_py() == -1.0
    assert encoded.missing.tolist() == [False, True, False, False, False, False]
    assert encoded.wrong_rows.tolist() == [2, 3, 5]
    assert encoded.wrong_labels == ("nan", "1e39", "x")
