"""Small models, tokenizers and texts, made on the spot. `conftest.py` gives them to tests as fixtures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.material import BLAME, PRAISE, SPECIAL_TOKENS, SUBJECTS, vocabulary_of, word_piece

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "albert",
    "mpnet",
    "deberta-v2",
    "modernbert",
)
MAX_TOKENS = 64
WORDS = (
    *SUBJECTS,
    *PRAISE,
    *BLAME,
    *("the", "a", "was", "is", "and", "not", "very", "we", "they", "he", "she", "saw", "liked", "left", "today", "."),
)
ROBERTA_LIKE = {"roberta", "xlm-roberta", "mpnet"}
WITHOUT_TYPES = {*ROBERTA_LIKE, "distilbert", "modernbert"}


def tiny_tokenizer(family: str = "bert") -> PreTrainedTokenizerBase:
    """A fast WordPiece tokenizer that knows `WORDS` and spells everything else; special tokens as the family has them.

    Texts are cut at 64 tokens.
    """
    if family in ROBERTA_LIKE:
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    else:
        names = SPECIAL_TOKENS
    end = names["sep_token"]
    types = [] if family in WITHOUT_TYPES else ["token_type_ids"]
    return word_piece(
        tiny_vocabulary(names.values()),
        max_tokens=MAX_TOKENS,
        names=names,
        between=f"{end} {end}" if family in ROBERTA_LIKE else end,
        inputs=["input_ids", *types, "attention_mask"],
    )


def tiny_vocabulary(special_tokens: Iterable[str] = SPECIAL_TOKENS.values()) -> dict[str, int]:
    """Tokens and ids: the special ones, `WORDS`, every letter and digit alone and as the rest of a word, some signs."""
    spelled = vocabulary_of(WORDS, special_tokens)
    return spelled | {sign: len(spelled) + number for number, sign in enumerate(",-!?'")}


def save_tiny_model(folder: Path, family: str, *, label_names: Sequence[str] | None = None) -> None:
    """Writes what the fixture `tiny_model_folder` gives, anew."""
    make_tiny_model(family, label_names=label_names).save_pretrained(folder)
    tiny_tokenizer(family).save_pretrained(folder)


def make_tiny_model(family: str = "bert", *, label_names: Sequence[str] | None = None) -> PreTrainedModel:
    """Two layers, hidden size 32, random weights that are always the same; with `label_names` a classifier."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSequenceClassification

    config = CONFIG_MAPPING[family](**_config_values(family, vocabulary_size=len(tiny_tokenizer(family))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if label_names is None:
            return AutoModel.from_config(config)
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
        return AutoModelForSequenceClassification.from_config(config)


def _config_values(family: str, *, vocabulary_size: int) -> dict[str, Any]:
    if family == "distilbert":
        return {
            "vocab_size": vocabulary_size,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": MAX_TOKENS,
        }
    values = {
        "vocab_size": vocabulary_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": MAX_TOKENS,
    }
    special = {
        "roberta": {"max_position_embeddings": MAX_TOKENS + 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
        "mpnet": {"max_position_embeddings": MAX_TOKENS + 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
        "electra": {"embedding_size": 16},
        "albert": {"embedding_size": 16},
        "deberta-v2": {
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_buckets": 16,
            "type_vocab_size": 0,
        },
        "modernbert": {
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "global_attn_every_n_layers": 2,
            "local_attention": 16,
        },
    }
    special["xlm-roberta"] = special["roberta"]
    return {**values, **special.get(family, {})}
