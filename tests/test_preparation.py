from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model, tiny_tokenizer
from trained import QUICK

from faults.material import write_json_lines
from textune.errors import CheckpointError
from textune.finetune import train

SPLITS = ("train", "validation", "test")


@pytest.fixture
def small_checkpoint(tmp_path: Path) -> Path:
    """One whose model has no embeddings for signs, which the tokenizer knows."""
    model, tokenizer = make_tiny_model(), tiny_tokenizer()
    model.resize_token_embeddings(tokenizer.get_vocab()[","])
    model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def begin(tmp_path: Path, small_checkpoint: Path, tiny_rows: list[dict[str, str]]) -> Any:
    """Trains on three files, of which one has a row more."""

    def call(*, split: str, text: str) -> None:
        (tmp_path / "data").mkdir()
        for name in SPLITS:
            more = [{"text": text, "label": "positive"}] if name == split else []
            write_json_lines(tmp_path / "data" / f"{name}.jsonl", [*tiny_rows[:24], *more])
        settings = {"engine.used_rows": False}
        output = str(tmp_path / "run")
        train(str(tmp_path / "data"), model=str(small_checkpoint), output=output, settings=settings, **QUICK)

    return call


@pytest.mark.parametrize("split", SPLITS)
def test_tokens_without_embeddings_are_named_before_training(begin: Any, tmp_path: Path, split: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^{split}: the tokenizer gave token id (\d+); the model has \d+ emb"):
        begin(split=split, text="the film was good !")
    assert not (tmp_path / "run").exists()


def test_padding_without_embedding_is_named_before_training(begin: Any, small_checkpoint: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"
    tokenizer.save_pretrained(small_checkpoint)
    with pytest.raises(CheckpointError, match=r"^padding: the tokenizer gave token id \d+; the model has \d+ emb"):
        begin(split="train", text="the film was good .")
