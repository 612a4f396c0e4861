"""What `python -m faults` tries: break a training in one way, go on, and compare with one that nothing happened to."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from faults.breaking import Act, Faults, Phase
from faults.trainings import (
    Process,
    Training,
    begin,
    fingerprint,
    history,
    last_step,
    leftovers,
    resume,
    resumed_from,
    steps_of,
)

STEP_SECONDS = 0.01
INSIDE_SHARE = 0.4
RESUME_SHARE = 0.25
OPERATIONS_OF_RESUME = 30
"""Enough for what a resume does to its folder before it trains, and for its first steps."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
CLOCK_SEEDS = 1000
"""From here on those of the jumps after an interruption."""

Case = TypeVar("Case")


@dataclass
class Trial:
    """One training that was broken.

    Attributes:
        what: what was done to it.
        problems: what was not as promised; none if all was.
        facts: what was measured.
    """

    what: str
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """A folder for trials, the undisturbed trainings they are compared with, and what those needed.

    Args:
        folder: an empty one.
        trainings: by precision.
        seed: of all random choices.
    """

    def __init__(self, folder: Path, trainings: dict[str, Training], *, seed: int) -> None:
        self.folder = folder
        self.trainings = trainings
        self.seed = seed
        self._undisturbed: dict[tuple[Training, bool], Undisturbed] = {}
        self._operations: dict[Training, int] = {}
        self._numbers = iter(range(1_000_000))

    def new_run(self) -> Path:
        return self.folder / f"run-{next(self._numbers)}"

    def rng(self, name: str) -> Random:
        return random.Random(f"{self.seed}-{name}")

    def undisturbed(self, training: Training, *, in_background: bool = False) -> Undisturbed:
        """What this training ends with when it is left alone.

        Raises:
            RuntimeError: it fails.
        """
        key = (training, in_background)
        if key not in self._undisturbed:
            run, count = self.new_run(), self.folder / "count"
            faults = replace(training.faults, in_background=in_background, step_seconds=STEP_SECONDS, count=str(count))
            process = begin(training, run, faults)
            process.wait_for(run / "config.yaml")
            before = time.monotonic() - process.began
            if process.wait():
                raise RuntimeError(f"undisturbed, it ends with {process.code}: {process.said()[-2000:]}")
            seconds = time.monotonic() - process.began - before
            self._undisturbed[key] = Undisturbed(run, fingerprint(run), int(count.read_text()), before, seconds)
        return self._undisturbed[key]

    def operations_in_run(self, training: Training) -> int:
        """How often a training that is left alone does something to the files of its run folder, results included."""
        if training not in self._operations:
            run, count = self.new_run(), self.folder / "count-in-run"
            begin(training, run, replace(training.faults, folder=run.name, count=str(count))).wait()
            self._operations[training] = int(count.read_text())
        return self._operations[training]

    def compare(self, trial: Trial, training: Training, run: Path) -> None:
        """Whether a run ended with the bits of the undisturbed one and left nothing half-written."""
        expected, found = self.undisturbed(training).result, fingerprint(run)
        differing = [name for name in expected if found[name] != expected[name]]
        trial.require(not differing, f"other {', '.join(differing)}")
        trial.require(not leftovers(run), f"left behind: {', '.join(leftovers(run))}")


@dataclass(frozen=True)
class Undisturbed:
    """A training that was left alone.

    Attributes:
        result: its fingerprint.
        operations: what it did to the files of its checkpoints.
        seconds_before: until its run folder is there.
        seconds: from then to its end.
    """

    run: Path
    result: dict[str, str]
    operations: int
    seconds_before: float
    seconds: float


def go_on(
    bench: Bench,
    trial: Trial,
    training: Training,
    run: Path,
    *,
    from_step: int | None = None,
    faults: Faults | None = None,
) -> None:
    """Resumes a run, from its beginning where it had none yet, and compares where it went on from and how it ended.

    Args:
        from_step: where it must go on from; None for its last checkpoint.
    """
    begun, finished = (run / "config.yaml").exists(), (run / "summary.json").exists()
    expected = max(steps_of(run), default=0) if from_step is None else from_step
    if begun:
        process = resume(training, run, faults=faults)
    else:
        trial.facts["begun"] = False
        process = begin(training, run)
    if process.wait():
        trial.problems.append(f"going on ends with {process.code}: {process.said()[-600:]}")
        return
    trial.facts["said"] = [line for line in process.said().splitlines() if "warning" in line]
    if begun and not finished:  # a training that begins anew ends with the same bits
        found = resumed_from(run)
        trial.require(found == expected, f"went on from step {found}, not from {expected}")
    bench.compare(trial, training, run)


