from __future__ import annotations

import pytest
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from textune.data.tokenize import encode_texts
from textune.data.tokens import TokenRows
from textune.data.unknown import UnknownTokens, unknown_words

TEXTS = ["the film was good", "the 영화 was good", "좋아요", "좋아요 최악이에요", "좋아요 film"]


def found_in(texts: list[str], *, family: str = "bert", max_length: int = 64) -> UnknownTokens:
    tokenizer = tiny_tokenizer(family)
    return UnknownTokens.of(
        TokenRows(encode_texts((texts, None), tokenizer=tokenizer, max_length=max_length)), tokenizer
    )


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_unknown_tokens_are_counted_without_the_special_ones(family: str) -> None:
    found = found_in(TEXTS, family=family)
    assert found.unknown.tolist() == [0, 1, 1, 2, 1]
    assert found.known.tolist() == [4, 3, 0, 0, 1]
    assert found.rows.tolist() == [2, 3, 4, 1]
    assert found.share == pytest.approx(5 / 13)
    assert found.unreadable_rows == 2


@pytest.mark.parametrize(
    ("texts", "notable"),
    [
        (["the film was good"] * 20, False),
        (["the film was good"] * 24 + ["the film was 좋아요"], False),
        (["the film was good"] * 4 + ["the film was 좋아요"], True),
        (["the film was good"] * 99 + ["좋아요"], True),
    ],
    ids=["none", "a few", "five in a hundred", "a row of nothing else"],
)
def test_what_deserves_a_warning(texts: list[str], notable: bool) -> None:
    assert found_in(texts).is_notable is notable


def test_a_token_that_stands_for_the_end_as_well_is_no_unknown_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.unk_token
    tokens = TokenRows(encode_texts((TEXTS, None), tokenizer=tokenizer, max_length=64))
    assert UnknownTokens.of(tokens, tokenizer).unknown.tolist() == [0] * 5


def test_words_that_are_unknown() -> None:
    assert unknown_words("the 좋아요, film 좋아요, ok👍 good", tiny_tokenizer()) == ["좋아요,", "ok👍"]


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Such as XLM-R's: its token for what it does not know is the piece of text itself."""
    pieces = [("<unk>", 0.0), ("\u2581", -3.0), ("\u2581the", -1.0), ("\u2581film", -1.0), (",", -2.0)]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>")


def test_words_that_are_unknown_to_a_unigram_tokenizer() -> None:
    assert unknown_words("the 좋아요, film, 좋아요, ok👍 film", unigram_tokenizer()) == ["좋아요,", "ok👍"]


def test_the_word_start_before_an_unknown_piece_is_nothing_known() -> None:
    tokenizer = unigram_tokenizer()
    tokens = TokenRows(encode_texts((["좋아요 최악이에요", "the 좋아요"], None), tokenizer=tokenizer, max_length=64))
    found = UnknownTokens.of(tokens, tokenizer)
    assert found.unknown.tolist() == [2, 1]
    assert found.known.tolist() == [0, 1]
    assert found.unreadable_rows == 1


def test_a_tokenizer_without_a_token_for_the_unknown_knows_every_word() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.unk_token = None
    assert unknown_words("the film", tokenizer) == []
