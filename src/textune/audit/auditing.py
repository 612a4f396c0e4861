"""The audit itself: `quick_audit` before every training, `full_audit` for `textune inspect`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.audit.audited_rows import MAX_EXAMPLES, AuditedRows, collect, joined
from textune.audit.characters import ODD_CHARACTERS, SCRIPTS, CharacterScan, count_scripts
from textune.audit.findings import KINDS, Audit, Finding, in_order
from textune.audit.label_checks import LabelTable
from textune.audit.languages import MAX_ROWS, UNDETERMINED, LanguageScan
from textune.audit.near_duplicates import TextStore, near_groups
from textune.audit.repeats import conflicts, exact, nearly, repeated, swapped
from textune.audit.unknown import unknown
from textune.audit.wording import count_of, percent
from textune.data.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textune.audit.audited_rows import Texts
    from textune.data.prepare import PreparedData
    from textune.data.tokens import TokenRows

VERY_LONG, LONG_CHARACTERS = 10, 500
"""A text is very long from so many times the median, if it has more than so many characters."""
OTHER_SHARE = 0.05
"""A script or language with a smaller share of all rows is another one than the data's."""

_REPEATS = ("leaked_duplicates", "duplicates", "conflicting_labels")
_PAIRS = ("leaked_swapped_pairs", "swapped_pairs")
_NEAR = ("leaked_near_duplicates", "near_duplicates")
_UNUSABLE = ("nothing_to_learn", "unreadable_rows", "empty_text", "missing_label", "wrong_label")
_CLASSES = ("label_spelling", "label_imbalance", "rare_labels", "absent_labels")
_TOKENS = ("truncated", "unknown_tokens")
_TEXTS = ("very_long", "no_words", *ODD_CHARACTERS, "other_script", "other_language")
_KIND_OF_REASON = {
    "empty text": "empty_text",
    "empty second text": "empty_text",
    "empty label": "missing_label",
    "unknown label": "wrong_label",
    "label not a finite number": "wrong_label",
}


def quick_audit(prepared: PreparedData, *, tokens: Mapping[str, TokenRows], tokenizer: Any) -> Audit:
    """Looks for what costs a few microseconds per row: repeated rows, conflicts, labels, truncation, unknown words.

    Args:
        tokens: the tokenised rows of the splits that are used.
        tokenizer: what tokenised them.
    """
    started = time.perf_counter()
    rows = collect(_in_order(prepared), prepared.schema)
    labels = LabelTable(rows)
    findings = [*_unusable(prepared), *_repeats(rows), *labels.findings(), *_of_tokens(rows, tokens, tokenizer)]
    checked = (*_UNUSABLE, *_repeat_kinds(rows), *_label_kinds(labels), *_TOKENS)
    notes = ["near duplicates, odd characters and languages are looked for by `textune inspect`"]
    return _audit(prepared, rows, labels, findings, checked, notes, tokens=tokens, started=started)


