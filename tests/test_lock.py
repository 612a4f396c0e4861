from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import textune.lock
from textune.errors import OutputError
from textune.lock import LOCK_FILE, require_unlocked, run_lock

HOLD = """
import sys, time
from pathlib import Path
from textune.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    with run_lock(folder) as locked:
        assert locked
        for ask in (lambda: run_lock(folder).__enter__(), lambda: require_unlocked(folder)):
            with pytest.raises(OutputError) as caught:
                ask()
            assert caught.value.message == (
                f"Process {os.getpid()} on {os.uname().nodename} is training in {str(folder)!r}; nothing was touched."
            )
    assert list(folder.iterdir()) == []
    require_unlocked(folder)
    require_unlocked(tmp_path / "none")
    with run_lock(folder):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"Process {process.pid} on "):
            require_unlocked(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK_FILE).exists(), "the file stays, the lock does not"
    require_unlocked(tmp_path)
    with run_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()


def test_a_holder_that_ends_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its file with it: a lock on that would keep nobody out."""
    lock = textune.lock._lock
    ended = []

    def lock_late(descriptor: int, path: Path) -> bool:
        if not ended:
            ended.append(path)
            path.unlink()
        return lock(descriptor, path)

    monkeypatch.setattr("textune.lock._lock", lock_late)
    with run_lock(tmp_path):
        assert ended == [tmp_path / LOCK_FILE]
        with pytest.raises(OutputError, match=f"Process {os.getpid()} on "):
            require_unlocked(tmp_path)


def test_a_lock_file_without_sense(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("{")
        with pytest.raises(OutputError, match="Another process is training in"):
            require_unlocked(tmp_path)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_lock(tmp_path) as locked:
        assert not locked
