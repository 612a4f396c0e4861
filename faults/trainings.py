"""Trainings as processes: started, watched, broken and compared."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faults.breaking import Faults, install, install_in_textune

Program = Callable[[], int]
_WAIT_SECONDS = 900.0
_numbers = itertools.count()


@dataclass(frozen=True)
class Training:
    """What is trained, always with the same result.

    Attributes:
        model: a checkpoint's folder, or "starter".
        data: a file with rows.
        faults: what holds for every process of it, as the arithmetic.
        settings: further `--set` values.
    """

    model: str
    data: str
    precision: str = "fp32"
    steps: int = 60
    interval: int = 8
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    settings: tuple[str, ...] = ()

    @property
    def evaluation_interval(self) -> int:
        """Other steps than checkpoints are saved at."""
        return self.interval * 2 + 3

    def arguments(self, run: Path) -> list[str]:
        """Of the command `textune`. Logs after every step."""
        values = (
            *("training.log_every=1steps", "training.threads=1", "training.weight_decay=0.01", "run.report=false"),
            *(f"checkpoint.every={self.interval}steps", *self.settings),
        )
        return [
            *("train", "--data", self.data, "--model", self.model, "--output", str(run), "--seed", str(self.seed)),
            *("--duration", f"{self.steps}steps", "--precision", self.precision, "--learning-rate", "1e-3"),
            *("--evaluate-every", f"{self.evaluation_interval}steps", "--max-length", "32"),
            *(part for value in values for part in ("--set", value)),
        ]


@dataclass
class Process:
    """A process that was started."""

    pid: int
    log: Path
    began: float
    code: int | None = None

    def wait(self, seconds: float = _WAIT_SECONDS) -> int:
        """Returns the exit code, that of a signal negative.

        Raises:
            TimeoutError: it does not end; it is killed.
        """
        limit = time.monotonic() + seconds
        while not self.has_ended():
            if time.monotonic() > limit:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"no end after {seconds:g} s: {self.said()[-500:]}")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def has_ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def send(self, number: int) -> None:
        if not self.has_ended():
            os.kill(self.pid, number)

    def wait_for(self, path: Path) -> bool:
        """Waits until there is such a file; False where the process ends without."""
        while not path.exists():
            if self.has_ended():
                return path.exists()
            time.sleep(0.005)
        return True

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def start(program: Program, log: Path, faults: Faults) -> Process:
    """Runs a program in a process forked from this one, which has imported what takes long to import and computed
    nothing."""
    began = time.monotonic()
    pid = os.fork()
    if pid:
        return Process(pid, log, began)
    code = 70
    try:
        with log.open("wb") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        tell = install(faults)
        code = program()
        tell()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_textune(arguments: Sequence[str], faults: Faults) -> Program:
    """The command `textune`, as a program."""

    def program() -> int:
        from textune.cli.main import run

        install_in_textune(faults)
        code = run(list(arguments))
        if faults.modules is not None:
            Path(faults.modules).write_text("\n".join(sys.modules))
        return code

    return program


def import_all(names: Path) -> None:
    """Imports here what another process had imported at its end, so that those forked from now on need not."""
    for name in names.read_text().splitlines():
        with contextlib.suppress(Exception):  # made on the way, or of that process alone
            importlib.import_module(name)


def begin(training: Training, run: Path, faults: Faults | None = None) -> Process:
    """Starts the training in a folder, with these faults, or only its own."""
    chosen = faults or training.faults
    return start(run_textune(training.arguments(run), chosen), _log(run, "begin"), chosen)


def resume(training: Training, run: Path, *, faults: Faults | None = None) -> Process:
    """Starts `textune train --resume`."""
    chosen = faults or replace(training.faults, step_seconds=0.0)
    return start(run_textune(["train", "--resume", str(run)], chosen), _log(run, "resume"), chosen)


def _log(run: Path, what: str) -> Path:
    """One of its own for each process: two that begin in one folder would cut each other's."""
    return run.with_name(f"{run.name}-{what}-{next(_numbers)}.txt")


# ---- What is left ----


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of what a training ends with: weights, AdamW's moments, state, history and predictions.

    Durations are left out of state and history.
    """
    last = run / "checkpoints" / f"step-{max(steps_of(run), default=0)}"
    state = {name: value for name, value in _json(last / "state.json").items() if "seconds" not in name}
    return {
        "weights": _hash((run / "model" / "model.safetensors").read_bytes()),
        "last weights": _hash((last / "model.safetensors").read_bytes()),
        "moments": _hash((last / "optimizer.safetensors").read_bytes()),
        "state": _hash(json.dumps(state, sort_keys=True).encode()),
        "history": _hash("\n".join(json.dumps(record, sort_keys=True) for record in history(run)).encode()),
        "predictions": _hash(b"".join(path.read_bytes() for path in sorted((run / "predictions").iterdir()))),
    }


def history(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [{name: value for name, value in record.items() if "second" not in name} for record in records]


def last_step(run: Path) -> int:
    """The last step that is in the log."""
    return max((record["step"] for record in history(run) if record["kind"] == "training"), default=0)


def steps_of(run: Path) -> list[int]:
    """The steps of the checkpoints in a run."""
    return sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").glob("step-*"))


def resumed_from(run: Path) -> int:
    """The step that the last resume went on from; 0 where it began anew."""
    resumed = _json(run / "environment.json").get("resumed", [])
    return int(resumed[-1]["step"]) if resumed else 0


def leftovers(run: Path) -> list[str]:
    """Names of half-written files and folders."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*") if ".tmp" in path.name or ".old" in path.name)


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
