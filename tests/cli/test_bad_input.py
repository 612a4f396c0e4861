"""Each mistake ends with its exit code and one message, and leaves everything as it was.

The same commands make docs/bad-input.md. After a message has changed on purpose:
TEXTUNE_UPDATE_DOCS=1 pytest tests/cli/test_bad_input.py -k docs
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

import pytest

from textune.run import Run

from .bad_input import CASES, Case, file_size_limit, make_files
from .conftest import Finished, Textune

DOCS = Path(__file__).parents[2] / "docs" / "bad-input.md"
HEAD = """# Bad input

What textune says when something is wrong, made by running these commands (`tests/cli/test_bad_input.py`). Each ends
with one message on standard error that says what was expected, what was found and what to do, and with an exit code;
nothing that was there before is touched. The hub is switched off here by `HF_HUB_OFFLINE=1`.

| mistake | command: `textune` ... | exit code | message |
|---|---|---|---|
"""
TAIL = """
Ctrl-C in mid-training finishes the step, saves it and ends with exit code 130 and the command that goes on; a second
one stops at once: checkpoints that were committed are whole. See reliability.md. `textune --help` lists all exit codes.
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file size limits and /sys are POSIX")


@pytest.fixture
def world(in_empty_folder: Path, tiny_checkpoint: Path, text_run: Run) -> Path:
    make_files(in_empty_folder, checkpoint=tiny_checkpoint, run=text_run.path)
    return in_empty_folder


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run_case(case: Case, textune: Textune) -> Finished:
    with file_size_limit(case.limit_bytes):
        return textune(*shlex.split(case.command))


def message_of(done: Finished) -> str:
    """The error, without the lines that tell of progress before it."""
    lines = [line for line in done.err.splitlines() if not re.match(r"\[\d\d:\d\d\] ", line)]
    return "\n".join(lines)


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_bad_input(case: Case, textune: Textune, world: Path) -> None:
    before = contents(world)
    done = run_case(case, textune)
    message = message_of(done)
    assert done.code == case.code, message
    for words in case.words:
        assert words in message
    assert "Traceback" not in done.err
    assert done.out == ""
    assert len(message) < 2000
    after = contents(world)
    assert {name: after.get(name) for name in before} == before, "everything is as it was"
    if case.limit_bytes is None:
        assert after == before, "and nothing is new"
    assert case.varies or row_of(case, done) in DOCS.read_text(encoding="utf-8"), (
        "docs/bad-input.md is out of date: see above"
    )


def row_of(case: Case, done: Finished) -> str:
    message = re.sub(r"[\d,]+ MiB free", "N MiB free", message_of(done)).strip().removeprefix("error: ")
    message = re.sub(r"(?<=cache at )\S+", "FOLDER", message)
    for sign, entity in {"&": "&amp;", "<": "&lt;", "|": "&#124;"}.items():
        message = message.replace(sign, entity)
    cell = "<br>".join(line.strip() for line in message.splitlines() if line.strip())
    return f"| {case.what} | `{case.command}` | {done.code} | {cell} |\n"


def test_docs_have_one_row_for_each(textune: Textune, world: Path) -> None:
    if os.environ.get("TEXTUNE_UPDATE_DOCS"):
        rows = "".join(row_of(case, run_case(case, textune)) for case in CASES)
        DOCS.write_text(HEAD + rows + TAIL, encoding="utf-8")
    text = DOCS.read_text(encoding="utf-8")
    assert text.startswith(HEAD) and text.endswith(TAIL)
    assert text.count("\n| ") - 1 == len(CASES)


def test_bad_rows_can_be_dropped(textune: Textune, world: Path) -> None:
    lines = (world / "good.csv").read_text().splitlines()
    (world / "mixed.csv").write_text("\n".join([*lines, ",positive", "a b,,c", "dull,"]) + "\n")
    done = textune(
        *shlex.split("train --data mixed.csv --model tiny --epochs 0.1 --precision fp32 --output out --drop-bad-rows")
    )
    assert done.code == 0
    assert "2 of 22 rows dropped (1 empty text, 1 empty label)" in done.err
    assert "wrong number of fields" in done.err
    data = Run.open(world / "out").data
    assert data["dropped"] == {"train": {"wrong number of fields": 1, "empty text": 1, "empty label": 1}}
    assert sum(split["rows"] for split in data["splits"].values()) == 20


def test_text_that_is_a_number_is_read_as_text(textune: Textune, world: Path) -> None:
    lines = "".join(f'{{"text": {number}, "label": "{"ab"[number % 2]}"}}\n' for number in range(20))
    (world / "numbers.jsonl").write_text(lines)
    done = textune(
        *shlex.split("train --data numbers.jsonl --text text --model tiny --epochs 0.1 --precision fp32 --output out")
    )
    assert done.code == 0
    assert "column 'text' holds int64; its values are read as text" in done.err
