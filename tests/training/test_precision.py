from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from textune.errors import ConfigError, TrainingError
from textune.training import precision
from textune.training.precision import (
    BF16_GAIN,
    FP32_ERROR,
    FP32_GAIN,
    Arithmetic,
    Measurement,
    choose,
    measure,
    overflowed,
)

CPU = torch.device("cpu")


def measured(monkeypatch: pytest.MonkeyPatch, *measurements: tuple[str, float, float]) -> None:
    found = [Measurement(*values) for values in measurements]
    monkeypatch.setattr(precision, "measured_here", lambda device, anew: (found, "2026-11-22"))


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Or a second run of the same seed may take another kernel, and give other bits."""
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path))
    rates = iter((100.0, 200.0, 300.0))
    monkeypatch.setattr(precision, "measure", lambda device: [Measurement("fp32-blas", next(rates), 3e-7)])

    def rate(*, anew: bool = False) -> float:
        (found,), date = precision.measured_here(CPU, anew=anew)
        assert date
        return found.gflops

    assert [rate(), rate(), rate(anew=True), rate()] == [100, 100, 200, 200]
    (file,) = (tmp_path / "arithmetic").iterdir()
    file.write_text('{"date": 1}')
    assert rate() == 300


def test_auto_takes_bf16_where_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, ("fp32-blas", 200, 3e-7), ("fp32-onednn", 400, 3e-7), ("bf16", 850, 2e-3))
    chosen = choose("auto", CPU)
    assert (chosen.precision, chosen.fp32_mode) == ("bf16", "fp32-onednn")
    assert "850" in chosen.reason and "400" in chosen.reason and "2.1 x" in chosen.reason


def test_auto_keeps_fp32_where_bf16_gains_little(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, ("fp32-blas", 400, 3e-7), ("fp32-onednn", 390, 3e-7), ("bf16", 400 * BF16_GAIN - 1, 2e-3))
    chosen = choose("auto", CPU)
    assert (chosen.precision, chosen.fp32_mode) == ("fp32", "fp32-blas")


def test_of_two_kernels_that_are_nearly_as_fast_the_usual_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for rate, mode in ((FP32_GAIN * 400 - 1, "fp32-blas"), (FP32_GAIN * 400 + 1, "fp32-onednn")):
        measured(monkeypatch, ("fp32-blas", 400, 3e-7), ("fp32-onednn", rate, 3e-7), ("bf16", 100, 2e-3))
        assert choose("fp32", CPU).fp32_mode == mode


def test_a_fast_mode_that_rounds_is_not_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AMX the switch to oneDNN really rounds to bf16."""
    measured(monkeypatch, ("fp32-blas", 200, 3e-7), ("fp32-onednn", 3000, FP32_ERROR * 2), ("bf16", 3000, 2e-3))
    assert choose("fp32", CPU).fp32_mode == "fp32-blas"


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    measured(monkeypatch, ("fp32-blas", 100, 3e-7), ("bf16", 120, 2e-3))
    chosen = choose(asked, CPU)
    assert chosen.precision == asked
    assert chosen.reason.startswith(f"{asked}: as asked")


def test_measures_every_arithmetic_and_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "PROBE_SECONDS", 1e-4)
    monkeypatch.setattr(precision, "PROBE_SIZE", 128)
    found = {item.name: item for item in measure(CPU)}
    assert list(found) == ["fp32-blas", "fp32-onednn", "bf16"]
    assert all(item.gflops > 0 for item in found.values())
    assert 0 < found["fp32-blas"].relative_error < FP32_ERROR
    assert 1e-4 < found["bf16"].relative_error < 1e-2


@pytest.mark.parametrize("before", ["highest", "high"])
def test_torch_setting_is_restored(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    monkeypatch.setattr(precision, "PROBE_SECONDS", 1e-4)
    monkeypatch.setattr(precision, "PROBE_SIZE", 32)
    old = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        chosen = choose("auto", CPU)
        assert torch.get_float32_matmul_precision() == before
        with contextlib.suppress(RuntimeError), Arithmetic("fp32", "fp32-onednn", "", ()).in_force():
            assert torch.get_float32_matmul_precision() == "medium"
            raise RuntimeError
        assert torch.get_float32_matmul_precision() == before
        assert chosen.as_json()["measurements"][0]["name"] == "fp32-blas"
    finally:
        torch.set_float32_matmul_precision(old)


def test_blocks_of_several_threads_may_overlap() -> None:
    """The first to begin is not the last to end."""
    before = torch.get_float32_matmul_precision()
    one, other = (Arithmetic("fp32", mode, "", ()).in_force() for mode in ("fp32-onednn", "tf32"))
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "high"
    other.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == before


def test_fp16_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"fp16 needs a CUDA device, found cpu\.\nUse --precision bf16"):
        choose("fp16", CPU)
    measured(monkeypatch, ("fp32", 50e3, 3e-7), ("tf32", 4e5, 3e-4), ("bf16", 7e5, 2e-3), ("fp16", 8e5, 3e-4))
    chosen = choose("fp16", torch.device("cuda"))
    assert (chosen.precision, chosen.fp32_mode) == ("fp16", "fp32")
    assert chosen.reason == "fp16: as asked; measured fp32 50,000 GFLOP/s, fp16 800,000 GFLOP/s (16.0 x) on 2026-11-22"
    assert choose("auto", torch.device("cuda")).precision == "bf16"


