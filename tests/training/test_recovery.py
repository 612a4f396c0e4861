"""Bad numbers and missing memory, injected at each place: what was not applied is as if it had never been computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textune.config import TrainingConfig
from textune.data.batching import shaped_plan
from textune.data.tokens import Examples
from textune.errors import OutOfMemoryError, TrainingError
from textune.models.losses import Loss
from textune.training.callbacks import Callback, Record
from textune.training.checkpoint import model_tensors
from textune.training.loop import train
from textune.training.precision import Arithmetic
from textune.training.recovery import require_finite_weights
from textune.training.setup import Intervals, Setup
from textune.training.state import TrainingState
from textune.training.work import TextWork

from .engine import FP32, NEVER, Recorder, make_setup, random_rows, tiny_model, weights

BF16 = Arithmetic("bf16", "fp32-blas", "for tests", ())
CONFIG = TrainingConfig(learning_rate=1e-3, weight_decay=0.1)


def small(folder: Path, *, arithmetic: Arithmetic = FP32, checkpoint: int = NEVER, **options: Any) -> Setup:
    """Five steps with dropout and weight decay; three make an epoch, the last of which has four rows."""
    return make_setup(
        folder,
        model=tiny_model(dropout=0.2),
        rows=random_rows(20),
        steps=5,
        config=CONFIG,
        arithmetic=arithmetic,
        intervals=Intervals(log=1, evaluation=NEVER, checkpoint=checkpoint),
        **options,
    )


def everything(setup: Setup) -> dict[str, torch.Tensor]:
    """A copy of weights and moments."""
    found = {f"weight {name}": tensor.clone() for name, tensor in model_tensors(setup.model).items()}
    for number, state in enumerate(setup.optimizer.state.values()):
        found |= {f"{name} {number}": value.clone() for name, value in state.items()}
    return found


def assert_equal_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


class Watch(Recorder):
    """Knows the running step, and what went wrong in which."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.skips: list[Record] = []
        self.shortages: list[Record] = []

    def on_step_begin(self, state: TrainingState) -> None:
        self.running = state.step + 1

    def on_skip(self, state: TrainingState, record: Record) -> None:
        self.skips.append(record)

    def on_out_of_memory(self, state: TrainingState, record: Record) -> None:
        self.shortages.append(record)


# ---- Numbers ----


def spoil(setup: Setup, where: str, value: float, wrong: Callable[[], bool]) -> Setup:
    """Makes the loss or the gradient alone this value whenever `wrong` says so."""

    class Spoilt(Loss):
        def sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if wrong() and where == "gradient":
                logits.register_hook(lambda gradient: gradient * value)
            loss = super().sum(logits, labels)
            return loss + value if wrong() and where == "loss" else loss

    work = setup.work
    assert isinstance(work, TextWork)
    return dataclasses.replace(setup, work=dataclasses.replace(work, loss=Spoilt("single_label_classification")))


SPOILT = [("loss", math.nan), ("loss", math.inf), ("gradient", math.nan), ("gradient", math.inf)]


@pytest.mark.parametrize(("where", "value"), SPOILT)
@pytest.mark.parametrize("arithmetic", [FP32, BF16], ids=["fp32", "bf16"])
def test_a_number_that_is_not_finite_is_never_applied_nor_saved(
    tmp_path: Path, where: str, value: float, arithmetic: Arithmetic
) -> None:
    before = [everything(small(tmp_path / "none", arithmetic=arithmetic))]

    class Copy(Callback):
        def on_update(self, state: TrainingState) -> None:
            undisturbed.work.settle()
            before.append(everything(undisturbed))

    undisturbed = small(tmp_path / "undisturbed", arithmetic=arithmetic)
    train(undisturbed, callbacks=[Copy()])
    for step in range(1, 6):
        watch = Watch()
        setup = small(tmp_path / str(step), arithmetic=arithmetic, checkpoint=1)
        setup = spoil(setup, where, value, lambda watch=watch, step=step: watch.running == step)  # type: ignore[misc]
        with pytest.raises(TrainingError) as caught:
            train(setup, callbacks=[watch])
        setup.work.settle()
        assert_equal_bits(everything(setup), before[step - 1])
        assert caught.value.message.startswith(f"Step {step} gave a {where}{' norm' if where == 'gradient' else ''} ")
        assert f"the weights are those of step {step - 1}. The batch held rows " in caught.value.message
        assert "--skip-bad-steps" in str(caught.value.hint)
        for file in setup.checkpoints.rglob("*.safetensors"):
            assert all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())


