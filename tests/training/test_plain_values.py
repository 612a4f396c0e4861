from __future__ import annotations

import json
import math
from collections import Counter, deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textune.errors import CheckpointError
from textune.training.plain_values import from_plain, to_plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("__")) | st.integers(), inner)
    ),
    max_leaves=12,
)


def through_json(value: Any) -> Any:
    return from_plain(json.loads(json.dumps(to_plain(value, name="it"), allow_nan=False)))


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert repr(through_json(value)) == repr(value)


def test_what_has_another_type() -> None:
    assert math.isnan(through_json(math.nan))
    assert through_json(Counter([30, 30, 80])) == {30: 2, 80: 1}
    numbers = through_json([np.float32(0.5), np.int64(3), torch.tensor(0.25), torch.tensor(True)])
    assert [(type(number), number) for number in numbers] == [(float, 0.5), (int, 3), (float, 0.25), (bool, True)]


@pytest.mark.parametrize("value", [deque(), print, torch.ones(2), np.ones(2), {1, 2}])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"cannot hold it: old: expected .* found a {type(value).__name__}\."):
        to_plain({"old": [value]}, name="it")
