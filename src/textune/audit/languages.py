"""Which language texts are in, where that can be told: py3langid with a bound on its confidence.

Without a bound one short English sentence in fifty is called another language; with it such texts stay undetermined.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNDETERMINED = "und"
"""ISO 639's code for a language that cannot be told."""
CONFIDENT, CERTAIN = 0.9, 0.99
"""From which confidence a language is counted, and from which a row is called one of another language."""
MAX_ROWS = 20_000
"""So many rows are looked at; of more, every second, third, ... one."""
_MAX_CHARACTERS = 1_000
_NO_LANGUAGE = "zxx"

NOT_LOOKED_AT = -1


@dataclass
class LanguageScan:
    """What a pass over all texts finds; rows are counted from 0 over all of them.

    Attributes:
        every: every such row is looked at: 1 for all, 2 for every second one, ...
        codes: ISO 639 codes; the first is `UNDETERMINED`.
    """

    every: int = 1
    codes: list[str] = field(default_factory=lambda: [UNDETERMINED])
    _num_rows: int = 0
    _found: list[NDArray[np.int64]] = field(default_factory=list)
    _certain: list[NDArray[np.bool_]] = field(default_factory=list)

    @property
    def languages(self) -> NDArray[np.int64]:
        """[num_rows] the place in `codes` of each row's language; `NOT_LOOKED_AT` for rows that were passed over."""
        return np.concatenate(self._found)

    @property
    def certain(self) -> NDArray[np.bool_]:
        """[num_rows] whether the confidence is at least `CERTAIN`."""
        return np.concatenate(self._certain)

    def add(self, texts: list[str]) -> None:
        """Looks at a batch of texts, pairs joined."""
        found = np.full(len(texts), NOT_LOOKED_AT, np.int64)
        certain = np.zeros(len(texts), bool)
        for place in range(-self._num_rows % self.every, len(texts), self.every):
            found[place] = 0
            code, confidence = _identifier().classify(texts[place][:_MAX_CHARACTERS])
            if confidence >= CONFIDENT and code != _NO_LANGUAGE:
                found[place], certain[place] = self._number(code), confidence >= CERTAIN
        self._found.append(found)
        self._certain.append(certain)
        self._num_rows += len(texts)

    def count(self, languages: NDArray[np.int64]) -> dict[str, int]:
        """Rows per code, the most frequent first, undetermined ones last; rows that were passed over are left out."""
        counts = np.bincount(languages[languages != NOT_LOOKED_AT], minlength=len(self.codes))
        order = sorted(range(len(self.codes)), key=lambda number: (number == 0, -counts[number]))
        return {self.codes[number]: int(counts[number]) for number in order if counts[number]}

    def _number(self, code: str) -> int:
        if code not in self.codes:
            self.codes.append(code)
        return self.codes.index(code)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

    # norm_probs: confidences between 0 and 1 that mean the same for short and long texts
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
