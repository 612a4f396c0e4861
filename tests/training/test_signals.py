from __future__ import annotations

import os
import signal
import threading

import pytest

from textune.errors import Interrupted
from textune.training.signals import NAMES, StopSignals
from textune.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("signals_are_heard")


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_becomes_a_request(name: str) -> None:
    number, state = getattr(signal, name), TrainingState(total_steps=3)
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signals.on_step(state)
        signals.check()
        assert state.requests.interrupt == 0
        os.kill(os.getpid(), number)
        signals.on_step(state)
        assert state.requests.interrupt == number
        with pytest.raises(Interrupted, match=name) as caught:
            signals.check()
        assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_the_first_counts_and_a_second_sigint_stops_at_once() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGUSR1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", NAMES)
def test_what_whoever_started_it_ignores_stays_ignored(name: str) -> None:
    """As `nohup` and `trap '' INT` in a shell do."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), number)
            assert signals.received == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_what_another_callback_asks_for_stays() -> None:
    state = TrainingState(total_steps=3)
    state.requests.interrupt = 15
    StopSignals().on_step(state)
    assert state.requests.interrupt == 15


def test_other_threads_have_no_handlers() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with StopSignals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
