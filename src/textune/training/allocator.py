"""What a process keeps between steps on a CPU: freed memory, which it will need again, and kernels, mostly not."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

# From malloc.h. The threshold is the largest that every glibc takes; larger blocks are mapped anew each time.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD_BYTES = 32 * 2**20
TRIM_THRESHOLD_BYTES = 2**31 - 1
# More than the products of a layer and its gradients have shapes; layers are alike.
KEPT_KERNELS = 32


@functools.cache
def keep_freed_memory() -> bool:
    """Raises the sizes from which glibc gives freed memory back to the kernel, for the rest of the process.

    A step frees and takes the same tensors as the one before. By default blocks above 128 KiB go back and come again
    zeroed, page by page: about a tenth of a step on a CPU.

    Returns:
        Whether there is a glibc and it took the values.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) and mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES))


def keep_few_kernels() -> None:
    """Lets oneDNN and torch's layer above it keep the kernels of a few shapes only, for the rest of the process.

    They compile one for every shape of a product and keep 1,024 each. Without padding nearly every step has shapes of
    its own, so that kernels pile up, unused, by some megabytes a step. Both libraries read their limit at the first
    product: call it before. What the environment says already stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KEPT_KERNELS))
