"""A data audit as one HTML page, in the style of the reports."""

from __future__ import annotations

from typing import Any

from textune.audit.findings import KINDS, Audit, Finding
from textune.audit.wording import labels_in_words, languages_in_words, lengths_in_words
from textune.data.wording import counted
from textune.report.page import render

MAX_NUMBERS = 1000
"""Row numbers written out for a finding; the JSON has all."""


def audit_page(audit: Audit) -> str:
    """Returns the page. Texts from the data stand in it as they are and do nothing."""
    found = {finding.kind for finding in audit.findings}
    values = {
        "title": f"Data audit: {audit.name}",
        "name": audit.name,
        "source": f"{audit.location}, {counted(audit.num_rows, 'row')}",
        "splits": [
            {
                "name": name,
                "rows": split["rows"],
                "labels": labels_in_words(split),
                "characters": lengths_in_words(split["characters"]),
                "tokens": lengths_in_words(split.get("tokens")),
                "scripts": ", ".join(f"{script} {count:,}" for script, count in split.get("scripts", {}).items()),
                "languages": languages_in_words(split.get("languages")),
            }
            for name, split in audit.splits.items()
        ],
        "findings": [_shown(finding) for finding in audit.findings],
        "clean": [KINDS[kind].title for kind in audit.checked if kind not in found],
        "notes": audit.notes,
    }
    return render("audit.html.j2", values, sentences=[])


def _shown(finding: Finding) -> dict[str, Any]:
    more = len(finding.rows) - MAX_NUMBERS
    numbers = ", ".join(map(str, finding.rows[:MAX_NUMBERS].tolist()))
    return {
        "severity": finding.severity,
        "message": finding.message,
        "advice": KINDS[finding.kind].advice,
        "numbers": f"{numbers} and {more:,} more" if more > 0 else numbers,
        "examples": finding.examples,
        "details": any(example.detail for example in finding.examples),
        "others": finding.other_rows is not None,
        "place": "" if finding.other_split in {None, finding.split} else f" of {finding.other_split}",
    }
