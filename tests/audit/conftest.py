from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults.material import write_json_lines
from textune.audit.auditing import full_audit
from textune.audit.findings import Audit, Finding
from textune.config import DataConfig
from textune.data.prepare import PreparedData, prepare_inspection

Splits = dict[str, Sequence[dict[str, Any]]]
SENTENCES = (
    "the harbour was full of small boats that morning",
    "nobody had told the cook about the second delivery",
    "seven letters arrived and none of them was signed",
    "a narrow path leads from the mill down to the river",
    "our train stood for an hour outside the old station",
    "she kept the receipts in a box under the stairs",
    "rain had washed the paint off every garden fence",
    "the committee will meet again on the first of may",
    "two of the windows would not close any more",
    "he learned to repair clocks from his grandmother",
)
"""Texts that have little in common."""


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., PreparedData]:
    """A function that writes splits as JSON lines and reads them as `textune inspect` does."""

    def read(splits: Splits, **config: Any) -> PreparedData:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        data = folder / "data"
        data.mkdir()
        for name, rows in splits.items():
            write_json_lines(data / f"{name}.jsonl", rows)
        options = DataConfig(source=str(data), drop_bad_rows=True, **config)
        return prepare_inspection(options, folder=folder / "rows", labels_required=False)

    return read


@pytest.fixture
def audit(prepare: Callable[..., PreparedData], tmp_path: Path) -> Callable[..., Audit]:
    """A function from splits to their full audit, without truncation."""
    return lambda splits, **config: full_audit(
        prepare(splits, **config), tokens={}, folder=Path(tempfile.mkdtemp(dir=tmp_path))
    )


def rows_of(texts: Sequence[str], labels: str = "ab") -> list[dict[str, Any]]:
    """Rows whose labels take turns."""
    return [{"text": text, "label": labels[number % len(labels)]} for number, text in enumerate(texts)]


def named(audit: Audit, kind: str) -> dict[str, list[int]]:
    """Split -> rows of the findings of a kind."""
    return {finding.split: finding.rows.tolist() for finding in audit.findings if finding.kind == kind}


def the(audit: Audit, kind: str) -> Finding:
    """The one finding of a kind."""
    found = [finding for finding in audit.findings if finding.kind == kind]
    assert len(found) == 1, [finding.message for finding in audit.findings]
    return found[0]
