"""The model card: `model/README.md` in the hub's format, with the figures the run measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from textune import __version__
from textune.data.glue import HUB_REPOSITORY
from textune.data.wording import distinct
from textune.evaluation.captions import captions
from textune.report.sections import Figure, scores

if TYPE_CHECKING:
    from textune.config import Config, TrainingConfig
    from textune.data.prepare import PreparedData

# Names under which the hub knows the metrics of its `model-index`.
_TASK = {"type": "text-classification", "name": "Text Classification"}
# What the packaged checkpoint is on the hub.
_STARTER = "sentence-transformers/all-MiniLM-L6-v2"
# Older models and data sets of the hub have no owner.
_HUB_NAME = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")


def model_card(*, config: Config, prepared: PreparedData, summary: dict[str, Any]) -> str:
    """Writes the card of a finished run.

    Nothing is claimed that is not known: licence and languages are left out.

    Args:
        summary: what summary.json holds: `{split: {metric: {"value": ..., "interval": [low, high]}}, "training": {...},
            "selected": {...}}`.
    """
    splits = [name for name in (*prepared.roles.validation, *prepared.roles.test) if name in summary]
    schema, training, name = prepared.schema, config.training, prepared.source.name
    figures = {split: scores(summary[split]) for split in splits}
    labels = ", ".join(_code(distinct(label)) for label in schema.label_names) or "a number"
    inputs = "a pair of texts" if schema.text_pair else "one text"
    told = _captions({split: summary[split] for split in splits}, summary["selected"])
    sample = '{"text": "One text", "text_pair": "and another"}' if schema.text_pair else '"One text"'
    metadata = _metadata(config, prepared, figures)
    return f"""---
{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip()}
---

# {name}: a text classifier

Takes {inputs}, gives {labels}. Fine-tuned from `{config.model.checkpoint}` with textune {__version__} on
`{name}` ({len(prepared.rows[prepared.train]):,} training rows).

## Results

{_table(figures, summary)}

{told}In brackets: 95 % intervals, that is how far a figure would move with other rows from the same source.
{_selection(summary["selected"])}

## Intended use

Texts like those it was trained on, in the same languages and of the same kind. It gives one of its labels to any text,
also to one that fits none of them{": look at the scores" if schema.label_names else ""}.

## Limits

- Texts beyond {config.tokens.max_length} tokens are cut.
- The figures above hold for rows from the source of the data, and say nothing about others.
- What is wrong or one-sided in the training data and in the checkpoint it began with is likely to be in this model too.

## Data

{_data(prepared)}

## Training

{_batches(training, summary)}, learning rate {training.learning_rate:g}
({training.schedule}, warm-up {training.warmup}), {training.duration}, seed {training.seed}, AdamW with weight decay
{training.weight_decay:g}, {summary["training"]["precision"]} arithmetic, at most {config.tokens.max_length} tokens per
example.

## Use

```python
from transformers import pipeline

classifier = pipeline("text-classification", model="PATH-OR-NAME-OF-THIS-MODEL")
classifier({sample})
```
"""


def _metadata(config: Config, prepared: PreparedData, figures: dict[str, dict[str, Figure]]) -> dict[str, Any]:
    """The head of the card, which the hub reads."""
    name, dataset = prepared.source.name, _hub_data(prepared)
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-classification"}
    base = _STARTER if config.model.checkpoint == "starter" else config.model.checkpoint
    if _HUB_NAME.fullmatch(base) and not Path(base).exists():
        metadata["base_model"] = base
    if dataset is not None:
        metadata["datasets"] = [dataset]
    metadata["tags"] = ["text-classification", "textune"]
    results = [
        {
            "task": _TASK,
            "dataset": {"name": name, "type": dataset or name, "split": split},
            "metrics": [
                {"type": metric, "value": figure.value} for metric, figure in part.items() if figure.value is not None
            ],
        }
        for split, part in figures.items()
    ]
    metadata["model-index"] = [{"name": f"{name}-classifier", "results": results}]
    return metadata


def _hub_data(prepared: PreparedData) -> str | None:
    """The data set's name on the hub; None for files and folders."""
    if prepared.source.task is not None:
        return HUB_REPOSITORY
    match = re.fullmatch(rf"({_HUB_NAME.pattern})(:\S+)? on the hub, commit \S+", prepared.source.location)
    return None if match is None else match[1]


def _table(figures: dict[str, dict[str, Figure]], summary: dict[str, Any]) -> str:
    if not figures:
        return "There were no labelled rows to measure it on."
    titles = {name: figure.title for part in figures.values() for name, figure in part.items()}
    lines = [["metric", *figures], ["---"] * (len(figures) + 1)]
    lines += [[title, *(_cell(part.get(name)) for part in figures.values())] for name, title in titles.items()]
    lines.append(["rows", *(f"{summary[split]['num_rows']:,}" for split in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _captions(scores: dict[str, dict[str, Any]], selected: dict[str, Any]) -> str:
    """Of which label the figures speak and what would be little, as a list with a blank line behind it."""
    failed = selected.get("failed")
    lines = captions(scores) + ([f"**This model has learned nothing**: {failed}."] if failed else [])
    return "".join(f"- {' '.join(line.split())}\n" for line in lines) + ("\n" if lines else "")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    value, *ends = figure.texts
    return f"{value} [{', '.join(ends)}]" if ends else value


def _data(prepared: PreparedData) -> str:
    rows = ", ".join(f"{split} {len(part):,}" for split, part in prepared.rows.items())
    return f"{_code(prepared.source.name)}: {rows} rows{_dropped(list(prepared.dropped.values()))}."


def _dropped(counts: Sequence[Any]) -> str:
    total = sum(sum(reasons.values()) for reasons in counts)
    return f"; {total:,} that could not be used were left out" if total else ""


def _batches(training: TrainingConfig, summary: dict[str, Any]) -> str:
    processes, budget = summary["training"]["processes"], training.tokens_per_batch
    size = f"Batch size {training.batch_size}" if budget is None else f"Batches of at most {budget:,} tokens"
    several = f" in each of {processes} processes" if processes > 1 else ""
    grouped = ", grouped by length" if training.batching == "length" else ""
    return f"{size} x {training.gradient_accumulation_steps}{several}{grouped}"


def _code(text: str) -> str:
    """The text as code in Markdown, on one line; more backticks around it than are in it."""
    fence = "`"
    while fence in text:
        fence += "`"
    blank = " " if len(fence) > 1 else ""
    return f"{fence}{blank}{' '.join(text.split())}{blank}{fence}"


def _selection(selected: dict[str, Any]) -> str:
    note = selected.get("note")
    which = "the last one" if selected["weights"] == "last" else f"the best by {selected['metric']}"
    return f"The weights are those of step {selected['step']}, {which}{f': {note}' if note else '.'}"
