"""Signals that ask training to stop: it does so after the step, so that it can go on from there.

SIGTERM comes from schedulers and Kubernetes, SIGUSR1 from `sbatch --signal=USR1@90`, SIGINT from Ctrl-C, SIGHUP from a
terminal or an ssh session that ends.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from textune.errors import Interrupted
from textune.training.callbacks import Callback, Record
from textune.training.state import TrainingState

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
"""Those that are heard, where the system has them and nobody has said that they be ignored, as nohup says of SIGHUP."""


class StopSignals(Callback):
    """Hears signals inside its `with` block and passes the first on to the training loop as a request.

    A second SIGINT stops at once, by a KeyboardInterrupt. Outside of the main thread, where Python allows no handlers,
    nothing is heard.

    Attributes:
        received: the number of the first signal; 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
            heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_step(self, state: TrainingState) -> None:
        state.requests.interrupt = state.requests.interrupt or self.received

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        state.requests.interrupt = state.requests.interrupt or self.received

    def check(self) -> None:
        """For work that lasts, such as an evaluation, and leaves nothing half done.

        Raises:
            Interrupted: there was a signal.
        """
        if self.received:
            name = signal.Signals(self.received).name
            raise Interrupted(
                f"{name}: stopped while the model was evaluated; training is complete, its last checkpoint committed.",
                signal_number=self.received,
            )

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
