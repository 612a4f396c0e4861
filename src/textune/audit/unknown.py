"""Texts that the checkpoint's tokenizer does not know, mostly because they are in another script than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from textune.audit.audited_rows import MAX_EXAMPLES, AuditedRows
from textune.audit.characters import count_scripts, main_scripts
from textune.audit.findings import Finding
from textune.audit.wording import percent
from textune.data.tokens import TokenRows
from textune.data.unknown import UnknownTokens, unknown_words
from textune.data.wording import counted, listed

_CHECKPOINTS = {"Latin": "", "Hangul": "klue/bert-base"}
"""Fit for a script; for Latin letters there is nothing to say, for the others see `_MULTILINGUAL`."""
_MULTILINGUAL = "xlm-roberta-base"
_SAMPLE = 100
_SHOWN_WORDS = 5


def unknown(rows: AuditedRows, tokens: Mapping[str, TokenRows], tokenizer: Any) -> Iterator[Finding]:
    """Finds the splits in which much of the text is unknown to the tokenizer; the rows that suffer most first."""
    for split, tokenised in tokens.items():
        found = UnknownTokens.of(tokenised, tokenizer)
        if not found.is_notable:
            continue
        texts = [_text(rows.splits[split][row]) for row in found.rows[:_SAMPLE].tolist()]
        words = [unknown_words(text, tokenizer) for text in texts]
        yield rows.finding(
            "unknown_tokens",
            split,
            found.rows + rows.span(split).start,
            f"have words that the tokenizer does not know: {unknown_in_words(found)}{_suggestion(words)}",
            details=[listed(some, shown=_SHOWN_WORDS) for some in words[:MAX_EXAMPLES]],
        )


def unknown_in_words(found: UnknownTokens) -> str:
    """Returns "17 % of all tokens are unknown, and 2 rows have nothing else"."""
    what = f"{percent(found.share)} of all tokens are unknown"
    if not found.unreadable_rows:
        return what
    verb = "has" if found.unreadable_rows == 1 else "have"
    return f"{what}, and {counted(found.unreadable_rows, 'row')} {verb} nothing else"


def _text(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, [row["text"], row.get("text_pair")]))


def _suggestion(words: list[list[str]]) -> str:
    """A checkpoint for the script of most rows' unknown words."""
    scripts = count_scripts(main_scripts([" ".join(of_row) for of_row in words]))
    script = next(iter(scripts), "Latin")
    checkpoint = _CHECKPOINTS.get(script, _MULTILINGUAL)
    return f"; for {script} try --model {checkpoint}" if checkpoint else ""
