"""Where textune keeps what it can make again: converted data and token ids. Folders appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from textune.errors import DataError, OutputError, StorageError
from textune.files import storage_errors, sync_contents, sync_folder, user_path
from textune.lock import run_lock

CACHED = {
    "data": "converted data",
    "tokens": "token ids",
    "rows": "rows in use",
    "arithmetic": "measured arithmetic",
}
"""The subfolders, and what is in them."""

OpenedT = TypeVar("OpenedT")

_ABANDONED_SECONDS = 24 * 3600
"""A temporary folder older than this was left by a process that was killed."""
_LOCKED_WITHIN_SECONDS = 60
"""A workspace older than this is locked, if anybody uses it."""


def cache_root(subfolder: str) -> Path:
    """Returns the folder for one kind of cached data: below `$TEXTUNE_CACHE`, `$XDG_CACHE_HOME/textune` or
    `~/.cache/textune`, the first that is set. It need not exist yet."""
    if chosen := os.environ.get("TEXTUNE_CACHE"):
        root = user_path(chosen)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textune"
    return root / subfolder


def num_bytes(folder: Path) -> int:
    """Bytes in all files below a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            total += path.stat().st_size if path.is_file() else 0
    return total


def clear_cache() -> None:
    """Removes what is cached, but for the rows that a process uses."""
    for subfolder in CACHED:
        root = cache_root(subfolder)
        if subfolder == "rows":
            _remove_unlocked(root)
        else:
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder for typed rows while they are used; Arrow maps them from there, so that memory stays flat.

    It is locked as long; those of processes that were killed are removed.
    """
    root = cache_root("rows")
    with _cache_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        _remove_unlocked(root)
        folder = tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True)
    with folder as name, run_lock(Path(name)):
        yield Path(name)


def _remove_unlocked(root: Path) -> None:
    for folder in root.glob("*"):
        with contextlib.suppress(FileNotFoundError, OutputError):  # it has just been removed, or is in use
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _LOCKED_WITHIN_SECONDS:
                with run_lock(folder) as locked:
                    if locked:
                        shutil.rmtree(folder, ignore_errors=True)


def open_or_make(target: Path, fill: Callable[[Path], None], opened: Callable[[Path], OpenedT | None]) -> OpenedT:
    """Returns what `opened` makes of `target`, which `make_folder_once` makes, and makes again where it is damaged.

    Args:
        opened: reads a folder; None if something in it is missing or damaged.

    Raises:
        DataError: what was just written cannot be read.
        OutputError, StorageError: see `make_folder_once`.
    """
    found = opened(make_folder_once(target, fill))
    if found is None:
        shutil.rmtree(target, ignore_errors=True)
        found = opened(make_folder_once(target, fill))
    if found is None:
        raise DataError(f"What was just written to {target} cannot be read.", hint="Check the disk.")
    return found


def make_folder_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Returns `target`, made by `fill(temporary folder beside it)` if it is not there yet.

    The temporary folder is synced and renamed when `fill` returns. If another process was first, its folder is kept and
    ours is removed; if `fill` raises, nothing is left.

    Raises:
        OutputError, StorageError: the cache cannot be written, or the disk is full.
    """
    if target.is_dir():
        return target
    with _cache_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    try:
        with storage_errors(target):
            fill(temporary)
            sync_contents(temporary)
            _rename_unless_there(temporary, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


@contextlib.contextmanager
def _cache_errors(path: Path) -> Iterator[None]:
    """`storage_errors` while a folder is made in the cache, which nobody has named on the command line."""
    try:
        with storage_errors(path):
            yield
    except (OutputError, StorageError) as error:
        raise type(error)(error.message, hint="Set TEXTUNE_CACHE to a folder that can be written.") from error


def _rename_unless_there(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _remove_abandoned(target: Path) -> None:
    for folder in target.parent.glob(f".{target.name}.tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
