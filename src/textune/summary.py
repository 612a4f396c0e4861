"""How summary.json is read: which of its parts are splits, and which entries of those are metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def scored_splits(summary: Mapping[str, Any]) -> list[str]:
    """The splits with figures in a summary, in its order."""
    return [name for name, part in summary.items() if isinstance(part, dict) and "num_rows" in part]


def metric_entries(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What one split's part says of each metric: `value`, None where it is undefined, `low`, `high`, ..."""
    return {
        name: entry
        for name, entry in scores.items()
        if isinstance(entry, dict) and "value" in entry and name != "per_class"  # where a label is called so
    }


def metric_values(scores: Mapping[str, Any]) -> dict[str, float | None]:
    """The values alone."""
    return {name: entry["value"] for name, entry in metric_entries(scores).items()}
