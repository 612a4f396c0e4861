from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer, tiny_vocabulary
from transformers import ByT5Tokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from textune.data import tokenize
from textune.data.cache import cache_root
from textune.data.tokenize import LengthStatistics, encode_texts, length_statistics, tokenize_split
from textune.data.tokens import TokenRows
from textune.errors import DataError

TEXTS = ["The film was good .", "", "we saw the very dull play today and left", "크다 ünïcode 123", "a\tb\nc"]
PAIRS = ["a very superb garden", "he", "the room", "", "they liked it and she was not superb but very very good"]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "cache"))


def rows_of(texts: list[str] = TEXTS, pairs: list[str] | None = None) -> Dataset:
    columns = {"id": list(range(len(texts))), "text": texts, "labels": [0] * len(texts)}
    return Dataset.from_dict(columns if pairs is None else {**columns, "text_pair": pairs})


def lists(tokens: TokenRows) -> dict[str, list[list[int]]]:
    examples = tokens.take(range(len(tokens)))
    found = {"input_ids": [ids.tolist() for ids in examples.input_ids]}
    if examples.token_type_ids is not None:
        found["token_type_ids"] = [types.tolist() for types in examples.token_type_ids]
    return found


def reference(tokenizer: Any, *arguments: Any, **options: Any) -> dict[str, list[list[int]]]:
    encoded = tokenizer(*arguments, **options)
    return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}


def slow_tokenizer(folder: Path) -> BertTokenizerLegacy:
    """One that is written in Python, with the vocabulary of the fast one."""
    vocabulary = tiny_vocabulary()
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizerLegacy(
        str(folder / "vocab.txt"),
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture
def tokenised_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call tokenised since the test began."""
    calls: list[int] = []

    def counted(texts: Any, **options: Any) -> Any:
        calls.append(len(texts[0]))
        return encode_texts(texts, **options)

    monkeypatch.setattr(tokenize, "encode_texts", counted)
    return calls


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
@pytest.mark.parametrize("max_length", [64, 12, 7])
def test_token_ids_are_those_of_the_tokenizer(family: str, pairs: list[str] | None, max_length: int) -> None:
    tokens = tokenize_split(rows_of(TEXTS, pairs), tiny_tokenizer(family), max_length=max_length)
    texts = [TEXTS] if pairs is None else [TEXTS, pairs]
    expected = reference(tiny_tokenizer(family), *texts, truncation=True, max_length=max_length)
    assert lists(tokens) == expected
    whole = reference(tiny_tokenizer(family), *texts)
    assert tokens.full_lengths.tolist() == [len(ids) for ids in whole["input_ids"]]
    assert tokens.lengths.tolist() == [len(ids) for ids in expected["input_ids"]]


@given(texts=st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5), max_length=st.integers(4, 40))
def test_any_texts_are_cut_as_the_tokenizer_cuts(texts: list[tuple[str, str]], max_length: int) -> None:
    clean = [[text.encode("utf-8", "replace").decode() for text in pair] for pair in texts]
    first, second = [pair[0] for pair in clean], [pair[1] for pair in clean]
    table = encode_texts((first, second), tokenizer=tiny_tokenizer(), max_length=max_length)
    expected = reference(tiny_tokenizer(), first, second, truncation=True, max_length=max_length)
    assert {name: table[name].to_pylist() for name in expected} == expected


def test_distilbert_and_roberta_have_no_token_type_ids() -> None:
    for family in ("distilbert", "roberta"):
        tokens = tokenize_split(rows_of(TEXTS, PAIRS), tiny_tokenizer(family), max_length=64)
        assert tokens.take([0]).token_type_ids is None
    tokens = tokenize_split(rows_of(TEXTS, PAIRS), tiny_tokenizer("bert"), max_length=64)
    types = tokens.take([0]).token_type_ids
    assert types is not None
    assert set(types[0].tolist()) == {0, 1}


def test_a_text_without_any_token_is_named() -> None:
    """Tokenizers that set no tokens of their own around a text make none of an empty one."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer("bert")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    with pytest.raises(DataError, match="makes no token of ' ', nor one of its own") as caught:
        encode_texts((["good", " "], None), tokenizer=tokenizer, max_length=8)
    assert "Leave out empty texts" in str(caught.value.hint)


def test_batches_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lists(tokenize_split(rows_of(TEXTS * 5, PAIRS * 5), tiny_tokenizer(), max_length=12))
    monkeypatch.setattr(tokenize, "BATCH_ROWS", 3)
    monkeypatch.setattr(tokenize, "FORMAT_VERSION", -1)  # another cache entry
    assert lists(tokenize_split(rows_of(TEXTS * 5, PAIRS * 5), tiny_tokenizer(), max_length=12)) == expected


def test_progress_counts_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "BATCH_ROWS", 2)
    done: list[int] = []
    tokenize_split(rows_of(), tiny_tokenizer(), max_length=12, on_progress=done.append)
    assert done == [2, 2, 1]


