"""A configuration from a file or a `Config`, short option names and dotted settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from textune.config import FOREIGN_NAMES, SHORT_NAMES, Config
from textune.config_reading import flat_options, option_fields, read_config
from textune.errors import ConfigError, did_you_mean


def resolve_options(
    config: Config | str | os.PathLike[str] | None, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> Config:
    """Brings a configuration, short option names and dotted settings together, later ones winning.

    Raises:
        ConfigError: all mistakes at once.
    """
    values: dict[str, Any] = {}
    if isinstance(config, Config):
        values = flat_options(config)
    require_known(options, known=[*SHORT_NAMES, "epochs"], help_for="textune.train", with_settings=True)
    if {"epochs", "duration"} <= options.keys():
        raise ConfigError("--epochs and --duration: both say how long to train; give one.")
    for name, value in options.items():
        if name == "epochs":
            values["training.duration"] = _epochs(value)
        else:
            values[SHORT_NAMES[name]] = value
    if not isinstance(data := options.get("data"), (str, os.PathLike, type(None))):
        raise ConfigError(
            f"data: expected the name of a file, a folder or a data set, found a {type(data).__name__}.",
            hint="Rows in memory are saved first: a run has to find them again when it goes on. For example "
            "data.to_csv('rows.csv', index=False) of pandas, data.save_to_disk('rows') of datasets.",
        )
    path = None if config is None or isinstance(config, Config) else Path(config)
    return read_config(path, {**values, **settings})


def require_known(options: Iterable[str], *, known: Sequence[str], help_for: str, with_settings: bool = False) -> None:
    """Whether all options have a known name.

    Args:
        with_settings: whether `settings` takes the options that have no short name.

    Raises:
        ConfigError: one has not; names each, and the names that there are.
    """
    unknown = [
        f"There is no option {name!r}.{_near_option(name, known, with_settings=with_settings)}"
        for name in options
        if name not in known
    ]
    if unknown:
        hint = f"The options are {', '.join(known)}: see help({help_for})."
        if with_settings:
            hint += " All others go by their full names, as settings={'training.adam_beta2': 0.98}; `textune config` "
            hint += "lists them."
        raise ConfigError(unknown, hint=hint)


def _near_option(name: str, known: Sequence[str], *, with_settings: bool) -> str:
    meant = full_names(name)
    short = next((short for short in known if SHORT_NAMES.get(short) in meant), None)
    if short is None and meant and with_settings:
        return f" Did you mean settings={{{meant[0]!r}: ...}}?"
    return did_you_mean(short or name, known)


def full_names(name: str) -> list[str]:
    """The options that another tool calls so, or whose name ends so: "lr" and "learning_rate" for that of training."""
    if name in FOREIGN_NAMES:
        return [FOREIGN_NAMES[name]]
    return [full for full in option_fields() if full.rpartition(".")[2] == name]


def _epochs(value: Any) -> str:
    """The duration of so many epochs, digit for digit."""
    try:
        number = Decimal(str(value))
        fits = 0 < float(number) <= 10**15
    except (ArithmeticError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"--epochs: expected a number above 0 and at most 10^15, found {value!r}.")
    return f"{number.normalize():f}epochs"
