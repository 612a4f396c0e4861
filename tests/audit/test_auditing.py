from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_tokenizer

from faults.material import write_json_lines
from textune.audit.auditing import full_audit, quick_audit
from textune.audit.findings import KINDS, SEVERITIES, Audit
from textune.config import DataConfig
from textune.data.prepare import PreparedData, prepare_inspection, prepare_training
from textune.data.tokenize import tokenize_split

from .conftest import SENTENCES, named, rows_of, the

AuditOf = Callable[..., Audit]
Prepare = Callable[..., PreparedData]


def test_clean_data_have_no_finding(audit: AuditOf) -> None:
    found = audit({"train": rows_of([*SENTENCES, *(text[::-1] for text in SENTENCES)])})
    assert [finding.message for finding in found.findings] == []
    assert found.num_rows == 20
    assert set(found.checked) == set(KINDS) - {
        "suspected_labels",
        "truncated",
        "unknown_tokens",
        "swapped_pairs",
        "leaked_swapped_pairs",
    }


def test_rows_that_cannot_be_used(audit: AuditOf) -> None:
    rows = rows_of(SENTENCES, "ab")
    rows[1]["text"], rows[4]["text"], rows[6]["label"] = "", " \n", None
    validation = [
        {"text": SENTENCES[0] + "!", "label": "A"},
        {"text": "", "label": "a"},
        {"text": "good", "label": "b"},
    ]
    found = audit({"train": rows, "validation": validation})
    assert named(found, "empty_text") == {"train": [2, 5], "validation": [2]}
    assert named(found, "missing_label") == {"train": [7]}
    assert named(found, "wrong_label") == {"validation": [1]}
    empty = next(finding for finding in found.findings if finding.kind == "empty_text")
    assert empty.message == "2 of 10 train rows (20 %) cannot be used: empty text"
    assert empty.share == 0.2


def test_rows_keep_their_numbers_when_others_are_left_out(audit: AuditOf) -> None:
    rows = rows_of([SENTENCES[0], "", SENTENCES[1], "", SENTENCES[0]], "a")
    rows[2]["label"] = "b"
    found = the(audit({"train": rows}), "duplicates")
    assert found.rows.tolist() == [5]
    assert found.other_rows is not None and found.other_rows.tolist() == [1]


def test_lines_that_cannot_be_read_are_counted(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    lines = [json.dumps(row) for row in rows_of(SENTENCES)]
    (folder / "train.jsonl").write_text("\n".join([*lines, "[1, 2]"]) + "\n")
    prepared = prepare_inspection(DataConfig(source=str(folder), drop_bad_rows=True), folder=tmp_path / "rows")
    found = the(full_audit(prepared, tokens={}, folder=tmp_path), "unreadable_rows")
    assert (found.count, found.rows_in_split, found.rows.tolist()) == (1, 11, [])


def test_row_numbers_without_lines_that_cannot_be_read(audit: AuditOf) -> None:
    rows: list[Any] = rows_of(SENTENCES)
    rows[1], rows[5]["text"] = [1, 2], ""
    found = audit({"train": rows})
    broken, empty = the(found, "unreadable_rows"), the(found, "empty_text")
    assert broken.message == (
        "1 of 10 train rows (10 %) cannot be used: not a JSON object with columns; row numbers do not count them"
    )
    assert (empty.message, empty.rows.tolist()) == ("1 of 10 train rows (10 %) cannot be used: empty text", [5])


@pytest.mark.parametrize(("folds", "own"), [(None, False), (2, False), (2, True)])
def test_rows_left_out_are_told_of_their_own_split(tmp_path: Path, folds: int | None, own: bool) -> None:
    """A split that textune sets aside has the name of one of the data's own, but not its rows."""
    splits = {"train": rows_of([*SENTENCES, ""]), "test": rows_of([*SENTENCES[:3], ""])}
    if own:
        splits["validation"] = rows_of(["", *SENTENCES[:2], " "])
    (tmp_path / "data").mkdir()
    for name, rows in splits.items():
        write_json_lines(tmp_path / "data" / f"{name}.jsonl", rows)
    fold = None if folds is None else 1
    config = DataConfig(source=str(tmp_path / "data"), drop_bad_rows=True, folds=folds, fold=fold)
    prepared = prepare_training(config, seed=1, folder=tmp_path / "rows")
    audit = quick_audit(prepared, tokens={}, tokenizer=None)
    counts = {found.split: (found.count, found.rows_in_split) for found in audit.findings if found.kind == "empty_text"}
    assert counts == {"train": (1, 11), "test": (1, 4)} | ({"validation_own": (2, 4)} if own else {})


def test_texts_far_longer_than_the_others(audit: AuditOf) -> None:
    texts = [*SENTENCES[:8], " ".join(SENTENCES), " ".join([*SENTENCES, *SENTENCES])]
    found = the(audit({"train": rows_of(texts)}), "very_long")
    assert found.rows.tolist() == [10]
    assert found.examples[0].detail == f"{len(texts[9]):,} characters"
    assert found.message.startswith("1 of 10 train rows (10 %) has more than 5")


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("좋아요", "; for Hangul try --model klue/bert-base"),
        ("ดีมาก", "; for Thai try --model xlm-roberta-base"),
        ("👍", ""),
    ],
)
def test_texts_that_the_tokenizer_does_not_know(prepare: Prepare, text: str, suggestion: str) -> None:
    prepared = prepare({"train": rows_of(["the film was good", f"the film was {text}", text, "a good film"])})
    tokens = {"train": tokenize_split(prepared.rows["train"], tiny_tokenizer(), max_length=9)}
    found = the(quick_audit(prepared, tokens=tokens, tokenizer=tiny_tokenizer()), "unknown_tokens")
    assert found.rows.tolist() == [3, 2]
    assert found.message == (
        "2 of 4 train rows (50 %) have words that the tokenizer does not know: 17 % of all tokens are unknown, "
        f"and 1 row has nothing else{suggestion}"
    )
    assert [example.detail for example in found.examples] == [repr(text), repr(text)]


