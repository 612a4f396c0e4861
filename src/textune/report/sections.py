"""The parts of a run's report as plain values, ready for the template. Each raises where its file is damaged."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from textune.config import Config
from textune.config_reading import plain_options, value_yaml
from textune.data.wording import counted, distinct
from textune.errors import first_rows
from textune.evaluation.captions import captions
from textune.evaluation.metrics import LOSS
from textune.evaluation.units import title, value_text
from textune.report.charts import Chart
from textune.report.figures import curves, length_distribution
from textune.report.reading import RunFiles
from textune.summary import metric_entries

NOT_METRICS = {"step", "epoch", "split", "best", "loss", "kind"}
LENGTHS = ("median", "percentile_95", "longest_before_truncation", "truncated_rows")
Section = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A metric's value and its 95 % interval; None where it is undefined or has none."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, name: str, entry: dict[str, Any]) -> Figure:
        """Reads `{"value": v, "interval": [low, high]}`, with or without the interval."""
        value, interval = entry["value"], entry.get("interval")
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        return cls(name, None if value is None else float(value), ends)

    @property
    def title(self) -> str:
        """The name, with the unit that the texts are in."""
        return title(self.name)

    @property
    def texts(self) -> list[str]:
        """The value and, if there are any, the ends of the interval, in percent or in the metric's own unit."""
        if self.value is None:
            return ["undefined"]
        return [value_text(self.name, value) for value in (self.value, *(self.interval or ()))]


def overview(files: RunFiles) -> list[tuple[str, str]]:
    """What was trained, on what, and which weights were kept: terms and what they are."""
    found: list[tuple[str, str]] = []
    data, config = files.data, files.config
    if config is not None:
        found.append(("Checkpoint", config.model.checkpoint))
        found.append(("Data", str(data.get("source", config.data.source))))
    if data:
        labels = data["schema"]["label_names"]
        task = data["schema"]["problem_type"].replace("_", " ")
        found.append(("Task", f"{task} of {'pairs of texts' if data['schema']['text_pair'] else 'single texts'}"))
        if labels:
            named = ", ".join(map(distinct, labels[:12]))
            found.append(("Labels", f"{len(labels)}: {named}{' ...' if len(labels) > 12 else ''}"))
        found.append(("Rows", ", ".join(f"{name} {part['rows']:,}" for name, part in data["splits"].items())))
    if training := files.summary.get("training"):
        early = f", stopped: {training['stop_reason']}" if training["stop_reason"] else ""
        early += f", {skipped:,} of them left out as not finite" if (skipped := training.get("skipped_steps")) else ""
        found.append(
            ("Training", f"{counted(training['steps'], 'step')}, {counted(training['epochs'], 'epoch')}{early}")
        )
    if selected := files.summary.get("selected"):
        best = f"the best by {selected['metric']} on {selected['split']}"
        found.append(("Weights", f"step {selected['step']:,}, {best if selected['weights'] == 'best' else 'the last'}"))
    return found


def results(files: RunFiles) -> Section | None:
    """The headline figure of each split, and all of them in a table."""
    splits = files.scored_splits
    if not splits:
        return None
    entries = {split: scores(files.summary[split]) for split in splits}
    chosen = files.summary["selected"]["metric"]
    headline = chosen if chosen not in {None, LOSS} else next(iter(entries[splits[0]]))  # None: nothing was chosen
    return {
        "note": files.summary["selected"].get("note"),
        "failed": files.summary["selected"].get("failed"),
        "captions": captions({split: files.summary[split] for split in splits}),
        "tiles": [
            {"split": split, "figure": figures[headline], "rows": int(files.summary[split]["num_rows"])}
            for split, figures in entries.items()
            if headline in figures
        ],
        **table(entries, {split: int(files.summary[split]["num_rows"]) for split in splits}),
    }


def table(columns: dict[str, dict[str, Figure]], num_rows: dict[str, int]) -> Section:
    """One row per metric, one column per split or run, and how many rows are behind each column."""
    titles = {name: figure.title for figures in columns.values() for name, figure in figures.items()}
    return {
        "columns": list(columns),
        "num_rows": list(num_rows.values()),
        "metrics": [(title, [part.get(name) for part in columns.values()]) for name, title in titles.items()],
    }


def scores(split: dict[str, Any]) -> dict[str, Figure]:
    """The metrics in one split's part of summary.json."""
    return {name: Figure.of(name, entry) for name, entry in metric_entries(split).items()}


