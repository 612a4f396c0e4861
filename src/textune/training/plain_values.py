"""Settings and counters of optimisers and schedules as JSON, with what JSON has no words for.

    inf, nan               {"__float__": "inf"}
    (0.9, 0.999)           {"__tuple__": [0.9, 0.999]}
    {30: 1}                {"__items__": [[30, 1]]}

Numbers of NumPy and tensors of one number become Python's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from textune.errors import CheckpointError


def to_plain(value: Any, *, name: str) -> Any:
    """What `json.dumps(..., allow_nan=False)` takes, and `from_plain` makes the same value of.

    Args:
        name: what the value is, for the message.

    Raises:
        CheckpointError: something in it is neither number, text, None, list, tuple nor dict.
    """
    import torch

    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and not value.ndim):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, name=name) for item in value]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        inner = {key: to_plain(item, name=f"{name}: {key}") for key, item in value.items()}
        if all(isinstance(key, str) for key in inner):
            return inner
        return {"__items__": [[to_plain(key, name=name), item] for key, item in inner.items()]}
    raise CheckpointError(
        f"A checkpoint cannot hold {name}: expected numbers, texts, lists and dicts, found a {type(value).__name__}.",
        hint="Use save_only_model=True or save_strategy='no', which keep no state to go on from, or another class.",
    )


def from_plain(value: Any) -> Any:
    """The value that `to_plain` was given, after JSON."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    match value:
        case {"__float__": text}:
            return float(text)
        case {"__tuple__": items}:
            return tuple(from_plain(item) for item in items)
        case {"__items__": pairs}:
            return {from_plain(key): from_plain(item) for key, item in pairs}
        case dict():
            return {key: from_plain(item) for key, item in value.items()}
    return value