@pytest.mark.parametrize(("where", "value"), SPOILT)
@pytest.mark.parametrize("arithmetic", [FP32, BF16], ids=["fp32", "bf16"])
def test_a_step_that_is_left_out_changes_nothing(
    tmp_path: Path, where: str, value: float, arithmetic: Arithmetic
) -> None:
    watch, other = Watch(), Watch()
    setup = dataclasses.replace(small(tmp_path / "spoilt", arithmetic=arithmetic), skip_bad_steps=2)
    setup = spoil(setup, where, value, lambda: watch.running in (2, 4))
    state = train(setup, callbacks=[watch])

    reference = small(tmp_path / "reference", arithmetic=arithmetic)
    update = reference.optimizer.step
    reference.optimizer.step = lambda: None if other.running in (2, 4) else update()  # type: ignore[assignment, method-assign, func-returns-value]
    train(reference, callbacks=[other])
    assert_equal_bits(everything(setup), everything(reference))

    assert (state.step, state.skipped_steps, state.examples) == (5, 2, 36)
    assert [record["step"] for record in watch.logs] == [1, 3, 5], "no record has a loss that is not finite"
    assert [record["loss"] for record in watch.logs] == [other.logs[number]["loss"] for number in (0, 2, 4)]
    first = watch.skips[0]
    rows = np.concatenate(list(setup.work.steps(0))[1].passes)
    assert (first["step"], first["epoch"]) == (2, 0.6667)
    assert first["reason"].startswith({"loss": f"loss {value}", "gradient": "gradient norm "}[where])
    assert first["row_numbers"] == [row + 1 for row in rows]
    assert first["ids"] == [f"row-{row + 1}" for row in rows]


def test_the_loss_of_several_steps_leaves_a_bad_one_out(tmp_path: Path) -> None:
    watch = Watch()
    setup = dataclasses.replace(small(tmp_path), skip_bad_steps=1, intervals=Intervals(3, NEVER, NEVER))
    plain = Watch()
    train(dataclasses.replace(small(tmp_path), intervals=Intervals(1, NEVER, NEVER)), callbacks=[plain])
    state = train(spoil(setup, "loss", math.nan, lambda: watch.running == 3), callbacks=[watch])
    expected = (plain.logs[0]["loss"] + plain.logs[1]["loss"]) / 2  # of eight rows each
    assert watch.logs[0]["loss"] == pytest.approx(expected)
    assert state.loss is not None and math.isfinite(state.loss)


def test_more_bad_steps_than_allowed_end_training(tmp_path: Path) -> None:
    watch = Watch()
    setup = dataclasses.replace(small(tmp_path, checkpoint=1), skip_bad_steps=2)
    with pytest.raises(TrainingError) as caught:
        train(spoil(setup, "loss", math.nan, lambda: watch.running >= 2), callbacks=[watch])
    assert caught.value.message.startswith(
        "Step 4 gave a loss nan; it was not applied, the weights are those of step 3. 2 bad steps were left out "
        "before, and --skip-bad-steps allows no more. The batch held rows "
    )
    assert len(watch.skips) == 2


