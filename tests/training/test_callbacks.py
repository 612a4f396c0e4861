from __future__ import annotations

from textune.training.callbacks import EarlyStopping
from textune.training.state import TrainingState


def test_early_stopping_waits_for_its_patience() -> None:
    state = TrainingState(total_steps=10, evaluations_without_improvement=1)
    stopping = EarlyStopping(2)
    stopping.on_evaluate(state, {})
    assert state.stop_reason is None
    state.evaluations_without_improvement = 2
    stopping.on_evaluate(state, {})
    assert state.stop_reason == "no better evaluation in 2"
