from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from textune.audit.findings import KINDS, Audit, Example, Finding
from textune.report.audit_page import MAX_NUMBERS, audit_page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e\x07"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def an_audit(*findings: Finding, name: str = "reviews") -> Audit:
    lengths = {"median": 10.0, "percentile_95": 20.0, "longest": 30}
    split = {"rows": 2000, "labelled": True, "labels": {HOSTILE: 1200, "b": 800}, "characters": lengths}
    return Audit(name, HOSTILE, "f" * 64, {"train": split}, findings, tuple(KINDS), (HOSTILE,), 1.0)


def a_finding(count: int = 1) -> Finding:
    example = Example(3, HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    rows = np.arange(1, count + 1)
    return Finding("leaked_duplicates", "test", count, 2000, "rows equal others", rows, "train", rows, (example,))


def test_what_was_found_and_what_was_not() -> None:
    page = Page(audit_page(an_audit(a_finding(MAX_NUMBERS + 500))))
    assert "error: rows equal others" in page.text
    assert KINDS["leaked_duplicates"].advice in page.text
    assert "999, 1000 and 500 more" in page.text
    assert "row 1 of train" in page.text
    assert KINDS["mojibake"].title in page.text
    assert page.text.count(KINDS["leaked_duplicates"].title) == 0
    assert "median 10, 95 % 20, longest 30" in page.text


def test_clean_data() -> None:
    assert "Nothing was found." in Page(audit_page(an_audit())).text


def test_texts_of_the_data_are_shown_and_do_nothing() -> None:
    page = Page(audit_page(an_audit(a_finding(), name=HOSTILE)))
    assert [tag for tag, _ in page.elements].count("script") == 1, "the page's own, whose hash is in its policy"
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text and "U+202E" in page.text


def test_nothing_is_loaded() -> None:
    page = Page(audit_page(an_audit(a_finding())))
    sources = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert set(sources) == {"data:,", "#content"}
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None and policy.startswith("default-src 'none'")