def test_bad_steps_are_counted_over_an_interruption(tmp_path: Path) -> None:
    watch = Watch()
    setup = dataclasses.replace(small(tmp_path), skip_bad_steps=2)
    state = TrainingState(**TrainingState(total_steps=5, skipped_steps=2).as_json())
    with pytest.raises(TrainingError, match=r"Step 1 gave a loss nan.* 2 bad steps were left out before"):
        train(spoil(setup, "loss", math.nan, lambda: True), callbacks=[watch], state=state)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_saved_is_finite(tmp_path: Path, value: float) -> None:
    setup = small(tmp_path)
    with torch.no_grad():
        setup.model.classifier.bias[0] = 1e38  # type: ignore[union-attr, index, operator]
    require_finite_weights(setup.model, setup.optimizer)
    moment = next(iter(setup.optimizer.state.values()))["exp_avg"]
    moment.view(-1)[0] = value
    with pytest.raises(TrainingError, match="An update made moments of the optimiser something else than finite"):
        require_finite_weights(setup.model, setup.optimizer)
    moment.zero_()
    with torch.no_grad():
        setup.model.classifier.bias[1] = value  # type: ignore[union-attr, index, operator]
    with pytest.raises(TrainingError, match=r"made weight 'classifier\.bias' something else"):
        require_finite_weights(setup.model, setup.optimizer)


def test_weights_that_overflowed_are_not_saved(tmp_path: Path) -> None:
    setup = small(tmp_path, checkpoint=1)

    class Overflow(Callback):
        def on_update(self, state: TrainingState) -> None:
            if state.step == 2:
                with torch.no_grad():
                    setup.model.classifier.bias[0] = math.inf  # type: ignore[union-attr, index, operator]

    with pytest.raises(TrainingError, match=r"weight 'classifier\.bias'"):
        train(setup, callbacks=[Overflow()])
    assert sorted(path.name for path in setup.checkpoints.iterdir()) == ["step-1", "step-2"]


# ---- Memory ----

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


