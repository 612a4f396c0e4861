from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest

from textune.report.page import run_report, shown
from textune.report.reading import read_run
from textune.report.write import write_report
from textune.run import Run

from .hostile import HOSTILE, NAME, write_hostile_run


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text between them."""

    VOID = ("meta", "link", "br", "input")

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.declarations: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def attribute(self, tag: str, name: str) -> set[str | None]:
        return {attributes[name] for found, attributes in self.elements if found == tag and name in attributes}


TAGS = {
    *("html", "head", "meta", "title", "link", "style", "body", "script", "header", "main", "footer", "nav", "section"),
    *("h1", "h2", "h3", "p", "a", "ul", "li", "dl", "dt", "dd", "div", "span", "strong", "br", "pre", "details"),
    *("summary", "table", "thead", "tbody", "tr", "th", "td", "caption", "figure", "figcaption"),
    *("svg", "g", "defs", "path", "use", "text", "tspan", "desc", "clippath", "rect", "line"),
}  # fmt: skip
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "rel", "href", "class", "id", "role", "tabindex", "scope"),
    *("aria-label", "aria-labelledby", "aria-describedby", "aria-hidden", "dir", "data-value"),
    *("xmlns", "viewbox", "version", "preserveaspectratio", "style", "d", "clip-path", "transform"),
    *("x", "y", "x1", "x2", "y1", "y2", "width", "height"),
}  # fmt: skip


def visible(text: str) -> str:
    """The text as the page shows it, by Python's own tables of characters."""

    def odd(character: str) -> bool:
        category, number = unicodedata.category(character), ord(character)
        return (
            (category == "Cc" and character not in "\n\t\r")
            or category in {"Zl", "Zp"}
            or unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
            or number == 0xFEFF
            or number & 0xFFFE == 0xFFFE
        )

    return "".join(f"U+{ord(character):04X}" if odd(character) else character for character in text)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    files = read_run(write_hostile_run(tmp_path_factory.mktemp("runs")))
    source = run_report(files).html
    assert files.problems == []
    return source


def test_there_are_sixty_hostile_texts() -> None:
    assert len(set(HOSTILE)) >= 60


def test_hostile_texts_are_nothing_but_text(hostile_page: str) -> None:
    page = Page(hostile_page)
    assert {tag for tag, _ in page.elements} <= TAGS
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    assert page.declarations == ["DOCTYPE html"]
    targets = {value for _, attributes in page.elements for name, value in attributes.items() if name == "href"}
    assert all(str(target).startswith("#") or target == "data:," for target in targets)
    for text in HOSTILE:
        assert visible(text) in page.text
    assert visible(NAME) in page.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069\ufeff]", hostile_page)


def test_only_the_pages_own_script_may_run(hostile_page: str) -> None:
    page = Page(hostile_page)
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv") is not None)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}';" in policy
    first = [tag for tag, _ in page.elements].index("meta")
    assert {tag for tag, _ in page.elements[:first]} == {"html", "head"}


def test_every_picture_has_a_name_and_identifiers_are_unique(hostile_page: str) -> None:
    page = Page(hostile_page)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 7
    for picture in pictures:
        assert {picture["aria-labelledby"], picture["aria-describedby"]} <= set(identifiers)
    references = {str(value)[1:] for value in page.attribute("a", "href") | page.attribute("use", "href")}
    assert references <= set(identifiers)


def test_odd_characters_are_shown_by_their_number() -> None:
    assert str(shown("a\x00\u202eb\n\u200d<")) == (
        'a<span class="odd">U+0000</span><span class="odd">U+202E</span>b\n\u200d&lt;'
    )
    assert shown(3) == 3


@pytest.mark.parametrize("kind", ["text_run", "pair_run", "multi_label_run", "regression_run"])
def test_every_kind_of_run(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run: Run = request.getfixturevalue(kind)
    path, problems = write_report([run.path], output=tmp_path / "page.html")
    assert problems == []
    page = Page(path.read_text(encoding="utf-8"))
    headings = [
        "What was trained", "Results", "Course of training", "Predictions on validation", "Parts of the rows", "Data",
        "Speed and memory", "Environment", "The same again",
    ]  # fmt: skip
    assert all(heading in page.texts for heading in headings)
    figures = run.summary["validation"]
    name = next(iter(figures))
    value = figures[name]["value"]
    assert f"{name} % on validation" in page.text
    assert (f"{100 * value:.1f}" if value is not None else "undefined") in page.texts
    mistakes = run_analysis(run)["mistakes"]
    assert len(mistakes) > 0 and all(mistake["text"] in page.text for mistake in mistakes)
    assert f"textune train --config {run.path}/config.yaml" in page.text


def test_splits_whose_names_differ_in_script_only(text_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_run.path, tmp_path / "run"))
    for name in ("summary.json", "analysis.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, "validation_\ud55c\uad6d\uc5b4": values["validation"]}))
    shutil.copyfile(
        folder / "predictions" / "validation.parquet", folder / "predictions" / "validation_\ud55c\uad6d\uc5b4.parquet"
    )
    path, problems = write_report([folder], figures=tmp_path / "figures")
    assert problems == []
    elements = Page(path.read_text(encoding="utf-8")).elements
    identifiers = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert {"split-validation", "split-validation-2"} <= set(identifiers)
    assert len(identifiers) == len(set(identifiers))
    drawn = {file.stem for file in (tmp_path / "figures").glob("confusion-*.svg")}
    assert drawn == {"confusion-validation", "confusion-validation-2"}


def test_a_run_without_validation_has_headline_figures_too(text_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_run.path, tmp_path / "run"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["selected"] |= {"split": None, "metric": None, "weights": "last"}
    summary["test"] = summary.pop("validation")
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(run_report(read_run(folder)).html)
    assert "accuracy % on test" in page.text


def run_analysis(run: Run) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads((run.path / "analysis.json").read_text())["validation"]
    return found


def test_many_labels_have_a_list_of_confusions_instead_of_a_matrix(tmp_path: Path) -> None:
    folder = write_hostile_run(tmp_path)
    names = [f"label {number}" for number in range(30)]
    data = json.loads((folder / "data.json").read_text())
    data["schema"]["label_names"] = names
    (folder / "data.json").write_text(json.dumps(data))
    analysis = json.loads((folder / "analysis.json").read_text())
    analysis["validation"]["confusion"] = [
        {"label": names[3], "prediction": names[4], "rows": 1},
        {"label": names[5], "prediction": names[5], "rows": 9},
        {"label": names[7], "prediction": names[8], "rows": 2},
    ]
    (folder / "analysis.json").write_text(json.dumps(analysis))
    (folder / "predictions" / "validation.parquet").unlink()
    files = read_run(folder)
    before, _, after = Page(run_report(files).html).text.partition("Most frequent confusions")
    table = after.partition("Each label")[0]
    assert files.problems == []
    assert "Confusion matrix" not in before
    assert 0 < table.index("label 7") < table.index("label 3") and "label 5" not in table
