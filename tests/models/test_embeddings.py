from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch

from textune.errors import CheckpointError, ConfigError
from textune.models import embeddings
from textune.models.embeddings import TextEncoder

TEXTS = ["the film was good", "a", "we saw the very dull play and left", "good good good"]


class ModelFolder(Protocol):
    def __call__(self, family: str = "bert") -> Path: ...


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_the_mean_of_the_last_hidden_states(tiny_model_folder: ModelFolder, family: str) -> None:
    """One text at a time through transformers itself, which needs no padding."""
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_model_folder(family)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    expected = torch.stack([torch.nn.functional.normalize(states.mean(dim=0), dim=0) for states in hidden])
    assert np.allclose(TextEncoder(folder).encode(TEXTS), expected.numpy(), atol=1e-5)


def test_progress_and_order_over_several_chunks(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(tiny_checkpoint)
    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(embeddings, "CHUNK_TEXTS", 3)
    monkeypatch.setattr(embeddings, "BATCH_SIZE", 2)
    done: list[int] = []
    assert np.allclose(encoder.encode(TEXTS, on_progress=done.append), expected, atol=1e-6)
    assert done == [3, 1]


def test_long_texts_are_cut(tiny_checkpoint: Path) -> None:
    short = TextEncoder(tiny_checkpoint, max_length=4)
    assert np.allclose(short.encode(["the film was good"]), short.encode(["the film is bad"]))
    with pytest.raises(ConfigError, match="at most 64"):
        TextEncoder(tiny_checkpoint, max_length=65)


def test_weights_that_do_not_load(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TextEncoder(folder)
