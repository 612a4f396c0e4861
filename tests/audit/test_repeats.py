from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textune.audit.audited_rows import normalised
from textune.audit.findings import Audit

from .conftest import SENTENCES, named, rows_of, the

AuditOf = Callable[..., Audit]


def pairs_of(*pairs: tuple[str, str], labels: str = "ab") -> list[dict[str, Any]]:
    return [
        {"sentence1": first, "sentence2": second, "label": labels[number % len(labels)]}
        for number, (first, second) in enumerate(pairs)
    ]


def test_equal_rows_of_one_split(audit: AuditOf) -> None:
    texts = [*SENTENCES[:6], SENTENCES[0], SENTENCES[3], SENTENCES[0]]
    found = the(audit({"train": rows_of(texts)}), "duplicates")
    assert (found.severity, found.split, found.count) == ("warning", "train", 3)
    assert found.rows.tolist() == [7, 8, 9]
    assert found.other_rows is not None and found.other_rows.tolist() == [1, 4, 1]
    assert found.message == "3 of 9 train rows (33 %) equal an earlier row"
    assert found.line == f"{found.message} (rows 7, 8, 9)"
    first = found.examples[0]
    assert (first.row, first.text, first.label) == (7, SENTENCES[0], "a")
    assert (first.other_row, first.other_text, first.other_label) == (1, SENTENCES[0], "a")


@pytest.mark.parametrize(
    "variant",
    [
        SENTENCES[0].upper(),
        f"  {SENTENCES[0]}\t",
        SENTENCES[0].replace(" ", "\u00a0 "),
        SENTENCES[0].replace("fu", "ｆｕ"),
    ],
)
def test_case_blanks_and_unicode_forms_make_no_difference(audit: AuditOf, variant: str) -> None:
    assert variant != SENTENCES[0]
    assert named(audit({"train": rows_of([*SENTENCES[:4], variant])}), "duplicates") == {"train": [5]}


def test_a_row_in_two_splits_is_an_error(audit: AuditOf) -> None:
    splits = {
        "train": rows_of(SENTENCES[:4]),
        "validation": rows_of([SENTENCES[4], SENTENCES[2]]),
        "test": rows_of([SENTENCES[4], SENTENCES[1], SENTENCES[5]], "ba"),
    }
    found = audit(splits)
    leaks = [finding for finding in found.findings if finding.kind == "leaked_duplicates"]
    assert [(leak.split, leak.other_split, leak.rows.tolist()) for leak in leaks] == [
        ("validation", "train", [2]),
        ("test", "train", [2]),
        ("test", "validation", [1]),
    ]
    assert leaks[0].message == "1 of 2 validation rows (50 %) equals a row of train"
    assert leaks[0].other_rows is not None and leaks[0].other_rows.tolist() == [3]
    assert {leak.severity for leak in leaks} == {"error"}


def test_the_training_split_comes_first_whatever_the_order(audit: AuditOf) -> None:
    """Files are read in the order of their names; a leak is one of the validation rows all the same."""
    found = the(audit({"dev": rows_of(SENTENCES[:2]), "train": rows_of(SENTENCES[1:6])}), "leaked_duplicates")
    assert (found.split, found.rows.tolist()) == ("validation", [2])


def test_swapped_pairs_are_told_once(audit: AuditOf) -> None:
    a, b, c, d, e, f = SENTENCES[:6]
    train = pairs_of((a, b), (c, d), (b, a), (a, b), (e, f))
    found = audit({"train": train, "validation": pairs_of((d, c), (c, d), (a, f))})
    assert named(found, "swapped_pairs") == {"train": [3], "validation": [2]}
    assert named(found, "duplicates") == {"train": [4]}
    assert named(found, "leaked_swapped_pairs") == {"validation": [1]}
    assert named(found, "leaked_duplicates") == {"validation": [2]}
    assert "near_duplicates" not in {finding.kind for finding in found.findings}


def test_pairs_are_told_apart_by_where_they_are_cut(audit: AuditOf) -> None:
    train = pairs_of(("a b", "c"), ("a", "b c"), (SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3]))
    assert named(audit({"train": train}), "duplicates") == {}


def test_equal_texts_with_different_labels(audit: AuditOf) -> None:
    texts = [*SENTENCES[:4], SENTENCES[1], SENTENCES[0]]
    splits = {"train": rows_of(texts, "aabb"), "validation": rows_of([SENTENCES[2], SENTENCES[5]], "ab")}
    found = [finding for finding in audit(splits).findings if finding.kind == "conflicting_labels"]
    assert [(conflict.split, conflict.other_split, conflict.rows.tolist()) for conflict in found] == [
        ("validation", "train", [1])
    ]
    assert found[0].message == "1 of 2 validation rows (50 %) has the same text as a row of train with another label"


def test_all_rows_of_a_conflict_are_named(audit: AuditOf) -> None:
    texts = [SENTENCES[0], SENTENCES[1], SENTENCES[0], SENTENCES[0], SENTENCES[2]]
    found = the(audit({"train": rows_of(texts, "abbac")}), "conflicting_labels")
    assert found.rows.tolist() == [1, 3, 4]
    assert found.other_rows is not None and found.other_rows.tolist() == [3, 1, 3]
    assert "another row with another label" in found.message


def test_targets_are_in_conflict_when_far_apart(audit: AuditOf) -> None:
    targets = [0.0, 5.0, 2.5, 0.4, 4.0, 1.25]
    texts = [SENTENCES[0], SENTENCES[1], SENTENCES[2], SENTENCES[0], SENTENCES[1], SENTENCES[3]]
    rows = [{"text": text, "label": target} for text, target in zip(texts, targets, strict=True)]
    found = the(audit({"train": rows}), "conflicting_labels")
    assert found.rows.tolist() == [2, 5], "0.4 is less than a tenth of the range, 1.0 more"
    assert (
        found.message == "2 of 6 train rows (33 %) have the same text as another row with a label more than 0.5 apart"
    )


def test_sets_of_labels_are_compared_whole(audit: AuditOf) -> None:
    labels = [["x"], ["x", "y"], ["y", "x"], ["x"]]
    texts = [SENTENCES[0], SENTENCES[1], SENTENCES[1], SENTENCES[0]]
    rows = [{"text": text, "labels": label} for text, label in zip(texts, labels, strict=True)]
    assert named(audit({"train": rows}), "conflicting_labels") == {}


def test_a_label_more_is_a_conflict(audit: AuditOf) -> None:
    texts = [SENTENCES[0], SENTENCES[1], SENTENCES[0]]
    labels: list[list[str]] = [["x"], ["y"], ["x", "y"]]
    rows = [{"text": text, "labels": label} for text, label in zip(texts, labels, strict=True)]
    found = the(audit({"train": rows}), "conflicting_labels")
    assert found.rows.tolist() == [1, 3]
    assert [example.label for example in found.examples] == ["x", "x, y"]


def test_unlabelled_rows_are_in_no_conflict(audit: AuditOf) -> None:
    test = [{"text": SENTENCES[0], "label": None}, {"text": SENTENCES[1], "label": None}]
    found = audit({"train": rows_of(SENTENCES[:3]), "test": test})
    assert named(found, "conflicting_labels") == {}
    assert named(found, "leaked_duplicates") == {"test": [1, 2]}


@given(st.text())
def test_normalising_is_idempotent_for_keys(text: str) -> None:
    """What is stored and compared does not depend on how often a text went through a file."""
    assert normalised(f" {text}\n") == normalised(text)
