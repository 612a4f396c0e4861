from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.data.lengths import MAX_BARS, length_histogram, padding_share


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_every_row_is_in_one_bar(lengths: list[int]) -> None:
    found = length_histogram(np.array(lengths))
    assert sum(found["rows"]) == len(lengths)
    assert len(found["edges"]) == len(found["rows"]) + 1 <= MAX_BARS + 1
    assert found["edges"][0] == min(lengths) and found["edges"][-1] > max(lengths)


def test_padding_is_what_random_batches_have() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 4000)
    batches = np.random.default_rng(1).choice(lengths, (20_000, 8))
    drawn = 1 - batches.sum() / (8 * batches.max(axis=1)).sum()
    assert padding_share(lengths, 8) == pytest.approx(drawn, abs=0.005)


def test_rows_of_one_length_or_batches_of_one_row_need_none() -> None:
    assert padding_share(np.full(5, 7), 8) == pytest.approx(0)
    assert padding_share(np.array([1, 9, 30]), 1) == pytest.approx(0)
