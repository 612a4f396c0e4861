"""What the benchmarks share: runs in processes of their own, in turns; medians with their spread; tables; results."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.cores import cores

if TYPE_CHECKING:
    from textune.training.precision import Measurement

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"


# ---- Arithmetic ----


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing: the median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        middle, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return middle if low == high else f"{middle} ({low} to {high})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round: both sides of a round ran one after the other, rounds may lie far apart."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


def largest_relative_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Of two curves with as many points, relative to `expected`; not a number where one of them is not."""
    return largest(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def largest_difference(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """Of two tables of numbers of the same shape; not a number where one of them is not."""
    return largest(
        abs(a - b)
        for row, other in zip(found, expected, strict=True)
        for a, b in zip(row, other, strict=True)
    )  # fmt: skip


def largest(values: Iterable[float]) -> float:
    """Not a number where one of them is not, which `max` shows or hides as their order has it."""
    values = list(values)
    return math.nan if any(map(math.isnan, values)) else max(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def growth(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent p of cost = constant * size ** p that fits best: 1 is linear, 2 is quadratic."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def share_of_rate(*, parameters: int, tokens: int, seconds: float, gflops: float) -> float:
    """Which part of the measured matrix-product rate training used.

    A token costs a parameter 2 floating-point operations forward and 4 backward. Attention's own products, the head
    and padding are not counted as useful, so that the share errs on the low side.
    """
    return 6 * parameters * tokens / seconds / (gflops * 1e9)


def product_rate(measurements: Iterable[Measurement], precision: str) -> float:
    """GFLOP/s of the fastest product of this precision; fp32 counts only what keeps fp32's accuracy."""
    from textune.training.precision import FP32_ERROR

    if precision == "fp32":
        return max(item.gflops for item in measurements if item.relative_error <= FP32_ERROR)
    return next(item.gflops for item in measurements if item.name == precision)


# ---- This process ----


class EnoughError(Exception):
    """Raised by a callback: what comes next, evaluation and saving, is not to be measured."""


# ---- Other processes ----


def program(module: str, task: Any) -> list[str]:
    """The command that runs `python -m MODULE TASK`, the task as JSON."""
    return [sys.executable, "-m", module, json.dumps(dataclasses.asdict(task))]


def environment(*, threads: int, cache: str | Path) -> dict[str, str]:
    """Environment variables of a measured process: its threads, its caches, and where this package is."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **os.environ,
        # transformers' Trainer would spread each batch over all GPUs that it sees.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0],
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(threads),  # of tokenizers
        "PYTHONPATH": path,
        "TEXTUNE_CACHE": str(cache),
        "HF_DATASETS_CACHE": str(cache),
    }


def run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Runs a command to its end and returns what it wrote to standard output.

    Raises:
        SystemExit: it failed; the message ends with what it wrote to standard error.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def ask(module: str, task: Any, *, threads: int, cache: str | Path) -> dict[str, Any]:
    """Runs a module of this package in a process of its own and returns the JSON object in its last line."""
    output = run(program(module, task), environment(threads=threads, cache=cache))
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def answer(kind: type[Any], act: Callable[[Any], dict[str, Any]]) -> None:
    """The other end of `ask`: reads the task from the command line and prints what `act` makes of it."""
    print(json.dumps(act(kind(**json.loads(sys.argv[1])))))


def machine(*, threads: int) -> dict[str, Any]:
    """What `textune doctor` finds with so many threads: versions, processor, device, rates of matrix products."""
    with tempfile.TemporaryDirectory() as cache:
        output = run([sys.executable, "-m", "textune", "doctor", "--json"], environment(threads=threads, cache=cache))
    found: dict[str, Any] = json.loads(output)
    return found


def in_turns(rounds: int, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(1, A), (1, B), (2, A), (2, B), ...: machines drift, and what is compared shall drift together."""
    for number in range(1, rounds + 1):
        for name in names:
            yield number, name


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- Options, tables, results ----


def parser(description: str | None, *, rounds: int | None = 3) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have; `rounds` is None where nothing is measured in turns."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        told = f"measurements of each (default: {rounds})"
        made.add_argument("--rounds", type=_at_least_one, default=rounds, help=told)
    made.add_argument("--threads", type=_at_least_one, default=cores(), help="CPU threads of each run (default: all)")
    made.add_argument("--output", type=Path, help="default: benchmarks/results/DATE-NAME.json")
    return made


def _at_least_one(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def result_path(name: str) -> Path:
    """benchmarks/results/DATE-NAME.json, or with a number where earlier results of the day have that name."""
    stem = f"{date.today()}-{name}"
    free = (RESULTS / f"{stem}{f'-{number}' if number > 1 else ''}.json" for number in range(1, 1000))
    return next(path for path in free if not path.exists())


class Results:
    """A file that holds all measurements so far, with date, options and machine.

    Attributes:
        path: the file, rewritten whenever something is added.
    """

    def __init__(self, name: str, arguments: argparse.Namespace, machine: Mapping[str, Any]) -> None:
        self.path: Path = arguments.output or result_path(name)
        # Results are published: no folder of the machine is named in them.
        folders = ("output", "local_copy", "keep")
        options = {key: value for key, value in vars(arguments).items() if key not in folders}
        machine = {key: value for key, value in machine.items() if key != "command"}
        self._content: dict[str, Any] = {
            "about": {"benchmark": name, "date": str(date.today()), "options": options, "machine": dict(machine)}
        }

    def write(self, **parts: Any) -> None:
        """Adds or replaces parts of the file."""
        self._content |= parts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._content, indent=2, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if isinstance(value, Spread) else str(value)


def machine_line(machine: Mapping[str, Any]) -> str:
    """One line about what `machine` or `benchmarks.material` found."""
    rates = ", ".join(f"{item['name']} {item['gflops']:,.0f}" for item in machine["arithmetic"]["measurements"])
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers"))
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['device']}; "
        f"{versions}; products in GFLOP/s: {rates}"
    )
