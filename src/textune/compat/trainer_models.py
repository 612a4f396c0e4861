"""What the Trainer asks of a model that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textune.errors import ConfigError

_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""How the method that switches it on begins, today and where a model knows only the older name."""


def checkpoint_activations(model: Any, given: Any) -> None:
    """Lets a model compute activations again in the backward pass, asked as transformers' Trainer asks it.

    Args:
        given: `activation_checkpointing_kwargs`; None for none.

    Raises:
        ConfigError: the model does not have it, or `given` is no dict.
    """
    given = given or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"activation_checkpointing_kwargs: expected a dict, found {given!r}.")
    options = dict(given)
    layers: dict[str, Any] = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
    kind = next((name for name in _CHECKPOINTING if hasattr(model, f"{name}_enable")), None)
    if kind is None:
        raise ConfigError(
            f"activation_checkpointing=True: {type(model).__name__} has no activation_checkpointing_enable.",
            hint="Leave it out, or give the model that method.",
        )
    if options:
        layers[f"{kind}_kwargs"] = options
    try:
        getattr(model, f"{kind}_enable")(**layers)
    except ValueError as error:  # the architecture does not have it
        raise ConfigError(f"activation_checkpointing=True: {error}") from error
