from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from textune.cli.main import run


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    code: int
    out: str
    err: str


Textune = Callable[..., Finished]


@pytest.fixture
def textune(capsys: pytest.CaptureFixture[str]) -> Textune:
    """Runs the command line in this process."""

    def call(*arguments: str | Path) -> Finished:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


@pytest.fixture
def textune_process() -> Textune:
    """Runs the command line in a process of its own."""

    def call(*arguments: str | Path, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "textune", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            timeout=120,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def train_flags(tiny_checkpoint: Path, tiny_csv: Path) -> list[str]:
    """Flags of a small training."""
    flags = {"data": tiny_csv, "model": tiny_checkpoint, "epochs": 1, "precision": "fp32", "learning-rate": "3e-3"}
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]
