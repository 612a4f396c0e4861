"""What a run runs on: versions, machine, device, threads and arithmetic. Also what `textune doctor` prints."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune import __version__
from textune.cores import cores, processor, threads
from textune.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from textune.training.precision import Arithmetic

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "pyarrow", "safetensors", "numpy", "scikit-learn")

KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)
"""Variables that choose how products are computed."""


def set_threads() -> None:
    """Lets torch use the threads that there are for it; for commands, which have the process to themselves."""
    import torch

    torch.set_num_threads(threads())


def find_device(asked: str) -> torch.device:
    """Returns the device to run on.

    Args:
        asked: `auto` (CUDA, then Apple's MPS, then the CPU) or a device as torch names it.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
        if asked == "cuda" and torch.cuda.is_available():
            return device  # of several processes each takes a GPU of its own later, and no memory of the first
        torch.ones(1, device=device).item()  # not only named: it can compute
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError, by device
        raise ConfigError(
            f"--device: {asked!r} cannot be used here: {textwrap.shorten(str(error), 100, placeholder=' ...')}",
            hint="`auto` takes the best device there is; `textune doctor` shows what there is.",
        ) from error
    return device


def describe(device: torch.device, arithmetic: Arithmetic) -> dict[str, Any]:
    """The contents of environment.json."""
    import torch

    # torch's own version also names its build, such as "+cpu" or "+cu130"; its metadata may not.
    packages = {name: importlib.metadata.version(name) for name in PACKAGES} | {"torch": str(torch.__version__)}
    return {
        "textune": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": str(device) if device.type != "cuda" else f"{device} ({torch.cuda.get_device_name(device)})",
        "arithmetic": arithmetic.as_json(),
        "determinism": _determinism(),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],  # noqa: PTH119 (argv[0] may be "-c")
    }


def _determinism() -> dict[str, Any]:
    """What the bits of a result rest on besides versions, threads, device and arithmetic: see docs/reliability.md."""
    import torch

    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": bool(torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "environment": {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ},
    }


def software_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """What of a description the last bits of a result rest on, threads and arithmetic aside, by name."""
    determinism = dict(description["determinism"])
    variables = determinism.pop("environment")
    return {
        **description["packages"],
        **{name: description[name] for name in ("textune", "python", "processor", "device")},
        **determinism,
        **{name: variables.get(name, "not set") for name in KERNEL_VARIABLES},
    }


def software_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What last bits rest on and is another now than it was, in words; what an older textune did not record is not."""
    return [
        f"{name} was {then[name]}, is now {value}: the result may differ in the last bits"
        for name, value in now.items()
        if name in then and then[name] != value
    ]


def peak_memory_mib(device: torch.device) -> float:
    """The most memory this process has held so far, in MiB: on the GPU if that is the device, else in RAM."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Where Linux says it: what getrusage gives a new process starts at what its parent held.
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10  # from KiB
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
