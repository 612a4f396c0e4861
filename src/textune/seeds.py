"""Independent seeds for each purpose, all derived from the run's one seed.

Head, order of examples and dropout each have their own stream, so that changing how many numbers one of them draws
(another batch size, another head) leaves the others as they were.
"""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str) -> int:
    """Returns a 63-bit seed that is a pure function of `seed` and of what it is for, for example "head".

    Mixed by `numpy.random.SeedSequence`, which is stable across NumPy releases and platforms.
    """
    words = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def generators_given_back(device: torch.device) -> AbstractContextManager[None]:
    """Behind the block torch's generators are as they were, on all GPUs: `torch.manual_seed` seeds each of them.

    Args:
        device: where the block computes; others are not woken up for this.
    """
    import torch

    if device.type == "mps":
        return torch.random.fork_rng(devices=[0], device_type="mps")
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else []
    return torch.random.fork_rng(devices=gpus, device_type="cuda")
