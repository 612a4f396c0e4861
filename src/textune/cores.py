"""Which processor there is, how many cores of it to use, and how many threads to use them with."""

from __future__ import annotations

import os
import platform


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(*, processes: int = 1) -> int:
    """CPU threads to compute with: what OMP_NUM_THREADS says, else one for each core.

    Args:
        processes: of this machine that share its cores. For several OMP_NUM_THREADS does not count: torchrun sets it to
            1 for each, however many cores there are.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if processes == 1 and asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, cores() // processes)


def processor() -> str:
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
