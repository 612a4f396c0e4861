"""The engine's pieces together: each may be switched off, and none changes what is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from textune.config import EngineConfig, TrainingConfig
from textune.data.collate import Padding
from textune.errors import CheckpointError, ConfigError
from textune.models.unpadded import why_padded
from textune.training.engine import build_engine
from textune.training.loop import train
from textune.training.precision import Arithmetic

from .engine import FP32, VOCABULARY, Recorder, make_setup, random_rows, tiny_model, weights

BF16 = Arithmetic("bf16", "fp32-blas", "for tests", ())
NONE = EngineConfig(unpadded=False, working_copies=False, used_rows=False, fast_dropout=False, keep_memory=False)
LEVERS = ("unpadded", "used_rows", "working_copies", "keep_memory")
DECAY = TrainingConfig(learning_rate=1e-3, weight_decay=0.1)


def run(
    folder: Path, engine: EngineConfig, *, arithmetic: Arithmetic = FP32, dropout: float = 0.0, steps: int = 12
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final weights of a short training."""
    setup = make_setup(
        folder,
        model=tiny_model(dropout=dropout),
        steps=steps,
        config=DECAY,
        engine_config=engine,
        arithmetic=arithmetic,
    )
    recorder = Recorder()
    train(setup, callbacks=[recorder])
    return [record["loss"] for record in recorder.logs], weights(setup.model)


