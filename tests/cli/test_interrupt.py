from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from textune.run import Run
from textune.training.checkpoint import committed, verify

from .conftest import Textune

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals"),
    pytest.mark.usefixtures("signals_are_heard"),
]

STEPS = 200


def slow_after(step: int) -> str:
    """The command, whose steps take long after this one, so that a test on a busy machine still meets it training."""
    return (
        "import sys, time, textune.training.loop as loop\n"
        "from textune.cli.main import run\n"
        "training_step = loop.training_step\n"
        "def slow(setup, state, *rest, **options):\n"
        f"    time.sleep(0.1 if state.step >= {step} else 0)\n"
        "    return training_step(setup, state, *rest, **options)\n"
        "loop.training_step = slow\n"
        "sys.exit(run(sys.argv[1:]))"
    )


@pytest.fixture(scope="module")
def long_flags(tiny_checkpoint: Path, tiny_csv: Path) -> list[str]:
    """A training of a second or so, in which the moment of a signal can be chosen."""
    return [
        *("--data", str(tiny_csv), "--model", str(tiny_checkpoint), "--precision", "bf16", "--learning-rate", "3e-3"),
        *("--duration", f"{STEPS}steps", "--evaluate-every", "50steps", "--set", "training.log_every=1step"),
        *("--set", "checkpoint.every=20steps", "--set", "training.threads=1", "--weight-decay", "0.1"),
    ]


@pytest.fixture(scope="module")
def whole(long_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Never interrupted. A process as the others, so that it measures the machine as they do."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    command = [sys.executable, "-m", "textune", "train", *long_flags, "--output", str(output), "--quiet"]
    subprocess.run(command, check=True, timeout=240)
    return Run.open(output)


@contextmanager
def training(
    flags: Sequence[str], output: Path, *, until: str, code: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that trains, and has just said `until`; `code` is a program in the place of the command."""
    program = ["-m", "textune"] if code is None else ["-c", code]
    command = [sys.executable, *program, "train", *flags, "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if until in line:
                    break
            yield process
        finally:
            process.kill()


def assert_same_result(found: Run, expected: Run) -> None:
    tensors = load_file(found.model_path / "model.safetensors")
    for name, tensor in load_file(expected.model_path / "model.safetensors").items():
        assert torch.equal(tensors[name], tensor), name
    assert found.predictions("validation").equals(expected.predictions("validation"))
    assert [record["step"] for record in found.metrics] == [record["step"] for record in expected.metrics]


@pytest.mark.parametrize(
    ("name", "code", "last"),
    [
        ("SIGTERM", 143, 7),
        ("SIGHUP", 129, 11),
        ("SIGINT", 130, 31),
        ("SIGUSR1", 138, 49),  # an evaluation is near
    ],
)
def test_a_signal_ends_after_the_step_and_the_run_goes_on(
    textune: Textune, long_flags: list[str], whole: Run, tmp_path: Path, name: str, code: int, last: int
) -> None:
    output = tmp_path / "cut"
    with training(long_flags, output, until=f"step {last}/{STEPS}", code=slow_after(last)) as process:
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    run = Run.open(output)
    step = committed(run.checkpoints_path)[-1]
    assert err.splitlines()[-2:] == [
        f"{name}: training stopped after step {step} of {STEPS}; its checkpoint is committed.",
        f"`textune train --resume {output}` goes on from there.",
    ]
    assert "Traceback" not in err
    for step in committed(run.checkpoints_path):
        verify(run.checkpoints_path / f"step-{step}")
    assert sorted(path.name for path in output.iterdir() if path.name.startswith(".")) == []

    again = textune("train", *long_flags, "--output", output)
    assert again.code == 73
    assert "already holds a run; nothing was touched" in again.err
    assert f"--resume {output}" in again.err
    assert textune("train", "--resume", output, "--quiet").code == 0
    assert_same_result(run, whole)
    finished = textune("train", "--resume", output)
    assert finished.code == 0
    assert "is finished: there is nothing to go on with" in finished.err


def test_a_killed_process_goes_on(textune: Textune, long_flags: list[str], whole: Run, tmp_path: Path) -> None:
    output = tmp_path / "cut"
    with training(long_flags, output, until=f"step 63/{STEPS}", code=slow_after(63)) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert textune("train", "--resume", output, "--quiet").code == 0
    assert_same_result(Run.open(output), whole)


def test_a_second_ctrl_c_stops_at_once(train_flags: list[str], tmp_path: Path) -> None:
    """While a write hangs, as on a network disk that is gone."""
    code = (
        "import sys, time, safetensors.torch; from textune.cli.main import run; "
        "safetensors.torch.save_file = lambda *rest, **options: time.sleep(60); sys.exit(run(sys.argv[1:]))"
    )
    flags = [*train_flags, "--set", "checkpoint.every=1step"]
    with training(flags, tmp_path / "run", until="step 1/", code=code) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "it finishes what it does"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 20
    assert err.splitlines()[-2] == "interrupted"
    assert f"`textune train --resume {tmp_path / 'run'}` goes on" in err.splitlines()[-1]


def test_a_second_ctrl_c_while_a_thread_writes(long_flags: list[str], tmp_path: Path) -> None:
    """Python, at its end, would abort a thread that is amid C++ (exit code 134)."""
    code = (
        "import sys, time, torch, safetensors.torch, textune.job, textune.training.saving\n"
        "from textune.cli.main import main\n"
        "textune.job.BACKGROUND_BYTES, textune.training.saving.PATIENCE = 0, 0.2\n"
        "def hang(*rest, **options):\n"
        "    print('writing', file=sys.stderr, flush=True)\n"
        "    while True:\n"
        "        torch.ones(500, 500) @ torch.ones(500, 500)\n"
        "safetensors.torch.save_file = hang\n"
        "main()"
    )
    output = tmp_path / "run"
    with training(long_flags, output, until="writing", code=code) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None, "it waits for what it has begun to write"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-2:] == [
        "interrupted",
        f"`textune train --resume {output}` goes on from the last checkpoint, or begins anew where there is none.",
    ]
    assert "Traceback" not in err


def test_a_full_disk_in_mid_run(train_flags: list[str], tmp_path: Path, textune: Textune) -> None:
    """No file may be larger than a limit, which the checkpoint after step 4 meets."""
    code = (
        "import resource, sys\n"
        "from textune.cli.main import run\n"
        "from textune.training.checkpoint import Pending\n"
        "commit = Pending.commit\n"
        "def limited(pending):\n"
        "    if pending.target.name == 'step-4':\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    commit(pending)\n"
        "Pending.commit = limited\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    output = tmp_path / "run"
    command = [sys.executable, "-c", code, "train", *train_flags, "--set", "checkpoint.every=2steps", "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 74, done.stderr
    *_, message, hint = done.stderr.splitlines()
    assert message.startswith(f"error: No space left while writing '{output / 'checkpoints' / 'step-4'}' (")
    assert "MiB needed, " in message and "MiB free on that disk)." in message
    assert "what was complete before is still whole" in hint
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-2"]
    verify(output / "checkpoints" / "step-2")
    assert textune("train", "--resume", output, "--quiet").code == 0
