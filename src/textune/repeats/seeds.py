"""What runs with several seeds say together, and which of their models is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textune.data.schema import Schema
from textune.data.splits import split_roles
from textune.evaluation.baseline import judged_by, why_failed
from textune.evaluation.comparison import mean_intervals
from textune.evaluation.intervals import Interval, ends
from textune.evaluation.metrics import LOSS, METRICS
from textune.evaluation.prediction_files import read_outcomes
from textune.repeats.members import Member
from textune.repeats.together import copy_model, spread
from textune.run import Run
from textune.summary import metric_entries, metric_values, scored_splits


def write_seeds(whole: Run, members: Sequence[Member], failures: Mapping[str, str]) -> None:
    """Writes the model that is kept, data.json and, last, summary.json.

    Args:
        members: all of them; those that are not in `failures` have finished.
        failures: what those say that diverged, by name.
    """
    runs = {member.name: Run(whole.path / member.name) for member in members if member.name not in failures}
    summaries = {name: run.summary for name, run in runs.items()}
    first = next(iter(summaries.values()))
    splits, selected = scored_splits(first), first["selected"]
    data = next(iter(runs.values())).data
    label_names = Schema.from_json(data["schema"]).label_names

    figures: dict[str, dict[str, Any]] = {}
    failed: dict[str, str | None] = {member.name: failures.get(member.name) for member in members}
    for split in splits:
        outcomes = read_outcomes(list(runs.values()), split)
        names = [name for name in metric_values(first[split]) if name in METRICS]
        intervals = mean_intervals(outcomes, names) if len(outcomes) > 1 else {}  # one seed tells nothing of others
        figures[split] = _means([summary[split] for summary in summaries.values()], intervals)
        if split == selected["split"]:
            judge = judged_by(selected["metric"], names)
            for name, outcome in zip(runs, outcomes, strict=True):
                failed[name] = why_failed(outcome, judge, label_names)
    kept = _choose(summaries, failed, split=selected["split"], metric=selected["metric"])
    test = [split for split in splits if split not in split_roles(splits).validation]
    note = _note(kept, failed, selected, quoted=test[0] if test else None)
    note += _note_of_diverged(list(failures), len(runs))
    copy_model(runs[kept], whole, title="One of several seeds", text=_card_text(note, figures, quoted=[*test, *splits]))
    whole.write("data.json", data)
    whole.write(
        "summary.json",
        {
            "kind": "seeds",
            "selected": {"run": kept, "split": selected["split"], "metric": selected["metric"], "note": note},
            "runs": [
                {
                    "name": member.name,
                    "seed": member.config.training.seed,
                    "failed": failed[member.name],
                    **{split: metric_values(summaries[member.name][split]) for split in splits if member.name in runs},
                }
                for member in members
            ],
            **figures,
            "training": {
                "seconds_in_all": round(sum(summary["training"]["seconds_in_all"] for summary in summaries.values()), 3)
            },
        },
    )


def _means(parts: Sequence[Mapping[str, Any]], intervals: Mapping[str, Interval | None]) -> dict[str, Any]:
    """The figures of one split: see `textune.repeats`."""
    found: dict[str, Any] = {}
    for name in metric_values(parts[0]):
        values = [metric_values(part)[name] for part in parts]
        found[name] = spread(values) | {"interval": ends(intervals.get(name)), "num_runs": len(values)}
        if None in values:
            found[name]["undefined"] = f"it is undefined for {values.count(None)} of {len(values)} seeds"
    rows = {name: parts[0][name] for name in ("positive_label", "baseline") if name in parts[0]}  # the same for all
    return found | rows | {"num_rows": parts[0]["num_rows"]}


def _choose(
    summaries: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str | None], *, split: str | None, metric: str
) -> str:
    """The best run on validation of those that have not failed; the first of equally good ones, or without a split."""
    names = [name for name in summaries if failed[name] is None] or list(summaries)
    if split is None:
        return names[0]
    sign = 1 if metric != LOSS and METRICS[metric].higher_is_better else -1

    def rank(name: str) -> float:
        value = summaries[name][split][metric]["value"]
        return -np.inf if value is None else sign * value

    return max(names, key=rank)


def _note(kept: str, failed: Mapping[str, str | None], selected: Mapping[str, Any], *, quoted: str | None) -> str:
    num_seeds = len(failed)
    if selected["split"] is None:
        return f"{kept} is the first of {num_seeds} seeds; there were no validation rows to choose by."
    note = (
        f"{kept} was chosen of {num_seeds} seeds by {selected['metric']} on {selected['split']}, so its own figures "
        f"there are optimistic; "
    )
    if all(failed.values()):
        note = f"all {num_seeds} seeds have failed, and {kept} is only the least bad of them; "
    if quoted is not None:
        return f"{note}what to expect of the recipe is the mean over seeds on {quoted}."
    return (
        f"{note}what to expect of the recipe is rather the mean over seeds, and there is no labelled test split to "
        "measure it without any choice."
    )


def _note_of_diverged(diverged: Sequence[str], num_runs: int) -> str:
    """Of how many the means are, where some have no figures: the mean is better than the recipe then."""
    if not diverged:
        return ""
    behind = f"the means are those of {num_runs}" if num_runs > 1 else "the figures are those of the only one left"
    return f" Of {num_runs + len(diverged)} seeds {len(diverged)} diverged ({', '.join(diverged)}): {behind}."


def _card_text(note: str, figures: Mapping[str, Mapping[str, Any]], *, quoted: Sequence[str]) -> str:
    if not quoted:
        return note
    split = quoted[0]
    lines = [
        f"- {name} on {split}: mean {entry['value']:.4f}, standard deviation {entry['deviation']:.4f}"
        for name, entry in metric_entries(figures[split]).items()
        if entry["value"] is not None and entry["deviation"] is not None
    ]
    return "\n".join([note, "", *lines])
