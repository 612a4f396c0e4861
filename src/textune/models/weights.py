"""Which of a checkpoint's files hold weights, and whether they can be read without running anything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from textune.errors import CheckpointError, panics_as_errors
from textune.files import reading_errors

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def require_safetensors(files: Iterable[str], *, name: str) -> list[str]:
    """Returns the names of the safetensors files among a checkpoint's files, sorted.

    Raises:
        CheckpointError: there are none; says so if there are pickles instead.
    """
    files = sorted(files)
    found = [file for file in files if file.endswith(".safetensors")]
    if found:
        return found
    pickles = [file for file in files if any(fnmatch(file, pattern) for pattern in _PICKLES)]
    if pickles:
        raise CheckpointError(
            f"--model: {name!r}: expected weights in *.safetensors, found only {pickles[0]}, a pickle, which can run "
            "code when it is read.",
            hint="Choose a checkpoint with safetensors, or convert it where you trust it: "
            "AutoModelForSequenceClassification.from_pretrained(...).save_pretrained(FOLDER).",
        )
    raise CheckpointError(
        f"--model: {name!r}: expected weights in *.safetensors, found none.",
        hint="Choose a checkpoint that has model.safetensors beside its config.json.",
    )


def check_safetensors(file: Path, *, name: str) -> None:
    """Checks that a safetensors file is whole.

    Raises:
        InputNotFoundError: it may not be read.
        CheckpointError: it is cut short or damaged.
    """
    from safetensors import SafetensorError, safe_open

    with reading_errors(file):  # safetensors says of a file without rights that there is none
        file.open("rb").close()
    try:
        with panics_as_errors(), safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"--model: {name!r}: {file.name} is cut short or damaged: {error}.", hint="Copy or download it again."
        ) from error


def count_weights(folder: Path) -> int:
    """How many numbers a checked checkpoint folder's safetensors files hold."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as opened:
            names = opened.keys()  # it is no dict and cannot be iterated over
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
    return total
