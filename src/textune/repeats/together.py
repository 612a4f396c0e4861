"""What seeds and folds have in common when their figures are put together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from textune.files import replacing_folder
from textune.run import Run


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard deviation, None where a value is or where one alone has no deviation; and the values."""
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "value": float(np.mean(known)) if whole else None,
        "deviation": float(np.std(known, ddof=1)) if whole and len(known) > 1 else None,
        "values": list(values),
    }


def copy_model(run: Run, whole: Run, *, title: str, text: str) -> None:
    """Copies a run's model into the folder of the whole, and says in its card where it comes from.

    Not linked: who writes into one of the two must not change the other.
    """
    with replacing_folder(whole.model_path) as folder:
        for file in sorted(run.model_path.iterdir()):
            shutil.copyfile(file, folder / file.name)
        with (folder / "README.md").open("a", encoding="utf-8") as card:
            card.write(f"\n## {title}\n\n{text}\n")
