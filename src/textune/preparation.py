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
from textune.display import Display
from textune.models.layers import freeze
from textune.models.load import Classifier, load_classifier
from textune.models.tokenizer import max_tokens

if TYPE_CHECKING:
    import torch

    from textune.data.tokens import TokenRows


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
    """Tokenises the splits that have a part, and returns the configuration with the length that was chosen."""
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


def audit_quickly(prepared: PreparedData, tokens: Mapping[str, TokenRows], *, display: Display) -> Audit:
    """Says what is wrong with the data, one line each; truncation has been told when they were tokenised."""
    audit = quick_audit(prepared, tokens=tokens)
    for finding in audit.with_severity("warning"):
        if finding.kind != "truncated":
            display.warning(finding.line)
    return audit
