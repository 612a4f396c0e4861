"""Writing files so that a reader sees the old contents or the new, never a half; and what to say when that fails."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import secrets
import shutil
import stat
import types
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from textune.errors import DataError, InputNotFoundError, OutputError, StorageError, TextuneError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG_NAME = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_CHOOSE_FOLDER = "Choose another folder, or change its rights."


@contextlib.contextmanager
def storage_errors(path: Path, *, num_bytes: int | None = None) -> Iterator[None]:
    """Turns the operating system's errors while writing below `path` into textune's own.

    Args:
        num_bytes: what is to be written, where it is known, for the message.

    Raises:
        OutputError: no permission, a read-only file system, a name that is too long, or a file where a folder is
            needed.
        StorageError: the disk or the quota is full, or the device failed.
    """
    try:
        yield
    except TextuneError:
        raise
    except OSError as error:
        raise _translated(error, path, num_bytes) from error
    except Exception as error:
        # safetensors reports the system's error as text in an exception of its own.
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise _translated(OSError(int(code[1]), os.strerror(int(code[1]))), path, num_bytes) from error


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's errors while looking at or reading `path` into textune's own.

    Raises:
        InputNotFoundError: there is nothing, it may not be read, or its name cannot be one.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputNotFoundError(f"Expected the file {str(path)!r}; there is none.") from error
    except OSError as error:
        raise InputNotFoundError(f"Cannot read {str(path)!r}: {error.strerror}.") from error


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user has written: `~` is their home; `~name` stays where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError there


def check_new_file(path: Path, *, option: str, overwrite: bool) -> None:
    """Looks before the work begins whether its result can be written to this file.

    Args:
        option: by which the user has named it, for the message: "--output".
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: it is there already or is a folder, its folder is not there, or nothing may be written there.
    """
    with storage_errors(path):
        if path.is_dir():
            raise OutputError(f"{option}: {str(path)!r} is a folder, expected a file.")
        if path.exists() and not overwrite:
            raise OutputError(
                f"{option}: {str(path)!r} is there already; nothing was touched.",
                hint="Choose another name, or say --overwrite.",
            )
        if not path.absolute().parent.is_dir():
            raise OutputError(f"{option}: there is no folder {str(path.parent)!r}.", hint="Make it first.")
    if not os.access(path.absolute().parent, os.W_OK):
        raise OutputError(f"{option}: no permission to write in {str(path.parent)!r}.", hint=_CHOOSE_FOLDER)


def _translated(error: OSError, path: Path, num_bytes: int | None) -> OutputError | StorageError:
    if error.errno in _FULL:
        return _disk_full(path, num_bytes)
    if error.errno in _NOT_WRITABLE:
        return OutputError(f"Cannot write {str(path)!r}: {error.strerror}.", hint=_CHOOSE_FOLDER)
    if error.errno in _WRONG_NAME:
        return OutputError(f"Cannot write {str(path)!r}: {error.strerror}.", hint="Choose another name.")
    return StorageError(f"Writing {str(path)!r} failed: {error.strerror or error}.", hint="Check the disk, then retry.")


def _disk_full(path: Path, num_bytes: int | None) -> StorageError:
    need = "" if num_bytes is None else f"{mebibytes(num_bytes)} needed, "
    return StorageError(
        f"No space left while writing {str(path)!r} ({need}{mebibytes(free_bytes(path))} free on that disk).",
        hint="Free some space or choose another disk; what was complete before is still whole.",
    )


def free_bytes(path: Path) -> int:
    """Bytes that may be written below `path`, which need not exist yet. Quotas are not seen."""
    existing = next((folder for folder in [path, *path.absolute().parents] if folder.exists()), Path.cwd())
    return shutil.disk_usage(existing).free


def require_space(path: Path, num_bytes: int, *, what: str) -> None:
    """Looks before the work begins whether there is room for what it will write below `path`.

    Raises:
        StorageError: there is not.
    """
    free = free_bytes(path)
    if free < num_bytes:
        raise StorageError(
            f"{str(path)!r} needs about {mebibytes(num_bytes)} for {what}; {mebibytes(free)} are free on that disk.",
            hint="Free some space, or choose another disk with --output.",
        )


def mebibytes(num_bytes: int) -> str:
    """Returns "2.5 MiB", "1,024 MiB"."""
    return f"{num_bytes / 2**20:,.0f} MiB" if num_bytes >= 10 * 2**20 else f"{num_bytes / 2**20:,.1f} MiB"


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable: a rename survives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_contents(folder: Path) -> None:
    """Makes the files in `folder` and their names durable."""
    for entry in sorted(folder.iterdir()):
        with entry.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _share_contents(folder: Path) -> None:
    """Lets those read the files in `folder` who may read it: safetensors makes files that their owner alone may read.

    What the umask, or the rights of the folder above, left to the folder is what it leaves to files.
    """
    usual = folder.stat().st_mode & 0o666
    for entry in folder.iterdir():
        mode = stat.S_IMODE(entry.stat().st_mode)
        if mode & usual != usual:
            with contextlib.suppress(OSError):  # a file system without rights of single files
                entry.chmod(mode | usual)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well it is synced and renamed to `path`.

    Raises:
        OutputError, StorageError: see `storage_errors`.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with storage_errors(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what stopped the writing is the news, not that nothing is there
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path, *, num_bytes: int | None = None) -> Iterator[Path]:
    """Gives an empty folder beside `path`; when the block ends well, it is synced and takes the place of `path`.

    Raises:
        OutputError, StorageError: see `storage_errors`.
    """
    # Another name each time: a thread whose write hung may still wake up in the folder of an earlier attempt.
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary, old = (path.with_name(f".{path.name}.{kind}-{mark}") for kind in ("tmp", "old"))
    try:
        with storage_errors(path, num_bytes=num_bytes):
            temporary.mkdir(parents=True)
            yield temporary
            _share_contents(temporary)
            sync_contents(temporary)
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
            sync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder, so that it is there whole or not at all, whenever the process is killed.

    What of it cannot be deleted now, as a file that somebody reads over NFS, is left to `clear_unfinished`.

    Raises:
        OutputError, StorageError: see `storage_errors`.
    """
    # Another name each time: what is left of an earlier one of that name is in nobody's way.
    removed = path.with_name(f".{path.name}.tmp-removed-{secrets.token_hex(4)}")
    with storage_errors(path):
        path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def clear_unfinished(folder: Path, *, names: str) -> None:
    """Takes away what a killed process left half written in a folder, and puts back what it was about to replace.

    Only for the one process that writes there.

    Args:
        names: a pattern for the names of finished files and folders, as "step-*".
    """
    for old in folder.glob(f".{names}.old-*"):
        target = folder / old.name[1:].rpartition(".old-")[0]
        if not target.exists():
            old.rename(target)
    for kind in ("tmp", "old"):
        for leftover in folder.glob(f".{names}.{kind}-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as indented JSON, as `write_json` writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputNotFoundError: there is no such file, or it may not be read.
        DataError: it is not JSON.
    """
    try:
        with reading_errors(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {str(path)!r}; it cannot be read: {error}.") from error


def misfits(kind: type, values: Any, *, without: Collection[str] = ()) -> list[str]:
    """Names of a dataclass's fields that are missing in what JSON held for it, or have a value of another type there.

    Args:
        kind: the dataclass; its fields are plain values, lists, tuples or dicts, or unions of these.
        without: fields that are not stored.
    """
    if not isinstance(values, dict):
        return [kind.__name__]
    hints = typing.get_type_hints(kind)
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in without and (field.name not in values or not _fits(values[field.name], hints[field.name]))
    ]


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in hint.__args__)
    plain = typing.get_origin(hint) or hint
    if plain is Any:
        return True
    if isinstance(value, bool) or plain is bool:
        return isinstance(value, bool) and plain is bool
    return isinstance(value, {float: (int, float), tuple: (list, tuple)}.get(plain, plain))
