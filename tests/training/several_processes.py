"""What each process does in test_parallel.py: `several_processes.py FOLDER` writes RANK.json and RANK.npz there."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.training.engine import NEVER, Recorder, make_setup, random_rows, tiny_model, weights
from textune.config import TrainingConfig
from textune.data.tokens import Examples, TokenRows
from textune.errors import ConfigError, Interrupted
from textune.training.callbacks import Callback, Record
from textune.training.checkpoint import committed
from textune.training.loop import train
from textune.training.parallel import ALONE, Processes, connect, join
from textune.training.setup import Intervals, Setup
from textune.training.state import TrainingState


class SeenRows(TokenRows):
    """Remembers which rows were taken."""

    def __init__(self, rows: TokenRows) -> None:
        self.__dict__.update(rows.__dict__)
        self.seen: list[int] = []

    def take(self, rows: Any) -> Examples:
        self.seen += [int(row) for row in rows]
        return super().take(rows)


class StopsInOneProcess(Callback):
    """The second process wants a checkpoint after the first step and no more after the second."""

    def __init__(self, processes: Processes) -> None:
        self.rank = processes.rank

    def on_step(self, state: TrainingState) -> None:
        if self.rank == 1:
            state.requests.save = state.step == 1
            state.stop_reason = "process 1 asked for it" if state.step == 2 else None


class HearsInOneProcess(Callback):
    """A signal reaches the second process alone, after the first step."""

    def __init__(self, processes: Processes) -> None:
        self.rank = processes.rank

    def on_step(self, state: TrainingState) -> None:
        state.requests.interrupt = 15 if self.rank == 1 and state.step == 1 else 0


def uneven(folder: Path, processes: Processes = ALONE, *, batch_size: int = 8, accumulation: int = 1) -> Setup:
    """Nineteen rows, eight in a step: the third step has three."""
    setup = make_setup(
        folder,
        model=tiny_model(num_labels=3),
        rows=random_rows(19, num_labels=3),
        batch_size=batch_size,
        accumulation=accumulation,
        steps=6,
        config=TrainingConfig(learning_rate=1e-3, max_grad_norm=0.5),
        intervals=Intervals(log=1, evaluation=NEVER, checkpoint=3),
    )
    plan = dataclasses.replace(setup.work.plan, accumulation=accumulation * processes.world_size)  # type: ignore[attr-defined]
    work: Any = setup.work
    work = dataclasses.replace(work, processes=processes, plan=plan, tokens=SeenRows(work.tokens))
    return dataclasses.replace(setup, work=work, processes=processes)


def trained(setup: Setup, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    recorder = Recorder()
    state = train(setup, callbacks=[recorder])
    work: Any = setup.work
    found = {
        "steps": state.step,
        "examples": state.examples,
        "tokens": state.tokens,
        "losses": [record["loss"] for record in recorder.logs],
        "norms": [record["grad_norm"] for record in recorder.logs],
        "seen": work.tokens.seen,
    }
    return found, {f"{name}/{key}": value.numpy() for key, value in weights(setup.model).items()}


def messages(processes: Processes) -> dict[str, Any]:
    """What the processes tell each other."""
    rank = processes.rank
    value = (np.arange(3 + rank, dtype=np.int16), {"name": f"ü{rank}", "none": None}, [np.zeros((0, 2)), 1.5], True)
    gathered = processes.gather(value)
    assert [list(item[0]) for item in gathered] == [[0, 1, 2], [0, 1, 2, 3]]
    assert gathered[1][0].dtype == np.int16 and gathered[0][2][0].shape == (0, 2)
    assert [item[1] for item in gathered] == [{"name": "ü0", "none": None}, {"name": "ü1", "none": None}]
    assert isinstance(gathered[0], tuple) and gathered[0][3] is True
    for length in (0, 1, 5, 6):
        assert processes.gather_shared(processes.share(list(range(length)))) == list(range(length))
    assert processes.sum([rank, 2]) == [1, 4] and processes.largest(rank) == 1
    assert processes.from_main(lambda: {"rank": rank}) == {"rank": 0}
    assert join() is processes
    try:
        processes.require_same(["same", rank], what="rows")
    except ConfigError as error:
        return {"different": error.message}
    raise AssertionError("the processes see different rows")


def gradients(processes: Processes) -> list[Any]:
    """Of four parameters one has a gradient in both processes, one in each alone, one in none."""
    parameters = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(4)]
    for number in {0, 1 + processes.rank}:
        parameters[number].grad = torch.full((2,), 1.0 + processes.rank, dtype=torch.float64)
    loss = processes.sum_gradients(parameters, 0.5)
    assert all(item.grad is None or item.grad.dtype == torch.float64 for item in parameters)
    return [loss, *(None if item.grad is None else item.grad.tolist() for item in parameters)]


class Trouble(Callback):
    """In one process alone: no memory for more than two rows, and a loss that is not finite in the second step."""

    def __init__(self, setup: Setup, processes: Processes) -> None:
        work: Any = setup.work
        self.work, self.step, self.rank = work, 0, processes.rank
        self.heard: list[Any] = []
        engine = dataclasses.replace(work.engine, forward=self.forward)
        self.setup = dataclasses.replace(setup, work=dataclasses.replace(work, engine=engine), skip_bad_steps=1)

    def forward(self, examples: Examples) -> torch.Tensor:
        if self.rank == 1 and len(examples) > 2:
            raise torch.OutOfMemoryError("in process 1 alone")
        logits = self.work.engine.forward(examples)
        return logits * torch.nan if self.rank == 1 and self.step == 2 else logits

    def on_step_begin(self, state: TrainingState) -> None:
        self.step = state.step + 1

    def on_skip(self, state: TrainingState, record: Record) -> None:
        self.heard.append([record["step"], len(record["ids"])])

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        self.heard.append([record["step"], record["micro_batch_size"]])


def main(folder: Path) -> None:
    with connect() as processes:
        torch.set_num_threads(1)
        report = messages(processes) | {"gradients": gradients(processes)}
        with processes.main_first():
            file = folder / "main-was-here"
            report["found"] = file.exists()
            file.touch()
        arrays: dict[str, np.ndarray] = {}
        for name, batch_size, accumulation in (("2x4", 4, 1), ("2x2x2", 2, 2)):
            setup = uneven(folder / name, processes, batch_size=batch_size, accumulation=accumulation)
            if processes.rank == 1:  # what a script made different
                torch.nn.init.zeros_(setup.model.classifier.weight)  # type: ignore[union-attr, arg-type]
            processes.share_weights(setup.model)
            report[name], found = trained(setup, name)
            arrays |= found
        trouble = Trouble(uneven(folder / "trouble", processes, batch_size=4), processes)
        state = train(trouble.setup, callbacks=[trouble])
        report["trouble"] = [state.step, state.skipped_steps, state.micro_batch_size, trouble.heard]
        arrays |= {f"trouble/{key}": value.numpy() for key, value in weights(trouble.setup.model).items()}
        stopped = uneven(folder / "stopped", processes, batch_size=4)
        state = train(stopped, callbacks=[StopsInOneProcess(processes)])
        report["stopped"] = [state.step, state.stop_reason]
        signalled = dataclasses.replace(uneven(folder / "signalled", processes, batch_size=4), evaluate=None)
        try:
            train(signalled, callbacks=[HearsInOneProcess(processes)])
        except Interrupted as error:
            report["signalled"] = [error.message, error.exit_code, committed(signalled.checkpoints)]
        (folder / f"{processes.rank}.json").write_text(json.dumps(report))
        np.savez(folder / f"{processes.rank}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
