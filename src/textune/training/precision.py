"""Which arithmetic runs fastest here at the accuracy asked for, and why it was chosen: measured, not assumed."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.config import flag_of
from textune.cores import processor
from textune.data.cache import cache_root
from textune.errors import ConfigError, TextuneError, TrainingError
from textune.files import read_json, storage_errors, write_json

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

# A product of this size takes a few milliseconds on one core, and is as large as those of a small encoder.
PROBE_SIZE = 768
# A GPU comes near its rate only with far larger ones.
PROBE_SIZE_CUDA = 4096
PROBE_SECONDS = 0.08
# Raised when what was measured before may be wrong.
PROBE_VERSION = 2
# Rows of the product whose error is measured.
PROBE_ROWS = 64
# fp32 rounds a product of this size to about 3e-7. An arithmetic that calls itself fp32 has to stay near that.
FP32_ERROR = 2e-6
# Two kernels that are nearly as fast would change places from run to run, and the last bits of the result with them.
FP32_GAIN = 1.2
# bf16 costs conversions besides the products, so that it has to be clearly faster in those.
BF16_GAIN = 1.3


@dataclass(frozen=True)
class Measurement:
    """The rate and the accuracy of one kind of matrix product.

    Attributes:
        name: `fp32-blas`, `fp32-onednn` (CPU), `fp32`, `tf32` and `fp16` (CUDA), or `bf16`.
        gflops: 10^9 floating-point operations per second.
        relative_error: norm of the difference to the product in float64, over the norm of that.
    """

    name: str
    gflops: float
    relative_error: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Arithmetic:
    """The choice: `precision` of the products in training, how fp32 products are computed, and the reason in words."""

    precision: str
    fp32_mode: str
    reason: str
    measurements: tuple[Measurement, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Arithmetic:
        return cls(**{**value, "measurements": tuple(Measurement(**item) for item in value["measurements"])})

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Computes fp32 products in the chosen mode inside the block and as before after it.

        The mode is that of the whole process. Where blocks of several threads overlap, that of the block which was
        entered last is in force, and after all of them what was before the first.
        """
        with _SWITCH.set_to(_TORCH_MODE[self.fp32_mode]):
            yield

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The context of a training pass: torch's autocast for bf16 and fp16, nothing for fp32."""
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler | None:
        """For fp16, whose gradients would vanish: multiplies the loss, by as much as just does not overflow."""
        import torch

        if self.precision != "fp16":
            return None
        scaler = torch.amp.GradScaler(device.type)
        # Makes the scale itself, which the first loss would: of several processes one may have no pass in a step.
        scaler.scale(torch.zeros((), device=device))
        return scaler


class _Switch:
    """torch's switch between kernels for fp32 products, of which a process has one, shared by all its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = ""
        self._modes: dict[object, str] = {}
        """Those of the blocks that are open, in the order of their entry."""

    @contextlib.contextmanager
    def set_to(self, mode: str) -> Iterator[None]:
        import torch

        block = object()
        with self._lock:
            if not self._modes:
                self._before = torch.get_float32_matmul_precision()
            self._modes[block] = mode
            torch.set_float32_matmul_precision(mode)
        try:
            yield
        finally:
            with self._lock:
                del self._modes[block]
                torch.set_float32_matmul_precision(next(reversed(self._modes.values()), self._before))


_SWITCH = _Switch()
# Its positions. On a CPU, "medium" means oneDNN instead of BLAS.
_TORCH_MODE = {"fp32-blas": "highest", "fp32-onednn": "medium", "fp32": "highest", "tf32": "high"}


def overflowed(scaler: torch.amp.GradScaler) -> bool:
    """Whether the gradients that were last unscaled are not finite, so that their step is left out.

    The scale is halved then, and doubled after 2,000 steps without (torch's defaults).

    Raises:
        TrainingError: they are not finite at any scale.
    """
    before = scaler.get_scale()
    scaler.update()
    after = scaler.get_scale()
    if after < 1:
        raise TrainingError(
            "The gradient in fp16 is not finite however small the loss is scaled; its steps were not applied.",
            hint="Use bf16 instead of fp16; a lower learning rate or warm-up may help too.",
        )
    if after < before:
        _logger.info("fp16: a gradient overflowed; its step was left out, the loss is now scaled by %g.", after)
    return after < before


def measure(device: torch.device) -> list[Measurement]:
    """Times one product per arithmetic; a few tenths of a second altogether."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size = PROBE_SIZE_CUDA if device.type == "cuda" else PROBE_SIZE
    left, right = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = left[:PROBE_ROWS].double() @ right.double()
    left, right = left.to(device), right.to(device)
    modes = ["fp32-blas", "fp32-onednn"] if device.type == "cpu" else ["fp32"]
    if device.type == "cuda":
        modes.append("tf32")
    found = []
    before = torch.get_float32_matmul_precision()
    try:
        for mode in modes:
            torch.set_float32_matmul_precision(_TORCH_MODE[mode])
            found.append(_time_product(mode, left, right, exact))
    finally:
        torch.set_float32_matmul_precision(before)
    found.append(_time_product("bf16", left.bfloat16(), right.bfloat16(), exact))
    if device.type == "cuda":
        found.append(_time_product("fp16", left.half(), right.half(), exact))
    return found


def measured_here(device: torch.device, *, anew: bool = False) -> tuple[list[Measurement], str]:
    """What was measured on this machine, with this torch and as many threads, and the date of that.

    It is measured once and kept in textune's cache: a second run then computes in the same arithmetic, and gives the
    same bits, however busy the machine is.

    Args:
        anew: measure again and keep that.
    """
    file = _memory(device)
    if not anew:
        # What cannot be read, or was written by another textune, is measured again.
        with contextlib.suppress(TextuneError, KeyError, TypeError):
            kept = read_json(file)
            return [Measurement(**item) for item in kept["measurements"]], str(kept["date"])
    found, date = measure(device), datetime.date.today().isoformat()
    with contextlib.suppress(TextuneError), storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"date": date, "measurements": [item.as_json() for item in found]})
    return found, date


