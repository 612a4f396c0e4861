from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from textune.data.cache import workspace

from .conftest import Textune


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_sizes(textune: Textune, cache: Path) -> None:
    (cache / "tokens" / "a").mkdir(parents=True)
    (cache / "tokens" / "a" / "tokens.arrow").write_bytes(bytes(3 * 2**20))
    done = textune("cache")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == str(cache)
    assert {tuple(line.rsplit(maxsplit=2)) for line in done.out.splitlines()[1:]} == {
        ("  converted data", "0.0", "MiB"),
        ("  token ids", "3.0", "MiB"),
        ("  rows in use", "0.0", "MiB"),
        ("  measured arithmetic", "0.0", "MiB"),
    }


def test_clearing_leaves_what_is_in_use_and_what_is_not_textunes(textune: Textune, cache: Path) -> None:
    for name in ("data/a", "tokens/b", "arithmetic", "rows/left", "mine"):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").touch()
    an_hour_ago = time.time() - 3600
    with workspace() as used:
        for folder in (used, cache / "rows" / "left"):
            os.utime(folder, (an_hour_ago, an_hour_ago))
        assert textune("cache", "--clear").code == 0
        kept = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
        assert kept == {f"rows/{used.name}/run.lock", "mine/file"}
