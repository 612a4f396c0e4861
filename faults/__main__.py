"""Breaks textune on purpose and counts what it withstands; without a kind, a short version of all.

Ends with 1 where a promise was broken. The kind `trainer` breaks transformers.Trainer for comparison and promises
nothing. See faults/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faults.reporting import Results, progress

if TYPE_CHECKING:
    from faults.trainings import Training
    from faults.trials import Bench, Trial

PRECISIONS = ("fp32", "bf16")
LONG = ("longrun", "cost")
KINDS = (
    *("kill", "signals", "damage", "disk", "numbers", "memory", "clock", "two", "controls", "trainer"),
    *LONG,
)
RUNS = {"kill": 100, "signals": 50, "clock": 6, "trainer": 100}
"""Trials of the kinds that may have any number; damage and disk try everything once."""
SHORT = {"kill": 4, "signals": 3, "damage": 3, "disk": 3, "clock": 1, "trainer": 4}
INTERVALS = {"tiny": 8, "starter": 3}
STEPS = {"tiny": 60, "starter": 12}
LONG_STEPS = 20_000


def main(options: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"fuzz, or some of {', '.join(KINDS)}")
    parser.add_argument("--runs", type=_count, help="trials of kill, signals, damage, disk, clock and trainer")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (default: 0)")
    parser.add_argument("--model", choices=["tiny", "starter"], default="tiny", help="what is trained (default: tiny)")
    parser.add_argument("--precision", choices=PRECISIONS, help="this one alone (default: both; short: fp32)")
    parser.add_argument("--steps", type=_count, help="of each training (default: 60 with tiny, 12 with the starter)")
    parser.add_argument("--inputs", type=_count, default=2000, help="of fuzz, over all readers (default: 2000)")
    parser.add_argument("--reader", action="append", help="of fuzz: this reader alone; may be repeated")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of fuzz: save a shortened input of each failure")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: faults/results/DATE-KINDS.json")
    arguments = parser.parse_args(options)
    if problem := problem_of(arguments):
        parser.error(problem)
    if arguments.kinds == ["fuzz"]:
        return fuzz(arguments)
    # Set before anything reads them: one thread each, so that the processes forked from this one inherit no others.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TEXTUNE_CACHE"] = str(Path(folder, "cache"))
        return _try_all(arguments, Path(folder))


def _count(text: str) -> int:
    """A number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {number}")
    return number


def problem_of(arguments: argparse.Namespace) -> str:
    """What is wrong with the options, in words; empty if nothing is. Hours may pass before it would show."""
    if arguments.kinds == ["fuzz"]:
        from faults.fuzz.readers import READERS

        unknown = [reader for reader in arguments.reader or () if reader not in READERS]
        return f"--reader: there is no {unknown[0]!r}; there are {', '.join(READERS)}" if unknown else ""
    if unknown := [kind for kind in arguments.kinds if kind not in KINDS]:
        return f"there is no {unknown[0]!r}; there are fuzz alone, {', '.join(KINDS)}"
    if arguments.steps is not None:
        from faults.endurance import FEWEST_STEPS

        if "longrun" in arguments.kinds and arguments.steps < FEWEST_STEPS:
            return f"--steps: longrun compares memory over {FEWEST_STEPS:,} steps at least, found {arguments.steps:,}"
        interval = INTERVALS[arguments.model]
        if not set(arguments.kinds) & set(LONG) and arguments.steps < 3 * interval:
            return f"--steps: expected {3 * interval} or more, for three checkpoints, found {arguments.steps}"
    return ""


def _try_all(arguments: argparse.Namespace, folder: Path) -> int:
    results = Results("-".join(arguments.kinds) or "short", arguments, hidden=folder)
    bench = make_bench(arguments, folder)
    rows, broken = [], 0
    for kind in arguments.kinds or [kind for kind in KINDS if kind not in LONG]:
        trials = []
        for trial in trials_of(kind, bench, arguments):
            trials.append(trial)
            results.write(**{kind: [trial.as_json() for trial in trials]})
            results.say(f"{kind}: {trial.what}: {'; '.join(trial.problems) or 'as promised'}")
        good = sum(trial.ok for trial in trials)
        rows.append((kind, f"{len(trials)}", f"{good}", summary_of(trials)))
        broken += 0 if kind == "trainer" else len(trials) - good
    results.table(("what", "trials", "as promised", "measured"), rows)
    return 1 if broken else 0


