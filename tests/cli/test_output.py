from __future__ import annotations

import io
import json
import sys

import pytest

from textune.cli.output import print_json


@pytest.mark.parametrize(("encoding", "as_it_is"), [("utf-8", True), ("latin-1", False), ("ascii", False)])
def test_json_can_be_read_back_from_any_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, as_it_is: bool
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    value = {"라벨": ["±", "é", "\U0001f600"]}
    print_json(value)
    stream.seek(0)
    text = stream.read()
    assert json.loads(text) == value
    assert ("라벨" in text) == as_it_is
