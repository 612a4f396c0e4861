"""Reports as files: a run's own page, a page that compares runs, and their charts one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from textune.files import check_new_file, replacing, storage_errors, user_path, write_text
from textune.report.charts import Chart, file_csv, file_png, file_svg
from textune.report.comparison import comparison_report
from textune.report.page import run_report
from textune.report.reading import read_run
from textune.run import Run

RUN_PAGE, COMPARISON_PAGE = "report.html", "comparison.html"


def write_report(
    runs: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    figures: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[Path, list[str]]:
    """Writes the report of a run, or one page that compares several.

    Args:
        runs: run folders, finished or not. One of several seeds stands for its runs, beside others for its recipe.
        output: the page; None for RUN/report.html, which is replaced, or for several runs comparison.html.
        figures: a folder for each chart as NAME.svg, NAME.png and NAME.csv.
        overwrite: replace the page if `output` is there already.

    Returns:
        The page's path, and what is missing from the runs, one sentence each.

    Raises:
        InputNotFoundError, CheckpointError: a folder is missing or not a run.
        OutputError, StorageError: the page or a chart cannot be written.
    """
    files = [read_run(member) for run in runs for member in _members(run)]
    own = user_path(runs[0]) / RUN_PAGE
    target = user_path(output) if output is not None else own if len(runs) == 1 else Path(COMPARISON_PAGE)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_new_file(target, option="--output", overwrite=overwrite or target == own)
    together = read_run(runs[0]) if len(runs) == 1 < len(files) else None
    report = (
        run_report(files[0])
        if len(files) == 1
        else comparison_report(files, sources=[user_path(run) for run in runs], together=together)
    )
    write_text(target, report.html)
    if figures is not None:
        write_charts(report.charts, user_path(figures))
    read = files if together is None else [*files, together]
    return target, [problem for part in read for problem in part.problems]


def _members(run: str | Path) -> list[Path]:
    """The runs of several seeds, which are shown side by side, or the run itself."""
    whole = Run.open(run)
    return [run.path for run in whole.seeds] or [whole.path]


def write_charts(charts: Iterable[Chart], folder: Path) -> None:
    """Writes each chart as a vector graphic, as pixels and as numbers."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        write_text(folder / f"{chart.name}.svg", file_svg(chart))
        write_text(folder / f"{chart.name}.csv", file_csv(chart))
        with replacing(folder / f"{chart.name}.png") as temporary:
            temporary.write_bytes(file_png(chart))
