"""What a tokenizer does not know: one token stands for all of it, so that a model cannot tell such words apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textune.data.tokens import IntArray, TokenRows

NOTABLE_SHARE = 0.05
"""So many unknown tokens deserve a warning, and so does any row that holds nothing else."""
_WORD_START = "\u2581"


@dataclass(frozen=True)
class UnknownTokens:
    """Unknown tokens in tokenised rows; special tokens, and such as only begin a word, count on neither side.

    Attributes:
        unknown: of each row, int64 [num_rows].
        known: all others of each row, int64 [num_rows].
    """

    unknown: IntArray
    known: IntArray

    @classmethod
    def of(cls, tokens: TokenRows, tokenizer: Any) -> UnknownTokens:
        """Counts; a tokenizer without a token for the unknown, such as one of bytes, has none."""
        # A Unigram tokenizer puts its word start alone before an unknown piece: that is nothing known.
        uncounted = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids(_WORD_START)} - {None}
        unknown = {tokenizer.unk_token_id} - {None}
        # GPT-2 and its kin have one special token for everything.
        unknown -= {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
        counts = tokens.count_in_rows(sorted(unknown))
        return cls(counts, tokens.lengths - tokens.count_in_rows(sorted(uncounted | unknown)))

    @classmethod
    def together(cls, parts: Sequence[UnknownTokens]) -> UnknownTokens:
        """Those of several tables, one behind the other."""
        return cls(np.concatenate([part.unknown for part in parts]), np.concatenate([part.known for part in parts]))

    @property
    def rows(self) -> IntArray:
        """Where there are any: row numbers (0-based), those with the largest share first."""
        found = np.flatnonzero(self.unknown)
        share = self.unknown[found] / (self.unknown + self.known)[found]
        return found[np.argsort(-share, kind="stable")]

    @property
    def share(self) -> float:
        """Of all tokens, 0 to 1."""
        return float(self.unknown.sum() / max(self.unknown.sum() + self.known.sum(), 1))

    @property
    def unreadable_rows(self) -> int:
        """Rows in which nothing is known, which a model cannot tell apart."""
        return int(((self.unknown > 0) & (self.known == 0)).sum())

    @property
    def is_notable(self) -> bool:
        return self.share >= NOTABLE_SHARE or self.unreadable_rows > 0


def unknown_words(text: str, tokenizer: Any) -> list[str]:
    """The words of a text, as blanks part them, in which the tokenizer does not know something."""
    # Ids, not tokens: a Unigram tokenizer has the piece itself as the token, with the id of the unknown.
    return [
        word
        for word in dict.fromkeys(text.split())
        if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
    ]
