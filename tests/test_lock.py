from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import textune.lock
from textune.errors import OutputError, StorageError
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

    def lock_late(descriptor: int, path: Path, kind: int) -> bool:
        if not ended:
            ended.append(path)
            path.unlink()
        return lock(descriptor, path, kind)

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
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_lock(tmp_path) as locked:
        assert not locked
        require_unlocked(tmp_path)


def test_a_lock_that_needs_a_file_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS makes byte-range locks of flock's: an exclusive one needs the right to write."""
    flock = fcntl.flock

    def over_nfs(descriptor: int, operation: int) -> None:
        is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if operation & fcntl.LOCK_EX and is_read_only:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", over_nfs)
    (tmp_path / LOCK_FILE).write_text("{}")  # of a killed process
    require_unlocked(tmp_path)
    with run_lock(tmp_path), pytest.raises(OutputError, match=f"Process {os.getpid()} on "):
        require_unlocked(tmp_path)


def test_those_who_only_look_do_not_keep_each_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK_FILE).write_text("{}")
    flock = fcntl.flock
    others: list[int] = []

    def look_too(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not others:
            others.append(descriptor)
            require_unlocked(tmp_path)

    monkeypatch.setattr(fcntl, "flock", look_too)
    require_unlocked(tmp_path)
    assert others


@pytest.mark.parametrize("take", [require_unlocked, lambda folder: run_lock(folder).__enter__()])
def test_a_lock_that_fails_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[Path], object]
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / LOCK_FILE).write_text("{}")
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(StorageError, match=r"run\.lock' failed: Input/output error"):
        take(tmp_path)
