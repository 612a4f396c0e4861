from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from textune.errors import DataError, InputNotFoundError, OutputError, StorageError, TextuneError
from textune.files import (
    check_new_file,
    clear_unfinished,
    read_json,
    remove_folder,
    replacing,
    replacing_folder,
    require_space,
    storage_errors,
    sync_folder,
    user_path,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf_8_and_json_as_people_read_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer 크다\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer 크다\n".encode()
    write_json(tmp_path / "a.json", {"ö": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ö": [\n    1,\n    null\n  ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"ö": [1, None]}
    assert names(tmp_path) == ["a.json", "a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_each_attempt_at_a_folder_has_its_own_place(tmp_path: Path) -> None:
    """A thread that was given up may wake up while its process tries again."""
    with replacing_folder(tmp_path / "step-1") as one:
        with replacing_folder(tmp_path / "step-1") as other:
            (other / "state.json").write_text("whole")
        (one / "state.json").write_text("late")
        assert (tmp_path / "step-1" / "state.json").read_text() == "whole"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_all_files_of_a_folder_have_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing_folder(tmp_path / "model") as temporary:
            save_file({"weight": np.zeros(2)}, temporary / "model.safetensors")  # for its owner alone
            (temporary / "config.json").touch()
            (temporary / "run.sh").touch(0o777)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    usual = 0o666 & ~umask
    assert modes == {"model.safetensors": usual, "config.json": usual, "run.sh": 0o777 & ~umask}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=["error", "interruption"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_number_that_json_has_no_word_for_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_contents_are_synced_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        calls.append("sync folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "sync file")
        sync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_text(tmp_path / "a.txt", "x")
    assert [call.partition(" ")[0] for call in calls] == ["sync", "rename", "sync"]
    if Path("/proc/self/fd").is_dir():
        assert calls == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, StorageError, "No space left while writing"),
        (errno.EDQUOT, StorageError, "No space left while writing"),
        (errno.EFBIG, StorageError, "No space left while writing"),
        (errno.EIO, StorageError, "failed: Input/output error"),
        (errno.EACCES, OutputError, "Permission denied"),
        (errno.EROFS, OutputError, "Read-only file system"),
        (errno.ENOTDIR, OutputError, "Not a directory"),
        (errno.EISDIR, OutputError, "Is a directory"),
        (errno.EEXIST, OutputError, "File exists"),
        (errno.ENAMETOOLONG, OutputError, "File name too long"),
    ],
)
def test_the_systems_errors_become_textunes(
    tmp_path: Path, number: int, kind: type[TextuneError], message: str
) -> None:
    with pytest.raises(kind) as caught, storage_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert message in caught.value.message
    assert repr(str(tmp_path / "a")) in caught.value.message
    assert caught.value.hint


def test_a_full_disk_is_told_from_the_text_where_a_library_hides_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left"), storage_errors(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="something else"), storage_errors(tmp_path):
        raise RuntimeError("something else")


def test_a_full_disk_says_how_much_is_free_also_where_the_path_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"\([\d,]+ MiB free on that disk\)"), storage_errors(tmp_path / "a" / "b"):
        raise OSError(errno.ENOSPC, "x")


def test_a_disk_that_fills_up_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files is the nearest thing to a full disk that needs no rights."""
    pytest.importorskip("resource")
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = """
import pathlib, resource, signal, sys
from textune.errors import StorageError
from textune.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(pathlib.Path(sys.argv[1]), "x" * 100_000)
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert f"No space left while writing {str(path)!r}" in done.stdout
    assert "what was complete before is still whole" in done.stdout
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_a_name_beyond_what_the_system_allows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        write_text(tmp_path / ("a" * 300), "x")


@pytest.mark.parametrize(
    ("name", "overwrite", "words"),
    [
        ("old.html", False, "--page: '.*old.html' is there already; nothing was touched"),
        ("folder", True, "--page: '.*folder' is a folder, expected a file"),
        ("missing/new.html", True, "--page: there is no folder '.*missing'"),
        ("old.html/new.html", True, "--page: there is no folder '.*old.html'"),
        ("a" * 300, True, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before(
    tmp_path: Path, name: str, overwrite: bool, words: str
) -> None:
    (tmp_path / "old.html").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=words):
        check_new_file(tmp_path / name, option="--page", overwrite=overwrite)
    check_new_file(tmp_path / "old.html", option="--page", overwrite=True)
    check_new_file(tmp_path / "new.html", option="--page", overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "old.html"]


def test_rights_to_write_a_file_are_looked_at_before(
    tmp_path: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match=r"Cannot write '.*new\.html': Permission denied"):
        check_new_file(closed_folder / "new.html", option="--page", overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="--page: no permission to write in "):
        check_new_file(tmp_path / "new.html", option="--page", overwrite=False)


def test_a_path_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs" / "a"
    assert user_path(Path("~")) == tmp_path
    for name in ("runs/~", "/a/b", "~there-is-nobody-of-this-name/a"):
        assert user_path(name) == Path(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "a.txt", "x")


@pytest.mark.parametrize(
    ("fill", "kind", "message"),
    [
        (lambda path: None, InputNotFoundError, "Expected the file '"),
        (lambda path: path.mkdir(), InputNotFoundError, "Is a directory"),
        (lambda path: path.write_text("{"), DataError, "Expected JSON in '"),
        (lambda path: path.write_text(""), DataError, "Expected JSON in '"),
        (lambda path: path.write_bytes(b'"\xff"'), DataError, "can't decode byte 0xff"),
        (lambda path: path.write_text("[" * 100_000), DataError, "recursion"),
    ],
    ids=["missing", "folder", "cut short", "empty", "not UTF-8", "deep"],
)
def test_json_that_cannot_be_read_is_named(
    tmp_path: Path, fill: Callable[[Path], object], kind: type[TextuneError], message: str
) -> None:
    path = tmp_path / "a.json"
    fill(path)
    with pytest.raises(kind) as caught:
        read_json(path)
    assert message in str(caught.value)
    assert repr(str(path)) in str(caught.value)


def test_a_folder_is_synced_through_a_descriptor_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sync_folder(tmp_path)
    assert len(synced) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(synced[0])


def test_a_folder_is_removed_whole_whenever_the_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("step-1", "step-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_folder(tmp_path / "step-1")
    assert names(tmp_path) == ["step-2"]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *rest, **options: None)  # killed before the first file is gone
        remove_folder(tmp_path / "step-2")
    assert not (tmp_path / "step-2").exists()
    clear_unfinished(tmp_path, names="step-*")
    assert names(tmp_path) == []


def test_a_folder_that_does_not_go_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps the names of files that somebody still reads."""
    folder = tmp_path / "step-1"

    def busy(path: str, **options: int) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", busy)
        for _ in range(2):  # the second time what was left of the first is in the way of nothing
            folder.mkdir()
            (folder / "file").touch()
            remove_folder(folder)
            assert not folder.exists()
            clear_unfinished(tmp_path, names="step-*")
    assert len(names(tmp_path)) == 2
    clear_unfinished(tmp_path, names="step-*")
    assert names(tmp_path) == []
    with pytest.raises(StorageError, match="step-1' failed: No such file"):
        remove_folder(folder)


def test_what_was_about_to_be_replaced_is_put_back(tmp_path: Path) -> None:
    for name in (".step-1.old-7", ".step-1.tmp-7", ".step-2.old-7", "step-2", ".other.tmp-7"):
        (tmp_path / name).mkdir()
    (tmp_path / ".step-1.old-7" / "file").touch()
    clear_unfinished(tmp_path, names="step-*")
    assert names(tmp_path) == [".other.tmp-7", "step-1", "step-2"]
    assert (tmp_path / "step-1" / "file").exists()


def test_space_is_compared_with_what_is_free(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1, what="a byte")
    with pytest.raises(StorageError, match=r"needs about [\d,]+ MiB for a lot; [\d,.]+ MiB are free on that disk"):
        require_space(tmp_path, 2**60, what="a lot")


@pytest.mark.parametrize(
    ("code", "kind"), [(28, StorageError), (27, StorageError), (5, StorageError), (30, OutputError)]
)
def test_errors_that_safetensors_tells_as_text(tmp_path: Path, code: int, kind: type[TextuneError]) -> None:
    with pytest.raises(kind), storage_errors(tmp_path / "a", num_bytes=2**20):
        raise RuntimeError(f"Error while serializing: I/O error: something (os error {code})")
    with pytest.raises(RuntimeError), storage_errors(tmp_path):
        raise RuntimeError("something else")
