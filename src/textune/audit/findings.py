"""What an audit says: findings with severity, rows and examples; the kinds there are, and their form as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textune.errors import first_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first. error: results will be wrong; warning: look at it; note: good to know."""

FORMAT_VERSION = 1
NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Kind:
    """One thing the audit looks for."""

    severity: Severity
    title: str
    advice: str


KINDS: dict[str, Kind] = {
    "unreadable_rows": Kind("error", "rows that cannot be read", "Correct the file; training would stop at them."),
    "empty_text": Kind("error", "empty texts", "Fill them in, or leave the rows out with --drop-bad-rows."),
    "missing_label": Kind("error", "missing labels", "Label the rows, or leave them out with --drop-bad-rows."),
    "wrong_label": Kind("error", "labels that are none", "Correct them: a label of the training data, or a number."),
    "nothing_to_learn": Kind(
        "error", "labels that are missing or all the same", "Training needs rows of at least two labels."
    ),
    "leaked_duplicates": Kind(
        "error", "rows that stand in two splits", "Remove them from one of the splits: they are known when measured."
    ),
    "conflicting_labels": Kind(
        "error", "equal texts with different labels", "Decide for one label; a model cannot learn both."
    ),
    "label_spelling": Kind(
        "error", "labels that differ only in spelling", "Write them alike: each spelling is a class of its own."
    ),
    "leaked_swapped_pairs": Kind(
        "warning", "pairs that stand in another split with their sides swapped", "Keep both orders in one split."
    ),
    "leaked_near_duplicates": Kind(
        "warning",
        "rows nearly equal to one of another split",
        "Look at them; figures on that split may be better than on new text.",
    ),
    "duplicates": Kind("warning", "repeated rows", "Remove the repetitions, unless they are meant to weigh more."),
    "swapped_pairs": Kind("note", "pairs repeated with their sides swapped", "Keep both orders in one split."),
    "near_duplicates": Kind(
        "note",
        "rows nearly equal to another of the same split",
        "Keep them in one split, above all when splitting at random.",
    ),
    "suspected_labels": Kind(
        "warning", "labels that a cross-validated model contradicts", "Look at the first ones; correct what is wrong."
    ),
    "truncated": Kind("warning", "rows longer than --max-length", "Raise --max-length, or shorten the texts."),
    "unknown_tokens": Kind(
        "warning", "words that the tokenizer does not know", "Choose a checkpoint made for the language of the texts."
    ),
    "very_long": Kind("warning", "texts far longer than the others", "See whether several were glued together."),
    "no_words": Kind("warning", "texts without a letter or digit", "See whether there was text once."),
    "control_characters": Kind("warning", "control characters", "Remove them; they come from broken files."),
    "replacement_characters": Kind(
        "warning", "replacement characters (U+FFFD)", "Read the source again with its right encoding."
    ),
    "mojibake": Kind(
        "warning", "texts decoded wrongly, such as Ã© for é", "Read the source again as UTF-8, or repair it with ftfy."
    ),
    "invisible_characters": Kind(
        "warning", "invisible characters, such as zero-width blanks", "Remove them; equal texts look different."
    ),
    "bidi_controls": Kind(
        "warning", "controls of writing direction", "Remove them, unless the texts are really of mixed direction."
    ),
    "private_use_characters": Kind(
        "warning", "characters without a meaning (private use)", "Replace them; no vocabulary knows them."
    ),
    "html_remains": Kind("warning", "remains of HTML", "Turn tags and entities into text."),
    "other_script": Kind("note", "texts in a script that few others are in", "See whether they belong to the data."),
    "other_language": Kind(
        "note", "texts in a language that few others are in", "See whether they belong to the data."
    ),
    "label_imbalance": Kind(
        "warning", "very unequal numbers of rows per label", "Judge by F1, and try --class-weights balanced."
    ),
    "rare_labels": Kind("warning", "labels with few training rows", "Gather more rows, or merge the labels."),
    "absent_labels": Kind("warning", "labels without any row", "They cannot be learned or measured there."),
    "label_shift": Kind(
        "warning", "labels distributed otherwise than in training", "Draw the splits from the same rows, by label."
    ),
}
"""In the order of reports within one severity."""


@dataclass(frozen=True)
class Example:
    """One row of a finding, and the row it is compared with."""

    row: int
    """1-based, in its split."""
    text: str
    text_pair: str | None = None
    label: str | None = None
    other_row: int | None = None
    other_text: str | None = None
    other_text_pair: str | None = None
    other_label: str | None = None
    detail: str | None = None
    """What is odd about it, where the text does not show it."""

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Finding:
    """Rows of one split with one thing in common."""

    kind: str
    """A key of `KINDS`."""
    split: str
    count: int
    """How many rows."""
    rows_in_split: int
    message: str
    """One sentence without a full stop, with the count."""
    rows: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)
    """Their numbers, 1-based as in the source; empty where they are not known."""
    other_split: str | None = None
    other_rows: NDArray[np.int64] | None = None
    """For each of `rows` one row of `other_split` that it is like."""
    examples: tuple[Example, ...] = ()

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    @property
    def share(self) -> float:
        """Of the split's rows, 0 to 1."""
        return self.count / max(self.rows_in_split, 1)

    @property
    def line(self) -> str:
        """The message with the first row numbers."""
        return self.message if len(self.rows) == 0 else f"{self.message} ({first_rows(self.rows.tolist(), shown=5)})"

    def as_json(self, *, limit: int | None = None) -> dict[str, Any]:
        """See docs/data-audit.md; at most `limit` rows and examples are listed."""
        others = None if self.other_rows is None else self.other_rows[:limit].tolist()
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "other_split": self.other_split,
            "count": self.count,
            "share": round(self.share, 6),
            "message": self.message,
            "advice": KINDS[self.kind].advice,
            "rows": self.rows[:limit].tolist(),
            "other_rows": others,
            "examples": [example.as_json() for example in self.examples[:limit]],
        }


@dataclass(frozen=True)
class Audit:
    """Everything that was found in a data set."""

    name: str
    location: str
    fingerprint: str
    splits: Mapping[str, Mapping[str, Any]]
    """Per split its rows, labels, lengths, scripts and languages."""
    findings: tuple[Finding, ...]
    """The gravest first."""
    checked: tuple[str, ...]
    """The kinds that were looked for: one of them without a finding is clean."""
    notes: tuple[str, ...]
    """What was not looked for and why, and how the data were read."""
    seconds: float

    @property
    def num_rows(self) -> int:
        return sum(split["rows"] for split in self.splits.values())

    def with_severity(self, severity: Severity) -> list[Finding]:
        """The findings at least as grave."""
        wanted = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return [finding for finding in self.findings if finding.severity in wanted]

    def as_json(self, *, limit: int | None = None) -> dict[str, Any]:
        """As `textune inspect --json` prints it and audit.json holds it; see docs/data-audit.md."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "source": self.location,
            "fingerprint": self.fingerprint,
            "rows": self.num_rows,
            "seconds": round(self.seconds, 3),
            "microseconds_per_row": round(self.seconds / max(self.num_rows, 1) * 1e6, 1),
            "splits": dict(self.splits),
            "checked": list(self.checked),
            "findings": [finding.as_json(limit=limit) for finding in self.findings],
            "notes": list(self.notes),
        }


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The gravest first, then in the order of `KINDS`."""
    kinds = list(KINDS)
    return tuple(sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), kinds.index(found.kind))))