# ---- kill ----


def kill(bench: Bench, runs: int) -> Iterator[Trial]:
    """SIGKILL at random moments, at random operations inside a checkpoint write and in the run folder at large; of
    some once more while they are resumed."""
    for number in range(runs):
        rng = bench.rng(f"kill-{number}")
        precision = sorted(bench.trainings)[number % len(bench.trainings)]
        training = bench.trainings[precision]
        # Checkpoints of the starter are so large that they always are.
        in_background = number // len(bench.trainings) % 2 == 1 or training.model == "starter"
        inside = number % 10 < INSIDE_SHARE * 10
        undisturbed = bench.undisturbed(training, in_background=in_background)
        faults = replace(training.faults, in_background=in_background, step_seconds=STEP_SECONDS)
        where = f"{precision}{', written in the background' if in_background else ''}"
        if inside:
            faults = replace(faults, at=rng.randint(1, undisturbed.operations))
            trial = Trial(f"killed at operation {faults.at} of {undisturbed.operations} on checkpoints, {where}")
            run = bench.new_run()
            code = begin(training, run, faults).wait()
            trial.require(code == -signal.SIGKILL, f"it was not killed, it ended with {code}")
        elif number % 5 == 4:
            run = bench.new_run()
            faults = replace(faults, folder=run.name, at=rng.randint(1, bench.operations_in_run(training)))
            trial = Trial(f"killed at operation {faults.at} of {bench.operations_in_run(training)} on its run, {where}")
            code = begin(training, run, faults).wait()
            trial.require(code == -signal.SIGKILL, f"it was not killed, it ended with {code}")
        else:
            trial = Trial(f"killed by chance, {where}")
            run = kill_by_chance(bench, partial(begin, training, faults=faults), "config.yaml", undisturbed, rng)
        trial.facts |= {"precision": precision, "inside": inside, "in_background": in_background}
        again = rng.randint(1, OPERATIONS_OF_RESUME) if rng.random() < RESUME_SHARE else None
        yield _after_kill(bench, trial, training, run, in_background=in_background, again=again)


