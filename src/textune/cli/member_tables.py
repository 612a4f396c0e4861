"""Several seeds or folds as tables on standard output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textune.cli.tables import figure, metric_text, print_scores, print_table
from textune.data.wording import distinct
from textune.display import MAX_METRICS
from textune.evaluation.captions import captions
from textune.evaluation.units import title
from textune.repeats.folds import OUT_OF_FOLD, read_label_errors
from textune.run import LABEL_ERRORS, Run
from textune.summary import metric_values, scored_splits

SHOWN_SUSPECTS = 10


def print_members(whole: Run) -> None:
    """Prints what several seeds or a cross-validation gave: each run, and all together."""
    summary = whole.summary
    of_seeds = summary["kind"] == "seeds"
    for split in scored_splits(summary) if of_seeds else [OUT_OF_FOLD]:
        _print_split(summary, split, of_seeds=of_seeds)
    further = {name: summary[name] for name in scored_splits(summary) if name != OUT_OF_FOLD}
    if not of_seeds and further:
        print_scores(further)
    for member in summary["runs"]:
        if member["failed"]:
            print(f"failed    {member['name']}: {member['failed']}")
    if not of_seeds:
        _print_suspects(whole, summary)
    print(
        f"note      {summary['selected']['note']}\n"
        f"time      {summary['training']['seconds_in_all']:.0f} s in all\n"
        f"run       {whole.path}\n"
        f"model     {whole.model_path}  (of {summary['selected']['run']}; loads in transformers.pipeline)\n"
        f"next      textune predict {whole.path} INPUT -o OUTPUT"
    )


def _print_split(summary: Mapping[str, Any], split: str, *, of_seeds: bool) -> None:
    """One row per run, one column per metric, and what they give together below."""
    together = summary[split]
    names = [name for name in metric_values(together) if name != "loss"][:MAX_METRICS]
    kept = summary["selected"]["run"]
    rows = [
        [_marked(member, kept), *(_value(member[split], name) for name in names)]
        for member in summary["runs"]
        if split in member
    ]
    deviations = [_deviation(name, together[name]["deviation"]) for name in names]
    if of_seeds:
        means = [figure(name, together[name]["value"]) for name in names]
        ends = [_interval(name, together[name]) for name in names]
        rows += [["mean", *means], ["standard deviation", *deviations], ["95 % interval of the mean", *ends]]
    else:
        rows.append(["standard deviation", *deviations])
        rows.append(["all rows together [95 % interval]", *(metric_text(name, together[name]) for name in names)])
    print_table([f"{split.replace('_', ' ')}, {together['num_rows']:,} rows", *map(title, names)], rows)
    for line in captions({split: together}):
        print(line)


def _marked(member: Mapping[str, Any], kept: str) -> str:
    marks = [mark for mark, holds in (("kept", member["name"] == kept), ("failed", member["failed"])) if holds]
    return f"{member['name']} ({', '.join(marks)})" if marks else str(member["name"])


def _value(values: Mapping[str, float | None], name: str) -> str:
    return figure(name, values[name])


def _deviation(name: str, deviation: float | None) -> str:
    return "" if deviation is None else f"± {figure(name, deviation)}"


def _interval(name: str, entry: Mapping[str, Any]) -> str:
    ends: Sequence[float] | None = entry["interval"]
    return "" if ends is None else f"{figure(name, ends[0])} to {figure(name, ends[1])}"


def _print_suspects(whole: Run, summary: Mapping[str, Any]) -> None:
    found = summary.get("label_errors")
    if not found or not found["suspects"]:
        return
    shown = read_label_errors(whole, limit=SHOWN_SUSPECTS)
    print_table(
        ["row", "label", "more likely", "text"],
        [[row["row"], distinct(row["label"]), distinct(row["suggested"]), _texts(row)] for row in shown],
    )
    right = figure("accuracy", summary[OUT_OF_FOLD]["accuracy"]["value"])
    print(
        f"labels    {found['suspects']:,} are contradicted with confidence: see {LABEL_ERRORS}, worst first,\n"
        f"          by models that are right on {right} % of all rows, so look before you correct"
    )


def _texts(row: Mapping[str, str]) -> str:
    text = " | ".join(" ".join(row[name].split()) for name in ("text", "text_pair") if name in row)
    return text if len(text) <= 60 else f"{text[:57]}..."
