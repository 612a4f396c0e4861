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


def require_few_columns(path: Path, count: int) -> None:
    """Raises DataError if there are more columns than `MAX_COLUMNS`."""
    if count > MAX_COLUMNS:
        raise DataError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns, found {count:,}.",
            hint="Keep the columns with texts and labels. In JSON every key of a row is a column.",
        )
