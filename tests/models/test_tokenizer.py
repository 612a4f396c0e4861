from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from tiny import FAMILIES, ROBERTA_LIKE, make_tiny_model, tiny_tokenizer

from textune.errors import CheckpointError, ConfigError
from textune.models.load import Classifier, load_classifier
from textune.models.tokenizer import check_token_ids, load_tokenizer, max_tokens

TEXTS = ["the film was good", "a very dull play .", "we left"]


class ModelFolder(Protocol):
    def __call__(self, family: str = "bert", *, label_names: Any = None) -> Path: ...


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that the test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def classifier(folder: Path) -> Classifier:
    return load_classifier(folder, problem_type="single_label_classification", label_names=("no", "yes"), seed=1)


def test_a_checkpoint_without_tokenizer_is_refused(folder: Path) -> None:
    """transformers makes up an empty vocabulary, with which every word would be the unknown one."""
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be loaded: ") as caught:
        load_tokenizer(folder)
    assert (
        caught.value.hint == "Expected tokenizer.json, or the vocabulary files of a slow tokenizer, beside config.json."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_makes_up_a_tokenizer(tiny_model_folder: ModelFolder, tmp_path: Path, family: str) -> None:
    copy = Path(shutil.copytree(tiny_model_folder(family), tmp_path / "copy"))
    assert len(load_tokenizer(copy)) > 50
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be loaded: "):
        load_tokenizer(copy)


def test_a_broken_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be loaded: "):
        load_tokenizer(folder)


def test_a_vocabulary_file_is_enough(folder: Path) -> None:
    from tiny import tiny_vocabulary

    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "vocab.txt").write_text("\n".join(tiny_vocabulary()), encoding="utf-8")
    assert load_tokenizer(folder)(TEXTS)["input_ids"] == tiny_tokenizer()(TEXTS)["input_ids"]


def test_a_tokenizer_without_files_is_loaded(folder: Path) -> None:
    """A byte needs no vocabulary."""
    from transformers import ByT5Tokenizer

    for path in folder.glob("tokenizer*"):
        path.unlink()
    ByT5Tokenizer().save_pretrained(folder)
    assert load_tokenizer(folder)("ab")["input_ids"] == [100, 101, 1]


def test_a_tokenizer_without_padding_token_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    options = json.loads(path.read_text())
    del options["pad_token"]
    path.write_text(json.dumps(options))
    with pytest.raises(CheckpointError, match="has no padding token, which batches need"):
        load_tokenizer(folder)


def test_each_token_id_needs_an_embedding() -> None:
    model = make_tiny_model()
    size = model.config.vocab_size
    check_token_ids(model, size - 1, what="train")
    message = f"^train: the tokenizer gave token id {size}; the model has {size} embeddings, for the ids 0 to"
    with pytest.raises(CheckpointError, match=message) as caught:
        check_token_ids(model, size, what="train")
    assert "resize_token_embeddings" in str(caught.value.hint)


def test_truncation_and_padding_that_were_saved_are_forgotten(folder: Path) -> None:
    used = tiny_tokenizer()
    used(["the film"], padding="max_length", truncation=True, max_length=4)
    used.save_pretrained(folder)
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is not None
    backend = load_tokenizer(folder).backend_tokenizer
    assert backend.truncation is None
    assert backend.padding is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_as_many_tokens_as_it_says(tiny_model_folder: ModelFolder, family: str) -> None:
    """The longest text that is allowed goes through the model; RoBERTa and its kin have two positions too few."""
    loaded = classifier(tiny_model_folder(family))
    loaded.tokenizer.model_max_length = 10**30
    allowed = max_tokens(loaded.model.config, loaded.tokenizer, asked=None)
    assert allowed == (512 if family == "deberta-v2" else 64)
    inputs = loaded.tokenizer(["a " * 600], truncation=True, max_length=allowed, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, allowed)
    assert torch.isfinite(loaded.model(**inputs).logits).all()
    if family in ROBERTA_LIKE:
        longer = loaded.tokenizer(["a " * 600], truncation=True, max_length=allowed + 1, return_tensors="pt")
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            loaded.model(**longer)


def test_positions_begin_after_the_padding_token_whatever_its_id(tiny_model_folder: ModelFolder) -> None:
    config = classifier(tiny_model_folder("roberta")).model.config
    config.pad_token_id = 5
    tokenizer = tiny_tokenizer("roberta")
    tokenizer.model_max_length = 10**30
    assert max_tokens(config, tokenizer, asked=None) == 60


def test_the_tokenizers_limit_counts_unless_more_is_asked_for(tiny_checkpoint: Path) -> None:
    loaded = classifier(tiny_checkpoint)
    loaded.tokenizer.model_max_length = 48
    assert max_tokens(loaded.model.config, loaded.tokenizer, asked=None) == 48
    assert max_tokens(loaded.model.config, loaded.tokenizer, asked=60) == 60
    assert max_tokens(loaded.model.config, loaded.tokenizer, asked=12) == 12
    with pytest.raises(
        ConfigError, match=r"tokens\.max_length\): expected at most 64, the positions this checkpoint has"
    ):
        max_tokens(loaded.model.config, loaded.tokenizer, asked=65)


def test_a_multiple_must_not_pad_beyond_the_positions(tiny_checkpoint: Path) -> None:
    loaded = classifier(tiny_checkpoint)
    assert max_tokens(loaded.model.config, loaded.tokenizer, asked=60, multiple_of=8) == 60
    with pytest.raises(ConfigError, match=r"tokens\.pad_to_multiple_of: .* 64 positions"):
        max_tokens(loaded.model.config, loaded.tokenizer, asked=60, multiple_of=48)
