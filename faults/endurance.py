"""What shows only with time: memory over many steps, and what checkpoints cost a training."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from faults.trainings import Process, begin, last_step
from faults.trials import Bench, Trial

LIMIT_GROWTH = 0.01
LIMIT_COST = 0.02
_SETTLED_STEPS = 1000
FEWEST_STEPS = 3 * _SETTLED_STEPS
"""The first thousand, and two that are compared."""


def longrun(bench: Bench, steps: int) -> Iterator[Trial]:
    """Many steps with a tiny model: resident memory after the first thousand, and at the end."""
    training = next(iter(bench.trainings.values()))
    training = replace(
        training,
        steps=steps,
        interval=steps // 20,
        settings=(
            *training.settings,
            f"training.log_every={_SETTLED_STEPS // 10}steps",
            f"evaluation.every={steps // 10}steps",
        ),
    )
    run = bench.new_run()
    process = begin(training, run)
    samples = list(_memory(process, run))
    trial = Trial(f"{steps:,} steps")
    trial.require(process.wait() == 0, f"exit code {process.code}: {process.said()[-300:]}")
    settled = [size for step, size in samples if _SETTLED_STEPS <= step < 2 * _SETTLED_STEPS]
    final = [size for step, size in samples if steps - _SETTLED_STEPS <= step < steps]
    if settled and final:
        growth = statistics.median(final) / statistics.median(settled) - 1
        trial.facts |= {"MiB": round(statistics.median(final) / 2**20, 1), "growth": round(growth, 5)}
        trial.require(growth < LIMIT_GROWTH, f"memory grew by {growth:.2%}")
    else:
        trial.problems.append("too few samples")
    yield trial


def _memory(process: Process, run: Path) -> Iterator[tuple[int, int]]:
    """(step, resident bytes) of a process, several times a second."""
    page = os.sysconf("SC_PAGE_SIZE")
    while not process.has_ended():
        try:
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
        except (OSError, IndexError):
            return
        yield last_step(run), resident
        time.sleep(0.25)


def cost(bench: Bench, minutes: float) -> Iterator[Trial]:
    """The starter, a checkpoint every minute: the share of training that saving takes, by the run's own account."""
    training = next(iter(bench.trainings.values()))
    steps = 20
    run = bench.new_run()
    every = f"checkpoint.every={10**6}steps"
    probe = begin(replace(training, model="starter", steps=steps, settings=(*training.settings, every)), run)
    trial = Trial(f"the starter, a checkpoint every minute, about {minutes:g} minutes")
    if probe.wait():
        trial.problems.append(f"exit code {probe.code}: {probe.said()[-300:]}")
        yield trial
        return
    rate = steps / _training(run)["seconds"]
    run = bench.new_run()
    long = replace(
        training,
        model="starter",
        steps=int(rate * 60 * minutes),
        settings=(*training.settings, "checkpoint.every=1min", f"evaluation.every={10**6}steps"),
    )
    process = begin(long, run)
    trial.require(process.wait(60 * minutes * 5 + 600) == 0, f"exit code {process.code}: {process.said()[-300:]}")
    if trial.ok:
        measured = _training(run)
        share = measured["checkpoint_seconds"] / measured["seconds"]
        trial.facts |= {
            "share": round(share, 5),
            **{name: measured[name] for name in ("seconds", "checkpoint_seconds")},
        }
        trial.require(share < LIMIT_COST, f"saving takes {share:.2%}")
    yield trial


def _training(run: Path) -> dict[str, float]:
    values: dict[str, float] = json.loads((run / "summary.json").read_text(encoding="utf-8"))["training"]
    return values
