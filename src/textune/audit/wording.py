"""Figures of an audit in words, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textune.audit.languages import UNDETERMINED
from textune.data.wording import quoted

MAX_LABELS, MAX_LANGUAGES = 10, 3


def count_of(count: int, total: int, split: str) -> str:
    """Returns "12 of 408 validation rows (2.9 %)"."""
    return f"{count:,} of {total:,} {split} rows ({percent(count / max(total, 1))})"


def percent(share: float) -> str:
    """Returns "2.9 %", "0.067 %"."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def labels_in_words(split: Mapping[str, Any]) -> str:
    """Labels with their counts, or the range of targets, of one of `Audit.splits`."""
    if "targets" in split:
        targets = split["targets"]
        return f"{targets['lowest']:g} to {targets['highest']:g}, mean {targets['mean']:.3g}"
    counts = split.get("labels", {})
    shown = ", ".join(f"{quoted(name)} {count:,}" for name, count in list(counts.items())[:MAX_LABELS])
    return f"{shown} and {len(counts) - MAX_LABELS} more" if len(counts) > MAX_LABELS else shown or "none"


def lengths_in_words(lengths: Mapping[str, float] | None) -> str:
    """Lengths as in `Audit.splits`."""
    if lengths is None:
        return "not counted"
    return f"median {lengths['median']:,.0f}, 95 % {lengths['percentile_95']:,.0f}, longest {lengths['longest']:,}"


def languages_in_words(counts: Mapping[str, int] | None) -> str:
    """Languages as in `Audit.splits`: "en 97 %, de 0.3 %, not certain 2.7 %"."""
    if counts is None:
        return "not looked for"
    total, names = sum(counts.values()), [code for code in counts if code != UNDETERMINED]
    shown = [f"{code} {percent(counts[code] / total)}" for code in names[:MAX_LANGUAGES]]
    if len(names) > MAX_LANGUAGES:
        shown.append(f"{len(names) - MAX_LANGUAGES} more")
    if UNDETERMINED in counts:
        shown.append(f"not certain {percent(counts[UNDETERMINED] / total)}")
    return ", ".join(shown)