def full_audit(
    prepared: PreparedData,
    *,
    tokens: Mapping[str, TokenRows],
    tokenizer: Any = None,
    folder: Path,
    suspects: Callable[[AuditedRows], Iterable[Finding]] | None = None,
) -> Audit:
    """Looks for everything.

    Args:
        tokens, tokenizer: as for `quick_audit`; without any, truncation and unknown words are not looked for.
        folder: where normalised texts are kept meanwhile.
        suspects: finds suspected label errors (`textune.audit.suspects`); None does not look for them.
    """
    started = time.perf_counter()
    store, characters = TextStore(folder / "normalised.arrow"), CharacterScan()
    splits = _in_order(prepared)
    languages = LanguageScan(every=-(-sum(map(len, splits.values())) // MAX_ROWS))

    def look(texts: Texts, normalised: list[str]) -> None:
        characters.add(texts)
        languages.add(joined(texts))
        store.add(normalised)

    rows = collect(splits, prepared.schema, on_batch=look)
    store.close()
    groups, width, num_impatient = _near_groups(rows, store)
    labels = LabelTable(rows)
    scripts, of_rows = characters.scripts, languages.languages  # each is put together when asked for
    findings = [
        *_unusable(prepared),
        *_repeats(rows, near=groups),
        *labels.findings(),
        *_of_tokens(rows, tokens, tokenizer),
        *_very_long(rows),
        *_odd_characters(rows, characters),
        *_other_scripts_and_languages(rows, scripts, languages),
        *(() if suspects is None else suspects(rows)),
    ]
    checked = (*_UNUSABLE, *_repeat_kinds(rows), *_NEAR, *_label_kinds(labels), *_TEXTS)
    checked += () if suspects is None else ("suspected_labels",)
    checked += _TOKENS if tokens else ()
    notes = [f"near duplicates: texts that share at least 80 % of their pieces of {width} characters (Jaccard)"]
    if num_impatient:
        notes.append(
            f"near duplicates: {counted(num_impatient, 'text')} of many that are half alike, as by a common footer: "
            "each was compared exactly with the likeliest of these only"
        )
    if languages.every > 1:
        notes.append(f"languages: one row in {languages.every} was looked at")
    return _audit(
        prepared,
        rows,
        labels,
        findings,
        checked,
        notes,
        tokens=tokens,
        started=started,
        also={
            name: {
                "scripts": dict(count_scripts(scripts[rows.span(name)])),
                "languages": languages.count(of_rows[rows.span(name)]),
            }
            for name in rows.names
        },
    )


def _in_order(prepared: PreparedData) -> Any:
    """The splits, training first, then validation and test: a row that leaks is told of the later one."""
    roles = prepared.roles
    names = [prepared.train, *roles.validation, *roles.test, *roles.ignored]
    return type(prepared.rows)({name: prepared.rows[name] for name in names})


def _audit(
    prepared: PreparedData,
    rows: AuditedRows,
    labels: LabelTable,
    findings: list[Finding],
    checked: tuple[str, ...],
    notes: list[str],
    *,
    tokens: Mapping[str, TokenRows],
    started: float,
    also: Mapping[str, dict[str, Any]] | None = None,
) -> Audit:
    splits = {}
    for name in rows.names:
        span = rows.span(name)
        lengths = rows.characters[span]
        splits[name] = {
            "rows": len(lengths),
            **labels.summary(name),
            "characters": _lengths(lengths),
            **({"tokens": _lengths(tokens[name].full_lengths)} if name in tokens else {}),
            **(also or {}).get(name, {}),
        }
    source = prepared.source
    return Audit(
        source.name,
        source.location,
        source.fingerprint,
        splits,
        in_order(findings),
        tuple(kind for kind in KINDS if kind in checked),
        (*notes, *prepared.notes),
        time.perf_counter() - started,
    )


def _lengths(lengths: NDArray[Any]) -> dict[str, float]:
    return {
        "median": float(np.median(lengths)),
        "percentile_95": round(float(np.percentile(lengths, 95)), 1),
        "longest": int(lengths.max()),
    }


def _repeat_kinds(rows: AuditedRows) -> tuple[str, ...]:
    return _REPEATS if rows.schema.text_pair is None else (*_REPEATS, *_PAIRS)


def _label_kinds(labels: LabelTable) -> tuple[str, ...]:
    return (*_CLASSES, "label_shift") if labels.names else ("label_shift",)


def _repeats(rows: AuditedRows, *, near: NDArray[np.int64] | None = None) -> Iterator[Finding]:
    groupings = [exact(rows)]
    if rows.schema.text_pair is not None:
        groupings.append(swapped(rows))
    if near is not None:
        groupings.append(nearly(rows, near))
    yield from repeated(rows, groupings)
    yield from conflicts(rows)


def _near_groups(rows: AuditedRows, store: TextStore) -> tuple[NDArray[np.int64], int, int]:
    """As `near_groups`, with the groups in the order of the different keys."""
    _, firsts = np.unique(rows.unordered, return_index=True)
    in_place = np.argsort(firsts)  # the store is read from its beginning to its end
    groups = np.empty(len(firsts), np.int64)
    groups[in_place], width, num_impatient = near_groups(store, firsts[in_place], rows.characters[firsts[in_place]])
    return groups, width, num_impatient


def _unusable(prepared: PreparedData) -> Iterator[Finding]:
    """Rows that were left out when the data were read.

    Where splits were made of one of the source, it is the first of them that is told, with the rows of all.
    """
    for origin, reasons in prepared.dropped.items():
        parts = [name for name in prepared.rows if prepared.origins.get(name, name) == origin]
        total = sum(reasons.values()) + sum(len(prepared.rows[name]) for name in parts)
        for reason, count in reasons.items():
            numbers = prepared.dropped_rows.get(origin, {}).get(reason, [])
            uncounted = "" if numbers else "; row numbers do not count them"
            yield Finding(
                _KIND_OF_REASON.get(reason, "unreadable_rows"),
                parts[0],
                count,
                total,
                f"{count_of(count, total, parts[0])} cannot be used: {reason}{uncounted}",
                rows=np.array(numbers, np.int64),
            )


def _of_tokens(rows: AuditedRows, tokens: Mapping[str, TokenRows], tokenizer: Any) -> Iterator[Finding]:
    yield from _truncated(rows, tokens)
    yield from unknown(rows, tokens, tokenizer)


def _truncated(rows: AuditedRows, tokens: Mapping[str, TokenRows]) -> Iterator[Finding]:
    for split, tokenised in tokens.items():
        lost = tokenised.full_lengths - tokenised.lengths
        places = np.flatnonzero(lost)
        if len(places):
            kept, chosen = int(tokenised.lengths.max()), places[np.argsort(-lost[places], kind="stable")]
            details = [f"{tokenised.full_lengths[place]} tokens" for place in chosen[:MAX_EXAMPLES].tolist()]
            what = (
                f"are cut to {kept} tokens; {percent(lost.sum() / tokenised.full_lengths.sum())} of all tokens are lost"
            )
            start = rows.span(split).start
            yield rows.finding("truncated", split, chosen + start, what, details=details)


def _very_long(rows: AuditedRows) -> Iterator[Finding]:
    median = float(np.median(rows.characters))
    bound = max(VERY_LONG * median, LONG_CHARACTERS)
    for split in rows.names:
        span = rows.span(split)
        chosen = np.flatnonzero(rows.characters[span] > bound) + span.start
        if len(chosen):
            chosen = chosen[np.argsort(-rows.characters[chosen], kind="stable")]
            details = [f"{rows.characters[place]:,} characters" for place in chosen[:MAX_EXAMPLES].tolist()]
            what = f"have more than {bound:,.0f} characters (the median is {median:,.0f})"
            yield rows.finding("very_long", split, chosen, what, details=details)


def _odd_characters(rows: AuditedRows, characters: CharacterScan) -> Iterator[Finding]:
    for kind, found in characters.odd.items():
        places = np.array(sorted(found), np.int64)
        for split in rows.names:
            span = rows.span(split)
            chosen = places[(places >= span.start) & (places < span.stop)]
            if len(chosen):
                details = [found[place] for place in chosen[:MAX_EXAMPLES].tolist()]
                yield rows.finding(kind, split, chosen, f"have {KINDS[kind].title}", details=details)


def _other_scripts_and_languages(
    rows: AuditedRows, scripts: NDArray[np.int64], languages: LanguageScan
) -> Iterator[Finding]:
    counts = count_scripts(scripts)
    usual = [name for name, count in counts.items() if count >= OTHER_SHARE * len(rows)]
    unusual = np.isin(scripts, [SCRIPTS.index(name) for name in counts if name not in usual])
    yield from _others(rows, "other_script", unusual, usual, lambda places: dict(count_scripts(scripts[places])))

    found = languages.languages
    known = {code: count for code, count in languages.count(found).items() if code != UNDETERMINED}
    usual = [code for code, count in known.items() if count >= OTHER_SHARE * sum(known.values())]
    others = [languages.codes.index(code) for code in known if code not in usual]
    unusual = np.isin(found, others) & languages.certain & ~unusual  # a row is told once
    yield from _others(rows, "other_language", unusual, usual, lambda places: languages.count(found[places]))


def _others(
    rows: AuditedRows,
    kind: str,
    unusual: NDArray[np.bool_],
    usual: list[str],
    count: Callable[[NDArray[np.int64]], dict[str, int]],
) -> Iterator[Finding]:
    """One finding per split with rows that are `unusual`; `count` names what places of rows are instead of `usual`.

    Where nothing is usual, as in data of more than twenty languages, nothing is unusual either.
    """
    if not usual:
        return
    what = kind.removeprefix("other_")
    for split in rows.names:
        span = rows.span(split)
        chosen = np.flatnonzero(unusual[span]) + span.start
        if len(chosen):
            named = ", ".join(f"{name} {number:,}" for name, number in count(chosen).items())
            details = [next(iter(count(chosen[place : place + 1]))) for place in range(min(len(chosen), MAX_EXAMPLES))]
            message = f"are in another {what} than {' and '.join(usual)}: {named}"
            yield rows.finding(kind, split, chosen, message, details=details)
