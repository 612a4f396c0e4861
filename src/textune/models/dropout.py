"""Dropout whose random bits come in bulk from NumPy; torch's own generator costs ten times as much on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

_LEVELS = 1 << 16


class MaskSource(Protocol):
    """Where dropout masks come from."""

    def mask(self, num_values: int, probability: float, like: torch.Tensor) -> torch.Tensor:
        """Independent draws: 0 with `probability`, otherwise what keeps the mean.

        Returns:
            [num_values], with the type and on the device of `like`.
        """
        ...


class TorchMasks:
    """Masks of torch's own dropout and generator."""

    def mask(self, num_values: int, probability: float, like: torch.Tensor) -> torch.Tensor:
        return functional.dropout(like.new_ones(num_values), probability)


class DropoutStream:
    """Dropout masks as a pure function of the words given to `reseed`, for example seed and step.

    A value is dropped where 16 random bits are below `round(probability * 65536)`, so the probability is exact to
    1 / 131072; kept values are scaled by one over the probability that is really used, rounded to the mask's type.

    Args:
        words: as for `reseed`.
    """

    def __init__(self, *words: int) -> None:
        self.reseed(*words)

    def reseed(self, *words: int) -> None:
        """Starts the stream that belongs to these non-negative numbers, for example seed and step, anew."""
        self._bits = np.random.SFC64(np.random.SeedSequence(words))

    def mask(self, num_values: int, probability: float, like: torch.Tensor) -> torch.Tensor:
        """See `MaskSource`; in the CPU's memory only."""
        threshold = round(probability * _LEVELS)
        if threshold >= _LEVELS:
            return like.new_zeros(num_values)
        raw: npt.NDArray[np.uint64] = self._bits.random_raw(-(-num_values // 4))
        kept = (raw.view(np.uint16)[:num_values] >= threshold).view(np.int8)
        scale = _LEVELS / (_LEVELS - threshold)
        if like.dtype in (torch.bfloat16, torch.float16):
            # torch converts bytes to 16-bit floats slowly; NumPy multiplies them by the bits of the scale.
            bits = torch.tensor(scale, dtype=like.dtype).view(torch.int16).numpy()
            return torch.from_numpy(np.multiply(kept, bits)).view(like.dtype)
        return torch.from_numpy(kept).to(like.dtype).mul_(scale)


class FastDropout(nn.Dropout):
    """`nn.Dropout` with masks from a stream, where the values lie in the CPU's memory and nothing is compiled."""

    stream: DropoutStream

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Same shape and type as `values`."""
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(values)
        return values * self.stream.mask(values.numel(), self.p, values).view(values.shape)


@contextmanager
def fast_dropout(model: nn.Module, stream: DropoutStream) -> Iterator[None]:
    """Lets every `nn.Dropout` of the model draw from the stream; afterwards they are as before."""
    modules = [module for module in model.modules() if type(module) is nn.Dropout]
    for module in modules:
        # The class is exchanged and not the module, so that hooks, mode and whoever else holds it stay right.
        module.__class__ = FastDropout
        module.stream = stream  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            del module.stream
            module.__class__ = nn.Dropout
