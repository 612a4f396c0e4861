"""One training, timed from the end of its warm-up to its last step; without reading, evaluating and saving.

`benchmarks.measuring.ask` runs it in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import KNOWN, Training, script_of
from benchmarks.measuring import EnoughError, answer, product_rate, share_of_rate
from textune.display import Display
from textune.environment import peak_memory_mib
from textune.training.callbacks import Callback
from textune.training.precision import wait_for
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Steady:
    """What to time.

    Attributes:
        training: fields of `Training`; its `duration` is set here.
        warmup_steps: steps before the clock starts.
        steps: steps on the clock.
        layer_parameters: see `benchmarks.material.layer_parameters`.
        losses: log the loss of every step, and do not time anything.
    """

    training: dict[str, Any]
    warmup_steps: int
    steps: int
    layer_parameters: int = 0
    losses: bool = False


class Clock:
    """Reads time, examples and real tokens at the end of the warm-up and at the end of the last step."""

    def __init__(self, *, warmup_steps: int, steps: int, device: torch.device) -> None:
        self._first, self._last = warmup_steps, warmup_steps + steps
        self._device = device
        self._readings: list[tuple[float, int, int]] = []
        self.peak_memory_mib = 0.0

    def step(self, number: int, *, rows: int, tokens: int) -> bool:
        """Tells it that so many steps are done, with so many examples and tokens; returns whether that was all."""
        if number == 0 and self._device.type == "cuda":
            import torch

            # The probe of the arithmetic, which only some make, took memory of its own.
            torch.cuda.reset_peak_memory_stats(self._device)
        if number in {self._first, self._last}:
            wait_for(self._device)
            self._readings.append((time.perf_counter(), rows, tokens))
        if number == self._last:
            self.peak_memory_mib = peak_memory_mib(self._device)
        return number >= self._last

    def result(self) -> dict[str, Any]:
        begin, end = self._readings
        seconds, rows, tokens = (b - a for a, b in zip(begin, end, strict=True))
        return {
            "seconds": seconds,
            "rows": rows,
            "tokens": tokens,
            "samples_per_second": rows / seconds,
            "tokens_per_second": tokens / seconds,
            "peak_memory_mib": self.peak_memory_mib,
        }


def measure_training(steady: Steady) -> dict[str, Any]:
    """Trains and returns the clock's result, what was measured of the machine, and what the contestant said."""
    import torch

    from textune.environment import find_device
    from textune.training.precision import measure

    training = Training(**{**steady.training, "duration": steady.warmup_steps + steady.steps})
    torch.set_num_threads(training.threads)
    device = find_device(training.device)
    if steady.losses:
        return {"who": training.who, "losses": losses_of(training)}
    clock = Clock(warmup_steps=steady.warmup_steps, steps=steady.steps, device=device)
    own = KNOWN[training.who].library is None
    details = (time_textune if own else time_script)(training, clock)
    result = clock.result()
    measurements = measure(device)  # behind training, whose first product settles how much oneDNN keeps
    gflops = product_rate(measurements, details["precision"])
    share = share_of_rate(
        parameters=steady.layer_parameters, tokens=result["tokens"], seconds=result["seconds"], gflops=gflops
    )
    return {
        "who": training.who,
        **result,
        "share_of_rate": share,
        "product_gflops": gflops,
        **details,
        "measurements": [item.as_json() for item in measurements],
    }


class _Timing(Callback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, state: TrainingState) -> None:
        self._clock.step(0, rows=0, tokens=0)

    def on_step(self, state: TrainingState) -> None:
        if self._clock.step(state.step, rows=state.examples, tokens=state.tokens):
            raise EnoughError


def time_textune(training: Training, clock: Clock) -> dict[str, Any]:
    """`textune.train`; returns the precision that it chose and how its engine computes."""
    import textune

    length, run = f"{training.duration:g}steps", Path(training.work, "run")
    with contextlib.suppress(EnoughError):
        textune.train(
            training.data,
            model=training.checkpoint,
            output=str(run),
            duration=length,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            seed=training.seed,
            precision=KNOWN[training.who].precision,
            settings={
                "training.threads": training.threads,
                "training.device": training.device,
                # Not before the end, which is not reached.
                "evaluation.every": length,
                "checkpoint.every": length,
                **KNOWN[training.who].settings,
            },
            callbacks=[_Timing(clock)],
            display=Display(),
        )
    chosen = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return {
        "precision": chosen["arithmetic"]["precision"],
        "notes": [chosen["arithmetic"]["reason"], *chosen["engine"]],
    }


def time_script(training: Training, clock: Clock) -> dict[str, Any]:
    """The script of a Trainer; its batches are counted where they are made, which costs it nothing."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, TrainerCallback

    of_transformers = KNOWN[training.who].library == "transformers"
    padded = DataCollatorWithPadding(AutoTokenizer.from_pretrained(training.checkpoint))
    batches = [(0, 0)]  # examples and tokens up to each step; batches may be made ahead of their step

    def counted(rows: list[dict[str, Any]]) -> Any:
        examples, tokens = batches[-1]
        batches.append((examples + len(rows), tokens + sum(len(row["input_ids"]) for row in rows)))
        return padded(rows)

    class Timing(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            clock.step(0, rows=0, tokens=0)

        def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            done = state.global_step
            if of_transformers:
                rows, tokens = batches[done]
            else:
                rows = examples_after(done, num_rows=num_rows, batch_size=training.batch_size)
                tokens = state.num_input_tokens_seen
            clock.step(done, rows=rows, tokens=tokens)

    # textune's takes its quick path with the collator that it knows, and counts tokens without being slowed down.
    special = {"collate": counted} if of_transformers else {"include_num_input_tokens_seen": "non_padding"}
    trainer, rows = script_of(training, callbacks=[Timing()], save_strategy="no", **special)
    num_rows = len(rows["train"])
    trainer.train()
    path = getattr(trainer, "training_path", None)
    return {"precision": KNOWN[training.who].precision, "notes": [f"path: {path}"] if path else []}


def examples_after(steps: int, *, num_rows: int, batch_size: int) -> int:
    """Examples in so many steps; the last batch of an epoch may be smaller."""
    epochs, rest = divmod(steps, -(-num_rows // batch_size))
    return epochs * num_rows + min(rest * batch_size, num_rows)


def losses_of(training: Training) -> list[float]:
    """The loss of every step, without dropout."""
    training = dataclasses.replace(training, dropout=False)
    trainer, _ = script_of(training, save_strategy="no", logging_steps=1)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    answer(Steady, measure_training)