def kill_by_chance(
    bench: Bench, begin_in: Callable[[Path], Process], sign: str, undisturbed: Undisturbed, rng: Random
) -> Path:
    """Begins something in a new folder and kills it at any moment before its end: of ten, one before there is a sign of
    it in the folder, the others later. Returns the folder."""
    while True:
        run = bench.new_run()
        process = begin_in(run)
        if rng.random() < 0.9:
            process.wait_for(run / sign)
            seconds = rng.uniform(0, undisturbed.seconds)
        else:
            seconds = rng.uniform(0, undisturbed.seconds_before)
        time.sleep(seconds)
        process.send(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:  # it had not ended before
            return run


def _after_kill(
    bench: Bench, trial: Trial, training: Training, run: Path, *, in_background: bool, again: int | None
) -> Trial:
    """Resumes and compares; before that, kills a first resume at its operation `again` on the run folder."""
    reached = last_step(run) if run.exists() else 0
    finished = (run / "summary.json").exists()
    if again is not None and (run / "config.yaml").exists():
        code = resume(training, run, faults=replace(training.faults, folder=run.name, at=again)).wait()
        trial.facts["killed_in_resume"] = code == -signal.SIGKILL
        trial.require(code in (0, -signal.SIGKILL), f"the first resume ended with {code}")
    go_on(bench, trial, training, run)
    if not finished and (run / "environment.json").exists():
        lost = reached - resumed_from(run)
        trial.facts |= {"reached": reached, "lost": lost}
        # A thread may still be writing the last one while steps go on.
        trial.require(lost <= training.interval * (2 if in_background else 1), f"{lost} steps lost")
    return trial


# ---- signals ----


def signals(bench: Bench, runs: int) -> Iterator[Trial]:
    """SIGTERM, SIGINT, SIGUSR1 and SIGHUP at random moments of training."""
    for number in range(runs):
        rng = bench.rng(f"signal-{number}")
        training = bench.trainings[sorted(bench.trainings)[number % len(bench.trainings)]]
        chosen = SIGNALS[number % len(SIGNALS)]
        run = bench.new_run()
        process = begin(training, run, replace(training.faults, step_seconds=STEP_SECONDS))
        wait_for_step(process, run, rng.randrange(1, training.steps - 1))
        time.sleep(rng.uniform(0, 2 * STEP_SECONDS))
        before, sent = last_step(run), time.monotonic()
        process.send(chosen)
        code = process.wait()
        trial = Trial(f"{chosen.name}, {training.precision}")
        trial.facts |= {"seconds": round(time.monotonic() - sent, 3), "code": code}
        trial.require(code == 128 + chosen, f"exit code {code}: {process.said()[-300:]}")
        if trial.ok:
            committed = steps_of(run)[-1]
            trial.facts["steps"] = committed - before
            # One may have ended, and the next begun, between the look at the log and the signal.
            trial.require(committed - before <= 2, f"{committed - before} further steps")
            trial.require(committed == last_step(run), f"the log ends at {last_step(run)}, not at {committed}")
            trial.require("--resume" in process.said(), "does not say how to go on")
        go_on(bench, trial, training, run)
        yield trial


def wait_for_step(process: Process, run: Path, step: int) -> None:
    """Waits until the log has this step, or the process has ended."""
    while last_step(run) < step and not process.has_ended():
        time.sleep(0.005)


# ---- damage ----


def damage(bench: Bench, runs: int) -> Iterator[Trial]:
    """Every file of the last checkpoint cut, flipped and removed, or `runs` of these; and all checkpoints damaged."""
    training = next(iter(bench.trainings.values()))
    stopped = _stopped_run(bench, training)
    last = steps_of(stopped)[-1]
    names = sorted(path.name for path in (stopped / "checkpoints" / f"step-{last}").iterdir())
    ways: dict[str, Callable[[Path], object]] = {"cut": _cut, "flipped": _flip, "removed": Path.unlink}
    cases = [(name, how) for name in names for how in ways]
    older = steps_of(stopped)[-2]
    for name, how in _some(cases, runs, bench.rng("damage")):
        run = _copy(stopped, bench)
        ways[how](run / "checkpoints" / f"step-{last}" / name)
        trial = Trial(f"{name} {how}")
        go_on(bench, trial, training, run, from_step=older)
        said = " ".join(trial.facts.get("said", []))
        trial.require(name in said, "the file is not named")
        trial.require(f"step-{older}" in said, "the older checkpoint is not named")
        yield trial
    run = _copy(stopped, bench)
    for step in steps_of(run):
        _flip(run / "checkpoints" / f"step-{step}" / "model.safetensors")
    trial = Trial("all checkpoints flipped")
    process = resume(training, run)
    trial.require(process.wait() == 65, f"exit code {process.code}")
    trial.require("No checkpoint" in process.said(), process.said()[-300:])
    yield trial


def _some(cases: Sequence[Case], runs: int, rng: Random) -> list[Case]:
    """So many of the cases, drawn; all of them for 0, or where there are no more."""
    return rng.sample(cases, min(runs or len(cases), len(cases)))


def _stopped_run(bench: Bench, training: Training) -> Path:
    """A run that was killed with several checkpoints in it and no result."""
    run = bench.new_run()
    process = begin(training, run, replace(training.faults, step_seconds=STEP_SECONDS))
    process.wait_for(run / "checkpoints" / f"step-{training.steps * 2 // 3 // training.interval * training.interval}")
    process.send(signal.SIGKILL)
    process.wait()
    return run


def _copy(run: Path, bench: Bench) -> Path:
    """A copy that a resume takes for the run it was begun as."""
    return Path(shutil.copytree(run, bench.new_run()))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


# ---- disk ----


def disk(bench: Bench, runs: int) -> Iterator[Trial]:
    """The disk is full, or broken, from each operation of one checkpoint write on; and files may not grow. Or `runs`
    of these."""
    training = next(iter(bench.trainings.values()))
    undisturbed = bench.undisturbed(training)
    writes = training.steps // training.interval + 1
    each = undisturbed.operations // writes
    first = each * (writes // 2)
    acts: tuple[Act, ...] = ("full", "broken")
    cases = [replace(training.faults, at=at, act=act) for at in range(first, first + each + 2) for act in acts]
    size = (undisturbed.run / "model" / "model.safetensors").stat().st_size
    cases += [replace(training.faults, file_bytes=int(size * share)) for share in (0.1, 0.9)]
    for faults in _some(cases, runs, bench.rng("disk")):
        yield _without_disk(bench, training, faults)


def _without_disk(bench: Bench, training: Training, faults: Faults) -> Trial:
    full = faults.act == "full" or faults.file_bytes is not None
    limit = f"no file larger than {faults.file_bytes:,} bytes" if faults.file_bytes is not None else ""
    trial = Trial(limit or f"disk {faults.act} from operation {faults.at} on")
    run = bench.new_run()
    process = begin(training, run, faults)
    code = process.wait()
    said = process.said()
    trial.facts["code"] = code
    trial.require(code in (73, 74), f"exit code {code}: {said[-500:]}")
    # In the run folder, or in the cache, where data are converted before.
    named = any(start in said for start in ("while writing '/", "Cannot write '/", "Writing '/"))
    trial.require(named and "Traceback" not in said, f"no clear message: {said[-500:]}")
    trial.require(not full or "free on that disk" in said, f"free space is not said: {said[-500:]}")
    older = steps_of(run)
    trial.facts["older"] = len(older)
    trial.require(bool(older) or faults.at is None, "no older checkpoint is left")
    problem = _damaged(run)
    trial.require(not problem, f"an older checkpoint is damaged: {problem}")
    go_on(bench, trial, training, run)
    return trial


def _damaged(run: Path) -> str:
    from textune.errors import CheckpointError
    from textune.training.checkpoint import committed, verify

    try:
        for step in committed(run / "checkpoints"):
            verify(run / "checkpoints" / f"step-{step}")
    except CheckpointError as error:
        return error.message
    return ""


# ---- numbers and memory ----


def numbers(bench: Bench) -> Iterator[Trial]:
    """The loss of one step is not a number."""
    for training in bench.trainings.values():
        for step in (1, training.interval, training.interval + 1, training.steps):
            faults = replace(training.faults, nan_at=step)
            run = bench.new_run()
            trial = Trial(f"loss of step {step} not a number, {training.precision}")
            process = begin(training, run, faults)
            trial.require(process.wait() == 1, f"exit code {process.code}: {process.said()[-300:]}")
            trial.require(f"Step {step} gave" in process.said() and "row" in process.said(), process.said()[-300:])
            trial.require(not _not_finite(run), f"not finite on disk: {_not_finite(run)}")
            trial.require(last_step(run) == step - 1, f"the log ends at {last_step(run)}")
            go_on(bench, trial, training, run)
            yield trial


def _not_finite(run: Path) -> list[str]:
    import numpy as np
    from safetensors.numpy import load_file

    files = sorted(run.rglob("*.safetensors"))
    return [str(file) for file in files if not all(np.isfinite(array).all() for array in load_file(file).values())]


def memory(bench: Bench) -> Iterator[Trial]:
    """Memory runs out in each phase where a pass has more than half of the rows."""
    phases: tuple[Phase, ...] = ("forward", "backward", "update", "evaluation")
    for training in bench.trainings.values():
        halved = replace(
            training,
            settings=(*training.settings, "training.batch_size=4", "training.gradient_accumulation_steps=2"),
        )
        for phase in phases:
            run = bench.new_run()
            trial = Trial(f"no memory in {phase}, {training.precision}")
            process = begin(training, run, replace(training.faults, memory=phase))
            if process.wait():
                trial.problems.append(f"exit code {process.code}: {process.said()[-600:]}")
                yield trial
                continue
            trial.require("memory ran out" in process.said(), "it is not said")
            expected = bench.undisturbed(training if phase == "evaluation" else halved).result
            found = fingerprint(run)
            differing = [name for name in ("weights", "moments") if found[name] != expected[name]]
            trial.require(not differing, f"other {', '.join(differing)}")
            yield trial


# ---- clock, two ----


def clock(bench: Bench, runs: int) -> Iterator[Trial]:
    """The calendar's clock jumps by up to a year, back and forth, before and after an interruption, while checkpoints
    are saved by the clock for durations."""
    for number in range(runs):
        training = bench.trainings[sorted(bench.trainings)[number % len(bench.trainings)]]
        seconds = training.interval * STEP_SECONDS  # so many steps take longer than this
        by_clock = (f"checkpoint.every={seconds:g}s", "checkpoint.keep=1000")
        faults = replace(training.faults, clock=number, step_seconds=STEP_SECONDS)
        run = bench.new_run()
        process = begin(replace(training, settings=(*training.settings, *by_clock)), run, faults)
        while not steps_of(run) and not process.has_ended():
            time.sleep(0.005)
        process.send(signal.SIGTERM)
        trial = Trial(f"the clock jumps, {training.precision}")
        trial.require(process.wait() == 143, f"exit code {process.code}: {process.said()[-300:]}")
        stopped = max(steps_of(run), default=0)
        go_on(bench, trial, training, run, faults=replace(faults, clock=number + CLOCK_SEEDS))
        if trial.ok:
            _require_saves_by_clock(trial, training, run, stopped=stopped, seconds=seconds)
        yield trial


def _require_saves_by_clock(trial: Trial, training: Training, run: Path, *, stopped: int, seconds: float) -> None:
    """Some, and since the run went on no more than its time has room for.

    Saved are also the step that was interrupted, the last one and those whose evaluation is the best so far.
    """
    others = {stopped, training.steps, *range(0, training.steps, training.evaluation_interval)}
    saves = [step for step in steps_of(run) if step not in others]
    later = [step for step in saves if step > stopped]
    # By the disk's times, which the jumps do not touch: config.yaml is written just before the first step.
    end = run / "checkpoints" / f"step-{training.steps}" / "manifest.json"
    lasted = end.stat().st_mtime - (run / "config.yaml").stat().st_mtime
    trial.facts["saves"] = len(saves)
    trial.require(bool(saves), "nothing was saved by the clock")
    trial.require(len(later) <= lasted / seconds, f"{len(later)} saves in {lasted:.2f} s, one each {seconds:g} s")


def two(bench: Bench) -> Iterator[Trial]:
    """A second process in the run folder of one that trains: refused; after a kill the folder is free at once."""
    training = next(iter(bench.trainings.values()))
    run = bench.new_run()
    process = begin(training, run, replace(training.faults, step_seconds=STEP_SECONDS * 10))
    process.wait_for(run / "checkpoints" / f"step-{training.interval}")
    overwriting = replace(training, settings=(*training.settings, "run.overwrite=true"))
    for what, second in (
        ("begins", begin(training, run)),
        ("overwrites", begin(overwriting, run)),
        ("resumes", resume(training, run)),
    ):
        trial = Trial(f"a second process {what}")
        trial.require(second.wait() == 73, f"exit code {second.code}: {second.said()[-300:]}")
        trial.require(f"Process {process.pid}" in second.said(), second.said()[-300:])
        yield trial
    trial = Trial("the first process is killed, and the folder is free")
    trial.require(not process.has_ended(), "the first one had ended")
    process.send(signal.SIGKILL)
    process.wait()
    go_on(bench, trial, training, run)
    yield trial


# ---- controls ----


def controls(bench: Bench, altered_data: Callable[[Training], str]) -> Iterator[Trial]:
    """What must differ, or the comparison proves nothing: another seed, a step left out, a row altered."""
    for training in bench.trainings.values():
        same = Trial(f"the same again must not differ, {training.precision}")
        again = bench.new_run()
        same.require(begin(training, again).wait() == 0, "it fails")
        bench.compare(same, training, again)
        yield same
        skipping = replace(training, settings=(*training.settings, "training.skip_bad_steps=1"))
        for what, other, faults in (
            ("another seed", replace(training, seed=training.seed + 1), training.faults),
            ("one step left out", skipping, replace(training.faults, nan_at=training.interval)),
            ("one row altered", replace(training, data=altered_data(training)), training.faults),
        ):
            run = bench.new_run()
            trial = Trial(f"{what} must differ, {training.precision}")
            process = begin(other, run, faults)
            trial.require(process.wait() == 0, f"exit code {process.code}: {process.said()[-300:]}")
            if trial.ok:
                expected, found = bench.undisturbed(training).result, fingerprint(run)
                alike = [name for name in ("weights", "moments", "history") if found[name] == expected[name]]
                trial.require(not alike, f"the same {', '.join(alike)}")
            if what == "one step left out":
                trial.require(any(record["kind"] == "skipped" for record in history(run)), "not in the log")
            yield trial
