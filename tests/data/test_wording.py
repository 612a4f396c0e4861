from __future__ import annotations

import pytest

from textune.data.wording import counted, distinct, listed, near_name, quoted


def test_long_values_are_cut() -> None:
    assert quoted("short\n") == r"'short\n'"
    assert quoted("x" * 1000) == "'" + "x" * 55 + "...'"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("긍정", "긍정"),
        ("very good", "very good"),
        ("it's", "it's"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        (" 긍정 ", "' 긍정 '"),
        ("very  good", "'very  good'"),
        ("긍정\xa0", r"'긍정\xa0'"),
        ("긍정\u200b", r"'긍정\u200b'"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_names_that_look_alike_are_quoted(name: str, shown: str) -> None:
    assert distinct(name) == shown


def test_lists_are_cut() -> None:
    assert listed([]) == "none"
    assert listed(["a", 1]) == "'a', 1"
    assert listed(list("abcd"), shown=2) == "'a', 'b' and 2 more"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 rows"), (1, "1 row"), (1.0, "1 row"), (2, "2 rows"), (2.5, "2.5 rows"), (2_000_000, "2,000,000 rows")],
)
def test_numbers_and_nouns_agree(number: float, text: str) -> None:
    assert counted(number, "row") == text


def test_near_names_see_through_case_and_blanks() -> None:
    assert near_name("text", ["label", " TEXT"]) == " Did you mean ' TEXT'?"
    assert near_name("labl", ["label", "text"]) == " Did you mean 'label'?"
    assert near_name("zzz", ["label", "text"]) == ""
