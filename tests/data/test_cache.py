from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from textune.data.cache import cache_root, make_folder_once, open_or_make, workspace
from textune.errors import DataError, OutputError, StorageError


def fill(folder: Path) -> None:
    (folder / "a").write_text("new", encoding="utf-8")


def test_the_root_is_the_first_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TEXTUNE_CACHE", "~/mine")
    assert cache_root("tokens") == tmp_path / "home" / "mine" / "tokens"
    monkeypatch.setenv("TEXTUNE_CACHE", "")
    assert cache_root("tokens") == tmp_path / "xdg" / "textune" / "tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root("tokens") == tmp_path / "home" / ".cache" / "textune" / "tokens"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_filled_once(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "x"
    assert make_folder_once(target, fill) == target
    assert (target / "a").read_text(encoding="utf-8") == "new"
    assert make_folder_once(target, lambda folder: pytest.fail("filled again")) == target
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_what_cannot_be_opened_is_made_again_once(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()

    def read(folder: Path) -> str | None:
        return (folder / "a").read_text(encoding="utf-8") if (folder / "a").exists() else None

    assert open_or_make(tmp_path / "x", fill, read) == "new"
    with pytest.raises(DataError, match=r"What was just written to .* cannot be read\."):
        open_or_make(tmp_path / "y", fill, lambda folder: None)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_could_not_be_filled_is_not_there(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(error):
        make_folder_once(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left while writing"):
        make_folder_once(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_are_at_it_at_once_the_first_wins(tmp_path: Path) -> None:
    target, both = tmp_path / "x", threading.Barrier(2, timeout=20)

    def make() -> None:
        def slowly(folder: Path) -> None:
            fill(folder)
            both.wait()

        make_folder_once(target, slowly)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert [path.name for path in target.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new, other = tmp_path / ".x.tmp-old", tmp_path / ".x.tmp-new", tmp_path / ".y.tmp-old"
    for folder in (old, new, other):
        folder.mkdir()
    yesterday = time.time() - 25 * 3600
    for folder in (old, other):
        os.utime(folder, (yesterday, yesterday))
    make_folder_once(tmp_path / "x", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tmp-new", ".y.tmp-old", "x"]


def test_workspaces_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path))
    left, new, file = tmp_path / "rows" / "left", tmp_path / "rows" / "new", tmp_path / "rows" / "file"
    for folder in (left, new):
        folder.mkdir(parents=True)
        (folder / "train.arrow").touch()
    file.touch()
    an_hour_ago = time.time() - 3600
    with workspace() as used:
        (used / "train.arrow").touch()
        for path in (left, used, file):
            os.utime(path, (an_hour_ago, an_hour_ago))
        with workspace() as other:
            assert set((tmp_path / "rows").iterdir()) == {used, other, new, file}
            assert (used / "train.arrow").exists()
    assert set((tmp_path / "rows").iterdir()) == {new, file}


def test_a_cache_that_cannot_be_made_says_how_to_choose_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        make_folder_once(tmp_path / "file" / "tokens" / "x", fill)
    assert caught.value.hint == "Set TEXTUNE_CACHE to a folder that can be written."
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError) as caught, workspace():
        pass
    assert caught.value.hint == "Set TEXTUNE_CACHE to a folder that can be written."
