"""In which unit figures are shown to people: most are shares or correlations, in percent."""

from __future__ import annotations

_IN_THEIR_OWN = frozenset({"loss", "rmse", "brier_score", "mean_absolute_error"})


def title(name: str) -> str:
    """A metric's name with the unit that `value_text` shows it in."""
    return name if name in _IN_THEIR_OWN else f"{name} %"


def with_unit(name: str, value: float) -> str:
    """A value of that metric as text that stands by itself."""
    return value_text(name, value) if name in _IN_THEIR_OWN else f"{value_text(name, value)} %"


def value_text(name: str, value: float) -> str:
    """A value of that metric, or an end of its interval, as text."""
    return f"{value:.4g}" if name in _IN_THEIR_OWN else f"{100 * value:.1f}"
