"""Scores of textune and transformers.Trainer on a GLUE task with the same defaults, several seeds each.

    python -m benchmarks.quality --task mrpc [--local-copy FOLDER] [--seeds 42 1 2 3 4] [--fp32] [--output FILE]
                                 [--keep RUNS]

Each run is a process of its own; textune runs through its command. FOLDER is as for `textune train --local-copy`.
Prints a table with mean and standard deviation and writes every figure to --output (JSON). Runs that FILE already
holds are not repeated; what it says of machine and options is how it was begun. RUNS/textune/seed-N is then textune's
run and RUNS/transformers.Trainer/seed-N holds the other's predictions, for `textune compare`; the command is printed.
A run that FILE holds and RUNS does not is made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.measuring import RESULTS, Results, environment, machine, parser, progress, run, table
from textune.data.glue import GLUE_TASKS

TEXTUNE, TRAINER = "textune", "transformers.Trainer"
SPLITS = tuple(dict.fromkeys(split for task in GLUE_TASKS.values() for split in task.splits if split != "train"))


def main(options: Sequence[str] | None = None) -> None:
    made = parser(__doc__, rounds=None)
    tasks = [name for name, task in GLUE_TASKS.items() if "train" in task.splits]
    made.add_argument("--task", choices=tasks, required=True)
    made.add_argument("--local-copy")
    made.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2, 3, 4])
    made.add_argument("--fp32", action="store_true", help="both in fp32; otherwise both in bf16")
    made.add_argument("--who", choices=list(PROGRAMS), nargs="+", default=list(PROGRAMS))
    made.add_argument("--keep", type=Path, metavar="RUNS", help="where the runs are kept; nowhere when not given")
    arguments = made.parse_args(options)
    name = f"quality-{arguments.task}-{precision_of(arguments)}"
    # Not with a number: what was begun today goes on.
    arguments.output = arguments.output or RESULTS / f"{date.today()}-{name}.json"
    earlier = begun(arguments)
    runs: list[dict[str, Any]] = earlier.get("runs", [])
    results = Results(name, arguments, machine(threads=arguments.threads))
    with tempfile.TemporaryDirectory() as temporary:
        surroundings = environment(threads=arguments.threads, cache=Path(temporary, "cache"))
        for who, seed in _missing(runs, arguments):
            folder = _folder(arguments.keep or Path(temporary), who, seed)
            found = PROGRAMS[who](arguments, seed, folder, surroundings)
            runs = [other for other in runs if (other["who"], other["seed"]) != (who, seed)] + [found]
            progress(f"{who}, seed {seed}: {found['training_seconds']:.0f} s")
            results.write(**earlier | {"runs": runs})
    print(report(runs))
    if arguments.keep is not None and len(arguments.who) > 1:
        print("\n" + comparison(arguments.keep, arguments.seeds, _splits(runs[0])[0]))
    print(f"\nwritten to {results.path}")


def precision_of(arguments: argparse.Namespace) -> str:
    return "fp32" if arguments.fp32 else "bf16"


def begun(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is in --output already; {} if there is no such file.

    Raises:
        SystemExit: its runs are of another task, precision or number of threads.
    """
    if not arguments.output.exists():
        return {}
    found: dict[str, Any] = json.loads(arguments.output.read_text(encoding="utf-8"))
    # The first files named their data and no options.
    options = found["about"].get("options") or {"task": found["about"]["data"]}
    precisions = {one["precision"] for one in found["runs"]}
    asked = {"task": arguments.task, "threads": arguments.threads, "precision": precision_of(arguments)}
    held = {name: options.get(name, asked[name]) for name in ("task", "threads")} | {
        "precision": " and ".join(sorted(precisions))
    }
    if held != asked:
        sides = [", ".join(f"{name} {value}" for name, value in side.items()) for side in (held, asked)]
        raise SystemExit(
            f"{arguments.output} holds runs with {sides[0]}; asked for are runs with {sides[1]}. "
            "Ask for the same, or name another --output."
        )
    return found


