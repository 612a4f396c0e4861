"""Checkpoints of the Hugging Face hub: only the files textune reads, with one clear message for each way to fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textune.errors import InputNotFoundError, UnavailableError

_LOCAL = "Or give the folder of a checkpoint on this machine, or `--model starter`, which needs no network."


def download(name: str, *, revision: str | None, patterns: Sequence[str]) -> Path:
    """Returns the folder of a hub model in the cache below HF_HOME, downloading what is not there yet."""
    raise NotImplementedError
