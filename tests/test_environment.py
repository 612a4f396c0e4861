from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from textune import __version__
from textune.cores import cores
from textune.environment import describe, find_device, peak_memory_mib, software_changes
from textune.errors import ConfigError
from textune.training.precision import Arithmetic, Measurement

CPU = torch.device("cpu")


def test_cores_are_those_of_this_process() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert cores() == 1
        finally:
            os.sched_setaffinity(0, before)


def test_auto_finds_a_device_that_works() -> None:
    assert torch.zeros(1, device=find_device("auto")).sum() == 0


def test_a_gpu_without_a_number_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes each takes its own later; until then all of them mean the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("cuda") == find_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "cuda:99", "gpu", "", "meta"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_device(name)
    assert caught.value.message.startswith(f"--device: {name!r} cannot be used here: ")
    assert "\n" not in caught.value.message
    assert "textune doctor" in str(caught.value.hint)


def test_describe() -> None:
    arithmetic = Arithmetic("fp32", "fp32-blas", "because", (Measurement("fp32-blas", 100.0, 1e-7),))
    facts = json.loads(json.dumps(describe(CPU, arithmetic), allow_nan=False))
    assert facts["textune"] == __version__
    assert facts["packages"]["torch"] == torch.__version__
    assert (facts["device"], facts["threads"], facts["cores"]) == ("cpu", torch.get_num_threads(), cores())
    assert facts["arithmetic"]["measurements"] == [{"name": "fp32-blas", "gflops": 100.0, "relative_error": 1e-7}]


def test_what_determinism_rests_on_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    facts = describe(CPU, Arithmetic("fp32", "fp32-blas", "because", ()))["determinism"]
    assert facts["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert facts["deterministic_algorithms"] is False
    assert facts["environment"] == {"ATEN_CPU_CAPABILITY": "avx2"}


def test_changes_of_software_are_those_of_what_was_recorded() -> None:
    then, now = {"torch": "2.0", "numpy": "2.1", "gone": "1"}, {"torch": "2.1", "numpy": "2.1", "threads": 4}
    assert software_changes(then, now) == ["torch was 2.0, is now 2.1: the result may differ in the last bits"]


def test_peak_memory_is_in_mebibytes() -> None:
    assert 50 < peak_memory_mib(CPU) < 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only getrusage tells")
def test_peak_memory_does_not_come_from_the_parent() -> None:
    """A process inherits the peak that getrusage gives from the one that started it."""
    code = "import torch; from textune.environment import peak_memory_mib as peak; print(peak(torch.device('cpu')))"
    start = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    usual = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    large = f"held = bytearray(2**30); held[::4096] = bytes(2**18); {start}"
    found = float(subprocess.run([sys.executable, "-c", large, code], capture_output=True, check=True).stdout)
    assert found < usual + 300
