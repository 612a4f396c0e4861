from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest

from textune.audit.characters import ODD_CHARACTERS, SCRIPTS, CharacterScan, count_scripts
from textune.audit.findings import Audit

from .conftest import SENTENCES, named, rows_of, the

AuditOf = Callable[..., Audit]


@pytest.mark.parametrize(
    ("kind", "odd", "shown"),
    [
        ("control_characters", "\x00", "U+0000"),
        ("control_characters", "\x1b[31m", "U+001B"),
        ("control_characters", "\x85", "U+0085"),
        ("replacement_characters", "caf\ufffd", "\ufffd"),
        ("mojibake", "cafÃ©", "Ã©"),
        ("mojibake", "itâ€™s", "â€™"),
        ("mojibake", "Â£5", "Â£"),
        ("mojibake", "ðŸ˜€", "ðŸ˜"),
        ("mojibake", "Ð¿Ñ€", None),
        ("mojibake", "ì•ˆë…•", None),
        ("invisible_characters", "zero\u200bwidth", "U+200B"),
        ("invisible_characters", "\ufeff", "U+FEFF"),
        ("invisible_characters", "soft\u00adhyphen", "U+00AD"),
        ("invisible_characters", "\U000e0041", "U+E0041"),
        ("bidi_controls", "\u202etxet", "U+202E"),
        ("private_use_characters", "\ue000", "U+E000"),
        ("html_remains", "<br/>", "<br/>"),
        ("html_remains", "&nbsp;", "&nbsp;"),
        ("html_remains", '<a href="x">', '<a href="x">'),
        ("html_remains", "&#8217;", "&#8217;"),
    ],
)
def test_odd_characters(kind: str, odd: str, shown: str | None) -> None:
    scan = CharacterScan()
    scan.add((["plain", f"before {odd} after", odd], None))
    assert scan.odd.keys() - {"no_words"} == {kind}
    assert list(scan.odd[kind]) == [1, 2]
    if shown is not None:
        assert scan.odd[kind][1] == shown


@pytest.mark.parametrize(
    "text",
    [
        "Tabs\tand\nline ends\r\nare blanks.",
        "naïve café, Ça va? Ärger, São João, CAFÉ» dit-il",
        "«À bientôt» – “quotes” … €5",
        "Привет, мир",
        "안녕하세요 세계",
        "漢字とかな交じり文",
        "👨‍👩‍👧 family, 🏴󠁧󠁢󠁥󠁮󠁧󠁿 flag, ❤️ heart",
        "می‌خواهم",
        "שלום \u200fעולם",
        "a < b and c > d & e",
        "AT&T, R&D",
        "x<y",
    ],
)
def test_what_belongs_into_texts_is_not_odd(text: str) -> None:
    scan = CharacterScan()
    scan.add(([text], None))
    assert scan.odd == {}


def test_mojibake_is_what_wrong_decoding_makes() -> None:
    """Accented, curly, Cyrillic, Chinese and Korean text, and emoji, read as Windows-1252."""
    for text in ("déjà vu", "it’s – “so”", "Москва", "안녕하세요", "中文字", "thanks 😀", "Größe"):
        wrong = text.encode().decode("cp1252", errors="replace").replace("\ufffd", "\x81")
        assert ODD_CHARACTERS["mojibake"].search(wrong), text


def test_both_texts_of_a_pair_are_looked_at_and_a_row_counts_once() -> None:
    scan = CharacterScan()
    scan.add((["a", "b\x00\x01"], ["\x07", "\x02"]))
    scan.add((["..."], ["!?"]))
    assert scan.odd == {"no_words": {0: None, 1: None, 2: None}, "control_characters": {1: "U+0000", 0: "U+0007"}}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain words", "Latin"),
        ("Ünïcödé", "Latin"),
        ("Ελληνικά", "Greek"),
        ("Русский text", "Cyrillic"),
        ("עברית", "Hebrew"),
        ("العربية", "Arabic"),
        ("हिन्दी", "Devanagari"),
        ("ภาษาไทย", "Thai"),
        ("한국어", "Hangul"),
        ("日本語のかな", "Han/Kana"),
        ("中文", "Han/Kana"),
        ("ქართული", "Georgian"),
        ("አማርኛ", "Ethiopic"),
        ("😀 — 123", ""),
    ],
)
def test_scripts(text: str, script: str) -> None:
    scan = CharacterScan()
    scan.add(([text], None))
    assert SCRIPTS[scan.scripts[0]] == script


def test_script_ranges_agree_with_the_names_of_letters() -> None:
    """Unicode's names begin with the script: no letter is counted to another one, and few, rare ones to none."""
    letters = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)).startswith("L")]
    scan = CharacterScan()
    scan.add((letters, None))
    begins = {name: f"{'CJK UNIFIED' if name == 'Han/Kana' else name.upper()} " for name in SCRIPTS[1:]}
    found = zip(letters, (SCRIPTS[place] for place in scan.scripts), strict=True)
    named = [
        (unicodedata.name(letter), script, name)
        for letter, script in found
        for name, begin in begins.items()
        if unicodedata.name(letter, "").startswith(begin)
    ]
    assert len(named) > 40_000
    assert [item for item in named if item[1] not in {item[2], ""}] == []
    assert sum(script == "" for _, script, _ in named) < 700


def test_scripts_are_counted_the_most_frequent_first() -> None:
    latin, greek = SCRIPTS.index("Latin"), SCRIPTS.index("Greek")
    assert list(count_scripts(np.array([greek, latin, 0, latin])).items()) == [("Latin", 2), ("Greek", 1)]


def test_findings_name_split_row_and_what_is_odd(audit: AuditOf) -> None:
    texts = [*SENTENCES[:5], f"{SENTENCES[5]}\u200b", "?!"]
    found = audit({"train": rows_of(texts), "validation": rows_of([SENTENCES[6], f"<b>{SENTENCES[7]}</b>"])})
    invisible = the(found, "invisible_characters")
    assert (invisible.split, invisible.rows.tolist(), invisible.examples[0].detail) == ("train", [6], "U+200B")
    assert invisible.message.startswith("1 of 7 train rows (14 %) has invisible characters")
    assert named(found, "html_remains") == {"validation": [2]}
    assert named(found, "no_words") == {"train": [7]}


def test_a_script_of_few_rows_is_told(audit: AuditOf) -> None:
    texts = [f"{sentence} {number}" for number in range(4) for sentence in SENTENCES]
    found = the(audit({"train": rows_of([*texts, "Это другой язык"])}), "other_script")
    assert (found.severity, found.rows.tolist(), found.examples[0].detail) == ("note", [41], "Cyrillic")
    assert found.message.endswith("is in another script than Latin: Cyrillic 1")


def test_data_of_two_scripts_are_usual(audit: AuditOf) -> None:
    texts = [*SENTENCES[:5], "совсем другое", "и ещё одно", "третье письмо"]
    assert named(audit({"train": rows_of(texts)}), "other_script") == {}
