"""A configuration from a file or a `Config`, short option names and dotted settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from textune.config import FOREIGN_NAMES, SHORT_NAMES, Config
from textune.config_reading import flat_options, read_config
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
    require_known(options, known=[*SHORT_NAMES, "epochs"], help_for="textune.train")
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


def require_known(options: Iterable[str], *, known: Sequence[str], help_for: str) -> None:
    """Whether all options have a known name.

    Raises:
        ConfigError: one has not; names each, and the names that there are.
    """
    unknown = [f"There is no option {name!r}.{_near_option(name, known)}" for name in options if name not in known]
    if unknown:
        raise ConfigError(unknown, hint=f"The options are {', '.join(known)}: see help({help_for}).")


def _near_option(name: str, known: Sequence[str]) -> str:
    if (meant := FOREIGN_NAMES.get(name)) is not None:
        name = next((short for short in known if SHORT_NAMES.get(short) == meant), name)
    return did_you_mean(name, known)


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
