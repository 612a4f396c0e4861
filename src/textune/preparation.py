"""What training starts from: the classifier, the tokens of each split, and what is wrong with the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from textune.audit.auditing import quick_audit
from textune.audit.findings import Audit
from textune.config import Config
from textune.data.prepare import PreparedData
from textune.data.tokenize import length_statistics, tokenize_split
from textune.data.wording import counted
from textune.display import Display
from textune.errors import ConfigError
from textune.evaluation.metrics import metric_names, selection_metric
from textune.evaluation.predictions import LabelSet
from textune.models.layers import freeze
from textune.models.load import Classifier, load_classifier
from textune.models.losses import check_class_weights
from textune.models.tokenizer import check_token_ids, max_tokens
from textune.problem_types import SINGLE_LABEL

if TYPE_CHECKING:
    import torch

    from textune.data.tokens import TokenRows

FEW_VALIDATION_ROWS = 20
"""With fewer one row moves a figure by more than five points."""


def check_options(config: Config, prepared: PreparedData) -> None:
    """Refuses options that the data do not allow, before any time is spent on them.

    Raises:
        ConfigError: an option does not fit the labels, or needs validation rows that there are not.
    """
    training, schema = config.training, prepared.schema
    selection_metric(config.evaluation.metric, metrics_of(prepared))
    check_class_weights(training.class_weights, problem_type=schema.problem_type, num_labels=schema.num_labels)
    if training.label_smoothing and schema.problem_type != SINGLE_LABEL:
        raise ConfigError(f"training.label_smoothing works with single labels, not with {schema.problem_type}.")
    if config.evaluation.patience is not None and not prepared.roles.validation:
        raise ConfigError("--patience needs validation rows to look at; there are none.")


def warn_of_few_rows(prepared: PreparedData, *, display: Display) -> None:
    """Says that there are too few validation rows to choose or to measure by; labels without any the audit tells."""
    name = next(iter(prepared.roles.validation), None)
    if name is not None and len(prepared.rows[name]) < FEW_VALIDATION_ROWS:
        display.warning(
            f"{name} has {counted(len(prepared.rows[name]), 'row')}: its figures say little, and which weights are "
            "best is decided by them; --cv 5 scores every row"
        )


def metrics_of(prepared: PreparedData) -> list[str]:
    """The names of the metrics that are computed, the task's own first."""
    task = prepared.source.task
    label_set = LabelSet.of_schema(prepared.schema)
    return metric_names(label_set, first=() if task is None else task.metrics)


def load(
    config: Config, checkpoint: Path, prepared: PreparedData, *, device: torch.device, display: Display
) -> Classifier:
    classifier = load_classifier(
        checkpoint,
        problem_type=prepared.schema.problem_type,
        label_names=prepared.schema.label_names,
        seed=config.training.seed,
        dropout=config.model.dropout,
    )
    for note in classifier.notes:
        display.note(f"{config.model.checkpoint}: {note}")
    if config.model.freeze is not None:
        frozen = freeze(classifier.model, config.model.freeze)
        display.note(f"frozen: {frozen:,} weights ({config.model.freeze})")
    classifier.model.to(device)
    return classifier


def tokenize(
    config: Config, prepared: PreparedData, classifier: Classifier, *, display: Display
) -> tuple[Config, dict[str, TokenRows]]:
    """Tokenises the splits that have a part, and returns the configuration with the length that was chosen.

    Raises:
        CheckpointError: the tokenizer gives ids for which the model has no embedding.
        ConfigError: the checkpoint has too few positions for the length that is asked for.
    """
    padding_id = classifier.tokenizer.pad_token_id
    assert isinstance(padding_id, int), "a tokenizer is loaded with a padding token"
    check_token_ids(classifier.model, padding_id, what="padding")
    length = max_tokens(
        classifier.model.config,
        classifier.tokenizer,
        asked=config.tokens.max_length,
        multiple_of=config.tokens.pad_to_multiple_of,
    )
    config = dataclasses.replace(config, tokens=dataclasses.replace(config.tokens, max_length=length))
    roles = prepared.roles
    tokens = {}
    for split in (prepared.train, *roles.validation, *roles.test):
        rows = prepared.rows[split]
        with display.progress(f"tokenising {split}", len(rows)) as advance:
            tokens[split] = tokenize_split(
                rows,
                classifier.tokenizer,
                max_length=length,
                num_workers=config.tokens.num_workers,
                on_progress=advance,
            )
        check_token_ids(classifier.model, len(tokens[split].id_counts) - 1, what=split)
        lengths = length_statistics(tokens[split])
        if lengths.truncated_rows:
            display.warning(
                f"{split}: {lengths.truncated_rows:,} of {lengths.rows:,} rows were cut to {length} tokens, "
                f"{lengths.truncated_tokens:,} tokens lost (see --max-length)"
            )
    train = length_statistics(tokens[prepared.train])
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in tokens.items())
    display.note(f"rows: {sizes}; tokens in a training row: median {train.median:.0f}, longest {train.longest}")
    return config, tokens


def audit_quickly(
    prepared: PreparedData, tokens: Mapping[str, TokenRows], classifier: Classifier, *, display: Display
) -> Audit:
    """Says what is wrong with the data, one line each; truncation has been told when they were tokenised."""
    audit = quick_audit(prepared, tokens=tokens, tokenizer=classifier.tokenizer)
    for finding in audit.with_severity("warning"):
        if finding.kind != "truncated":
            display.warning(finding.line)
    return audit
