from __future__ import annotations

import os

import pytest

from textune.training.allocator import KEPT_KERNELS, keep_few_kernels

LIMITS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def test_the_environment_has_the_last_word_on_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMITS[0], raising=False)
    monkeypatch.setenv(LIMITS[1], "500")
    keep_few_kernels()
    assert [os.environ[name] for name in LIMITS] == [str(KEPT_KERNELS), "500"]
