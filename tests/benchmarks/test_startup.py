from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import startup
from benchmarks.measuring import environment
from benchmarks.startup import seconds_until


def test_commands_are_timed(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(startup)
    asked: list[Any] = []

    def command(training: Any) -> list[str]:
        asked.append(training)
        return [sys.executable, "-c", "print('[00:01] step 1/1  loss 0.7')"]

    monkeypatch.setattr(startup, "command", command)
    monkeypatch.setattr(startup, "FIRST_STEPS", {"textune": "step 1/"})
    monkeypatch.setattr(startup, "COMMANDS", {"nothing": [sys.executable, "-c", "pass"]})
    output = tmp_path / "found.json"
    startup.main(["--rounds", "2", "--threads", "1", "--shape", str(tiny_checkpoint), "--output", str(output)])
    found = json.loads(output.read_text())
    assert {name: len(values) for name, values in found["seconds"].items()} == {"nothing": 2, "first step: textune": 2}
    assert 0 < found["summary"]["nothing"]["median"] < 10
    assert [training.duration for training in asked] == [1, 1, 1]
    assert len({training.work for training in asked}) == 3, "each with caches of its own"


@pytest.mark.parametrize(("text", "seconds"), [("step 1/", 3.0), (None, 8.0)])
def test_the_clock_stops_at_the_first_such_line_or_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, seconds: float
) -> None:
    begin, line, end = 10.0, 13.0, 18.0
    readings = iter([begin, end] if text is None else [begin, line, end])
    monkeypatch.setattr(startup.time, "perf_counter", lambda: next(readings))
    code = "print('loading'); print('step 1/1  loss 0.7'); print('step 1/1 was the last')"
    assert seconds_until(text, [sys.executable, "-c", code], environment(threads=1, cache=tmp_path)) == seconds


@pytest.mark.parametrize("code", ["print('step 2/2')", "print('step 1/1'); raise SystemExit('no')"])
def test_what_goes_wrong_is_said(tmp_path: Path, code: str) -> None:
    with pytest.raises(SystemExit, match=r"(?s)ended with [01]:\n.*step"):
        seconds_until("step 1/", [sys.executable, "-c", code], environment(threads=1, cache=tmp_path))
