from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from textune.run import Run
from textune.training.checkpoint import committed, verify

from .conftest import Textune


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_in_mid_training(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "textune", "train", *train_flags, "--duration", "100000steps"),
            *("--set", "checkpoint.every=2steps", "--set", "training.threads=1", "--output", str(output)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "step 1/100000" in line:
                break
        wait_for(lambda: committed(output / "checkpoints"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; what was committed before stays"
    assert "Traceback" not in err and "Error" not in err

    run = Run.open(output)
    steps = committed(run.checkpoints_path)
    assert steps
    for step in steps:
        verify(run.checkpoints_path / f"step-{step}")
    assert len(list(run.checkpoints_path.iterdir())) == len(steps), "no half-written checkpoint"
    assert run.metrics[0]["step"] == 1
    assert not (output / "summary.json").exists()

    again = textune("train", *train_flags, "--output", output)
    assert again.code == 73
    assert "already holds a run; nothing was touched" in again.err
    assert committed(run.checkpoints_path) == steps
