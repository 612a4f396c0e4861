"""How many threads there are to compute with."""

from __future__ import annotations

import pytest

from textune import cores
from textune.cores import threads


@pytest.mark.parametrize(
    ("asked", "processes", "expected"),
    [(None, 1, 8), (None, 3, 2), (None, 16, 1), ("3", 1, 3), ("2,1", 1, 2), ("1", 2, 4), ("0", 1, 8), ("many", 1, 8)],
)
def test_threads(monkeypatch: pytest.MonkeyPatch, asked: str | None, processes: int, expected: int) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 8)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads(processes=processes) == expected
