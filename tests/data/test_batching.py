from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.data.batching import BatchPlan, Plan, ShapedPlan, shaped_plan
from textune.training.parallel import Processes

PLANS = st.builds(
    BatchPlan,
    num_rows=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    accumulation=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
EPOCHS = st.integers(0, 1000)


def rows_per_step(plan: Plan, epoch: int, *, start: int = 0) -> list[list[int]]:
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


def make(lengths: Any, **options: Any) -> ShapedPlan:
    """A shaped plan, by default of batches of eight of similar length without padding."""
    values = {
        "batch_size": 8,
        "tokens_per_batch": None,
        "accumulation": 1,
        "by_length": True,
        "padded": False,
        "seed": 0,
    }
    return shaped_plan(np.asarray(lengths), **{**values, **options})


SHAPED = st.builds(
    make,
    st.lists(st.integers(1, 60), min_size=1, max_size=300),
    batch_size=st.integers(1, 40),
    tokens_per_batch=st.none() | st.integers(1, 400),
    accumulation=st.integers(1, 9),
    by_length=st.booleans(),
    padded=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)


def uneven(num_rows: int, *, seed: int = 5) -> Any:
    """Lengths as texts have them: many short, few long."""
    return np.clip(np.random.default_rng(seed).lognormal(3.5, 0.6, num_rows), 4, 256).astype(np.int64)


def tokens(lengths: Any, *, padded: bool) -> int:
    return len(lengths) * max(lengths) if padded else sum(lengths)


def padding_share(plan: Plan, lengths: Any, *, epoch: int = 0) -> float:
    """Share of padding in the batches of an epoch, were they padded."""
    passes = [lengths[rows] for step in plan.steps(epoch) for rows in step]
    return 1 - sum(map(sum, passes)) / sum(tokens(item, padded=True) for item in passes)


@given(plan=SHAPED, epoch=EPOCHS)
def test_shaped_every_row_comes_once_in_an_epoch(plan: ShapedPlan, epoch: int) -> None:
    steps = rows_per_step(plan, epoch)
    assert sorted(row for rows in steps for row in rows) == list(range(len(plan.lengths)))
    assert len(steps) == plan.steps_per_epoch
    assert plan.rows_per_step * plan.steps_per_epoch == len(plan.lengths)


@given(plan=SHAPED, epoch=EPOCHS, data=st.data())
def test_shaped_an_epoch_taken_up_in_its_middle_is_its_rest(plan: ShapedPlan, epoch: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan.steps_per_epoch))
    assert rows_per_step(plan, epoch, start=start) == rows_per_step(plan, epoch)[start:]


@given(plan=SHAPED, epoch=EPOCHS)
def test_shaped_epochs_have_the_same_shapes_and_begin_with_the_largest(plan: ShapedPlan, epoch: int) -> None:
    def shapes(number: int) -> list[list[tuple[int, ...]]]:
        return [[tuple(plan.lengths[rows].tolist()) for rows in step] for step in plan.steps(number)]

    first, other = shapes(0), shapes(epoch)
    assert sorted(first) == sorted(other)
    assert first[0] == other[0]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200),
    budget=st.integers(1, 400),
    by_length=st.booleans(),
    padded=st.booleans(),
    epoch=EPOCHS,
)
def test_a_budget_is_kept_but_for_a_row_beyond_it_which_goes_alone(
    lengths: list[int], budget: int, by_length: bool, padded: bool, epoch: int
) -> None:
    plan = make(lengths, tokens_per_batch=budget, by_length=by_length, padded=padded, accumulation=3)
    for step in plan.steps(epoch):
        assert 1 <= len(step) <= 3
        for rows in step:
            assert len(rows) == 1 or tokens(plan.lengths[rows], padded=padded) <= budget


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200), budget=st.integers(1, 400), padded=st.booleans())
def test_a_pass_takes_rows_while_they_fit(lengths: list[int], budget: int, padded: bool) -> None:
    """In the order of the shapes no pass has room for the first row of the next one."""
    plan = make(lengths, tokens_per_batch=budget, padded=padded)
    shape = np.empty_like(plan.lengths)
    shape[plan.places] = np.sort(plan.lengths)
    for begin, end in itertools.pairwise(plan.bounds[:-1]):
        assert tokens(shape[begin : end + 1].tolist(), padded=padded) > budget


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200),
    by_length=st.booleans(),
    accumulation=st.integers(1, 3),
    epoch=EPOCHS,
)
def test_two_processes_have_equally_much_to_do(
    lengths: list[int], by_length: bool, accumulation: int, epoch: int
) -> None:
    """One pass of an epoch has what is left; all others lack less than one row of the budget."""
    plan = make(lengths, tokens_per_batch=200, by_length=by_length, accumulation=2 * accumulation)
    rest = 0
    for step in plan.steps(epoch):
        first, second = (Processes(rank, 2).share(step) for rank in range(2))
        assert len(first) + len(second) == len(step)
        assert {id(rows) for rows in (*first, *second)} == {id(rows) for rows in step}
        loads = [int(plan.lengths[rows].sum()) for rows in step]
        if len(first) < accumulation or len(second) < accumulation or min(loads) <= 200 - max(lengths):
            rest += 1
        else:
            assert abs(sum(loads[::2]) - sum(loads[1::2])) < accumulation * max(lengths)
    assert rest <= 1


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200), seed=st.integers(0, 2**32), padded=st.booleans())
def test_groups_of_length_give_the_same_rows_to_a_step_however_it_is_cut(
    lengths: list[int], seed: int, padded: bool
) -> None:
    shapes = [(32, 1), (8, 4), (4, 8)]
    plans = [make(lengths, batch_size=a, accumulation=b, seed=seed, padded=padded) for a, b in shapes]
    found = [rows_per_step(plan, 1) for plan in plans]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("num_rows", "factor"), [(200, 2), (5000, 10)])
