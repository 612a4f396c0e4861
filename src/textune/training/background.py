"""One thing at a time done by a thread while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does one job at a time in a thread; what went wrong in it is raised where it is collected."""

    def __init__(self) -> None:
        # Instead of `Thread.join`, which takes the thread for ended when a Ctrl-C comes amid it (Python up to 3.12).
        self._ended: threading.Event | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Begins a job, or does it at once where no thread is to be had. The one before has been collected."""
        assert self._ended is None, "one at a time"
        ended = self._ended = threading.Event()

        def work() -> None:
            try:
                job()
            except BaseException as error:
                self._error = error
            finally:
                ended.set()

        # A daemon: whoever stops the program at once does not wait for it.
        thread = threading.Thread(target=work, name="textune-checkpoint", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # the system has no more threads to give
            work()

    @property
    def is_working(self) -> bool:
        """Whether a job has not come to its end."""
        return self._ended is not None and not self._ended.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Waits for the end of the job, if there is one.

        Args:
            seconds: how long at most; None for as long as it takes.
        """
        if self._ended is not None:
            self._ended.wait(seconds)

    def collect(self) -> None:
        """Waits for the end of the job, if there is one, and raises what it raised."""
        self.wait()
        self._ended = None
        error, self._error = self._error, None
        if error is not None:
            raise error
