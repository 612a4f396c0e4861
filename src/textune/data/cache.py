"""Where textune keeps what it can make again: converted data and token ids. Folders appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from textune.errors import OutputError
from textune.files import storage_errors, sync_folder

_ABANDONED_SECONDS = 24 * 3600
"""A temporary folder older than this was left by a process that was killed."""


def cache_root(subfolder: str) -> Path:
    """Returns the folder for one kind of cached data: below `$TEXTUNE_CACHE`, `$XDG_CACHE_HOME/textune` or
    `~/.cache/textune`, the first that is set. It need not exist yet."""
    if chosen := os.environ.get("TEXTUNE_CACHE"):
        root = Path(chosen).expanduser()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textune"
    return root / subfolder


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder for typed rows while they are used; Arrow maps them from there, so that memory stays flat."""
    root = cache_root("rows")
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def make_folder_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Returns `target`, made by `fill(temporary folder beside it)` if it is not there yet.

    The temporary folder is synced and renamed when `fill` returns. If another process was first, its folder is kept and
    ours is removed; if `fill` raises, nothing is left.

    Raises:
        OutputError, StorageError: the cache cannot be written, or the disk is full.
    """
    if target.is_dir():
        return target
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    except OutputError as error:
        raise OutputError(error.message, hint="Set TEXTUNE_CACHE to a folder that can be written.") from error
    try:
        with storage_errors(target):
            fill(temporary)
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            _rename_unless_there(temporary, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


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
