from __future__ import annotations

import json
import math

import pytest

from textune.errors import CheckpointError
from textune.training.state import TrainingState


def evaluate(values: list[float | None], *, higher_is_better: bool = True, min_improvement: float = 0.0) -> list[bool]:
    """Whether each evaluation in turn was the best so far."""
    state = TrainingState(total_steps=10)
    found = []
    for step, value in enumerate(values, start=1):
        state.step = step
        found.append(state.note_evaluation(value, higher_is_better=higher_is_better, min_improvement=min_improvement))
    return found


def test_higher_is_better() -> None:
    assert evaluate([0.5, 0.6, 0.6, 0.4, 0.7]) == [True, True, False, False, True]


def test_lower_is_better() -> None:
    assert evaluate([0.5, 0.6, 0.4, 0.4], higher_is_better=False) == [True, False, True, False]


def test_min_improvement_counts_from_the_best_not_from_the_last() -> None:
    assert evaluate([0.50, 0.505, 0.509, 0.52], min_improvement=0.01) == [True, False, False, True]


def test_undefined_is_never_the_best() -> None:
    assert evaluate([None, 0.0, None]) == [False, True, False]


def test_counts_evaluations_without_improvement() -> None:
    state = TrainingState(total_steps=10, step=4)
    counts = []
    for value in (0.5, 0.4, None, 0.6):
        state.note_evaluation(value, higher_is_better=True, min_improvement=0.0)
        counts.append(state.evaluations_without_improvement)
    assert counts == [0, 1, 2, 0]
    assert (state.best_value, state.best_step) == (0.6, 4)


def test_json_gives_the_same_state() -> None:
    state = TrainingState(total_steps=9, step=3, epoch=1, seconds=1.25, best_value=0.1, best_step=2, stop_reason="x")
    assert TrainingState(**json.loads(json.dumps(state.as_json()))) == state


def test_the_norm_of_a_gradient_that_overflowed_is_none_in_log_and_checkpoint() -> None:
    state = TrainingState(total_steps=9)
    state.note_update(loss=0.5, grad_norm=math.inf, learning_rate=1e-3, rows=8, seconds=0.1)
    assert state.as_json()["grad_norm"] is None
    record = state.close_window()
    assert record["grad_norm"] is None
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", "4"), ("step", True), ("seconds", None), ("best_value", [1]), ("evaluation_due", 1), ("loss_scale", "x")],
)
def test_a_forged_state_is_refused(name: str, value: object) -> None:
    values = TrainingState(total_steps=4).as_json()
    assert TrainingState.from_json(values) == TrainingState(total_steps=4)
    with pytest.raises(CheckpointError, match=f"'{name}' is "):
        TrainingState.from_json({**values, name: value})
