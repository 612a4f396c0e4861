"""What is said below a table of figures, so that they can be read: of which label they speak, and what is little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textune.evaluation.units import with_unit


def captions(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences about the figures of splits, one line each.

    Args:
        splits: by name, as in summary.json; what was written before these figures were is left out.
    """
    lines = [
        f"positive label: {label!r} (the second label; --label-names changes the order)"
        for label in dict.fromkeys(scores.get("positive_label") for scores in splits.values())
        if label is not None
    ]
    baselines: dict[tuple[str, str], list[str]] = {}
    for split, scores in splits.items():
        if (found := scores.get("baseline")) is not None:
            reached = f"{with_unit(found['metric'], found['score'])} on {split.replace('_', ' ')}"
            baselines.setdefault((found["answer"], found["metric"]), []).append(reached)
    return lines + [
        f"always {answer}: {metric} {', '.join(reached)}" for (answer, metric), reached in baselines.items()
    ]
