"""Using transformers without its bars and warnings: what matters becomes a note or an error of textune's."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


def first_line(error: Exception) -> str:
    """The first line of an error's message; libraries add pages of advice below it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, reports or warnings from transformers inside; what matters becomes a note of textune's."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
