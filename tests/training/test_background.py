from __future__ import annotations

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


def test_an_error_is_raised_once_where_it_is_collected() -> None:
    background = Background()
    background.start(lambda: 1 // 0)
    background.wait()
    with pytest.raises(ZeroDivisionError):
        background.collect()
    background.collect()
    background.start(lambda: None)
    background.collect()