def test_statistics_say_what_was_cut() -> None:
    texts = ["a", "the film was good", "the film was very very good today"]
    statistics = length_statistics(tokenize_split(rows_of(texts), tiny_tokenizer(), max_length=6))
    assert statistics == LengthStatistics(
        rows=3,
        tokens=3 + 6 + 6,
        median=6.0,
        percentile_95=6.0,
        longest=6,
        longest_before_truncation=9,
        truncated_rows=1,
        truncated_tokens=3,
    )
    assert json.loads(json.dumps(statistics.as_json()))["truncated_tokens"] == 3


def test_the_same_texts_are_tokenised_once(tokenised_rows: list[int]) -> None:
    first = tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    assert tokenised_rows == [len(TEXTS)]
    again = tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    assert tokenised_rows == [len(TEXTS)]
    assert lists(again) == lists(first)
    assert np.array_equal(again.full_lengths, first.full_lengths)


@pytest.mark.parametrize("damage", ["truncate", "cut a row off", "remove", "garble"])
def test_damaged_tokens_are_made_again(tmp_path: Path, tokenised_rows: list[int], damage: str) -> None:
    expected = lists(tokenize_split(rows_of(), tiny_tokenizer(), max_length=12))
    (stored,) = (tmp_path / "cache" / "tokens").glob("*/tokens.arrow")
    match damage:
        case "truncate":
            os.truncate(stored, 100)
        case "cut a row off":
            with pa.OSFile(str(stored), "rb") as source:
                table = pa.ipc.open_stream(source).read_all()
            with pa.OSFile(str(stored), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.slice(1))
        case "remove":
            stored.unlink()
        case "garble":
            stored.write_bytes(b"x" * stored.stat().st_size)
    assert lists(tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)) == expected
    assert tokenised_rows == [len(TEXTS)] * 2


def test_labels_and_ids_do_not_matter_to_the_token_ids(tokenised_rows: list[int]) -> None:
    tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    tokenize_split(rows_of().remove_columns(["labels", "id"]), tiny_tokenizer(), max_length=12)
    assert len(tokenised_rows) == 1


def test_a_tokenizer_that_has_been_used_is_the_same_tokenizer(tokenised_rows: list[int]) -> None:
    """Fast tokenizers keep the truncation and padding of their last call, which are no part of what they are."""
    used = tiny_tokenizer()
    used(["the film", "a"], padding="max_length", truncation=True, max_length=5)
    tokenize_split(rows_of(), used, max_length=12)
    tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    assert len(tokenised_rows) == 1


def left_cutting(tokenizer: Any) -> Any:
    tokenizer.truncation_side = "left"
    return tokenizer


def with_token(tokenizer: Any) -> Any:
    tokenizer.add_tokens(["film-maker"])
    return tokenizer


