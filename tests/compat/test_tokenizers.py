"""Tokenizers that take a whole column, in this process and in others, and are transformers' own in all else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import transformers
from conftest import ModelFolder

from textune.compat import AutoTokenizer, tokenizers
from textune.compat.tokenizers import taking_columns


@pytest.fixture(scope="module")
def rows() -> Any:
    import datasets

    return datasets.Dataset.from_dict(
        {"first": ["the film", "a very good book", "they left"], "second": ["was", "a", "."]}
    )


def test_columns_are_taken_as_lists_are(rows: Any, tiny_checkpoint: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    with pytest.raises(ValueError, match="text input must be of type"):
        theirs(rows["first"])  # why this module is there
    first, second = list(rows["first"]), list(rows["second"])
    assert tokenizer(rows["first"]).data == theirs(first).data
    assert tokenizer(rows["first"], rows["second"], padding=True).data == theirs(first, second, padding=True).data
    assert tokenizer(text=rows["first"], text_pair=rows["second"]).data == theirs(first, second).data
    assert tokenizer(rows.with_format("numpy")["first"]).data == theirs(first).data
    assert tokenizer("the film", "was").data == theirs("the film", "was").data


def test_columns_of_pandas_and_numpy(rows: Any, tiny_checkpoint: Path) -> None:
    tokenizer, frame = AutoTokenizer.from_pretrained(tiny_checkpoint), rows.to_pandas()
    expected = tokenizer(list(rows["first"]), list(rows["second"])).data
    assert tokenizer(frame["first"], frame["second"]).data == expected
    assert (
        tokenizer(frame[1:]["first"], frame[1:]["second"]).data == tokenizer(rows["first"][1:], rows["second"][1:]).data
    )
    assert tokenizer(frame["first"].to_numpy(), text_pair=frame["second"].to_numpy(str)).data == expected


def test_calls_of_transformers_4(tiny_checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    older = {"max_length": 8, "truncation": True, "pad_to_max_length": True}
    newer = {"max_length": 8, "truncation": True, "padding": "max_length"}
    assert len(tokenizer("the film", **older)["input_ids"]) == 8
    assert tokenizer("the film", **older).data == tokenizer("the film", **newer).data
    assert tokenizer.encode("the film", **older) == tokenizer("the film", **newer)["input_ids"]
    assert tokenizer.encode_plus("the film", "was", **older).data == tokenizer("the film", "was", **newer).data
    for batch in (["the film", "was"], [("the film", "was")]):
        assert tokenizer.batch_encode_plus(batch, **older).data == tokenizer(batch, **newer).data
    assert len(tokenizer("the film", max_length=8, pad_to_max_length=False, truncation=True)["input_ids"]) == 4


@pytest.mark.parametrize("family", ["bert", "distilbert", "xlm-roberta"])
def test_the_tokenizer_is_transformers_own_in_all_else(
    family: str, tiny_model_folder: ModelFolder, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder(family))
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_model_folder(family))
    assert isinstance(tokenizer, type(theirs))
    assert type(tokenizer).__name__ == type(theirs).__name__
    tokenizer.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours, expected = (
        json.loads((tmp_path / name / "tokenizer_config.json").read_text()) for name in ("ours", "theirs")
    )
    assert ours == expected
    again = pickle.loads(pickle.dumps(tokenizer))
    assert type(again) is type(tokenizer)
    assert again("the film").data == theirs("the film").data


def test_map_in_two_processes_and_its_fingerprint(rows: Any, tiny_checkpoint: Path) -> None:
    def columns(tokenizer: Any, processes: int | None) -> Any:
        return rows.map(lambda batch: tokenizer(batch["first"]), batched=True, num_proc=processes)

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    alone = columns(tokenizer, None)
    assert columns(tokenizer, 2)["input_ids"] == alone["input_ids"]
    # The same content gives the same fingerprint, by which `datasets` finds what it has computed before.
    assert columns(AutoTokenizer.from_pretrained(tiny_checkpoint), None)._fingerprint == alone._fingerprint


def test_a_class_of_the_scripts_own_stays_as_it_is(tiny_checkpoint: Path) -> None:
    class Own(transformers.PreTrainedTokenizerFast):  # type: ignore[misc]
        pass

    tokenizer = Own.from_pretrained(tiny_checkpoint)
    assert type(taking_columns(tokenizer)) is Own


def test_the_module_has_tokenizers_only() -> None:
    assert tokenizers.BertTokenizer is tokenizers.BertTokenizer
    assert issubclass(tokenizers.BertTokenizer, transformers.BertTokenizer)
    for name in ("BertModel", "BrtTokenizer", "__path__"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(tokenizers, name)