class Shortage:
    """Raises an error in a phase of passes with more than `limit` rows."""

    def __init__(self, setup: Setup, phase: str, limit: int, error: Exception = ERRORS[0]) -> None:
        self.phase, self.limit, self.error = phase, limit, error
        self.rows, self.failures = 0, 0
        work = setup.work
        assert isinstance(work, TextWork)
        self._forward = work.engine.forward
        engine = dataclasses.replace(work.engine, forward=self.forward)
        self.setup = dataclasses.replace(setup, work=dataclasses.replace(work, engine=engine))
        layer: Any = setup.model.get_submodule("bert.encoder.layer.0")
        layer.register_forward_hook(self._watch_backward)
        setup.optimizer.register_step_pre_hook(lambda *_: self._fail_in("step"))

    def _fail_in(self, phase: str) -> None:
        if phase == self.phase and self.rows > self.limit:
            self.failures += 1
            raise self.error

    def _watch_backward(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        # By then the layers above have their gradients.
        if output.requires_grad:
            output.register_hook(lambda _: self._fail_in("backward"))

    def forward(self, examples: Examples) -> torch.Tensor:
        self.rows = len(examples.input_ids)
        logits = self._forward(examples)
        self._fail_in("forward")
        return logits


@pytest.mark.parametrize("phase", ["forward", "backward", "step"])
@pytest.mark.parametrize("arithmetic", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("limit", [4, 3, 1])
def test_smaller_passes_give_the_bits_of_a_run_that_began_with_them(
    tmp_path: Path, phase: str, arithmetic: Arithmetic, limit: int
) -> None:
    rows = {4: 4, 3: 2, 1: 1}[limit]
    watch, other = Watch(), Watch()
    short = Shortage(small(tmp_path / "short", arithmetic=arithmetic), phase, limit)
    state = train(short.setup, callbacks=[watch])
    reference = small(tmp_path / "reference", arithmetic=arithmetic, batch_size=rows, accumulation=8 // rows)
    expected = train(reference, callbacks=[other])
    assert_equal_bits(everything(short.setup), everything(reference))
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [record[name] for record in watch.logs] == [record[name] for record in other.logs]
    assert (state.step, state.examples, state.tokens) == (expected.step, expected.examples, expected.tokens)

    assert state.as_json()["micro_batch_size"] == rows
    halvings = [size for size in (4, 2, 1) if size >= rows]
    assert [record["micro_batch_size"] for record in watch.shortages] == halvings
    assert short.failures == len(halvings), "once found, the size is kept"
    place = "while the weights were updated" if phase == "step" else "in a forward or backward pass"
    assert watch.shortages[0] == {"step": 1, "epoch": 0.3333, "phase": place, "micro_batch_size": 4}


def test_passes_of_a_whole_batch_give_other_bits(tmp_path: Path) -> None:
    """Otherwise the comparison above would say nothing."""
    whole, cut = small(tmp_path / "whole"), small(tmp_path / "cut", batch_size=4, accumulation=2)
    for setup in (whole, cut):
        train(setup)
    assert not torch.equal(weights(whole.model)["classifier.weight"], weights(cut.model)["classifier.weight"])


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "cpu", "windows", "cublas", "onednn", "python"])
def test_every_kind_of_missing_memory_is_known(tmp_path: Path, error: Exception) -> None:
    short = Shortage(small(tmp_path), "backward", 4, error)
    assert train(short.setup).micro_batch_size == 4


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    for phase in ("backward", "step"):
        short = Shortage(small(tmp_path), phase, 4, RuntimeError("shapes do not match"))
        with pytest.raises(RuntimeError, match="shapes do not match"):
            train(short.setup)


def test_a_script_may_want_the_error_itself(tmp_path: Path) -> None:
    for phase in ("forward", "step"):
        short = Shortage(small(tmp_path), phase, 4)
        with pytest.raises(torch.OutOfMemoryError):
            train(dataclasses.replace(short.setup, smaller_passes=False))


@pytest.mark.parametrize("phase", ["forward", "backward", "step"])
def test_no_memory_for_one_row(tmp_path: Path, phase: str) -> None:
    short = Shortage(small(tmp_path), phase, 0)
    before = everything(short.setup)
    with pytest.raises(OutOfMemoryError) as caught:
        train(short.setup)
    assert caught.value.message == (
        "Step 1 found no memory for 1 row at once, and its passes cannot be made smaller; the weights are those of "
        "step 0. (CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )
    assert all(way in str(caught.value.hint) for way in ("--max-length", "gradient_checkpointing", "--model"))
    assert_equal_bits(everything(short.setup), before)
    assert all(parameter.grad is None for parameter in short.setup.model.parameters())


def test_a_resume_begins_with_the_size_that_was_found(tmp_path: Path) -> None:
    short = Shortage(small(tmp_path), "forward", 2)
    state = TrainingState(**TrainingState(total_steps=5, micro_batch_size=2).as_json())
    train(short.setup, state=state)
    assert short.failures == 0


@pytest.mark.parametrize("budget", [None, 80])
def test_batches_by_length_and_by_tokens_are_cut_too(tmp_path: Path, budget: int | None) -> None:
    def shaped(name: str, *, batch_size: int = 8, accumulation: int = 1) -> Setup:
        setup = small(tmp_path / name)
        assert isinstance(setup.work, TextWork)
        plan = shaped_plan(
            setup.work.tokens.lengths,
            batch_size=batch_size,
            tokens_per_batch=budget,
            accumulation=accumulation,
            by_length=True,
            padded=False,
            seed=1,
        )
        return dataclasses.replace(setup, work=dataclasses.replace(setup.work, plan=plan))

    setup = shaped("short")
    planned = setup.work.rows_per_pass
    short = Shortage(setup, "backward", -(-planned // 2))
    state = train(short.setup)
    assert state.micro_batch_size == -(-planned // 2) < planned
    assert short.failures == 1
    reference = shaped("reference") if budget else shaped("reference", batch_size=4, accumulation=2)
    train(reference, state=TrainingState(total_steps=5, micro_batch_size=state.micro_batch_size if budget else None))
    assert_equal_bits(everything(short.setup), everything(reference))


def test_an_update_that_may_be_half_done_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("amid the update")

    setup = small(tmp_path, checkpoint=1)
    watch = Watch()
    kernel = torch._fused_adamw_
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *a, **k: (fail if watch.running == 3 else kernel)(*a, **k))
    with pytest.raises(OutOfMemoryError, match="Memory ran out while the weights were updated, some of them perhaps"):
        train(setup, callbacks=[watch])
    assert sorted(path.name for path in setup.checkpoints.iterdir()) == ["step-1", "step-2"]
