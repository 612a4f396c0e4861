from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rcParams

from textune.evaluation.thresholds import threshold_curve
from textune.report import figures
from textune.report.charts import SERIES, Chart, file_csv, file_png, file_svg, page_svg, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SVG = "{http://www.w3.org/2000/svg}"


def chart(name: str = "chart", label: str = "line", *, title: str = "Title") -> Chart:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SERIES[0], marker="o", label=label)
        axes.legend()

    return Chart(name, title, "Description", ["x", "y"], [(0, 0), (1, 1)], draw)


def test_in_a_page() -> None:
    source = page_svg(chart(title="<b> & \x00"))
    root = ElementTree.fromstring(source)
    assert [root[0].text, root[1].text] == ["<b> & \N{REPLACEMENT CHARACTER}", "Description"]
    assert root.attrib["aria-labelledby"] == root[0].attrib["id"]
    assert "var(--series-1)" in source and "currentColor" in source
    assert "#" not in source.replace('"#chart-', "").replace("url(#chart-", "")  # neither colours nor other identifiers
    assert "font-family" not in source and "<style" not in source and "http" not in source.replace(SVG[1:-1], "")
    assert {"width", "height"} & set(root.attrib) == set()
    assert len(source) < 20_000


def test_two_charts_share_no_identifier() -> None:
    def identifiers(name: str) -> set[str]:
        return {
            part.attrib["id"] for part in ElementTree.fromstring(page_svg(chart(name))).iter() if "id" in part.attrib
        }

    assert identifiers("one") & identifiers("other") == set()


@pytest.mark.parametrize("label", ["<script>", "$x^2$", "$unclosed", "\ud55c\uad6d\uc5b4", "a\x00b", "_hidden", "{}%s"])
def test_any_name_can_be_drawn(label: str) -> None:
    name = figures.short_name(label)
    texts = ElementTree.fromstring(page_svg(chart(label=name))).iter(f"{SVG}text")
    assert name in {text.text for text in texts}
    assert file_png(chart(label=name)).startswith(b"\x89PNG")


def test_files() -> None:
    assert ElementTree.fromstring(file_svg(chart())).tag == f"{SVG}svg"
    assert SERIES[0] in file_svg(chart())
    assert list(csv.reader(io.StringIO(file_csv(chart())))) == [["x", "y"], ["0", "0"], ["1", "1"]]
    assert file_csv(replace(chart(), columns=["a\rb", "c"], rows=[[0.5, "d,e"]])) == '"a\rb",c\n0.5,"d,e"\n'
    assert file_svg(chart()) == file_svg(chart())


def test_matplotlib_stays_as_the_caller_has_it() -> None:
    before = dict(rcParams)
    page_svg(chart())
    assert dict(rcParams) == before


def test_printable() -> None:
    assert (
        printable("a\x1b\u202eb\ud800")
        == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    )
    assert printable("abcdef", longest=4) == "abc…"


def test_confusion_matrix() -> None:
    cells: list[dict[str, Any]] = [
        {"label": "a", "prediction": "a", "rows": 7},
        {"label": "b", "prediction": "a", "rows": 3},
    ]
    found = figures.confusion_matrix("confusion", cells, ["a", "b"])
    assert found.description == (
        "7 of 10 rows are on the diagonal, where prediction and label agree. "
        "Most frequent confusion: b taken for a, 3 rows."
    )
    assert {"7", "3", "0"} <= {text.text for text in ElementTree.fromstring(page_svg(found)).iter(f"{SVG}text")}


def test_labels_that_look_alike_are_told_apart() -> None:
    cells: list[dict[str, Any]] = [{"label": " a", "prediction": "a", "rows": 3}]
    found = figures.confusion_matrix("confusion", cells, [" a", "a"])
    assert "Most frequent confusion: ' a' taken for a, 3 rows." in found.description
    assert found.rows == [(" a", "a", 3)]
    assert {"' a'", "a"} <= {text.text for text in ElementTree.fromstring(page_svg(found)).iter(f"{SVG}text")}


def test_curves() -> None:
    lines = {"training": [(1.0, 0.5)], "validation": [(float(step), 1 / step) for step in range(1, 2001)]}
    found = figures.curves("loss", "Loss", lines, ylabel="loss", best_step=12)
    assert found.description == (
        "training: 0.5 at step 1; validation: 1 at step 1 to 0.0005 at step 2,000. The best step, 12, is marked."
    )
    assert len(found.rows) == 2001
    assert len(page_svg(found)) < 40_000  # the drawing is thinned, the numbers are not
    thinned = figures._thinned(lines["validation"])
    assert len(thinned) <= figures.MAX_POINTS + 1 and thinned[-1] == (2000.0, 0.0005)


def test_reliability_and_thresholds() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    found = figures.reliability("calibration", scores, labels)
    assert "Expected calibration error 0.300 (15 bins), Brier score 0.125." in found.description
    assert sum(row[2] for row in found.rows) == 4
    curve = threshold_curve(scores[:, 1], labels)
    assert curve is not None
    found = figures.threshold_curves("thresholds", curve, label="yes")
    assert "The highest F1 of yes, 1.000, is at a threshold of 0.650" in found.description
    for one in (found, figures.score_histogram("h", "Scores", {"a": scores[:, 0], "b": scores[:0, 0]}, xlabel="s")):
        assert page_svg(one)


def test_many_targets_are_drawn_as_a_sample() -> None:
    values = np.linspace(0, 1, 5000)
    found = figures.targets_and_predictions("targets", values, values + 0.5)
    assert (
        "on average a prediction is 0.5 away from its target. 400 rows, drawn at random, are shown."
        in found.description
    )
    assert len(found.rows) == 5000


def test_lengths() -> None:
    found = figures.length_distribution("lengths", [4, 6, 8], [3, 9], max_length=7)
    assert found.description == "12 rows between 4 and 7 tokens; most, 9, have 6 to 7."
    assert "cut at 7" in page_svg(found)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["validation_matched", "\ud55c"], ["validation-matched", "split"]),
        (["test", "test_\ud55c\uad6d\uc5b4", "test-2", "TEST"], ["test", "test-2", "test-2-2", "test-3"]),
    ],
)
def test_slugs_are_distinct(names: list[str], expected: list[str]) -> None:
    assert figures.slugs([*names, names[0]]) == dict(zip(names, expected, strict=True))
