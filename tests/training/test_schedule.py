from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from textune.training.schedule import Schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 17), (5, 17), (17, 17), (0, 1), (1, 2)])
def test_equals_transformers_scheduler(kind: str, warmup: int, total: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    schedule = Schedule(kind, warmup, total)
    for step in range(total):
        assert schedule.factor(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


@given(
    kind=st.sampled_from(["linear", "cosine", "constant"]),
    warmup=st.integers(0, 100),
    total=st.integers(1, 100),
    step=st.integers(0, 300),
)
def test_stays_between_zero_and_one(kind: str, warmup: int, total: int, step: int) -> None:
    assert 0.0 <= Schedule(kind, warmup, total).factor(step) <= 1.0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_reaches_zero_at_the_end(kind: str) -> None:
    assert Schedule(kind, 3, 20).factor(20) == pytest.approx(0.0, abs=1e-12)