def test_bf16_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones only imitate it, in fp32 and slower than that."""
    measured(monkeypatch, ("fp32", 8e3, 3e-7), ("tf32", 8e3, 3e-7), ("bf16", 2e3, 2e-3), ("fp16", 5e4, 3e-4))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigError, match=r"bf16 needs an Ampere GPU or a newer one, found Tesla T4") as caught:
        choose("bf16", torch.device("cuda", 0))
    assert "--precision fp16" in str(caught.value.hint)
    assert choose("auto", torch.device("cuda", 0)).precision == "fp32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert choose("bf16", torch.device("cuda", 0)).precision == "bf16"


def test_of_several_gpus_the_one_that_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or starting a product is timed in place of computing it."""
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    precision.wait_for(torch.device("cuda", 1))
    precision.wait_for(CPU)
    assert waited == [torch.device("cuda", 1)]


@pytest.mark.gpu
def test_a_gpu_is_measured_with_large_products() -> None:
    found = {item.name: item for item in measure(torch.device("cuda"))}
    assert list(found) == ["fp32", "tf32", "bf16", "fp16"]
    assert found["fp32"].relative_error < FP32_ERROR < found["fp16"].relative_error < found["bf16"].relative_error
    if torch.cuda.get_device_capability() >= (8, 0):  # older ones only imitate it
        assert found["bf16"].gflops > found["fp32"].gflops


def test_autocast_only_for_bf16() -> None:
    left = torch.ones(2, 2)
    with Arithmetic("bf16", "fp32-blas", "", ()).autocast(CPU):
        assert (left @ left).dtype == torch.bfloat16
    with Arithmetic("fp32", "fp32-blas", "", ()).autocast(CPU):
        assert (left @ left).dtype == torch.float32


def test_arithmetic_survives_json() -> None:
    arithmetic = Arithmetic("bf16", "fp32-blas", "as asked", (Measurement("bf16", 850.0, 2e-3),))
    assert Arithmetic.from_json(arithmetic.as_json()) == arithmetic


def test_fp16_scales_its_losses_and_the_others_do_not() -> None:
    assert Arithmetic("bf16", "fp32", "", ()).scaler(CPU) is None
    fp16 = Arithmetic("fp16", "fp32", "", ())
    scaler = fp16.scaler(CPU)
    assert scaler is not None and scaler.is_enabled()
    with fp16.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float16


def test_a_process_without_a_pass_of_its_own_unscales_as_the_others_do() -> None:
    """Of several processes one may have no row of a step, in a new training and in one that goes on."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    fp16 = Arithmetic("fp16", "fp32", "", ())
    new, resumed = fp16.scaler(CPU), fp16.scaler(CPU)
    assert new is not None and resumed is not None
    resumed.load_state_dict({**new.state_dict(), "scale": 4.0, "_growth_tracker": 7})
    for scaler, scale in ((new, 2.0**16), (resumed, 4.0)):
        weight.grad = torch.tensor([8.0])  # that of the other process
        scaler.unscale_(optimizer)
        assert weight.grad.item() == 8.0 / scale
        assert not overflowed(scaler)
    assert resumed.state_dict()["_growth_tracker"] == 8


def test_an_overflow_halves_the_scale(caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    found = []
    with caplog.at_level("INFO"):
        for gradient in (1.0, float("inf"), 2.0, float("nan")):
            weight.grad = torch.tensor([gradient])
            scaler.scale(torch.ones(1))  # makes the scale, as each pass does
            scaler.unscale_(optimizer)
            found.append((overflowed(scaler), scaler.get_scale()))
    assert found == [(False, 4.0), (True, 2.0), (False, 2.0), (True, 1.0)]
    assert caplog.records[0].getMessage() == (
        "fp16: a gradient overflowed; its step was left out, the loss is now scaled by 2."
    )
    weight.grad = torch.tensor([float("nan")])
    scaler.unscale_(optimizer)
    with pytest.raises(TrainingError, match="not finite however small the loss is scaled"):
        overflowed(scaler)
