"""One process for one run folder: a lock that is gone when its process is, however that ended."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from textune.errors import OutputError
from textune.files import storage_errors

LOCK_FILE = "run.lock"
"""Its name in the run folder. The file alone means nothing: the operating system's lock on it does (flock)."""
# File systems without locks, as some that are shared in clusters.
_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock inside the block, and makes the folder if need be.

    Gives:
        Whether there is a lock: not where the file system has none.

    Raises:
        OutputError, StorageError: another process holds it; says which. Or the folder cannot be written.
    """
    path = folder / LOCK_FILE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor, locked = _locked_file(path)
    try:
        with storage_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        try:
            yield locked
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def run_lock_or_warning(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds the folder's lock inside the block, as `run_lock`; says so where the file system has none."""
    with run_lock(folder) as locked:
        if not locked:
            warn(f"{folder}: its file system has no locks, so that nothing keeps a second process out of it")
        yield


def require_unlocked(folder: Path) -> None:
    """Looks whether another process holds the folder's lock.

    Raises:
        OutputError: it does; says which.
        StorageError: the file system cannot say.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # no folder, no lock, or no rights, of which others speak
        return
    try:
        # Shared: others may look as well, and over NFS an exclusive lock needs a file open for writing.
        _lock(descriptor, path, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked_file(path: Path) -> tuple[int, bool]:
    """The open file, and whether it could be locked."""
    while True:
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor, path, fcntl.LOCK_EX)
            if _is_file(path, descriptor):
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has just ended and has taken the file with it


def _lock(descriptor: int, path: Path, kind: int) -> bool:
    with storage_errors(path):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(path) from None
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return False
            raise
    return True


def _is_file(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _held(path: Path) -> OutputError:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"Process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):  # it is just coming or going
        who = "Another process"
    return OutputError(
        f"{who} is training in {str(path.parent)!r}; nothing was touched.",
        hint="Wait for it or end it, or choose another folder with --output.",
    )
