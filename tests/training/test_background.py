from __future__ import annotations

import os
import signal
import threading

import pytest

from textune.training.background import Background


def test_work_goes_on_meanwhile() -> None:
    background, gate, done = Background(), threading.Event(), []

    def job() -> None:
        gate.wait(10)
        done.append(threading.current_thread())

    background.start(job)
    assert background.is_working and not done
    gate.set()
    background.collect()
    assert not background.is_working
    assert len(done) == 1 and done[0] is not threading.main_thread()


@pytest.mark.usefixtures("signals_are_heard")
def test_an_interrupted_wait_can_be_taken_up_again() -> None:
    """After a Ctrl-C in it `Thread.join` takes the thread for ended (Python up to 3.12)."""
    background, gate, done = Background(), threading.Event(), []

    def job() -> None:
        gate.wait(10)
        done.append(True)

    background.start(job)
    with pytest.raises(KeyboardInterrupt):  # wherever in the block the signal comes
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        background.wait()
    assert background.is_working
    background.wait(0.01)
    assert not done
    gate.set()
    background.wait()
    assert done and not background.is_working


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()], ids=["threads", "memory"])
def test_where_there_is_no_thread_to_be_had_the_job_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def none_left(self: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", none_left)
    background, done = Background(), []
    background.start(lambda: done.append(threading.current_thread()))
    assert done == [threading.main_thread()] and not background.is_working
    background.collect()
    background.start(lambda: 1 // 0)
    background.wait()
    with pytest.raises(ZeroDivisionError):
        background.collect()


def test_an_error_is_raised_once_where_it_is_collected() -> None:
    background = Background()
    background.start(lambda: 1 // 0)
    background.wait()
    with pytest.raises(ZeroDivisionError):
        background.collect()
    background.collect()
    background.start(lambda: None)
    background.collect()
