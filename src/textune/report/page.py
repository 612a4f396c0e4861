"""A run's report as one HTML page that loads nothing, runs nothing from the data, and reads well anywhere."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textune import __version__
from textune.report import sections
from textune.report.charts import Chart, page_svg, printable
from textune.report.figures import slugs
from textune.report.reading import RunFiles
from textune.report.split import split_section

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Characters that nobody sees or that turn the direction of what follows: shown by their number. Line ends and tabs
# stay, and so do joiners, which emoji and some scripts need.
_ODD = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Report:
    """A page, and the charts in it."""

    html: str
    charts: tuple[Chart, ...]


def run_report(files: RunFiles) -> Report:
    """The report of one run. Parts that are missing are left out; `files.problems` says so at its top."""
    attempt = files.attempt
    data_name = files.data.get("name") if isinstance(files.data.get("name"), str) else None
    values: dict[str, Any] = {
        "title": f"{data_name or 'Run'}: {files.name}",
        "overview": attempt("The overview", sections.overview, files) or [],
        "results": attempt("The table of results", sections.results, files),
        "learning": attempt("The course of training", sections.learning, files) or [],
        "splits": _splits(files),
        "data": attempt("The data", sections.data, files),
        "findings": attempt("The data audit", sections.audit, files) or [],
        "cost": attempt("Speed and memory", sections.cost, files) or [],
        "environment": attempt("The environment", sections.environment, files) or [],
        "reproduction": sections.reproduction(files),
    }
    headings = [
        ("overview", "What was trained", True),
        ("results", "Results", values["results"]),
        ("learning", "Course of training", values["learning"]),
        *((f"split-{part['slug']}", f"Predictions on {part['name']}", True) for part in values["splits"]),
        ("data", "Data", values["data"]),
        ("cost", "Speed and memory", values["cost"]),
        ("environment", "Environment", values["environment"]),
        ("again", "The same again", True),
    ]
    values["contents"] = [(name, heading) for name, heading, there in headings if there]
    charts = [*values["learning"], *(chart for part in values["splits"] for chart in part["charts"])]
    charts += values["data"]["charts"] if values["data"] else []
    return Report(render("run.html.j2", values, sentences=files.problems), tuple(charts))


def _splits(files: RunFiles) -> list[dict[str, Any]]:
    names = slugs([*files.scored_splits, *files.analysis])
    built = (
        files.attempt(f"Predictions on {name}", split_section, files, name, slug=slug) for name, slug in names.items()
    )
    return [part for part in built if part is not None]


def render(template: str, values: dict[str, Any], *, sentences: Sequence[str]) -> str:
    """Fills a template.

    Args:
        sentences: what stands at the top of the page, as warnings.
    """
    script = _template("table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    from markupsafe import Markup

    return (
        _environment()
        .get_template(template)
        .render(
            {
                **values,
                "sentences": sentences,
                "version": __version__,
                "style": Markup(_template("style.css")),
                "script": Markup(script),
                "script_hash": f"sha256-{digest}",
            }
        )
    )


def shown(value: object) -> object:
    """Text as HTML that shows it as it is: harmless, and what cannot be seen by its number."""
    from markupsafe import Markup, escape

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(_ODD.sub(lambda match: f'<span class="odd">U+{ord(match[0]):04X}</span>', str(escape(value))))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        finalize=shown,
        loader=PackageLoader("textune.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"figure": _figure, "count": _count, "plain": _plain, "svg": _svg}
    return environment


def _figure(value: float) -> str:
    """Four decimals as in textune's tables; large and tiny numbers in four digits."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def _count(value: int) -> str:
    return f"{value:,}"


def _plain(text: str) -> Markup:
    """For places where no element can stand, as in the title."""
    from markupsafe import escape

    return escape(printable(text))


def _svg(chart: Chart) -> Markup:
    from markupsafe import Markup

    return Markup(page_svg(chart))


def _template(name: str) -> str:
    return importlib.resources.files("textune.report").joinpath("templates", name).read_text(encoding="utf-8")
