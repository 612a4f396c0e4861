"""Scores of textune and transformers.Trainer on a GLUE task with the same defaults, several seeds each.

    python -m benchmarks.quality --task mrpc [--local-copy FOLDER] [--seeds 42 1 2 3 4] [--fp32] [--output FILE]
                                 [--keep RUNS]

Each run is a process of its own; textune runs through its command. FOLDER is as for `textune train --local-copy`.
Prints a table with mean and standard deviation and writes every figure to --output (JSON). Runs that FILE already
holds are not repeated. RUNS/textune/seed-N is then textune's run and RUNS/transformers.Trainer/seed-N holds the other's
predictions, for `textune compare`; the command is printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from textune.data.glue import GLUE_TASKS

SPLITS = ("validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(GLUE_TASKS), required=True)
    parser.add_argument("--local-copy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2, 3, 4])
    parser.add_argument("--fp32", action="store_true", help="both in fp32; otherwise both in bf16")
    parser.add_argument("--threads", type=int, help="CPU threads of each run")
    parser.add_argument("--who", choices=list(PROGRAMS), nargs="+", default=list(PROGRAMS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", type=Path, metavar="RUNS", help="where the runs are kept; nowhere when not given")
    arguments = parser.parse_args()
    precision = "fp32" if arguments.fp32 else "bf16"
    output = arguments.output or Path(
        "benchmarks", "results", f"{date.today()}-quality-{arguments.task}-{precision}.json"
    )
    results: dict[str, Any] = (
        json.loads(output.read_text()) if output.exists() else {"about": about(arguments.task), "runs": []}
    )
    done = {(run["who"], run["seed"]) for run in results["runs"]}
    data = ["--local-copy", arguments.local_copy] if arguments.local_copy else []
    with tempfile.TemporaryDirectory() as temporary:
        kept = arguments.keep or Path(temporary)
        for seed in arguments.seeds:
            for who in arguments.who:
                if (who, seed) not in done:
                    folder = kept / who / f"seed-{seed}"
                    result = PROGRAMS[who](arguments.task, data, seed, precision, arguments.threads, folder)
                    results["runs"].append(result)
                    output.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results["runs"]))
    if arguments.keep is not None and len(arguments.who) > 1:
        print("\n" + comparison(arguments.keep, arguments.seeds))


def about(task: str) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    packages = {name: importlib.metadata.version(name) for name in ("textune", "torch", "transformers")}
    return {"data": task, "date": str(date.today()), "python": platform.python_version(), **packages}


def run_textune(
    task: str, data: list[str], seed: int, precision: str, threads: int | None, folder: Path
) -> dict[str, Any]:
    """One run of the command into `folder`; `--select last` as the Trainer does."""
    command = [sys.executable, "-m", "textune", "train", "--data", f"glue/{task}", *data, "--model", "starter"]
    command += ["--seed", str(seed), "--precision", precision, "--select", "last", "--quiet", "--json"]
    command += ["--set", f"training.threads={threads}"] if threads else []
    command += ["--output", str(folder)]
    summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    metrics = GLUE_TASKS[task].metrics
    return {
        "who": "textune",
        "seed": seed,
        "precision": precision,
        **{split: {name: summary[split][name]["value"] for name in metrics} for split in SPLITS if split in summary},
        "training_seconds": summary["training"]["seconds"],
    }


def run_trainer(
    task: str, data: list[str], seed: int, precision: str, threads: int | None, folder: Path
) -> dict[str, Any]:
    """One run of the reference, its predictions into `folder`."""
    command = [sys.executable, "-m", "benchmarks.reference_trainer", "--task", task, *data, "--seed", str(seed)]
    command += ["--predictions", str(folder)]
    command += ["--bf16"] if precision == "bf16" else []
    command += ["--threads", str(threads)] if threads else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


PROGRAMS = {"textune": run_textune, "transformers.Trainer": run_trainer}


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: every run, then mean and standard deviation per program, in percent."""
    columns = [(split, metric) for split in SPLITS for metric in runs[0].get(split, ())]
    lines = ["| who | seed | " + " | ".join(f"{split} {metric}" for split, metric in columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    for who in dict.fromkeys(run["who"] for run in runs):
        own = [run for run in runs if run["who"] == who]
        for run in own:
            cells = " | ".join(f"{100 * run[split][metric]:.1f}" for split, metric in columns)
            lines.append(f"| {who} | {run['seed']} | {cells} |")
        if len(own) > 1:
            values = [[100 * run[split][metric] for run in own] for split, metric in columns]
            cells = " | ".join(f"**{statistics.mean(v):.1f}** ± {statistics.stdev(v):.1f}" for v in values)
            lines.append(f"| {who} | mean ± sd of {len(own)} | {cells} |")
    return "\n".join(lines)


def comparison(kept: Path, seeds: list[int], split: str = SPLITS[0]) -> str:
    """The command that says whether textune's runs are better or worse than the reference's."""
    reference, own = (
        ",".join(str(kept / who / f"seed-{seed}" / file) for seed in seeds)
        for who, file in (("transformers.Trainer", f"{split}.jsonl"), ("textune", ""))
    )
    return f"textune compare transformers.Trainer={reference} textune={own} --split {split}"


if __name__ == "__main__":
    main()