def test_truncation_longest_first(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare({"train": rows_of(["the film was good", "a good film", "the film was not very good and dull"])})
    tokens = {"train": tokenize_split(prepared.rows["train"], tiny_tokenizer(), max_length=5)}
    options: dict[str, Any] = {"tokens": tokens, "tokenizer": tiny_tokenizer()}
    for found in (full_audit(prepared, folder=tmp_path, **options), quick_audit(prepared, **options)):
        cut = the(found, "truncated")
        assert cut.rows.tolist() == [3, 1]
        assert cut.message == "2 of 3 train rows (67 %) are cut to 5 tokens; 29 % of all tokens are lost"
        assert cut.examples[0].detail == "10 tokens"
        assert found.splits["train"]["tokens"]["longest"] == 10
        assert "truncated" in found.checked


def test_the_quick_audit_agrees_with_the_full_one(prepare: Prepare, tmp_path: Path) -> None:
    splits = {
        "train": rows_of([*SENTENCES, SENTENCES[0], ""], "aab"),
        "validation": rows_of([SENTENCES[1], SENTENCES[2] + " then", "\u200b again"]),
    }
    prepared = prepare(splits)
    quick, full = quick_audit(prepared, tokens={}, tokenizer=None), full_audit(prepared, tokens={}, folder=tmp_path)
    of_both = [finding.message for finding in full.findings if finding.kind in quick.checked]
    assert [finding.message for finding in quick.findings] == of_both
    assert {finding.kind for finding in full.findings} - set(quick.checked) == {
        "leaked_near_duplicates",
        "invisible_characters",
    }


def test_the_gravest_come_first(audit: AuditOf) -> None:
    found = audit({"train": rows_of([*SENTENCES, SENTENCES[0], f"{SENTENCES[1]} .", ""], "ab")})
    order = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert order == sorted(order) and set(order) == {0, 1, 2}
    assert {finding.severity for finding in found.with_severity("warning")} == {"error", "warning"}
    assert {finding.severity for finding in found.with_severity("error")} == {"error"}
    assert found.with_severity("note") == list(found.findings)


def test_json(audit: AuditOf) -> None:
    found = audit({"train": rows_of([*SENTENCES, *SENTENCES[:8]], "ab")})
    shown = json.loads(json.dumps(found.as_json()))
    assert list(shown) == [
        *("format_version", "name", "source", "fingerprint", "rows", "seconds", "microseconds_per_row", "splits"),
        *("checked", "findings", "notes"),
    ]
    assert (shown["format_version"], shown["rows"]) == (1, 18)
    assert shown["splits"]["train"]["labels"] == {"a": 9, "b": 9}
    assert shown["splits"]["train"]["scripts"] == {"Latin": 18}
    duplicates = next(finding for finding in shown["findings"] if finding["kind"] == "duplicates")
    assert list(duplicates) == [
        *("kind", "severity", "split", "other_split", "count", "share", "message", "advice"),
        *("rows", "other_rows", "examples"),
    ]
    assert duplicates["rows"] == list(range(11, 19))
    assert duplicates["other_rows"] == list(range(1, 9))
    assert len(duplicates["examples"]) == 5
    assert duplicates["examples"][0] == {
        "row": 11,
        "text": SENTENCES[0],
        "label": "a",
        "other_row": 1,
        "other_text": SENTENCES[0],
        "other_label": "a",
    }
    short = next(finding for finding in found.as_json(limit=2)["findings"] if finding["kind"] == "duplicates")
    assert (short["count"], short["rows"], short["other_rows"], len(short["examples"])) == (8, [11, 12], [1, 2], 2)


def test_every_kind_is_explained() -> None:
    for kind in KINDS.values():
        assert kind.severity in SEVERITIES
        assert kind.advice.endswith(".") and not kind.title.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_the_documentation_has_every_kind(kind: str) -> None:
    guide = Path(__file__).parents[2] / "docs" / "data-audit.md"
    assert f"`{kind}`" in guide.read_text(encoding="utf-8")
