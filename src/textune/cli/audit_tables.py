"""An audit as tables and lines on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textune.audit.findings import KINDS, Audit, Finding
from textune.audit.wording import labels_in_words, languages_in_words, lengths_in_words
from textune.cli.tables import PIPE_WIDTH
from textune.data.wording import counted, quoted
from textune.errors import first_rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

INDENT = " " * 8
STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def print_audit(audit: Audit, *, limit: int) -> None:
    """Prints the splits, then every finding, the gravest first, with `limit` examples each."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    _print_splits(console, audit.splits)
    for finding in audit.findings:
        # Text: nothing from the data is read as markup.
        severity = (finding.severity.ljust(len(INDENT)), STYLES[finding.severity])
        console.print(Text.assemble(severity, _indented(finding.message, console)), soft_wrap=True)
        for line in _lines(finding, limit=limit):
            console.print(Text.assemble(INDENT, _indented(line, console)), style="dim", soft_wrap=True)
    clean = set(audit.checked) - {finding.kind for finding in audit.findings}
    counts = ", ".join(
        counted(sum(finding.severity == severity for finding in audit.findings), severity) for severity in STYLES
    )
    console.print(Text(f"\nfound       {counts}"))
    console.print(Text(f"not found   {len(clean)} of {counted(len(audit.checked), 'kind')} of defects looked for"))
    if any(len(finding.rows) for finding in audit.findings):
        console.print(Text("rows        counted from 1, without a header line"))
    read = counted(audit.num_rows, "row")
    console.print(Text(f"time        {audit.seconds:.1f} s for {read}, reading and tokenising not counted"))


def _indented(text: str, console: Console) -> Text:
    """A text that begins after `INDENT`, with its further lines below its first one; in a pipe it is one line."""
    from rich.text import Text

    if not console.is_terminal:
        return Text(text)
    lines = Text(text).wrap(console, console.width - len(INDENT))
    return Text(f"\n{INDENT}").join(lines)


def _print_splits(console: Console, splits: Mapping[str, Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("split", "rows", "labels", "characters", "tokens", "languages"):
        table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
    for name, split in splits.items():
        cells = [
            name,
            f"{split['rows']:,}",
            labels_in_words(split),
            lengths_in_words(split["characters"]),
            lengths_in_words(split.get("tokens")),
            languages_in_words(split.get("languages")),
        ]
        table.add_row(*map(Text, cells))
    console.print(table)


def _lines(finding: Finding, *, limit: int) -> list[str]:
    lines = [first_rows(finding.rows.tolist())] if len(finding.rows) else []
    other = "" if finding.other_split in {None, finding.split} else f" of {finding.other_split}"
    for example in finding.examples[:limit]:
        detail = f"{example.detail}: " if example.detail else ""
        line = f"row {example.row}: {detail}{_text(example.text, example.text_pair)}{_label(example.label)}"
        if example.other_row is not None and example.other_text is not None:
            line += f" | row {example.other_row}{other}: {_text(example.other_text, example.other_text_pair)}"
            line += _label(example.other_label)
        lines.append(line)
    return [*lines, f"-> {KINDS[finding.kind].advice}"]


def _text(text: str, pair: str | None) -> str:
    return quoted(text) if pair is None else f"{quoted(text)} + {quoted(pair)}"


def _label(label: str | None) -> str:
    return "" if label is None else f" [{label}]"