def test_groups_of_length_save_most_padding(num_rows: int, factor: int) -> None:
    lengths = uneven(num_rows)
    plain = padding_share(BatchPlan(num_rows, 8, 1, seed=0), lengths)
    grouped = padding_share(make(lengths), lengths)
    assert plain > 0.35
    assert grouped < plain / factor


def test_a_budget_and_groups_save_padding_together() -> None:
    lengths = uneven(5000)
    budget = {"tokens_per_batch": 1024, "padded": True}
    mixed, grouped = make(lengths, by_length=False, **budget), make(lengths, **budget)
    assert padding_share(grouped, lengths) < padding_share(mixed, lengths) / 5
    assert grouped.steps_per_epoch < 0.7 * mixed.steps_per_epoch


def test_shaped_epochs_put_other_rows_together() -> None:
    lengths = np.repeat(np.arange(10, 30), 20)
    for options in ({}, {"tokens_per_batch": 160}, {"tokens_per_batch": 160, "by_length": False}):
        plan = make(lengths, **options)
        batches = [{tuple(sorted(rows)) for rows in rows_per_step(plan, epoch)} for epoch in range(3)]
        assert not batches[0] & batches[1] and not batches[1] & batches[2]


def test_shaped_rows_of_a_length_are_as_likely_in_each_of_its_places() -> None:
    plan = make([7] * 4, batch_size=1)
    counts = np.zeros((4, 4))
    for epoch in range(2000):
        counts[np.concatenate(rows_per_step(plan, epoch)), np.arange(4)] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@given(plan=SHAPED, epoch=EPOCHS)
def test_shaped_orders_depend_on_nothing_outside(plan: ShapedPlan, epoch: int) -> None:
    np_state, state = np.random.get_state(), random.getstate()
    steps = rows_per_step(plan, epoch)
    for other in range(2):
        rows_per_step(plan, other)
    assert rows_per_step(plan, epoch) == steps
    assert random.getstate() == state
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), np_state, strict=True))


def test_shaped_orders_are_the_same_in_every_release() -> None:
    """A change here changes every such run, and breaks the resuming of those that were stopped."""
    lengths = [5, 9, 3, 7, 5, 3, 8, 6, 5, 4]
    grouped = make(lengths, batch_size=3, seed=42)
    budget = make(lengths, tokens_per_batch=16, by_length=False, padded=True, seed=42)
    assert rows_per_step(grouped, 0) == [[1, 3, 0], [6], [9, 5, 7], [2, 8, 4]]
    assert rows_per_step(grouped, 1) == [[1, 3, 0], [9, 2, 7], [5, 4, 8], [6]]
    assert rows_per_step(budget, 0) == [[5, 6], [9, 7], [3, 0], [2, 4], [1], [8]]


def test_rows_in_a_step_are_a_mean_where_steps_differ() -> None:
    assert make([4, 4, 4, 4, 12], tokens_per_batch=12).rows_per_step == Fraction(5, 3)


@given(num_rows=st.integers(1, 60), rows=st.integers(1, 5), parts=st.integers(1, 4), accumulation=st.integers(1, 3))
def test_cut_passes_are_those_of_a_smaller_batch(num_rows: int, rows: int, parts: int, accumulation: int) -> None:
    plan = BatchPlan(num_rows, rows * parts, accumulation, seed=1)
    smaller = BatchPlan(num_rows, rows, accumulation * parts, seed=1)
    for passes, expected in zip(plan.steps(0), smaller.steps(0), strict=True):
        assert [part.tolist() for part in plan.cut(passes, rows)] == [part.tolist() for part in expected]


@given(plan=SHAPED, rows=st.integers(1, 60))
def test_cut_passes_hold_the_same_rows(plan: ShapedPlan, rows: int) -> None:
    for passes in plan.steps(0):
        cut = plan.cut(passes, rows)
        assert np.concatenate(cut).tolist() == np.concatenate(passes).tolist()
        assert all(0 < len(part) <= rows for part in cut)


def test_passes_of_a_budget_are_cut_in_as_many_parts() -> None:
    plan = make([2] * 12 + [12] * 4, tokens_per_batch=24)
    lengths = [[len(whole) for whole in passes] for passes in plan.steps(0)]
    assert sorted(lengths) == [[1], [2], [6], [7]]
    cut = [[len(part) for part in plan.cut(passes, 4)] for passes in plan.steps(0)]  # 7 become 4 and 3
    assert sorted(cut) == [[1], [1, 1], [3, 3], [4, 3]]
