"""What is done to a process that trains, from inside it and without its help: at storage, in passes, to its clock.

Everything here is put in place after a fork, in the process that is to be broken; textune itself has no place for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal
from unittest.mock import patch

Act = Literal["kill", "full", "broken"]
Phase = Literal["forward", "backward", "update", "evaluation"]

_ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}


@dataclass(frozen=True)
class Faults:
    """What happens in one process.

    Attributes:
        folder: name of the folder whose writing is watched.
        modules: writes the names of all imported modules here when the process ends by itself.
        count: writes the number of storage operations in that folder here when the process ends by itself.
        act: what happens at storage operation `at` (1 is the first): the process kills itself, or the disk is full or
            broken from then on.
        file_bytes: no file may grow beyond this (RLIMIT_FSIZE).
        nan_at: number of the forward pass in training (1 is the first) whose loss is not a number.
        memory: the phase in which memory runs out when a pass has more rows than `rows`.
        clock: seed of the jumps of the clock; None leaves it alone.
        in_background: whether checkpoints of any size are written by a thread.
        step_seconds: every forward pass in training takes this much longer, so that a random moment falls into one.
        arithmetic: as JSON, what is chosen instead of measuring; two runs may else choose different kernels.
    """

    folder: str = "checkpoints"
    modules: str | None = None
    count: str | None = None
    act: Act = "kill"
    at: int | None = None
    file_bytes: int | None = None
    nan_at: int | None = None
    memory: Phase | None = None
    rows: int = 4
    clock: int | None = None
    in_background: bool = False
    step_seconds: float = 0.0
    arithmetic: str | None = None


def install(faults: Faults) -> Callable[[], None]:
    """Puts the faults in place; returns what is to be called when the process ends by itself."""
    storage = _Storage(faults)
    if faults.at is not None or faults.count is not None:
        storage.install()
    if faults.file_bytes is not None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (faults.file_bytes, hard))
    if faults.clock is not None:
        _jump(Random(faults.clock))
    return storage.tell


def install_in_textune(faults: Faults) -> None:
    """What concerns textune's own passes and choices."""
    import textune.finetune
    import textune.job
    from textune.training.precision import Arithmetic

    if faults.in_background:
        patch.object(textune.job, "BACKGROUND_BYTES", 0).start()
    if (arithmetic := faults.arithmetic) is not None:
        chosen = Arithmetic.from_json(json.loads(arithmetic))
        patch.object(textune.finetune, "choose", lambda asked, device: chosen).start()
    if faults.nan_at is not None or faults.memory is not None or faults.step_seconds:
        _Passes(faults).install()


# ---- Storage ----


class _Storage:
    """Counts what is done to the files of a folder, and breaks at one of these operations."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._number = 0
        self._lock = threading.Lock()
        self._fsync = os.fsync

    def install(self) -> None:
        import safetensors.torch

        save_file = safetensors.torch.save_file

        def save(tensors: Any, filename: Any, **options: Any) -> None:
            """The library writes by itself, so that no audit hook hears of it: half of the file is there."""
            acts = self._acts(str(filename))
            save_file(tensors, filename, **options)
            if acts:
                os.truncate(filename, Path(filename).stat().st_size // 2)
                code = self._break()
                raise safetensors.SafetensorError(f"Error while serializing: I/O error (os error {code})")

        patch.object(safetensors.torch, "save_file", save).start()
        patch.object(os, "fsync", self._sync).start()
        sys.addaudithook(self._hear)

    def tell(self) -> None:
        if self._faults.count is not None:
            Path(self._faults.count).write_text(str(self._number))

    def _sync(self, file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if self._acts(_path_of(descriptor)):
            code = self._break()
            raise OSError(code, os.strerror(code))
        self._fsync(descriptor)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        match event, arguments:
            case "open", (str() as path, _, int() as flags) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                pass
            case (("os.mkdir" | "os.rename"), (str() | os.PathLike() as path, *_)):
                pass
            case (("os.remove" | "os.rmdir"), (str() | os.PathLike() as path, folder)):
                path = path if folder in (-1, None) else os.path.join(_path_of(folder), path)  # noqa: PTH118
            case _:
                return
        path = os.fspath(path)
        if self._acts(path) and (self._faults.act == "kill" or event not in ("os.remove", "os.rmdir")):
            code = self._break()  # a full disk still lets go of files
            raise OSError(code, os.strerror(code), path)

    def _acts(self, path: str) -> bool:
        """Counts the operation; whether this is where it breaks, or it is broken already."""
        if f"{os.sep}{self._faults.folder}{os.sep}" not in f"{path}{os.sep}":
            return False
        with self._lock:
            self._number += 1
            if self._faults.at is None:
                return False
            return self._number == self._faults.at or (self._faults.act != "kill" and self._number > self._faults.at)

    def _break(self) -> int:
        if self._faults.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return _ERRORS[self._faults.act]


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


# ---- Passes ----


class _Passes:
    """Wraps the forward pass of textune's engine, backward, and the optimiser."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._passes = 0
        self._rows = 0

    def install(self) -> None:
        import torch

        import textune.training.engine
        from textune.evaluation.forward import unpadded_forward

        @contextlib.contextmanager
        def faulty_forward(model: Any, **options: Any) -> Iterator[Any]:
            with unpadded_forward(model, **options) as forward:
                yield lambda examples: self._forward(model.training, forward, examples)

        patch.object(textune.training.engine, "unpadded_forward", faulty_forward).start()
        if self._faults.memory == "backward":
            backward = torch.autograd.backward

            def short_backward(*arguments: Any, **options: Any) -> None:
                self._want_memory()
                backward(*arguments, **options)

            patch.object(torch.autograd, "backward", short_backward).start()
        if self._faults.memory == "update":
            step = torch.optim.AdamW.step

            def short_step(*arguments: Any, **options: Any) -> Any:
                self._want_memory()
                return step(*arguments, **options)

            patch.object(torch.optim.AdamW, "step", short_step).start()

    def _forward(self, training: bool, forward: Any, examples: Any) -> Any:
        import torch

        faults = self._faults
        if training:
            self._passes += 1
            self._rows = len(examples)
            time.sleep(faults.step_seconds)
            if faults.memory == "forward":
                self._want_memory()
        elif faults.memory == "evaluation" and len(examples) > faults.rows:
            raise torch.OutOfMemoryError("none left")
        logits = forward(examples)
        return logits * torch.nan if training and self._passes == faults.nan_at else logits

    def _want_memory(self) -> None:
        import torch

        if self._rows > self._faults.rows:
            raise torch.OutOfMemoryError("none left")


def _jump(rng: Random) -> None:
    """Lets the clock of the calendar jump by up to a year, back and forth; those for durations go on evenly.

    `datetime` reads it by itself and is left: textune dates its files with that, nothing else.
    """
    real = time.time
    patch.object(time, "time", lambda: real() + rng.uniform(-1, 1) * 365 * 86_400).start()
