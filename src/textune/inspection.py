"""`textune inspect` in Python: the audit of data before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.audit.auditing import full_audit
from textune.audit.findings import Audit, Finding
from textune.audit.suspects import suspected_labels
from textune.config import INSPECT_OPTIONS, Config, DataConfig
from textune.data.cache import workspace
from textune.data.prepare import PreparedData, prepare_inspection
from textune.data.tokenize import tokenize_split
from textune.display import Display, default_display
from textune.errors import ConfigError, DataError, UnavailableError
from textune.models.embeddings import TextEncoder
from textune.models.load import STARTER, find_checkpoint, load_config
from textune.models.tokenizer import load_tokenizer, max_tokens
from textune.options import require_known, resolve_options
from textune.problem_types import SINGLE_LABEL

if TYPE_CHECKING:
    from textune.audit.audited_rows import AuditedRows
    from textune.data.tokens import TokenRows


def inspect(
    data: str,
    *,
    max_length: int | None = None,
    label_errors: bool = False,
    display: Display | None = None,
    **options: Any,
) -> Audit:
    """Looks through labelled text before any training; the same as the command `textune inspect`.

    Rows that cannot be used are counted among the findings instead of stopping it.

    Args:
        data: as for `textune.train`.
        max_length: tokens after which a row counts as truncated; when not given, what the model allows.
        label_errors: look for suspected label errors as well, with the model's frozen encoder.
        options: those of `textune.config.INSPECT_OPTIONS`, with the meaning they have for `textune.train`.

    Raises:
        TextuneError: the data cannot be read at all, or an option is wrong.
    """
    require_known(options, known=INSPECT_OPTIONS, help_for="textune.inspect")
    settings = {} if max_length is None else {"tokens.max_length": max_length}
    config = resolve_options(None, {"data": data, **options}, settings)
    shown = default_display() if display is None else display
    try:
        with workspace() as folder:
            data_config = dataclasses.replace(config.data, drop_bad_rows=True)
            prepared = prepare_inspection(data_config, folder=folder, labels_required=False)
            if prepared.source.dropped:
                notes = (*prepared.notes, *_unreadable(data_config, folder=folder))
                prepared = dataclasses.replace(prepared, notes=notes)
            has_one_each = prepared.schema.problem_type == SINGLE_LABEL and prepared.schema.label_names
            if label_errors and not has_one_each:
                raise ConfigError("--label-errors: expected rows with one label each, found other data.")
            for note in (f"data: {prepared.source.location}", *prepared.notes):
                shown.note(note)
            tokens, tokenizer = _tokens(config, prepared, display=shown)
            suspects = partial(_suspects, config=config, display=shown) if label_errors else None
            return full_audit(prepared, tokens=tokens, tokenizer=tokenizer, folder=folder, suspects=suspects)
    finally:
        shown.close()


def _unreadable(config: DataConfig, *, folder: Path) -> list[str]:
    """The lines that cannot be read, of the first file that has any: those at which training would stop."""
    try:
        prepare_inspection(dataclasses.replace(config, drop_bad_rows=False), folder=folder, labels_required=False)
    except DataError as error:
        first, *lines = error.message.splitlines()
        return [f"{first} {'; '.join(line.strip() for line in lines)}"]
    return []


def _tokens(config: Config, prepared: PreparedData, *, display: Display) -> tuple[Mapping[str, TokenRows], Any]:
    """All splits tokenised, and the tokenizer; none where the starter is not installed and no other one was named."""
    try:
        folder = _checkpoint(config)
    except UnavailableError as error:
        if config.model.checkpoint != STARTER:
            raise
        display.note(f"truncation and unknown words are not looked for: {error.message}")
        return {}, None
    tokenizer = load_tokenizer(folder)
    length = max_tokens(load_config(folder), tokenizer, asked=config.tokens.max_length)
    tokens = {}
    for split, rows in prepared.rows.items():
        with display.progress(f"tokenising {split}", len(rows)) as advance:
            tokens[split] = tokenize_split(rows, tokenizer, max_length=length, on_progress=advance)
    return tokens, tokenizer


def _suspects(rows: AuditedRows, *, config: Config, display: Display) -> Iterable[Finding]:
    encoder = TextEncoder(_checkpoint(config), max_length=config.tokens.max_length)
    with display.progress("reading for --label-errors", len(rows)) as advance:
        return list(suspected_labels(rows, encoder, seed=config.training.seed, on_progress=advance))


def _checkpoint(config: Config) -> Path:
    return find_checkpoint(config.model.checkpoint, revision=config.model.revision)
