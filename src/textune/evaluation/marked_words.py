"""Words that mark errors: rows that contain them are wrong more often than rows at large, beyond chance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.evaluation.intervals import wilson

FALSE_DISCOVERY_RATE = 0.05
MIN_ROWS = 5
"""Rarer words are not tested: hardly any number of errors in them could be told from chance."""
MAX_WORD = 40
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class MarkedWord:
    """A word whose rows are wrong more often.

    Attributes:
        rows: how many rows have it; `errors` of them are wrong.
        interval: 95 %, Wilson's, of its error rate.
        p_value: adjusted for the number of words tested.
    """

    word: str
    rows: int
    errors: int
    interval: tuple[float, float]
    p_value: float

    def as_json(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "rows": self.rows,
            "errors": self.errors,
            "error_rate": self.errors / self.rows,
            "interval": list(self.interval),
            "p_value": self.p_value,
        }


def marked_words(texts: Iterable[Sequence[str]], wrong: npt.NDArray[np.bool_]) -> list[MarkedWord]:
    """Finds words whose rows are wrong significantly more often than rows are in general, most significant first.

    Each word of at least `MIN_ROWS` rows is tested with Fisher's exact test (one-sided: the hypergeometric tail). The
    p-values are adjusted by Benjamini and Hochberg (1995), so that of the words returned about one in twenty at most is
    there by chance. Which words are tested does not depend on the errors. Case does not count; a word that occurs twice
    in a row counts once.

    Args:
        texts: the texts of each row, one or two.
        wrong: bool [num_rows].
    """
    from scipy import stats

    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for row, is_wrong in zip(texts, wrong, strict=True):
        found = {word for text in row for word in _WORD.findall(text.lower()) if len(word) <= MAX_WORD}
        counts.update(found)
        if is_wrong:
            errors.update(found)
    words = sorted(word for word, count in counts.items() if MIN_ROWS <= count < len(wrong))
    if not words or not wrong.any():
        return []
    num_rows = np.array([counts[word] for word in words])
    num_errors = np.array([errors[word] for word in words])
    p_values = stats.hypergeom.sf(num_errors - 1, len(wrong), int(wrong.sum()), num_rows)
    adjusted = stats.false_discovery_control(np.clip(p_values, 0, 1), method="bh")
    return [
        _marked(words[place], int(num_rows[place]), int(num_errors[place]), float(adjusted[place]))
        for place in np.lexsort((-num_rows, adjusted))
        if adjusted[place] <= FALSE_DISCOVERY_RATE
    ]


def _marked(word: str, rows: int, errors: int, p_value: float) -> MarkedWord:
    interval = wilson(errors, rows)
    return MarkedWord(word, rows, errors, (interval.low, interval.high), p_value)
