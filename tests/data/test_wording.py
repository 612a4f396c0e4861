from __future__ import annotations

import pytest

from textune.data.wording import counted, listed, near_name, quoted


def test_long_values_are_cut() -> None:
    assert quoted("short\n") == r"'short\n'"
    assert quoted("x" * 1000) == "'" + "x" * 55 + "...'"


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
