"""The benchmarks lie beside the package, not in it. Their processes are run as functions here, which is quicker."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the named modules run other programs inside this process."""
    from benchmarks import contestants, material, parity, predictors, reading, reference_trainer, steady

    acts: dict[str, Callable[[Any], dict[str, Any]]] = {
        "benchmarks.material": material.prepare,
        "benchmarks.parity": parity.train,
        "benchmarks.predictors": predictors.measure_prediction,
        "benchmarks.reading": reading.measure_reading,
        "benchmarks.steady": steady.measure_training,
    }

    def ask(module: str, task: Any, *, threads: int, cache: str | Path) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(acts[module](task)))
        return answer

    def run(command: Sequence[str], environment: Mapping[str, str]) -> str:
        from textune.cli.main import run as run_command

        with contextlib.redirect_stdout(io.StringIO()) as output:
            if command[2] == "textune":
                assert run_command(list(command[3:])) == 0
            elif command[2] == "benchmarks.reference_trainer":
                reference_trainer.main(command[3:])
            else:
                contestants.main(contestants.Training(**json.loads(command[3])))
        return output.getvalue()

    def replace(*modules: Any) -> None:
        for module in modules:
            monkeypatch.setattr(module, "ask", ask, raising=False)
            if hasattr(module, "run"):
                monkeypatch.setattr(module, "run", run)
            if hasattr(module, "machine"):
                monkeypatch.setattr(module, "machine", lambda threads: {"processor": "a chip", "threads": threads})

    return replace
