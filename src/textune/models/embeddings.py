"""Texts as vectors from a pretrained encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.data.collate import Padding, pad
from textune.data.tokenize import encode_texts
from textune.data.tokens import TokenRows
from textune.models.load import cannot_be_loaded, load_config, require_fitting_size
from textune.models.quiet import quiet_transformers
from textune.models.tokenizer import load_tokenizer, max_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SIZE = 64
CHUNK_TEXTS = 4096
"""Texts tokenised and sorted by length at once."""


class TextEncoder:
    """A checkpoint without its head: texts in, the mean of their tokens' last hidden states out."""

    def __init__(self, folder: Path, *, max_length: int | None = None) -> None:
        """Loads a checked checkpoint folder (`textune.models.load.find_checkpoint`).

        Raises:
            CheckpointError: it cannot be loaded.
            ConfigError: `max_length` is more than it has positions for.
        """
        self._tokenizer = load_tokenizer(folder)
        config = load_config(folder)
        self._max_length = max_tokens(config, self._tokenizer, asked=max_length)
        require_fitting_size(folder, config)
        self._model = _load_encoder(folder)

    def encode(self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Returns float32 [texts, hidden], each of length 1."""
        parts = []
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            parts.append(self._encode(chunk))
            if on_progress is not None:
                on_progress(len(chunk))
        return np.concatenate(parts)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        rows = TokenRows(encode_texts((texts, None), tokenizer=self._tokenizer, max_length=self._max_length))
        padding = Padding.of(self._tokenizer)
        order = np.argsort(rows.lengths, kind="stable")
        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_SIZE):
                chosen = order[start : start + BATCH_SIZE]
                batch = pad(rows.take(chosen), padding)
                mask = batch["attention_mask"][..., None]
                hidden = self._model(**batch).last_hidden_state * mask
                means = hidden.sum(dim=1) / mask.sum(dim=1)
                vectors[chosen] = torch.nn.functional.normalize(means, dim=-1).numpy()
        return vectors


def _load_encoder(folder: Path) -> Any:
    import torch
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model = AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise cannot_be_loaded(folder, error) from error
    return model.eval()
