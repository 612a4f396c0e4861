"""When and how the checkpoints of a training are saved, while it goes on where that pays."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from textune.memory import is_out_of_memory
from textune.training.background import Background
from textune.training.callbacks import Callback
from textune.training.checkpoint import Pending, begin_checkpoint, checkpoint_bytes, remove_old
from textune.training.setup import Setup
from textune.training.state import TrainingState

PATIENCE = 5.0
"""Seconds that someone who stops training at once waits for the checkpoint that is being written."""


@dataclass
class Saver:
    """Saves the checkpoints of one training. Of several processes the main one writes, and all call each method.

    Where `setup.background_bytes` and memory allow it, a copy is taken at the step boundary and a thread writes it. One
    is written at a time: the next save waits for it. A `with` block over the training waits at its end.
    """

    setup: Setup
    callbacks: Sequence[Callback]
    _background: Background = field(default_factory=Background)
    _written: Path | None = None
    """The folder that is being written, or has been and is still to be told."""
    _last_save: float = field(default_factory=lambda: time.monotonic())

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What has been begun is committed also when training fails, or is stopped at once.

        Behind this the run folder is another's to take. But a disk that hangs holds back nobody who wants to stop.
        """
        self._background.wait(None if kind is None or issubclass(kind, Exception) else PATIENCE)

    def is_due_by_clock(self) -> bool:
        """Whether the interval in seconds is over, by the clock of the main process."""
        intervals = self.setup.intervals
        if intervals is None or intervals.checkpoint_seconds is None or not self.setup.processes.is_main:
            return False
        return time.monotonic() - self._last_save >= intervals.checkpoint_seconds

    def save(self, state: TrainingState) -> None:
        """Saves the state of this step boundary, and tells of it when it is committed: at once, or later.

        Raises:
            OutputError, StorageError: this or the one before cannot be written.
        """
        began = time.perf_counter()
        self.tell(state, wait=True)
        self._last_save = time.monotonic()
        setup = self.setup
        setup.work.settle()
        self._written = setup.folders.folder(setup.checkpoints, state.step)
        if setup.processes.is_main:
            self._write(state)
        setup.processes.barrier()
        state.checkpoint_seconds += time.perf_counter() - began
        self.tell(state)

    def tell(self, state: TrainingState, *, wait: bool = False) -> None:
        """Tells the callbacks of a checkpoint that has been committed since the last call.

        Args:
            wait: for one that is being written.

        Raises:
            OutputError, StorageError: it could not be written.
        """
        if self._written is None:
            return
        processes = self.setup.processes
        if not wait and processes.largest(self._background.is_working):
            return
        began = time.perf_counter()
        self._background.collect()
        processes.barrier()
        state.checkpoint_seconds += time.perf_counter() - began
        folder, self._written = self._written, None
        for callback in self.callbacks:
            callback.on_checkpoint(state, folder)
        processes.agree(state)

    def _write(self, state: TrainingState) -> None:
        setup, best = self.setup, state.best_step
        limit = setup.background_bytes
        size = checkpoint_bytes(setup.model, setup.optimizer, folders=setup.folders)
        begin = functools.partial(
            begin_checkpoint, setup.checkpoints, state, setup.model, setup.optimizer, folders=setup.folders
        )
        if limit is not None and size >= limit:
            try:
                copy = begin(copied=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self._background.start(lambda: self._commit(copy, best))
                return
        # Behind the clause: until its end the error holds what has been copied.
        self._commit(begin(copied=False), best)

    def _commit(self, pending: Pending, best: int | None) -> None:
        pending.commit()
        setup = self.setup
        if setup.keep_checkpoints is not None:
            remove_old(setup.checkpoints, keep=setup.keep_checkpoints, best=best, folders=setup.folders)
