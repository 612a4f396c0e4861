"""textune's Trainer beside transformers.Trainer, step by step, on the starter: dropout 0, same seed, same rows.

    python -m benchmarks.parity [--task mrpc] [--local-copy FOLDER] [--steps 50] [--bf16] [--output FILE]

Both run the same script, each in a process of its own. FOLDER is as for `textune train --local-copy`. Prints the
largest difference of the losses and of the weights, absolute and relative, and writes them to --output (JSON) with
every loss. Needs: pip install accelerate.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Results, answer, ask, largest, largest_relative_difference, machine, parser
from benchmarks.reference_trainer import glue_trainer
from textune.data.glue import GLUE_TASKS

PROGRAMS = ("textune", "transformers.Trainer")


@dataclass(frozen=True)
class Script:
    """What one of them runs.

    Attributes:
        who: of `PROGRAMS`.
        weights: file for the weights at the end and, as `moved.NAME`, by how much training moved each.
    """

    who: str
    weights: str
    task: str
    local_copy: str | None
    steps: int
    seed: int
    bf16: bool
    threads: int


def main(options: Sequence[str] | None = None) -> None:
    made = parser(__doc__, rounds=None)
    tasks = [name for name, task in GLUE_TASKS.items() if "train" in task.splits]
    made.add_argument("--task", choices=tasks, default="mrpc")
    made.add_argument("--local-copy")
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--bf16", action="store_true", help="both in bf16; otherwise both in fp32")
    arguments = made.parse_args(options)
    precision = "bf16" if arguments.bf16 else "fp32"
    results = Results(f"parity-{arguments.task}-{precision}", arguments, machine(threads=arguments.threads))
    same = {name: getattr(arguments, name) for name in ("task", "local_copy", "steps", "seed", "bf16", "threads")}
    with tempfile.TemporaryDirectory() as folder:
        weights = {who: Path(folder, f"{who}.safetensors") for who in PROGRAMS}
        losses = {}
        for who in PROGRAMS:
            script = Script(who=who, weights=str(weights[who]), **same)
            told = ask("benchmarks.parity", script, threads=arguments.threads, cache=Path(folder, "cache"))
            losses[who] = told["losses"]
        apart = compare(*weights.values())
    relative = largest_relative_difference(*losses.values())
    results.write(loss={"relative": relative}, weights=apart, losses=losses)
    print(f"{arguments.steps} steps of {arguments.task} in {precision}, textune beside transformers.Trainer:")
    print(f"losses:  largest relative difference {relative:.1e}")
    print(f"weights: largest difference {apart['absolute']:.1e}, in {apart['where']}")
    print(f"         norm of all differences over norm of all weights {apart['relative']:.1e}")
    print(f"         training moved weights by up to {apart['moved']:.1e}")
    print(f"\nwritten to {results.path}")


def train(script: Script) -> dict[str, Any]:
    """The script that both run; only the Trainer is another. Returns the loss of every step."""
    import transformers
    from safetensors.torch import save_file

    from textune import compat

    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = glue_trainer(
            compat if script.who == "textune" else transformers,
            script.task,
            local_copy=script.local_copy,
            threads=script.threads,
            seed=script.seed,
            dropout=False,
            output_dir=folder,
            bf16=script.bf16,
            logging_steps=1,
            max_steps=script.steps,
        )
        before = {name: value.cpu().clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
    after = {name: value.cpu().contiguous() for name, value in trainer.model.state_dict().items()}
    save_file(after | {f"moved.{name}": after[name] - before[name] for name in after}, script.weights)
    return {"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}


def compare(ours: Path, theirs: Path) -> dict[str, Any]:
    """The largest differences between the weights of two runs."""
    from safetensors.torch import load_file

    found, expected = load_file(ours), load_file(theirs)
    names = [name for name in expected if not name.startswith("moved.")]
    differences = {name: found[name].double() - expected[name].double() for name in names}
    absolute = {name: float(value.abs().max()) for name, value in differences.items()}
    size, difference = (
        math.sqrt(sum(float(tensors[name].double().square().sum()) for name in names))
        for tensors in (expected, differences)
    )
    where = max(absolute, key=lambda name: (math.isnan(absolute[name]), absolute[name]))
    return {
        "absolute": absolute[where],
        "where": where,
        "relative": difference / size,
        "moved": largest(float(expected[f"moved.{name}"].abs().max()) for name in names),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        answer(Script, train)
    else:
        main()
