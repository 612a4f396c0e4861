"""A checkpoint's tokenizer: loading it, and how many tokens it and the model allow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.config import flag_of
from textune.errors import CheckpointError, ConfigError, panics_as_errors
from textune.models.quiet import first_line, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 512
# More than this is transformers' way of saying that there is no limit.
_NO_LIMIT = 10**9
# RoBERTa and its kin number positions from the padding token's id + 1, so that the first ones are never used.
_POSITIONS_AFTER_PADDING = {
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet"),
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads a checkpoint's tokenizer, without the truncation and padding that may have been saved with it.

    Raises:
        CheckpointError: there is none, it cannot be read, or it has no padding token.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers(), panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_vocabulary_file(tokenizer, folder)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise TypeError(f"`model_max_length` is no number: {tokenizer.model_max_length!r:.40}")
    except Exception as error:  # the tokenizer libraries raise plain Exception for corrupt files
        raise CheckpointError(
            f"The tokenizer in {str(folder)!r} cannot be loaded: {first_line(error)}",
            hint="Expected tokenizer.json, or the vocabulary files of a slow tokenizer, beside config.json.",
        ) from error
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"The tokenizer in {str(folder)!r} has no padding token, which batches need.",
            hint="Set one that it has, for example tokenizer.pad_token = tokenizer.eos_token, and save it: "
            "tokenizer.save_pretrained(FOLDER).",
        )
    forget_saved_truncation(tokenizer)
    return tokenizer


def use_padding_token(tokenizer: PreTrainedTokenizerBase, model_config: Any) -> list[str]:
    """Enters the tokenizer's padding token in the model's configuration, by which decoders find a text's last token.

    Returns:
        What should be said about it, one line or none.
    """
    config = model_config.get_text_config()
    stored, found = getattr(config, "pad_token_id", None), tokenizer.pad_token_id
    # Of these it says from where positions were counted in pretraining; padding they know by the attention mask.
    if stored == found or config.model_type in _POSITIONS_AFTER_PADDING:
        return []
    config.pad_token_id = found
    return [] if stored is None else [f"the padding token is the tokenizer's, id {found}; config.json said {stored}"]


def check_token_ids(model: PreTrainedModel, largest: int, *, what: str) -> None:
    """Whether the model has an embedding for each token id.

    Args:
        largest: of the ids.
        what: where they are from.

    Raises:
        CheckpointError: it has none for the largest.
    """
    from textune.models.used_rows import word_embeddings

    table = word_embeddings(model)
    if table is not None and largest >= table.num_embeddings:
        raise CheckpointError(
            f"{what}: the tokenizer gave token id {largest:,}; the model has {table.num_embeddings:,} embeddings, for "
            f"the ids 0 to {table.num_embeddings - 1:,}.",
            hint="If tokens were added to the tokenizer, give the model as many embeddings, "
            "model.resize_token_embeddings(len(tokenizer)), and save it. Otherwise tokenizer and weights probably "
            "belong to different models.",
        )


def _check_vocabulary_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Without its file, transformers gives some tokenizers an empty vocabulary: every word would be unknown.

    Raises:
        FileNotFoundError: there is no such file, and the tokenizer is of a kind that has one.
    """
    names = set(tokenizer.vocab_files_names.values())
    known = {*names, "tokenizer.json", *(file.name for file in folder.glob("*.model"))}
    if names and not any((folder / name).is_file() for name in known):
        raise FileNotFoundError(f"there is none of the files {', '.join(sorted(names))}.")


def max_tokens(
    model_config: Any, tokenizer: PreTrainedTokenizerBase, *, asked: int | None, multiple_of: int | None = None
) -> int:
    """Returns the number of tokens to keep per example: what is asked for, or what model and tokenizer allow.

    Args:
        multiple_of: batches are padded to a multiple of this, which must fit as well.

    Raises:
        ConfigError: more is asked for than the model has positions.
    """
    positions = _num_positions(model_config)
    if asked is not None and asked > positions:
        raise ConfigError(
            f"{flag_of('tokens.max_length')}: expected at most {positions}, the positions this checkpoint has, found "
            f"{asked}."
        )
    allowed = min(positions, tokenizer.model_max_length)
    length = asked or (int(allowed) if allowed < _NO_LIMIT else DEFAULT_MAX_LENGTH)
    if multiple_of is not None and -(-length // multiple_of) * multiple_of > positions:
        raise ConfigError(
            f"tokens.pad_to_multiple_of: {length} tokens padded to a multiple of {multiple_of} are more than the "
            f"{positions} positions this checkpoint has."
        )
    return length


def _num_positions(model_config: Any) -> int:
    """How many tokens the model has positions for; `_NO_LIMIT` where it has relative ones only."""
    if model_config.model_type in {"deberta", "deberta-v2"} and not model_config.position_biased_input:
        return _NO_LIMIT
    positions: int = getattr(model_config, "max_position_embeddings", None) or _NO_LIMIT
    if model_config.model_type in _POSITIONS_AFTER_PADDING:
        padding = model_config.pad_token_id
        positions -= 1 + (1 if padding is None else padding)
    return positions


def forget_saved_truncation(tokenizer: PreTrainedTokenizerBase) -> None:
    """tokenizer.json keeps the truncation and padding of its last use, which would act on whoever loads it next."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
