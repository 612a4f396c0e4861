"""A chart as a vector graphic inside a page, and as SVG, PNG and CSV files. Drawn by matplotlib.

Inside a page colours are CSS variables, so that one drawing serves light and dark, and letters are the page's own.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from textune.data.delimited import csv_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette (2008), which colour-blind people tell apart, those that stand out on white. What a page
# shows in the dark is in style.css, under the same names.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
INK, GRID = "#1b1f24", "#d0d7de"
_VARIABLES = {INK: "currentColor", GRID: "var(--grid)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
# Names of data are in any script; the first font of these that has a character draws it in a PNG.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "textune",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Chart:
    """One picture, with the numbers behind it.

    Attributes:
        name: stem of its files, "learning-loss".
        title: what it shows, a few words.
        description: what can be read from it, for those who do not see it.
        columns, rows: the numbers.
        draw: draws them.
        size: width and height in inches; 72 units of the vector graphic each.
    """

    name: str
    title: str
    description: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.3, 2.7)


def page_svg(chart: Chart) -> str:
    """The chart as an `svg` element for a page, with title and description, without identifiers of others' names."""
    root = ElementTree.fromstring(_svg(chart, ground=False))
    for parent in list(root.iter()):
        parent.text = parent.text if parent.tag == f"{{{_SVG}}}text" else None
        parent.tail = None
        for child in list(parent):  # what applies to a whole page, or draws nothing
            if child.tag.rpartition("}")[2] in {"style", "metadata"} or (
                child.tag == f"{{{_SVG}}}g" and not len(child)
            ):
                parent.remove(child)
    _rename_identifiers(root, prefix=chart.name)
    for element in root.iter():
        for attribute, value in element.attrib.items():
            element.set(attribute, _page_style(value) if attribute == "style" else _rounded(value))
    for name in ("width", "height"):
        del root.attrib[name]
    root.attrib |= {
        "class": "chart",
        "role": "img",
        "aria-labelledby": f"{chart.name}-title",
        "aria-describedby": f"{chart.name}-description",
    }
    for tag, name, text in (("desc", "description", chart.description), ("title", "title", chart.title)):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", id=f"{chart.name}-{name}")
        element.text = printable(text)
        root.insert(0, element)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def file_svg(chart: Chart) -> str:
    """The chart as an SVG file on a white ground."""
    return _svg(chart, ground=True)


def file_png(chart: Chart) -> bytes:
    """The chart as a PNG file, 200 points per inch."""
    with _drawn(chart) as figure:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=200)
    return file.getvalue()


def file_csv(chart: Chart) -> str:
    """The numbers behind the chart."""
    return "".join(map(csv_line, [chart.columns, *chart.rows]))


def printable(text: str, *, longest: int | None = None) -> str:
    """The text without what XML and fonts have no place for, cut with an ellipsis where it is too long."""
    text = re.sub(
        r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]",
        "\N{REPLACEMENT CHARACTER}",
        text,
    )
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def _svg(chart: Chart, *, ground: bool) -> str:
    with _drawn(chart) as figure:
        figure.patch.set_visible(ground)
        for axes in figure.axes:
            axes.patch.set_visible(ground)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


@contextmanager
def _drawn(chart: Chart) -> Iterator[Figure]:
    """The figure, with textune's style in force while it is drawn and saved."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "font.family": _available_fonts()}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A character that no font has becomes a box in the PNG; in a page the browser finds it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=chart.size, layout="constrained")
        chart.draw(figure.subplots())
        yield figure


def _available_fonts() -> list[str]:
    from matplotlib import font_manager

    names = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in names]


def _rename_identifiers(root: ElementTree.Element, *, prefix: str) -> None:
    """Gives those that something refers to names of this chart's own, and takes the others away."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = sorted(set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)))
    renamed = {old: f"{prefix}-{number}" for number, old in enumerate(used)}
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in renamed:
            element.set("id", renamed[name])
        link = element.attrib.pop(_LINK, None)
        if link is not None:
            element.set("href", f"#{renamed[link[1:]]}")
        for attribute, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(attribute, f"url(#{renamed[value[5:-1]]})")


def _page_style(style: str) -> str:
    """A style attribute with the page's colours, and without the names of fonts that a reader may not have."""
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, variable)
    return re.sub(r"font-family: [^;]*;? ?", "", style)


def _rounded(numbers: str) -> str:
    """Coordinates to a tenth of a unit, which is less than anyone sees."""
    return re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), numbers)
