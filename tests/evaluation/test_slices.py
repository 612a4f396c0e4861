from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy import stats

from textune.evaluation.slices import RowScores, Slice, find_slices, quartiles


def slices_of(values: Any, metric: str = "accuracy", **options: Any) -> list[Slice]:
    scores = RowScores(metric, np.asarray(values, np.float64))
    lengths = np.full(len(values), 5)
    defaults: dict[str, Any] = {
        "labels": np.zeros(len(values), np.int64),
        "label_names": ("a", "b"),
        "lengths": lengths,
        "full_lengths": lengths,
        "columns": {},
    }
    return find_slices(scores, **{**defaults, **options})


def by_name(slices: list[Slice]) -> dict[str, Slice]:
    return {f"{part.kind}: {part.name}": part for part in slices}


def test_labels_and_what_stands_out() -> None:
    labels = np.repeat([0, 1], 100)
    right = np.concatenate([np.ones(100), np.tile([1, 0], 50)])
    found = by_name(slices_of(right, labels=labels))
    assert found["label: b"].value == 0.5 and found["label: b"].rows == 100
    wilson = stats.binomtest(50, 100).proportion_ci(method="wilson")
    assert found["label: b"].interval == pytest.approx((wilson.low, wilson.high))
    assert found["label: a"].differs and found["label: b"].differs
    assert not found["length: 5 tokens"].differs


def test_labels_that_no_row_has_are_left_out() -> None:
    assert [part.name for part in slices_of([1, 0], labels=np.array([1, 1])) if part.kind == "label"] == ["b"]


def test_several_labels_in_a_row() -> None:
    labels = np.array([[1, 1], [1, 0], [0, 0]], np.float32)
    found = by_name(slices_of([1, 0, 0], labels=labels))
    assert (found["label: a"].rows, found["label: a"].value) == (2, 0.5)
    assert (found["label: b"].rows, found["label: b"].value) == (1, 1.0)


def test_length_and_truncation() -> None:
    lengths = np.array([2, 3, 4, 5, 6, 7, 8, 9])
    full = np.array([2, 3, 4, 5, 6, 7, 8, 12])
    found = slices_of([1, 1, 1, 1, 0, 0, 0, 0], lengths=lengths, full_lengths=full)
    names = [f"{part.kind}: {part.name}" for part in found]
    assert names[:6] == [
        "length: 2 to 3 tokens",
        "length: 4 to 5 tokens",
        "length: 6 to 7 tokens",
        "length: 8 to 9 tokens",
        "truncation: whole",
        "truncation: cut",
    ]
    assert found[5].rows == 1


def test_further_columns() -> None:
    columns = {
        "source": pa.chunked_array([["web", "mail"] * 5, ["web", None] * 5]),
        "year": pa.chunked_array([[2001, 2002, 2001, 2001] * 5]),
        "constant": pa.chunked_array([["x"] * 20]),
    }
    found = by_name(slices_of([1, 0, 1, 0] * 5, columns=columns))
    assert (found["column source: web"].rows, found["column source: web"].value) == (10, 1.0)
    assert found["column source: (none)"].value == 0.0
    assert found["column year: 2001"].rows == 15
    assert not any(name.startswith("column constant") for name in found)


def test_columns_whose_values_hardly_repeat_are_left_out() -> None:
    columns = {
        "date": pa.chunked_array([[f"2025-01-{day:02}" for day in range(1, 17)]]),
        "customer": pa.chunked_array([["Kim", "Lee", "Park", "Choi"] * 4]),
        "source": pa.chunked_array([["web", "mail", "web", "shop"] * 4]),
    }
    found = slices_of([1, 0] * 8, columns=columns)
    assert {part.kind for part in found if part.kind.startswith("column")} == {"column source"}


def test_regression() -> None:
    errors = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    targets = np.array([0.0, 0.0, 0.0, 0.0, 5.0], np.float32)
    found = by_name(slices_of(errors, "mean_absolute_error", labels=targets, label_names=()))
    low = found["target: 0"]
    assert (low.value, low.rows) == (1.5, 4)
    assert low.interval is not None
    expected = stats.t.interval(0.95, 3, loc=1.5, scale=errors[:4].std(ddof=1) / 2)
    assert low.interval == pytest.approx((max(expected[0], 0), expected[1]))
    assert found["target: 5"].interval is None and not found["target: 5"].differs
    assert found["target: 5"].as_json()["interval"] is None


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_equal_errors_have_no_interval(error: float) -> None:
    targets = np.repeat(np.float32([0, 5]), 3)
    errors = np.where(targets == 0, error, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    found = by_name(slices_of(errors, "mean_absolute_error", labels=targets, label_names=()))
    assert found["target: 0"].interval is None and not found["target: 0"].differs
    assert found["target: 5"].interval is not None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([7, 7, 7]), ["7"]),
        (np.array([1, 1, 1, 9]), ["1", "9"]),
        (np.arange(8), ["0 to 1", "2 to 3", "4 to 5", "6 to 7"]),
        (np.array([0.5]), ["0.5"]),
    ],
)
def test_quartiles(values: npt.NDArray[Any], expected: list[str]) -> None:
    names, codes = quartiles(values)
    assert names == expected
    assert sorted(set(codes.tolist())) == list(range(len(names)))