def make_bench(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Makes the material and the first trainings in other processes: nothing is computed in this one."""
    from faults.trials import Bench

    return Bench(folder, trainings(arguments, folder), seed=arguments.seed)


def trainings(arguments: argparse.Namespace, folder: Path) -> dict[str, Training]:
    """By precision. Arithmetic is that of the first choice in each, so that all runs have the same kernels."""
    from faults.breaking import Faults
    from faults.material import rows, save_tiny_model, write_json_lines
    from faults.trainings import Training, start

    model, data = folder / "tiny", folder / "train.jsonl"

    def make_model() -> int:
        save_tiny_model(model)
        return 0

    made = start(make_model, folder / "material.txt", Faults())
    if made.wait():
        raise RuntimeError(made.said())
    steps = arguments.steps or STEPS[arguments.model]
    # Few enough that a training, with eight in a step, sees each of them: one that is altered must show.
    write_json_lines(data, rows(min(160, 8 * steps)))
    training = Training(
        model="starter" if arguments.model == "starter" else str(model),
        data=str(data),
        steps=steps,
        interval=INTERVALS[arguments.model],
    )
    precisions = [arguments.precision] if arguments.precision else PRECISIONS if arguments.kinds else PRECISIONS[:1]
    return {name: _with_arithmetic(replace(training, precision=name), folder) for name in precisions}


def _with_arithmetic(training: Training, folder: Path) -> Training:
    """Chosen once, by a training of one step; two runs may else choose different kernels for fp32."""
    from faults.breaking import Faults
    from faults.trainings import begin, import_all

    run, modules = folder / f"first-{training.precision}", folder / "modules"
    process = begin(replace(training, steps=1), run, Faults(modules=str(modules)))
    if process.wait():
        raise RuntimeError(process.said())
    import_all(modules)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return replace(training, faults=replace(training.faults, arithmetic=json.dumps(environment["arithmetic"])))


def trials_of(kind: str, bench: Bench, arguments: argparse.Namespace) -> Iterable[Trial]:
    from faults import endurance, reference, trials

    runs = arguments.runs or (RUNS if arguments.kinds else SHORT).get(kind, 0)
    kinds: dict[str, Callable[[], Iterator[Trial]]] = {
        "kill": lambda: trials.kill(bench, runs),
        "signals": lambda: trials.signals(bench, runs),
        "damage": lambda: trials.damage(bench, runs),
        "disk": lambda: trials.disk(bench, runs),
        "numbers": lambda: trials.numbers(bench),
        "memory": lambda: trials.memory(bench),
        "clock": lambda: trials.clock(bench, runs),
        "two": lambda: trials.two(bench),
        "controls": lambda: trials.controls(bench, partial(altered_data, folder=bench.folder)),
        "longrun": lambda: endurance.longrun(bench, arguments.steps or LONG_STEPS),
        "cost": lambda: endurance.cost(bench, minutes=10),
        "trainer": lambda: reference.trainer(bench, runs),
    }
    return kinds[kind]()


def altered_data(training: Training, *, folder: Path) -> str:
    """A copy of the data with one more word in one row."""
    source = Path(training.data)
    target = folder / f"altered-{source.name}"
    first, rest = source.read_text(encoding="utf-8").split("\n", 1)
    row = json.loads(first)
    altered = {**row, "text": f"{row['text']} indeed"}
    target.write_text(f"{json.dumps(altered)}\n{rest}", encoding="utf-8")
    return str(target)


def summary_of(trials: Sequence[Trial]) -> str:
    """The facts of all trials in a few words."""
    parts = []
    inside = sum(trial.facts.get("inside", False) for trial in trials)
    units = {"lost": "steps lost", "seconds": "s", "steps": "steps after the signal", "saves": "saves by the clock"}
    for name, unit in units.items():
        values = [trial.facts[name] for trial in trials if isinstance(trial.facts.get(name), int | float)]
        if values:
            parts.append(f"at most {max(values):g} {unit}")
    parts += [f"{inside} inside a write"] if inside else []
    again = sum(trial.facts.get("killed_in_resume", False) for trial in trials)
    parts += [f"{again} killed in their resume as well"] if again else []
    for name in ("growth", "share"):
        parts += [f"{name} {trial.facts[name]:.2%}" for trial in trials if name in trial.facts]
    return ", ".join(parts)


def fuzz(arguments: argparse.Namespace) -> int:
    """Corrupt and hostile files for every reader."""
    from faults.fuzz.campaign import fuzz as fuzz_reader
    from faults.fuzz.campaign import inputs_of
    from faults.fuzz.readers import READERS

    results = Results("fuzz", arguments)
    rows = []
    failures = 0
    for reader, inputs in inputs_of(arguments.reader or list(READERS), arguments.inputs).items():
        with progress(f"fuzzing {reader}", inputs) as on_progress:
            tally = fuzz_reader(
                reader, inputs=inputs, seed=arguments.seed, keep=arguments.keep, on_progress=on_progress
            )
        failures += tally.failures.total()
        errors = tally.kinds.total() - tally.kinds["value"] - tally.kinds["failure"]
        rows.append(
            (
                *(reader, f"{inputs:,}", f"{tally.kinds['value']:,}", f"{errors:,}", f"{tally.failures.total():,}"),
                *(f"{tally.seconds:.2f}", f"{tally.bytes / 2**20:.0f}"),
            )
        )
        results.write(**{reader: tally.as_json()})
        for failure, count in tally.failures.most_common():
            results.say(f"{reader}: {count} x {failure} (first: input {tally.first[failure]})")
    results.table(("reader", "inputs", "values", "errors", "failures", "most seconds", "most MiB"), rows)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