def _memory(device: torch.device) -> Path:
    """The file for what the rates depend on."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    probe = (PROBE_VERSION, PROBE_SIZE, PROBE_SIZE_CUDA)
    depends = (device.type, name, str(torch.__version__), torch.get_num_threads(), *probe)
    return cache_root("arithmetic") / f"{hashlib.sha256(repr(depends).encode()).hexdigest()[:16]}.json"


def check_precision(asked: str, device: torch.device) -> None:
    """Whether the device can train in the precision asked for.

    Raises:
        ConfigError: fp16 is for GPUs, and bf16 not for GPUs that only imitate it.
    """
    import torch

    if asked == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ConfigError(
            f"{flag_of('training.precision')}: bf16 needs an Ampere GPU or a newer one, "
            f"found {torch.cuda.get_device_name(device)}.",
            hint="Use --precision fp16, or auto, which measures what is fast here.",
        )
    if asked == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"{flag_of('training.precision')}: fp16 needs a CUDA device, found {device.type}.",
            hint="Use --precision bf16, or auto, which measures what is fast here.",
        )


def choose(asked: str, device: torch.device, *, anew: bool = False) -> Arithmetic:
    """Chooses by what is measured on this machine.

    Args:
        asked: `fp32`, `bf16`, `fp16` (CUDA), or `auto`: bf16 where its products are clearly faster, otherwise fp32.
        device: where training runs.
        anew: measure now, whatever is known of this machine.

    Returns:
        The fastest mode for fp32 products that keeps fp32 accuracy, torch's own unless another is clearly faster, and
        the precision of training.

    Raises:
        ConfigError: see `check_precision`.
    """
    check_precision(asked, device)
    found, date = measured_here(device, anew=anew)
    measurements = {item.name: item for item in found}
    exact_enough = [item for item in measurements.values() if item.relative_error <= FP32_ERROR]
    usual = next(iter(exact_enough or measurements.values()))
    best = max(exact_enough, key=lambda item: item.gflops, default=usual)
    if best.gflops < FP32_GAIN * usual.gflops:
        best = usual
    low = measurements["fp16" if asked == "fp16" else "bf16"]
    ratio = low.gflops / best.gflops
    precision = asked if asked != "auto" else ("bf16" if ratio >= BF16_GAIN else "fp32")
    measured = f"{best.name} {best.gflops:,.0f} GFLOP/s, {low.name} {low.gflops:,.0f} GFLOP/s ({ratio:.1f} x)"
    why = "as asked" if asked != "auto" else f"bf16 pays from {BF16_GAIN} x"
    reason = f"{precision}: {why}; measured {measured} on {date}"
    return Arithmetic(precision, best.name, reason, tuple(measurements.values()))


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was given, so that a clock can be read."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _time_product(name: str, left: torch.Tensor, right: torch.Tensor, exact: torch.Tensor) -> Measurement:
    import torch

    product = left @ right  # also warms up
    error = float((product[:PROBE_ROWS].cpu().double() - exact).norm() / exact.norm())  # MPS has no float64
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < PROBE_SECONDS:
        begin = time.perf_counter()
        torch.mm(left, right)
        wait_for(left.device)
        best = min(best, time.perf_counter() - begin)
    return Measurement(name, 2 * len(left) ** 3 / best / 1e9, error)