def learning(files: RunFiles) -> list[Chart]:
    """Loss and the deciding metric over the steps."""
    training = [
        (float(record["step"]), float(record["loss"])) for record in files.records if record["kind"] == "training"
    ]
    losses = {"training": training}
    losses |= evaluation_points(files, "loss")
    losses = {label: points for label, points in losses.items() if points}
    selected = files.summary.get("selected")
    best = selected["step"] if selected and selected["weights"] == "best" else None
    charts = []
    if losses:
        charts.append(curves("learning-loss", "Loss", losses, ylabel="loss", best_step=best))
    metric = headline_metric(files)
    if metric is not None and (lines := evaluation_points(files, metric)):
        charts.append(curves("learning-metric", f"{metric} while training", lines, ylabel=metric, best_step=best))
    return charts


def headline_metric(files: RunFiles) -> str | None:
    """The metric that decides which weights are best, or the first of the evaluations where that is the loss."""
    asked = files.summary.get("selected", {}).get("metric") or (files.config and files.config.evaluation.metric)
    if asked and asked != LOSS:
        return str(asked)
    evaluations = (record for record in files.records if record["kind"] == "evaluation")
    return next((name for record in evaluations for name in record if name not in NOT_METRICS), None)


def evaluation_points(files: RunFiles, name: str) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of a metric at each evaluation that defines it, by split."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in files.records:
        if record["kind"] == "evaluation" and record.get(name) is not None:
            lines.setdefault(record["split"], []).append((float(record["step"]), float(record[name])))
    return lines


def data(files: RunFiles) -> Section | None:
    """Lengths, truncation, what padding would have cost, and what was noted while reading."""
    if not files.data:
        return None
    splits = files.data["splits"]
    train = next(iter(splits))
    padding = splits[train].get("padding_share")
    charts = []
    if histogram := splits[train].get("length_histogram"):
        limit = files.data["max_length"]
        charts.append(length_distribution("lengths", histogram["edges"], histogram["rows"], max_length=limit))
    return {
        "charts": charts,
        "splits": [
            {
                "name": name,
                "rows": int(part["rows"]),
                **{key: int(part["lengths"][key]) for key in LENGTHS},
            }
            for name, part in splits.items()
        ],
        "max_length": files.data["max_length"],
        "padding": None if padding is None else f"{100 * padding:.0f} %",
        "unpadded": any("without padding" in note for note in files.environment.get("engine", [])),
        "batch_size": None if files.config is None else files.config.training.batch_size,
        "notes": files.data["notes"],
    }


def audit(files: RunFiles) -> list[Section]:
    """The findings of the data audit, the gravest first."""
    return [
        {
            "severity": str(finding["severity"]),
            "split": str(finding["split"]),
            "message": str(finding["message"]),
            "advice": str(finding["advice"]),
            "rows": first_rows([int(row) for row in finding["rows"]]) if finding["rows"] else "",
        }
        for finding in files.audit.get("findings", [])
    ]


def cost(files: RunFiles) -> list[tuple[str, str]]:
    """Time, speed and memory of the training: terms and what they are."""
    training = files.summary.get("training")
    if not training:
        return []
    return [
        ("Training", f"{training['seconds']:,.1f} s of {training['seconds_in_all']:,.1f} s in all"),
        ("Speed", f"{training['samples_per_second']:,.1f} rows/s, {training['tokens_per_second']:,.0f} tokens/s"),
        ("Peak memory", f"{training['peak_memory_mib']:,.0f} MiB"),
        ("Arithmetic", training["precision"]),
    ]


def environment(files: RunFiles) -> list[tuple[str, str]]:
    """Machine and versions: terms and what they are."""
    found = files.environment
    if not found:
        return []
    cores = counted(found["cores"], "core")
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return [
        ("Device", f"{found['device']}; {found['processor']}, {cores}, {counted(found['threads'], 'thread')}"),
        ("System", f"{found['platform']}, Python {found['python']}"),
        ("Packages", f"textune {found['textune']}, {packages}"),
        ("Arithmetic", str(found["arithmetic"].get("reason", ""))),
        ("Engine", "; ".join(found.get("engine", []))),
    ]


def reproduction(files: RunFiles) -> Section:
    """The options that are not the default, the command as it was given, and one that does the same again."""
    changed = [] if files.config is None else _changed(files.config)
    command = files.environment.get("command") or []
    folder = shlex.quote(str(files.path))
    return {
        "command": shlex.join(command) if len(command) > 1 and command[0] == "textune" else None,
        "again": f"textune train --config {folder}/config.yaml --output {shlex.quote(f'{files.path}-again')}",
        "options": changed,
    }


def option_texts(config: Config) -> dict[str, str]:
    """Each option's value as a configuration file has it, or `none`."""
    return {name: "none" if value is None else value_yaml(value) for name, value in plain_options(config).items()}


def _changed(config: Config) -> list[tuple[str, str]]:
    default = option_texts(Config())
    return [(name, text) for name, text in option_texts(config).items() if text != default[name]]
