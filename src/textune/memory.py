"""Running out of memory: how it shows, and how what is left over is given back."""

from __future__ import annotations

import ctypes
import gc
import sys

# RuntimeErrors of torch's allocators on a CPU (Linux and Windows), of MPS and CUDA, of cuBLAS and cuDNN, and of oneDNN,
# which says no more than this (seen with a limit on the address space).
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on whatever device.

    NumPy's and Arrow's errors of this kind are MemoryErrors.
    """
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def free_memory() -> None:
    """Frees what nobody holds any more, and what the C library and torch (on a GPU) keep for later.

    Call it outside of the `except` clause: until its end the error holds everything that was on the way.
    """
    import torch

    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what glibc keeps serves its own callers only; oneDNN and large blocks ask the kernel
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def halved(rows: int) -> int:
    """Half of them, the larger half where they are odd in number."""
    return (rows + 1) // 2
