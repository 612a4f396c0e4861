"""The process that reads hostile files, one after the other: `python -m faults.fuzz.worker TASK`.

It writes one JSON line before each input and one after it, so that whoever started it knows which input it died of.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import IO, Any

from faults.fuzz.mutations import Files, mutate
from faults.fuzz.readers import READERS, Reader, quick_probes

LIMIT_SECONDS = 5.0
LIMIT_BYTES = 200 * 2**20
HOSTILE_SHARE = 0.03
_CACHE_INPUTS = 500
_SHRINKING_TRIES = 150


@dataclass(frozen=True)
class Task:
    """Inputs `first` to `last` (without it) of one reader."""

    reader: str
    seed: int
    first: int
    last: int
    keep: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        kind: "value", the name of the error that textune raised, or "failure".
        failure: what is wrong, alike for alike failures; empty where nothing is.
        seconds: processor time of this process.
        bytes: resident memory at its peak, above what it was before.
    """

    kind: str
    failure: str
    seconds: float
    bytes: int


def make_input(reader: Reader, samples: list[Files], rng: Random) -> Files:
    """A sample made wrong, or rarely a file that is hostile from its first byte in place of one of its files."""
    sample = rng.choice(samples)
    if reader.hostile is not None and rng.random() < HOSTILE_SHARE:
        name, data = reader.hostile(rng)
        others = {} if set(sample) <= {name} or len(sample) == 1 else sample
        return {**others, name: data}
    return mutate(sample, rng, altered=reader.alters)


def read_input(reader: Reader, files: Files, folder: Path, rng: Random | None) -> Outcome:
    """Writes the files into an empty folder, reads them, and judges what happens."""
    from textune.errors import TextuneError

    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    size = sum(map(len, files.values()))
    before = _forget_peak()
    begin = time.process_time()
    kind, failure = "value", ""
    try:
        reader.read(folder, rng)
    except TextuneError as error:
        kind = type(error).__name__
        words = (folder.name, *(Path(name).name for name in files), *reader.names)
        if not any(word in str(error) for word in words):
            failure = f"{kind} that names no file: {str(error)[:200]}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also a panic of a library written in Rust
        kind, failure = "failure", _signature(error)
    seconds = time.process_time() - begin
    grown = _peak() - before
    if not failure and seconds > LIMIT_SECONDS:
        failure = f"took more than {LIMIT_SECONDS:g} s"
    if not failure and grown > LIMIT_BYTES + 2 * size:
        failure = "took more memory than twice its size and 200 MiB"
    return Outcome(kind, failure, seconds, grown)


def _signature(error: BaseException) -> str:
    """The error's class and the places of textune it came through, without the input's own words."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}textune{os.sep}" in frame.filename
    ]
    return f"{type(error).__name__} in {' > '.join(places[-3:])}"


def _forget_peak() -> int:
    """Linux: makes the peak of resident memory begin anew, and returns it in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def shrink(reader: Reader, files: Files, folder: Path, outcome: Outcome, *, seed: str) -> Files:
    """Cuts away what the failure does not need, a little: halves, quarters, ... of each file."""
    tries = 0
    for name in sorted(files, key=lambda name: -len(files[name])):
        step = max(1, len(files[name]) // 2)
        while step and tries < _SHRINKING_TRIES and reader.alters(name):
            at = 0
            while at < len(files[name]) and tries < _SHRINKING_TRIES:
                smaller = {**files, name: files[name][:at] + files[name][at + step :]}
                tries += 1
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                if read_input(reader, smaller, folder, Random(seed)).failure == outcome.failure:
                    files = smaller
                else:
                    at += step
            step //= 2
    return files


def run(task: Task, output: IO[str]) -> None:
    """Reads the inputs of a task, each a function of seed, reader and number alone."""
    reader = READERS[task.reader]
    kept: set[str] = set()
    with tempfile.TemporaryDirectory() as work, quick_probes():
        os.environ["TEXTUNE_CACHE"] = str(Path(work, "cache"))
        samples = reader.samples()
        for sample in samples:
            _say(output, valid=asdict(_read_aside(reader, sample, Path(work), None)))
        for number in range(task.first, task.last):
            if number % _CACHE_INPUTS == 0:
                shutil.rmtree(Path(work, "cache"), ignore_errors=True)
            name = f"{task.seed}-{task.reader}-{number}"
            files = make_input(reader, samples, Random(name))
            _say(output, begins=number, bytes=sum(map(len, files.values())))
            outcome = _read_aside(reader, files, Path(work), Random(name))
            _say(output, number=number, **asdict(outcome))
            if outcome.failure and outcome.failure not in kept and task.keep is not None:
                kept.add(outcome.failure)
                _keep(task, reader, files, outcome, Path(work), name)


def _read_aside(reader: Reader, files: Files, work: Path, rng: Random | None) -> Outcome:
    folder = work / "input"
    folder.mkdir()
    try:
        return read_input(reader, files, folder, rng)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(task: Task, reader: Reader, files: Files, outcome: Outcome, work: Path, name: str) -> None:
    if outcome.seconds < LIMIT_SECONDS / 5:
        files = shrink(reader, files, work / "input", outcome, seed=name)
        shutil.rmtree(work / "input", ignore_errors=True)
    target = Path(str(task.keep), name.replace(" ", "_"))
    for path, data in {**files, "failure.txt": outcome.failure.encode()}.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)


def _say(output: IO[str], **record: Any) -> None:
    output.write(json.dumps(record) + "\n")
    output.flush()


def main() -> None:
    # What libraries print is not mixed with what this process answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    warnings.simplefilter("ignore")
    run(Task(**json.loads(sys.argv[1])), answers)


if __name__ == "__main__":
    main()
