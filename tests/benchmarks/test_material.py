from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_tokenizer

from benchmarks import material
from benchmarks.material import (
    MAX_TOKENS,
    Shape,
    layer_parameters,
    long_rows,
    make_checkpoint,
    read_splits,
    texts_of_length,
    write_splits,
)


def sentences(count: int) -> list[dict[str, Any]]:
    return [{"text": "the film was good .", "text_pair": "a very dull book .", "label": n % 2} for n in range(count)]


def test_the_sample_has_pairs_and_numbered_labels() -> None:
    splits = read_splits(None, None)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 400, "validation": 100, "test": 100}
    assert set(splits["train"][0]) == {"text", "text_pair", "label"}
    assert {row["label"] for row in splits["train"]} == {0, 1}


def test_the_rows_of_mrpc_are_those_of_the_task(shared_data: Path) -> None:
    splits = read_splits("mrpc", str(shared_data / "mrpc"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3668, "validation": 408, "test": 1725}
    assert sum(row["label"] for row in splits["train"]) == 2474


def test_of_mnli_the_matched_splits_are_taken(tmp_path: Path) -> None:
    """As validation and as test, which has no labels."""
    folder = tmp_path / "MNLI"
    folder.mkdir()
    for split in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        labelled = not split.startswith("test")
        header = ["index", "sentence1", "sentence2", *(["gold_label"] if labelled else [])]
        row = ["0", f"a film of {split}", "a film", *(["neutral"] if labelled else [])]
        (folder / f"{split}.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    splits = read_splits("mnli", str(tmp_path))
    assert splits["validation"] == [{"text": "a film of dev_matched", "text_pair": "a film", "label": 1}]
    assert splits["test"] == [{"text": "a film of test_matched", "text_pair": "a film"}]


def test_splits_are_written_as_json_lines(tmp_path: Path) -> None:
    write_splits(tmp_path / "data", {"train": [{"text": "é", "label": 1}], "validation_matched": []})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train.jsonl"]
    assert json.loads((tmp_path / "data" / "train.jsonl").read_text()) == {"text": "é", "label": 1}


def test_long_texts_are_uneven_fit_and_are_always_the_same() -> None:
    tokenizer = tiny_tokenizer()
    rows = long_rows(sentences(400), tokenizer)
    assert rows == long_rows(sentences(400), tokenizer)
    assert [row["label"] for row in rows] == [n % 2 for n in range(400)]
    lengths = np.array([len(tokenizer(row["text"], truncation=False)["input_ids"]) for row in rows])
    assert lengths.max() <= MAX_TOKENS
    assert 100 < np.median(lengths) < 150
    assert np.percentile(lengths, 90) > 2 * np.median(lengths)
    assert np.percentile(lengths, 10) < np.median(lengths) / 2


def test_texts_of_a_length_have_it() -> None:
    tokenizer = tiny_tokenizer()
    texts = texts_of_length(24, 5, tokenizer)
    assert [len(ids) for ids in tokenizer(texts)["input_ids"]] == [24] * 5
    assert len(set(texts)) == 5


def test_layer_parameters_leave_out_embeddings_pooler_and_head(tiny_checkpoint: Path) -> None:
    hidden, inner = 32, 48
    attention = 4 * (hidden * hidden + hidden)
    dense = 2 * hidden * inner + inner + hidden
    assert layer_parameters(tiny_checkpoint) == 2 * (attention + dense + 2 * 2 * hidden)


@pytest.mark.starter
def test_a_shape_becomes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    monkeypatch.setitem(material.SHAPES, "bert-mini", Shape(1, 32, 2, 64))
    folder = make_checkpoint("bert-mini", tmp_path / "mini", labels=3)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.num_labels) == (1, 32, 3)
    assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size == 30_522
    assert layer_parameters(make_checkpoint("starter", tmp_path / "none")) == 10_646_784
    assert make_checkpoint(str(tmp_path), tmp_path / "none") == tmp_path
    assert not (tmp_path / "none").exists()
