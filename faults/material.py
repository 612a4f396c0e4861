"""What is broken: a tiny model with its tokenizer, a little data, and a run of textune on them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

TOKENS = 32
SUBJECTS = ("film", "book", "play", "song", "meal", "room", "shop", "garden")
PRAISE = ("good", "great", "lovely", "superb")
BLAME = ("bad", "awful", "poor", "dull")


def rows(count: int = 48) -> list[dict[str, str]]:
    """Texts and labels, which one word decides."""
    found = []
    for number in range(count):
        good = number % 2 == 0
        word = (PRAISE if good else BLAME)[number // 2 % 4]
        text = f"the {SUBJECTS[number % 8]} was {'very ' * (number % 3)}{word} . {'we liked it ' * (number % 5)}"
        found.append({"text": text.strip(), "label": "positive" if good else "negative"})
    return found


def write_rows(path: Path, found: list[dict[str, Any]]) -> Path:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def save_tiny_model(folder: Path, *, label_names: tuple[str, ...] = ()) -> Path:
    """Writes a BERT of two layers, hidden size 16, and its tokenizer; a classifier where there are label names."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer = _tokenizer()
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


def _tokenizer() -> Any:
    """WordPiece: the words of `rows`, and letters and digits alone and as the rest of a word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    letters = string.ascii_lowercase + string.digits
    words = (*SUBJECTS, *PRAISE, *BLAME, "the", "was", "very", "we", "liked", "it", ".", ",", "'")
    tokens = [*special.values(), *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=TOKENS, **special)
