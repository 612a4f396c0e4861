"""One thing at a time done by a thread while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does one job at a time in a thread; what went wrong in it is raised where it is collected."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Begins a job. The one before has been collected."""
        assert self._thread is None, "one at a time"

        def work() -> None:
            try:
                job()
            except BaseException as error:
                self._error = error

        # A daemon: whoever stops the program at once does not wait for it.
        self._thread = threading.Thread(target=work, name="textune-checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_working(self) -> bool:
        """Whether a job has not come to its end."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the end of the job, if there is one."""
        if self._thread is not None:
            self._thread.join()

    def collect(self) -> None:
        """Waits for the end of the job, if there is one, and raises what it raised."""
        self.wait()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