@pytest.mark.parametrize(
    ("rows", "make", "max_length"),
    [
        (lambda: rows_of(["Another .", *TEXTS[1:]]), tiny_tokenizer, 12),
        (lambda: rows_of([*TEXTS[:-1], "a\tb\nC"]), tiny_tokenizer, 12),
        (lambda: rows_of([TEXTS[1], TEXTS[0], *TEXTS[2:]]), tiny_tokenizer, 12),
        (lambda: rows_of(TEXTS, PAIRS), tiny_tokenizer, 12),
        (rows_of, tiny_tokenizer, 11),
        (rows_of, lambda: tiny_tokenizer("roberta"), 12),
        (rows_of, lambda: tiny_tokenizer("distilbert"), 12),
        (rows_of, lambda: left_cutting(tiny_tokenizer()), 12),
        (rows_of, lambda: with_token(tiny_tokenizer()), 12),
    ],
    ids=["text", "letter", "order", "pair", "length", "tokenizer", "type ids", "side", "added token"],
)
def test_a_change_is_tokenised_anew(
    tokenised_rows: list[int], rows: Callable[[], Dataset], make: Callable[[], Any], max_length: int
) -> None:
    tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    found = lists(tokenize_split(rows(), make(), max_length=max_length))
    assert len(tokenised_rows) == 2
    texts = [rows()[name][:] for name in ("text", "text_pair") if name in rows().column_names]
    assert found == reference(make(), *texts, truncation=True, max_length=max_length)


def test_texts_do_not_run_together_in_the_fingerprint(tokenised_rows: list[int]) -> None:
    for texts, pairs in ([["ab"], ["c"]], [["a"], ["bc"]], [["ab", "c"], None], [["a", "bc"], None]):
        tokenize_split(rows_of(texts, pairs), tiny_tokenizer(), max_length=12)
    assert len(tokenised_rows) == 4


def test_a_failure_leaves_nothing_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenize, "encode_texts", fail)
        with pytest.raises(KeyboardInterrupt):
            tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    assert list(cache_root("tokens").iterdir()) == []
    assert len(tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)) == len(TEXTS)


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
def test_a_slow_tokenizer_gives_what_the_fast_one_gives(tmp_path: Path, pairs: list[str] | None) -> None:
    slow = tokenize_split(rows_of(TEXTS, pairs), slow_tokenizer(tmp_path), max_length=12, num_workers=1)
    fast = tokenize_split(rows_of(TEXTS, pairs), tiny_tokenizer(), max_length=12)
    assert lists(slow) == lists(fast)
    assert slow.full_lengths.tolist() == fast.full_lengths.tolist()


def test_processes_give_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "BATCH_ROWS", 2)
    tokenizer, rows = slow_tokenizer(tmp_path), rows_of(TEXTS * 4, PAIRS * 4)
    done: list[int] = []
    found = tokenize_split(rows, tokenizer, max_length=12, num_workers=2, on_progress=done.append)
    assert done == [2] * 10
    assert lists(found) == reference(tokenizer, TEXTS * 4, PAIRS * 4, truncation=True, max_length=12)


def test_slow_tokenizers_run_in_a_process_per_core_and_fast_ones_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def here(encode: Any, batches: Any, *, workers: int) -> Any:
        asked.append(workers)
        return map(encode, batches)

    monkeypatch.setattr(tokenize, "_mapped", here)
    monkeypatch.setattr(tokenize, "cores", lambda: 5)
    tokenize_split(rows_of(), tiny_tokenizer(), max_length=12)
    tokenize_split(rows_of(), slow_tokenizer(tmp_path), max_length=12)
    tokenize_split(rows_of(), slow_tokenizer(tmp_path), max_length=13, num_workers=3)
    assert asked == [0, 5, 3]


def test_a_slow_tokenizer_is_known_by_its_vocabulary_wherever_it_lies(
    tmp_path: Path, tokenised_rows: list[int]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tokenize_split(rows_of(), slow_tokenizer(tmp_path / name), max_length=12, num_workers=1)
    assert len(tokenised_rows) == 1
    words = [*tiny_vocabulary(), "ünïcode"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenize_split(rows_of(), BertTokenizerLegacy(str(tmp_path / "vocab.txt")), max_length=12, num_workers=1)
    tokenize_split(
        rows_of(),
        BertTokenizerLegacy(str(tmp_path / "vocab.txt"), do_lower_case=False),
        max_length=12,
        num_workers=1,
    )
    assert len(tokenised_rows) == 3


def test_a_tokenizer_of_bytes_has_no_vocabulary_file() -> None:
    tokens = tokenize_split(rows_of(["ab"], ["c"]), ByT5Tokenizer(), max_length=12, num_workers=1)
    assert lists(tokens) == {"input_ids": [[100, 101, 1, 102, 1]]}
