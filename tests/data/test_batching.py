from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from textune.data.batching import BatchPlan

PLANS = st.builds(
    BatchPlan,
    num_rows=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    accumulation=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
EPOCHS = st.integers(0, 1000)


def rows_per_step(plan: BatchPlan, epoch: int, *, start: int = 0) -> list[list[int]]:
    return [np.concatenate(passes).tolist() for passes in plan.steps(epoch, start=start)]


@given(plan=PLANS, epoch=EPOCHS)
def test_every_row_comes_once_in_an_epoch(plan: BatchPlan, epoch: int) -> None:
    steps = rows_per_step(plan, epoch)
    assert sorted(row for rows in steps for row in rows) == list(range(plan.num_rows))
    assert len(steps) == plan.steps_per_epoch


@given(plan=PLANS, epoch=EPOCHS)
def test_steps_and_passes_are_full_except_the_last(plan: BatchPlan, epoch: int) -> None:
    steps = list(plan.steps(epoch))
    assert all(sum(map(len, passes)) == plan.rows_per_step for passes in steps[:-1])
    for passes in steps:
        assert all(len(rows) == plan.batch_size for rows in passes[:-1])
        assert 1 <= len(passes[-1]) <= plan.batch_size
        assert len(passes) <= plan.accumulation


@given(num_rows=st.integers(1, 200), seed=st.integers(0, 2**32), epoch=EPOCHS)
def test_the_same_step_sees_the_same_rows_however_it_is_cut(num_rows: int, seed: int, epoch: int) -> None:
    shapes = [(32, 1), (8, 4), (4, 8)]
    found = [rows_per_step(BatchPlan(num_rows, size, accumulation, seed), epoch) for size, accumulation in shapes]
    assert found[0] == found[1] == found[2]


@given(plan=PLANS, epoch=EPOCHS, data=st.data())
def test_an_epoch_taken_up_in_its_middle_is_its_rest(plan: BatchPlan, epoch: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan.steps_per_epoch))
    assert rows_per_step(plan, epoch, start=start) == rows_per_step(plan, epoch)[start:]


@given(plan=PLANS, epoch=EPOCHS)
def test_the_order_depends_on_nothing_outside(plan: BatchPlan, epoch: int) -> None:
    np_state, state = np.random.get_state(), random.getstate()
    order = plan.order(epoch)
    for other in range(3):
        plan.order(other)
    assert np.array_equal(plan.order(epoch), order)
    assert random.getstate() == state
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), np_state, strict=True))


def test_the_order_is_the_same_in_every_release() -> None:
    """A change here changes every run, and breaks the resuming of those that were stopped."""
    plan = BatchPlan(num_rows=10, batch_size=4, accumulation=1, seed=42)
    assert plan.order(0).tolist() == [6, 8, 1, 2, 4, 3, 5, 7, 0, 9]
    assert plan.order(1).tolist() == [4, 8, 1, 3, 6, 9, 5, 7, 0, 2]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    plan = BatchPlan(num_rows=50, batch_size=8, accumulation=1, seed=1)
    other = BatchPlan(num_rows=50, batch_size=8, accumulation=1, seed=2)
    orders = [plan.order(0), plan.order(1), plan.order(2), other.order(0)]
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_each_place_is_as_likely_for_each_row() -> None:
    plan = BatchPlan(num_rows=4, batch_size=1, accumulation=1, seed=0)
    counts = np.zeros((4, 4))
    for epoch in range(2000):
        counts[plan.order(epoch), np.arange(4)] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
