"""How values, names and numbers are shown in messages: quoted, cut short, counted, near names found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textune.errors import did_you_mean


def quoted(value: object, *, width: int = 60) -> str:
    """Returns `value` as Python writes it, cut to about `width` characters: a long cell must not fill the screen."""
    shown = repr(value)
    return shown if len(shown) <= width else f"{shown[: width - 4]}...{shown[-1]}"


def distinct(name: str) -> str:
    """Returns the name as it is; quoted where blanks or signs that nobody sees could make it look like another one."""
    seen = name.translate({0x200C: None, 0x200D: None})  # joiners, which emoji and some scripts need
    return name if seen.isprintable() and name == " ".join(name.split()) else repr(name)


def listed(values: Sequence[object], *, counts: Sequence[int] | None = None, shown: int = 10) -> str:
    """Returns "'a', 'b' and 3 more", with counts "'a' (7), 'b' (1) and 3 more"; "none" where there are none."""
    names = [quoted(value) for value in values[:shown]]
    if counts is not None:
        names = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=False)]
    head = ", ".join(names)
    more = len(values) - shown
    return f"{head} and {more} more" if more > 0 else head or "none"


def counted(number: float, noun: str) -> str:
    """Returns "1 row", "2,000 rows", "2.5 epochs"."""
    return f"{number:,{'d' if isinstance(number, int) else 'g'}} {noun}{'' if number == 1 else 's'}"


def near_name(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" like `did_you_mean`, which does not see that 'TEXT' and 'text' are near."""
    names = list(known)
    key = name.strip().casefold()
    for candidate in names:
        if candidate != name and candidate.strip().casefold() == key:
            return f" Did you mean {candidate!r}?"
    return did_you_mean(name, names)
