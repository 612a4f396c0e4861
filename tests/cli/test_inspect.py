from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from trained import pair_rows

import textune as package
from faults.material import write_json_lines
from textune.display import Display
from textune.errors import ConfigError, StorageError, UnavailableError
from textune.run import Run

from .conftest import Textune


@pytest.fixture
def data(tmp_path: Path, tiny_rows: list[dict[str, str]]) -> Path:
    """Training and validation rows with a leak, an empty text and a nearly equal row."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    rows = [dict(row) for row in tiny_rows]
    rows[4]["text"] = " "
    long = "we saw the play today and it was lovely, the garden too"
    rows += [{"text": long, "label": "positive"}, {"text": f"{long}!", "label": "positive"}]
    write_json_lines(folder / "train.jsonl", rows)
    write_json_lines(folder / "validation.jsonl", [{"text": "Unlike  anything before", "label": "positive"}, rows[0]])
    return folder


def test_inspect(textune: Textune, data: Path, tiny_checkpoint: Path) -> None:
    done = textune("inspect", data, "--model", tiny_checkpoint)
    assert done.code == 0
    lines = done.out.splitlines()
    assert any(line.startswith("error   1 of 66 train rows (1.5 %) cannot be used: empty text") for line in lines)
    assert "        row 5" in lines
    assert "error   1 of 2 validation rows (50 %) equals a row of train" in lines
    assert "        row 2: 'the film was good .' [positive] | row 1 of train: 'the film was good .' [positive]" in lines
    assert any("1 of 65 train rows (1.5 %) is nearly equal to an earlier row" in line for line in lines)
    assert "found       2 errors" in done.out
    assert re.search(r"not found   2\d of \d\d kinds of defects looked for\n", done.out)
    assert "rows        counted from 1, without a header line\n" in done.out
    assert "train" in lines[3] and "65" in lines[3] and "'negative' 32, 'positive' 33" in lines[3]
    assert "tokenising train: 65 rows" in done.err


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_lines_that_cannot_be_read_are_named(
    textune: Textune, tmp_path: Path, tiny_rows: list[dict[str, str]], tiny_checkpoint: Path, name: str
) -> None:
    if name.endswith(".csv"):
        lines = ["text,label", *(f"{row['text']},{row['label']}" for row in tiny_rows)]
        lines[2:2] = ["one,two,three"]
        expected = "line 3: expected 2 fields (text, label), found 3"
    else:
        lines = ["[1, 2]", *map(json.dumps, tiny_rows)]
        expected = "line 1: expected an object with the columns as keys, found a list"
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    done = textune("inspect", path, "--model", tiny_checkpoint)
    assert f"{path}: 1 line cannot be read. {expected}" in done.err
    assert "1 of 65 train rows (1.5 %) cannot be used: " in done.out
    assert "; row numbers do not count them" in done.out
    found = json.loads(textune("inspect", path, "--model", tiny_checkpoint, "--json", "--quiet").out)
    assert f"{path}: 1 line cannot be read. {expected}" in found["notes"]


def test_json_and_limit(textune: Textune, data: Path, tiny_checkpoint: Path) -> None:
    done = textune("inspect", data, "--model", tiny_checkpoint, "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["name"] == "reviews"
    assert [finding["kind"] for finding in found["findings"]][:2] == ["empty_text", "leaked_duplicates"]
    assert found["splits"]["train"]["tokens"]["longest"] > 5
    assert "truncated" in found["checked"]
    short = json.loads(textune("inspect", data, "--model", tiny_checkpoint, "--json", "--quiet", "--limit", 0).out)
    assert all(finding["rows"] == finding["examples"] == [] for finding in short["findings"])
    assert [finding["count"] for finding in short["findings"]] == [finding["count"] for finding in found["findings"]]


@pytest.mark.parametrize(("grave", "code"), [("error", 1), ("warning", 1)])
def test_fail_on(textune: Textune, data: Path, tiny_checkpoint: Path, grave: str, code: int) -> None:
    done = textune("inspect", data, "--model", tiny_checkpoint, "--quiet", "--fail-on", grave)
    assert done.code == code
    assert "found " in done.out


def test_fail_on_warning_only(textune: Textune, tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = [{"text": f"<b>{word}</b>", "label": word[0]} for word in ("apple", "avocado", "banana", "blueberry")]
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    assert textune("inspect", path, "--model", tiny_checkpoint, "--quiet", "--fail-on", "error").code == 0
    assert textune("inspect", path, "--model", tiny_checkpoint, "--quiet", "--fail-on", "warning").code == 1


def test_max_length(textune: Textune, data: Path, tiny_checkpoint: Path) -> None:
    done = textune("inspect", data, "--model", tiny_checkpoint, "--max-length", 5, "--json", "--quiet")
    cut = next(finding for finding in json.loads(done.out)["findings"] if finding["kind"] == "truncated")
    assert "are cut to 5 tokens" in cut["message"]


def test_page(textune: Textune, data: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    assert textune("inspect", data, "--model", tiny_checkpoint, "--quiet", "--page", page).code == 0
    parser = HTMLParser()
    parser.feed(page.read_text(encoding="utf-8"))
    assert "1 of 2 validation rows (50 %) equals a row of train" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_refused_at_once(
    textune: Textune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textune.inspection.inspect", lambda *rest, **options: pytest.fail("the work has begun"))
    (tmp_path / "old.html").write_text("mine")
    done = textune("inspect", "sample", "--page", tmp_path / "old.html")
    assert (done.code, done.out) == (73, "")
    assert "old.html' is there already; nothing was touched." in done.err and "--overwrite" in done.err
    done = textune("inspect", "sample", "--page", tmp_path / "missing" / "page.html", "--overwrite")
    assert done.code == 73
    assert done.err.startswith("error: --page: there is no folder ")
    assert (tmp_path / "old.html").read_text() == "mine"


def test_a_page_is_replaced_when_asked(
    textune: Textune, data: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.html").write_text("old")
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = ["--model", tiny_checkpoint, "--quiet", "--page", "~/old.html", "--overwrite"]
    assert textune("inspect", data, *flags).code == 0
    assert (tmp_path / "old.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_page_is_written_although_nobody_reads_the_result_to_its_end(
    textune: Textune, data: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(*arguments: object, **options: object) -> None:
        raise click.exceptions.Exit(0)  # what standard output raises when `head` has gone

    monkeypatch.setattr("textune.cli.audit_tables.print_audit", enough)
    done = textune("inspect", data, "--model", tiny_checkpoint, "--quiet", "--page", tmp_path / "page.html")
    assert done.code == 0
    assert (tmp_path / "page.html").is_file()


def test_the_result_is_printed_although_the_page_cannot_be_written(
    textune: Textune, data: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, text: str) -> None:
        raise StorageError("No space left")

    monkeypatch.setattr("textune.files.write_text", fill)
    done = textune("inspect", data, "--model", tiny_checkpoint, "--quiet", "--page", tmp_path / "page.html")
    assert done.code == 74
    assert "found       2 errors" in done.out
    assert done.err == "error: No space left\n"


def test_label_errors(textune: Textune, tiny_csv: Path, tiny_checkpoint: Path) -> None:
    done = textune("inspect", tiny_csv, "--model", tiny_checkpoint, "--label-errors", "--json", "--quiet")
    assert done.code == 0
    assert "suspected_labels" in json.loads(done.out)["checked"]


def test_label_errors_need_classes(textune: Textune, tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = [{"text": f"row {at}", "score": at / 7} for at in range(30)]
    path = write_json_lines(tmp_path / "scores.jsonl", rows)
    done = textune("inspect", path, "--model", tiny_checkpoint, "--label-errors", "--quiet")
    assert done.code == 2
    assert "--label-errors: expected rows with one label each" in done.err


def test_a_terminal_shows_the_lines_of_a_finding_below_one_another(
    textune: Textune, data: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    done = textune("inspect", data, "--model", tiny_checkpoint, "--quiet")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.out).splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("error"))
    findings = lines[first : lines.index("", first)]
    assert all(line.startswith(("error   ", "warning ", "note    ", " " * 8)) for line in findings)
    assert max(map(len, findings)) <= 60


def test_nothing_from_the_data_acts_on_the_terminal(textune: Textune, tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = [{"text": f"[bold]{at}[/bold] \x1b[31m :smile: \u202e", "label": "ab"[at % 2]} for at in range(4)]
    done = textune("inspect", write_json_lines(tmp_path / "rows.jsonl", rows), "--model", tiny_checkpoint, "--quiet")
    assert "[bold]0[/bold] \\x1b[31m :smile: \\u202e" in done.out
    assert "\x1b" not in done.out and "\u202e" not in done.out


def test_without_a_checkpoint_truncation_is_left_out(
    textune: Textune, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, *, revision: str | None = None) -> Path:
        raise UnavailableError("The starter checkpoint is not installed.")

    monkeypatch.setattr("textune.inspection.find_checkpoint", missing)
    done = textune("inspect", data)
    assert done.code == 0
    assert "truncation and unknown words are not looked for: The starter checkpoint is not installed." in done.err
    assert textune("inspect", data, "--model", "owner/name").code == 69


def test_pairs_in_python(tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = pair_rows()
    rows.append({**rows[0], "sentence1": rows[0]["sentence2"], "sentence2": rows[0]["sentence1"]})
    path = write_json_lines(tmp_path / "pairs.jsonl", rows)
    audit = package.inspect(str(path), model=str(tiny_checkpoint), display=Display())
    swapped = next(finding for finding in audit.findings if finding.kind == "swapped_pairs")
    assert 49 in swapped.rows
    with pytest.raises(ConfigError, match=r"There is no option 'modle'\. Did you mean 'model'\?"):
        package.inspect(str(path), modle="x")


def test_training_warns_and_keeps_the_audit(
    textune: Textune, data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    flags = ["--model", tiny_checkpoint, "--epochs", 1, "--drop-bad-rows", "--precision", "fp32", "--output", output]
    done = textune("train", "--data", data, *flags)
    assert done.code == 0
    assert "warning: 1 of 2 validation rows (50 %) equals a row of train (row 2)" in done.err
    assert "warning: 1 of 66 train rows (1.5 %) cannot be used: empty text (row 5)" in done.err
    audit: dict[str, Any] = json.loads((output / "audit.json").read_text(encoding="utf-8"))
    assert {"leaked_duplicates", "empty_text"} <= {finding["kind"] for finding in audit["findings"]}
    again = textune("train", "--data", data, *flags, "--overwrite")
    assert again.code == 0, "audit.json is part of a run"
    assert Run.open(output).summary


@pytest.mark.parametrize("name", ["one-class.csv", "unlabelled.csv"])
def test_what_cannot_be_learned_is_a_finding(
    textune: Textune, tmp_path: Path, tiny_checkpoint: Path, name: str
) -> None:
    label = ",a" if name == "one-class.csv" else ""
    lines = [f"{text}{label}" for text in ("the film was good", "a dull song", "the film was good")]
    (tmp_path / name).write_text("\n".join(["text,label" if label else "text", *lines]))
    done = textune("inspect", tmp_path / name, "--model", tiny_checkpoint)
    assert done.code == 0
    assert ("no other label than 'a'" if label else "no row of train has a label") in done.out
    assert "1 of 3 train rows (33 %) equals an earlier row" in done.out
    refused = textune("inspect", tmp_path / name, "--model", tiny_checkpoint, "--label-errors")
    assert refused.code in {2, 65}
    assert "--label-errors: expected" in refused.err