@pytest.mark.parametrize("lever", [*LEVERS, "all"])
def test_no_lever_changes_losses_or_weights(tmp_path: Path, lever: str) -> None:
    plain_losses, plain = run(tmp_path / "plain", NONE)
    engine = EngineConfig() if lever == "all" else dataclasses.replace(NONE, **{lever: True})
    losses, found = run(tmp_path / "fast", engine)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)
    for name, expected in plain.items():
        if "key.bias" not in name:  # has no gradient but rounding, which AdamW makes as large as any other
            # Twelve steps of 1e-3: where a gradient is nearly zero, AdamW makes more of rounding than elsewhere.
            torch.testing.assert_close(found[name], expected, atol=2e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("arithmetic", [FP32, BF16])
def test_twice_the_same_bits(tmp_path: Path, arithmetic: Arithmetic) -> None:
    one, two = (run(tmp_path / name, EngineConfig(), arithmetic=arithmetic, dropout=0.2) for name in ("one", "two"))
    assert one[0] == two[0]
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_working_copies_compute_what_autocast_does(tmp_path: Path) -> None:
    """To the bit; and what fp32 does to bf16's rounding, of a loss that has changed much more than that."""
    losses = {}
    for copies in (False, True):
        engine = dataclasses.replace(EngineConfig(), working_copies=copies)
        losses[copies], found = run(tmp_path / str(copies), engine, arithmetic=BF16, steps=60)
        assert all(weight.dtype == torch.float32 for weight in found.values())
    exact, _ = run(tmp_path / "fp32", NONE, steps=60)
    assert np.ptp(exact) > 0.2
    assert losses[True] == losses[False]
    np.testing.assert_allclose(losses[True], exact, rtol=0.05)


def test_dropout_drops(tmp_path: Path) -> None:
    without, _ = run(tmp_path / "without", EngineConfig())
    found, _ = run(tmp_path / "with", EngineConfig(), dropout=0.5)
    assert np.abs(np.subtract(found, without)).max() > 0.01


@pytest.mark.parametrize("arithmetic", [FP32, BF16])
@pytest.mark.parametrize(("unpadded", "dropout"), [(False, 0.2), (True, 0.0)])
def test_gradient_checkpointing_changes_nothing(
    tmp_path: Path, unpadded: bool, dropout: float, arithmetic: Arithmetic
) -> None:
    """With dropout, too: what is computed again meets the same masks. (Without padding there are more of them.)"""
    again = EngineConfig(unpadded=unpadded, gradient_checkpointing=True)
    plain = dataclasses.replace(again, gradient_checkpointing=False, fast_dropout=False)
    one, two = (
        run(tmp_path / str(number), item, dropout=dropout, arithmetic=arithmetic)
        for number, item in enumerate((plain, again))
    )
    # Without it keys and values of the last layer are left out, which rounds otherwise.
    np.testing.assert_allclose(one[0], two[0], rtol=5e-3 if unpadded and arithmetic is BF16 else 1e-5)


def test_gradient_checkpointing_ends_with_the_engine() -> None:
    model = tiny_model()
    assert "computed again" in notes_of(model, EngineConfig(gradient_checkpointing=True))
    assert not model.is_activation_checkpointing
    model.activation_checkpointing_enable()
    notes_of(model, EngineConfig(gradient_checkpointing=True))
    assert model.is_activation_checkpointing
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: BertForSequenceClassification does not have it"):
        notes_of(model, EngineConfig(gradient_checkpointing=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_compute_the_same(tmp_path: Path) -> None:
    """Behind each other in fp32 and bf16; in evaluations layers are as they were."""
    for arithmetic in (FP32, BF16):
        plain, _ = run(tmp_path / "plain", EngineConfig(), arithmetic=arithmetic)
        compiled, _ = run(tmp_path / "compiled", EngineConfig(compile=True), arithmetic=arithmetic)
        np.testing.assert_allclose(compiled, plain, rtol=1e-5 if arithmetic is FP32 else 0.02)
    model = tiny_model(dropout=0.2)
    assert "compiled the layers in" in notes_of(model, EngineConfig(compile=True))
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_without_a_compiler_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(self: torch.nn.Module, **_: Any) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no C++ compiler")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    model = tiny_model()
    assert "not compiled, since torch.compile failed: RuntimeError: no C++ compiler" in notes_of(
        model, EngineConfig(compile=True)
    )
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training


def test_a_compiler_that_fails_behind_the_forward_pass_leaves_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers above have theirs by then, in bf16 with the copies."""

    def compile_(self: torch.nn.Module, **_: Any) -> None:
        def fail(_: torch.Tensor) -> None:
            raise RuntimeError("no backward graph")

        def call(*values: Any, **options: Any) -> Any:
            outputs = self._call_impl(*values, **options)
            (outputs[0] if isinstance(outputs, tuple) else outputs).register_hook(fail)
            return outputs

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    model = tiny_model()
    options: dict[str, Any] = {"tokens": random_rows(20).tokens, "padding": Padding(0), "arithmetic": BF16}
    with build_engine(model, EngineConfig(compile=True), device=torch.device("cpu"), **options) as engine:
        assert "not compiled, since torch.compile failed: RuntimeError: no backward graph" in engine.notes
        with engine.step():
            assert all(parameter.grad is None for parameter in model.parameters())


def test_fp16_trains_and_scales_its_losses(tmp_path: Path) -> None:
    """The scale belongs to the state: training goes on with it."""
    fp16 = Arithmetic("fp16", "fp32-blas", "for tests", ())
    setup = make_setup(tmp_path, arithmetic=fp16, steps=40)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    setup = dataclasses.replace(setup, scaler=scaler, work=dataclasses.replace(setup.work, scaler=scaler))  # type: ignore[type-var]
    recorder = Recorder()
    state = train(setup, callbacks=[recorder])
    exact, _ = run(tmp_path / "fp32", EngineConfig(), steps=40)
    assert state.loss_scale is not None and 2 <= state.loss_scale["scale"] < 2.0**40, "the first steps overflowed"
    assert abs(recorder.logs[-1]["loss"] - exact[-1]) < 0.1
    after = make_setup(tmp_path / "after", arithmetic=fp16, steps=40)
    resumed = torch.amp.GradScaler("cpu")
    train(dataclasses.replace(after, scaler=resumed), state=state)
    assert resumed.get_scale() == state.loss_scale["scale"]


def notes_of(model: BertForSequenceClassification, config: EngineConfig, **options: Any) -> str:
    arguments = {"tokens": random_rows(20).tokens, "padding": Padding(0), "arithmetic": FP32, **options}
    with build_engine(model, config, device=torch.device("cpu"), **arguments) as engine:
        return "\n".join(engine.notes)


def test_the_notes_say_what_was_chosen_and_why() -> None:
    assert "without padding" in notes_of(tiny_model(), EngineConfig())
    assert "with padding: engine.unpadded is false" in notes_of(tiny_model(), EngineConfig(unpadded=False))
    for options, asked in (({"width": 32}, "pad_to_max_length"), ({"multiple_of": 8}, "pad_to_multiple_of")):
        assert f"with padding: {asked}" in notes_of(tiny_model(), EngineConfig(), padding=Padding(0, **options))
    model = tiny_model()
    model.config.is_decoder = True
    assert f"with padding: {why_padded(model)}" in notes_of(model, EngineConfig())


@pytest.mark.parametrize("used_rows", [True, False])
def test_a_tokenizer_with_more_tokens_than_the_model_has_is_refused(used_rows: bool) -> None:
    """Padding is a token like others."""
    model, config = tiny_model(), EngineConfig(used_rows=used_rows, gradient_checkpointing=True)
    with pytest.raises(CheckpointError, match=r"token id 60; the model has 60 embeddings, for the ids 0 to 59"):
        notes_of(model, config, padding=Padding(VOCABULARY))
    model.resize_token_embeddings(20)
    with pytest.raises(CheckpointError, match=r"token id \d+; the model has 20 embeddings, for the ids 0 to 19"):
        notes_of(model, config)
    assert not model.is_activation_checkpointing, "it is as it was"
