"""Reads many hostile files in processes that are watched, and counts what became of them."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.fuzz.readers import READERS
from faults.fuzz.worker import Task

_WATCH_SECONDS = 0.25
_HANG_SECONDS = 60.0
_HANG_PROCESSOR_SECONDS = 20.0
_MEMORY_BYTES = 6 * 2**30
_START_SECONDS = 300.0


@dataclass
class Tally:
    """What became of the inputs of one reader.

    Attributes:
        kinds: inputs by their end: "value", the class of the error, "failure".
        failures: inputs by what was wrong.
        first: number of the first input with that failure.
        seconds: the longest that one took, in processor time.
        bytes: the most memory that one took.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0

    def add(self, number: int, *, kind: str, failure: str, seconds: float, bytes: int) -> None:
        self.kinds[kind] += 1
        self.seconds, self.bytes = max(self.seconds, seconds), max(self.bytes, bytes)
        if failure:
            self.failures[failure] += 1
            self.first.setdefault(failure, number)

    def as_json(self) -> dict[str, Any]:
        # Not dataclasses.asdict, which makes other counters of counters.
        return {"inputs": self.kinds.total(), **vars(self)}


def inputs_of(readers: Sequence[str], inputs: int) -> dict[str, int]:
    """Shares so many inputs out among readers; the rest goes to the first."""
    shares = {name: READERS[name].share for name in readers}
    counts = {name: int(inputs * share / sum(shares.values())) for name, share in shares.items()}
    counts[readers[0]] += inputs - sum(counts.values())
    return counts


def fuzz(reader: str, *, inputs: int, seed: int, keep: Path | None, on_progress: Callable[[int], None]) -> Tally:
    """Reads the inputs of one reader; a process that dies or hangs is replaced and goes on behind the input."""
    tally = Tally()
    first = 0
    while first < inputs:
        task = Task(reader, seed, first, inputs, None if keep is None else str(keep))
        first = _watch(task, tally, on_progress)
    return tally


def _watch(task: Task, tally: Tally, on_progress: Callable[[int], None]) -> int:
    """Runs one process to its end, good or bad; returns the number of the next input.

    Raises:
        RuntimeError: it died before the first input, or a valid sample could not be read.
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "faults.fuzz.worker", json.dumps(dataclasses.asdict(task))]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = {
        **os.environ,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings) as process:
        return _Watch(task, tally, on_progress, process).until_its_end()


class _Watch:
    """One process that fuzzes, watched: which input it is at, since when, and what it has answered."""

    def __init__(
        self, task: Task, tally: Tally, on_progress: Callable[[int], None], process: subprocess.Popen[bytes]
    ) -> None:
        self._task, self._tally, self._on_progress, self._process = task, tally, on_progress, process
        self._current: int | None = None
        self._begin, self._used = time.monotonic(), 0.0
        self._buffer = b""

    def until_its_end(self) -> int:
        """See `_watch`."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        while True:
            ready, _, _ = select.select([output], [], [], _WATCH_SECONDS)
            if ready:
                chunk = os.read(output, 65_536)
                if not chunk:
                    break
                *lines, self._buffer = (self._buffer + chunk).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
            elif problem := self._problem():
                self._process.kill()
                return self._died(problem)
        code = self._process.wait()
        return self._task.last if code == 0 else self._died(f"the process died ({code})")

    def _take(self, record: dict[str, Any]) -> None:
        if "valid" in record:
            _require_valid(record["valid"], self._task.reader)
        elif "begins" in record:
            self._current = record["begins"]
            self._begin, self._used = time.monotonic(), _processor_seconds(self._process.pid)
        else:
            self._current = None
            number = record.pop("number")
            self._tally.add(number, **record)
            self._on_progress(number + 1)

    def _died(self, problem: str) -> int:
        if self._current is None:
            raise RuntimeError(f"fuzzing {self._task.reader!r}, between inputs: {problem}")
        self._tally.add(self._current, kind="failure", failure=problem, seconds=0.0, bytes=0)
        return self._current + 1

    def _problem(self) -> str:
        """What is wrong with a process that has not answered for a while; empty if nothing is."""
        waited = time.monotonic() - self._begin
        if self._current is None:
            return "no answer" if waited > _START_SECONDS else ""
        pid = self._process.pid
        if waited > _HANG_SECONDS or _processor_seconds(pid) - self._used > _HANG_PROCESSOR_SECONDS:
            return "hangs"
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # it has just ended
            return ""
        return "takes gigabytes of memory" if resident > _MEMORY_BYTES else ""


def _require_valid(outcome: dict[str, Any], reader: str) -> None:
    if outcome["kind"] != "value":
        raise RuntimeError(f"a valid input of {reader!r} cannot be read: {outcome}")


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
