"""What is broken: a tiny model with its tokenizer, a little data, and a run of textune on them."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = 32
SUBJECTS = ("film", "book", "play", "song", "meal", "room", "shop", "garden")
PRAISE = ("good", "great", "lovely", "superb")
BLAME = ("bad", "awful", "poor", "dull")
SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
"""Those of BERT, in the order of their ids."""


def rows(count: int = 48) -> list[dict[str, str]]:
    """Texts and labels, which one word decides."""
    found = []
    for number in range(count):
        good = number % 2 == 0
        word = (PRAISE if good else BLAME)[number // 2 % 4]
        text = f"the {SUBJECTS[number % 8]} was {'very ' * (number % 3)}{word} . {'we liked it ' * (number % 5)}"
        found.append({"text": text.strip(), "label": "positive" if good else "negative"})
    return found


def write_json_lines(path: Path, found: Sequence[dict[str, Any]]) -> Path:
    """Writes rows, one JSON object in each line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def save_tiny_model(folder: Path, *, label_names: tuple[str, ...] = ()) -> Path:
    """Writes a BERT of two layers, hidden size 16, and its tokenizer; a classifier where there are label names."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    words = (*SUBJECTS, *PRAISE, *BLAME, "the", "was", "very", "we", "liked", "it", ".", ",", "'")
    tokenizer = word_piece(vocabulary_of(words), max_tokens=TOKENS)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if label_names:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {name: number for number, name in enumerate(label_names)}
            BertForSequenceClassification(config).save_pretrained(folder)
        else:
            BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vocabulary_of(words: Sequence[str], special_tokens: Iterable[str] = SPECIAL_TOKENS.values()) -> dict[str, int]:
    """Tokens and ids: the special ones, the words, and every letter and digit alone and as the rest of a word."""
    characters = string.ascii_lowercase + string.digits
    tokens = [*special_tokens, *words, *characters, *(f"##{character}" for character in characters)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def word_piece(
    vocabulary: dict[str, int],
    *,
    max_tokens: int,
    names: dict[str, str] = SPECIAL_TOKENS,
    between: str | None = None,
    inputs: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask"),
) -> PreTrainedTokenizerBase:
    """A fast WordPiece tokenizer.

    Args:
        names: of the special tokens.
        between: what stands between the texts of a pair, as the end of a text when not given.
        inputs: what it gives a model.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    begin, end = names["cls_token"], names["sep_token"]
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {between or end} $B:1 {end}:1",
        special_tokens=[(token, vocabulary[token]) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, model_input_names=[*inputs], **names
    )
