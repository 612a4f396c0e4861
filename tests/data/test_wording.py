from __future__ import annotations

from textune.data.wording import listed, near_name, quoted


def test_long_values_are_cut() -> None:
    assert quoted("short\n") == r"'short\n'"
    assert quoted("x" * 1000) == "'" + "x" * 55 + "...'"


def test_lists_are_cut() -> None:
    assert listed([]) == "none"
    assert listed(["a", 1]) == "'a', 1"
    assert listed(list("abcd"), shown=2) == "'a', 'b' and 2 more"


def test_near_names_see_through_case_and_blanks() -> None:
    assert near_name("text", ["label", " TEXT"]) == " Did you mean ' TEXT'?"
    assert near_name("labl", ["label", "text"]) == " Did you mean 'label'?"
    assert near_name("zzz", ["label", "text"]) == ""
