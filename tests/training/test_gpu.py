"""What trains and predicts on an NVIDIA GPU, beside the same on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textune.display import Display
from textune.errors import Interrupted
from textune.finetune import train
from textune.run import Run
from textune.serving.predictor import Predictor
from textune.training.callbacks import Callback
from textune.training.state import TrainingState

pytestmark = pytest.mark.gpu

STEPS = 30
Begin = Callable[..., Run]
PRECISIONS = {"fp32": 0.01, "bf16": 0.05, "fp16": 0.03}
"""And how far a loss in it may be from that of the CPU in fp32."""


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    if request.param == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("bf16 needs an Ampere GPU or a newer one")
    return str(request.param)


@pytest.fixture
def begin(tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path) -> Begin:
    """Trains for some epochs, in which the loss falls to nearly nothing; logs each step."""

    def call(
        name: str,
        *,
        device: str = "cuda",
        precision: str = "fp32",
        dropout: float = 0.0,
        callbacks: tuple[Callback, ...] = (),
        **settings: Any,
    ) -> Run:
        values = {
            "training.device": device,
            "training.log_every": "1step",
            "model.dropout": dropout,
            "evaluation.every": "10steps",
            "checkpoint.every": "10steps",
            **settings,
        }
        return train(
            str(tiny_csv),
            model=str(tiny_checkpoint),
            output=str(tmp_path / name),
            duration=f"{STEPS}steps",
            precision=precision,
            learning_rate=1e-2,
            warmup="20%",
            settings=values,
            callbacks=callbacks,
            display=Display(),
        )

    return call


class InterruptAt(Callback):
    """As a SIGTERM in this step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: TrainingState) -> None:
        if state.step == self.step:
            state.requests.interrupt = 15


def logged(run: Run, name: str) -> list[float | None]:
    return [record[name] for record in run.metrics if record["kind"] == "training"]


def leave_out(updates: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the next training do without these updates, counted from 1."""
    numbers, update = itertools.count(1), torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda *arguments: None if next(numbers) in updates else update(*arguments)
    )


@pytest.mark.parametrize("unpadded", [True, False], ids=["unpadded", "padded"])
def test_losses_are_those_of_the_cpu(
    begin: Begin, precision: str, unpadded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin("gpu", precision=precision, **{"engine.unpadded": unpadded})
    losses = logged(run, "loss")
    overflowed = {step for step, norm in enumerate(logged(run, "grad_norm"), start=1) if norm is None}
    assert not overflowed or precision == "fp16"
    leave_out(overflowed, monkeypatch)
    on_cpu = begin("cpu", device="cpu")
    assert losses == pytest.approx(logged(on_cpu, "loss"), abs=PRECISIONS[precision])
    assert len(losses) == STEPS
    assert run.environment["device"].startswith("cuda")
    assert run.environment["arithmetic"]["precision"] == precision
    assert run.summary["training"]["peak_memory_mib"] > 0


def test_interrupted_and_resumed_it_ends_with_the_same_bits(begin: Begin, precision: str, tmp_path: Path) -> None:
    """With dropout. By torch's deterministic kernels: others may add in another order each time."""
    torch.use_deterministic_algorithms(True)
    whole = begin("whole", precision=precision, dropout=0.1)
    with pytest.raises(Interrupted):
        begin("cut", precision=precision, dropout=0.1, callbacks=(InterruptAt(13),))
    run = train(resume=tmp_path / "cut", display=Display())
    assert [entry["step"] for entry in run.environment["resumed"]] == [13]
    assert logged(run, "loss") == logged(whole, "loss")
    for name in ("model/model.safetensors", f"checkpoints/step-{STEPS}/optimizer.safetensors"):
        expected = load_file(whole.path / name)
        found = load_file(run.path / name)
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == [], name
    assert run.predictions("validation").equals(whole.predictions("validation"))


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.03)], indirect=["precision"])
def test_scores_are_those_of_the_cpu(text_run: Run, precision: str, most: float) -> None:
    texts = ["the film was good .", "a room", "we saw the very dull garden and left it today"]
    for some in (texts, texts[:1]):  # several texts, and one alone, for which attention is another
        scores = [
            [prediction.scores for prediction in Predictor.load(text_run, device=device, **options).predict(some)]
            for device, options in (("cpu", {}), ("cuda", {"precision": precision}))
        ]
        on_cpu, on_gpu = (np.array([[*row.values()] for row in part]) for part in scores)
        assert np.abs(on_cpu - on_gpu).max() < most
