from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from textune.audit import auditing
from textune.audit.findings import Audit
from textune.audit.languages import NOT_LOOKED_AT, LanguageScan
from textune.audit.wording import languages_in_words

from .conftest import SENTENCES, named, rows_of, the

AuditOf = Callable[..., Audit]
GERMAN = "Das ist ein sehr gutes Buch, das ich gerne gelesen habe."
FRENCH = "Le film était magnifique et les acteurs ont très bien joué."
KOREAN = "이 영화는 정말 재미있었고 배우들의 연기도 훌륭했다."
ENGLISH = [f"{first} and {second}" for first, second in zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1], strict=True)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The president said on Tuesday that the bill would pass.", "en"),
        (GERMAN, "de"),
        (FRENCH, "fr"),
        (KOREAN, "ko"),
        ("この映画はとても面白かったです。", "ja"),
        ("Фільм був дуже цікавим, раджу всім подивитися.", "uk"),
        ("ok", "und"),
        ("12345 67", "und"),
        ("", "und"),
    ],
)
def test_languages_are_told_where_they_can_be(text: str, code: str) -> None:
    scan = LanguageScan()
    scan.add([text])
    assert scan.count(scan.languages) == {code: 1}


def test_every_nth_row_is_looked_at_over_all_batches() -> None:
    scan = LanguageScan(every=3)
    for size in (2, 5, 1, 4):
        scan.add([GERMAN] * size)
    looked_at = scan.languages != NOT_LOOKED_AT
    assert np.flatnonzero(looked_at).tolist() == [0, 3, 6, 9]
    assert scan.certain.tolist() == looked_at.tolist()
    assert scan.count(scan.languages) == {"de": 4}


def test_the_most_frequent_come_first_and_undetermined_ones_last() -> None:
    scan = LanguageScan()
    scan.add(["ok", "no", "?", FRENCH, GERMAN, GERMAN])
    assert list(scan.count(scan.languages).items()) == [("de", 2), ("fr", 1), ("und", 3)]


def test_rows_of_a_language_of_few_are_told(audit: AuditOf) -> None:
    found = audit({"train": rows_of([*ENGLISH * 3, GERMAN, KOREAN]), "validation": rows_of([ENGLISH[0], FRENCH])})
    assert named(found, "other_language") == {"train": [31], "validation": [2]}
    german = next(finding for finding in found.findings if finding.kind == "other_language")
    assert (german.severity, german.examples[0].detail) == ("note", "de")
    assert german.message.endswith("is in another language than en: de 1")
    assert the(found, "other_script").rows.tolist() == [32], "told once"
    assert found.splits["train"]["languages"] == {"en": 30, "de": 1, "ko": 1}


def test_data_of_two_languages_are_usual(audit: AuditOf) -> None:
    assert named(audit({"train": rows_of([*ENGLISH, GERMAN])}), "other_language") == {}


def test_where_no_language_is_usual_none_is_another(audit: AuditOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in data of more than twenty languages, none of which reaches 5 %."""
    monkeypatch.setattr(auditing, "OTHER_SHARE", 0.4)
    found = audit({"train": rows_of([GERMAN, FRENCH, ENGLISH[0]])})
    assert found.splits["train"]["languages"] == {"de": 1, "fr": 1, "en": 1}
    assert named(found, "other_language") == {}


def test_of_many_rows_some_are_looked_at(audit: AuditOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "MAX_ROWS", 5)
    found = audit({"train": rows_of(ENGLISH)})
    assert found.splits["train"]["languages"] == {"en": 5}
    assert "languages: one row in 2 was looked at" in found.notes


def test_shares_in_words() -> None:
    assert languages_in_words(None) == "not looked for"
    assert languages_in_words({"en": 97, "und": 3}) == "en 97 %, not certain 3 %"
    five = {"en": 60, "de": 20, "fr": 10, "it": 6, "es": 4}
    assert languages_in_words(five) == "en 60 %, de 20 %, fr 10 %, 2 more"
