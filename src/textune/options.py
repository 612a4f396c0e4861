"""A configuration from a file or a `Config`, short option names and dotted settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textune.config import SHORT_NAMES, Config
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
    for name, value in options.items():
        if name == "epochs":
            values["training.duration"] = _epochs(value)
        else:
            values[SHORT_NAMES[name]] = value
    path = None if config is None or isinstance(config, Config) else Path(config)
    return read_config(path, {**values, **settings})


def require_known(options: Iterable[str], *, known: Sequence[str], help_for: str) -> None:
    """Whether all options have a known name.

    Raises:
        ConfigError: one has not; names each, and the names that there are.
    """
    unknown = [f"There is no option {name!r}.{did_you_mean(name, known)}" for name in options if name not in known]
    if unknown:
        raise ConfigError(unknown, hint=f"The options are {', '.join(known)}: see help({help_for}).")


def _epochs(value: Any) -> str:
    try:
        return f"{float(value):g}epochs"
    except (TypeError, ValueError):
        raise ConfigError(f"--epochs: expected a number, found {value!r}.") from None
