from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from textune.errors import InputNotFoundError
from textune.models.weights import check_safetensors


def test_weights_that_may_not_be_read_are_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputNotFoundError, match=r"Cannot read '.*model\.safetensors': Permission denied"):
        check_safetensors(tmp_path / "model.safetensors", name="mine")
