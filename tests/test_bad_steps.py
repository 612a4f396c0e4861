"""Runs that meet bad numbers and missing memory: what a person is told, and what the run folder says of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trained import QUICK

import textune.training.engine
from textune.display import Display
from textune.evaluation.forward import unpadded_forward
from textune.finetune import train
from textune.run import Run


class Warnings(Display):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str) -> None:
        self.said.append(text)


Fault = Callable[[bool, int, int], float]
"""Training or not, number of the call, rows -> what the logits are multiplied with, or an error."""


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path) -> Any:
    def run(name: str, fault: Fault, display: Display, **options: Any) -> Run:
        @contextlib.contextmanager
        def faulty(model: Any, **keywords: Any) -> Iterator[Any]:
            calls = 0
            with unpadded_forward(model, **keywords) as forward:

                def call(examples: Any) -> torch.Tensor:
                    nonlocal calls
                    calls += model.training
                    return forward(examples) * fault(model.training, calls, len(examples))

                yield call

        monkeypatch.setattr(textune.training.engine, "unpadded_forward", faulty)
        values = {**QUICK, "model": str(tiny_checkpoint), "output": str(tmp_path / name), "display": display, **options}
        return train(str(tiny_csv), **values)

    return run


def kinds(run: Run, kind: str) -> list[dict[str, Any]]:
    return [record for record in run.metrics if record["kind"] == kind]


def test_a_step_that_is_left_out_is_told(run_with: Any) -> None:
    display = Warnings()
    run = run_with(
        "skip",
        lambda training, calls, rows: torch.nan if training and calls == 2 else 1.0,
        display,
        skip_bad_steps=1,
    )
    (record,) = kinds(run, "skipped")
    assert (record["step"], record["reason"]) == (2, "loss nan")
    assert len(record["ids"]) == len(record["row_numbers"]) == 8
    assert [text for text in display.said if "left out" in text] == [
        f"step 2 was left out (loss nan): rows {', '.join(map(str, record['row_numbers']))} of the training split"
    ]
    assert run.summary["training"]["skipped_steps"] == 1


def test_memory_that_runs_out_is_told_and_changes_no_result(run_with: Any) -> None:
    def short(training: bool, calls: int, rows: int) -> float:
        if rows > (4 if training else 5):
            raise torch.OutOfMemoryError("none left")
        return 1.0

    display = Warnings()
    run = run_with("short", short, display)
    plain = run_with("plain", lambda *_: 1.0, Display(), batch_size=4, accumulation=2)
    (record,) = kinds(run, "out_of_memory")
    assert (record["step"], record["micro_batch_size"]) == (1, 4)
    assert run.summary["training"]["micro_batch_size"] == 4
    assert plain.summary["training"]["micro_batch_size"] is None
    assert len([text for text in display.said if "in a pass" in text]) == 1
    while_scored = [text for text in display.said if "was scored" in text]
    assert 1 <= len(while_scored) <= 3 and "scores change by rounding" in while_scored[0]
    split = run.summary["selected"]["split"]
    found, expected = run.predictions(split).to_pydict(), plain.predictions(split).to_pydict()
    assert found["prediction"] == expected["prediction"]
    for name in found:
        if name.startswith("score_"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