def _missing(runs: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """Who is still to run with which seed: what is not there, or shall be kept and was not."""
    there = [found for found in runs if arguments.keep is None or is_kept(arguments.keep, found)]
    done = {(found["who"], found["seed"]) for found in there}
    wanted = [(who, seed) for seed in arguments.seeds for who in arguments.who]
    return [one for one in wanted if one not in done]


def is_kept(kept: Path, found: Mapping[str, Any]) -> bool:
    """Whether what `comparison` names lies there."""
    last = "summary.json" if found["who"] == TEXTUNE else f"{_splits(found)[-1]}.jsonl"  # what is written last
    return (_folder(kept, found["who"], found["seed"]) / last).is_file()


def _folder(kept: Path, who: str, seed: int) -> Path:
    return kept / who / f"seed-{seed}"


def _splits(found: Mapping[str, Any]) -> list[str]:
    return [split for split in SPLITS if split in found]


def run_textune(
    arguments: argparse.Namespace, seed: int, folder: Path, surroundings: Mapping[str, str]
) -> dict[str, Any]:
    """One run of the command into `folder`; `--select last` as the Trainer does."""
    precision = precision_of(arguments)
    command = [sys.executable, "-m", "textune", "train", "--data", f"glue/{arguments.task}", *_local_copy(arguments)]
    command += ["--model", "starter", "--seed", str(seed), "--precision", precision, "--select", "last"]
    command += ["--set", f"training.threads={arguments.threads}", "--output", str(folder), "--quiet", "--json"]
    if not (folder / "summary.json").is_file():
        command += ["--overwrite"]  # what an interruption left; a finished run is not deleted
    summary = json.loads(run(command, surroundings))
    metrics = GLUE_TASKS[arguments.task].metrics
    return {
        "who": TEXTUNE,
        "seed": seed,
        "precision": precision,
        **{split: {name: summary[split][name]["value"] for name in metrics} for split in _splits(summary)},
        "training_seconds": summary["training"]["seconds"],
    }


def run_trainer(
    arguments: argparse.Namespace, seed: int, folder: Path, surroundings: Mapping[str, str]
) -> dict[str, Any]:
    """One run of the reference, its predictions into `folder`."""
    command = [sys.executable, "-m", "benchmarks.reference_trainer", "--task", arguments.task, *_local_copy(arguments)]
    command += ["--seed", str(seed), "--threads", str(arguments.threads), "--predictions", str(folder)]
    command += [] if arguments.fp32 else ["--bf16"]
    found: dict[str, Any] = json.loads(run(command, surroundings).splitlines()[-1])
    return found


def _local_copy(arguments: argparse.Namespace) -> list[str]:
    return ["--local-copy", arguments.local_copy] if arguments.local_copy else []


PROGRAMS = {TEXTUNE: run_textune, TRAINER: run_trainer}


def report(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: every run, then mean and standard deviation per program, in percent."""
    columns = [(split, metric) for split in _splits(runs[0]) for metric in runs[0][split]]
    rows = []
    for who in dict.fromkeys(found["who"] for found in runs):
        own = [found for found in runs if found["who"] == who]
        for found in own:
            rows.append([who, str(found["seed"]), *(f"{100 * found[split][metric]:.1f}" for split, metric in columns)])
        if len(own) > 1:
            values = [[100 * found[split][metric] for found in own] for split, metric in columns]
            cells = [f"**{statistics.mean(each):.1f}** ± {statistics.stdev(each):.1f}" for each in values]
            rows.append([who, f"mean ± sd of {len(own)}", *cells])
    return table(["who", "seed", *(f"{split} {metric}" for split, metric in columns)], rows)


def comparison(kept: Path, seeds: Sequence[int], split: str) -> str:
    """The command that says whether textune's runs are better or worse than the reference's."""
    reference, own = (
        ",".join(str(_folder(kept, who, seed) / file) for seed in seeds)
        for who, file in ((TRAINER, f"{split}.jsonl"), (TEXTUNE, ""))
    )
    return f"textune compare {TRAINER}={reference} {TEXTUNE}={own} --split {split}"


if __name__ == "__main__":
    main()
