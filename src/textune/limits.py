"""What may be read: beyond these a file is broken or made to harm, and no data set of texts comes near them."""

from __future__ import annotations

from pathlib import Path

from textune.errors import DataError

MAX_RECORD_BYTES = 8 * 2**20
"""A longer line, CSV record, JSON object or row of Parquet is not text to classify but a broken file."""

BATCH_BYTES = 8 * 2**20
"""Rows are handed on in batches of about this size."""

MAX_COLUMNS = 4096
"""With more, a small file takes gigabytes of memory."""

MAX_DEPTH = 32
"""Lists and objects inside each other; Arrow files hold up to 64."""

MAX_LAYERS = 1_000
"""Of a model; transformers builds as many as config.json says before it looks at the weights."""

MAX_LABELS = 1_000_000
"""Of a checkpoint; transformers makes a name for each before anything else."""


def require_few_columns(path: Path, count: int) -> None:
    """Raises DataError if there are more columns than `MAX_COLUMNS`."""
    if count > MAX_COLUMNS:
        raise DataError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns, found {count:,}.",
            hint="Keep the columns with texts and labels. In JSON every key of a row is a column.",
        )
