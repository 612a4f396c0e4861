"""Rows of text -> token ids, once, on disk, found again by the content of text and tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from textune.cores import cores
from textune.data.cache import cache_root, open_or_make
from textune.data.tokens import TokenRows
from textune.data.wording import quoted
from textune.errors import CheckpointError, DataError, panics_as_errors

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Raised when what is written below changes its meaning: older cached files are then not used.
FORMAT_VERSION = 1
BATCH_ROWS = 1000
_FILE = "tokens.arrow"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class LengthStatistics:
    """Lengths of one tokenised split, in tokens with special tokens, after truncation unless said otherwise."""

    rows: int
    tokens: int
    median: float
    percentile_95: float
    longest: int
    longest_before_truncation: int
    truncated_rows: int
    truncated_tokens: int

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def tokenize_split(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    num_workers: int = 0,
    on_progress: Progress | None = None,
) -> TokenRows:
    """Tokenises the columns `text` and, if present, `text_pair`, or finds the result of an earlier time.

    Args:
        rows: typed rows, as `textune.data.rows` makes them.
        tokenizer: fast tokenizers run in threads of their own; slow ones in `num_workers` processes.
        max_length: tokens kept per row; longer pairs lose tokens from the longer text first.
        num_workers: 0 means one process per core for slow tokenizers and none for fast ones.
        on_progress: called with the number of rows done since the last call.
    """
    digest = _content_fingerprint(rows, tokenizer, max_length=max_length)

    def write(folder: Path) -> None:
        encode = partial(encode_texts, tokenizer=tokenizer, max_length=max_length)
        batches = _batches(rows)
        workers = num_workers or (0 if tokenizer.is_fast else cores())
        with pa.OSFile(str(folder / _FILE), "wb") as sink:
            writer = None
            for table in _mapped(encode, batches, workers=workers):
                writer = writer or pa.ipc.new_stream(sink, table.schema)
                writer.write_table(table)
                if on_progress is not None:
                    on_progress(len(table))
            assert writer is not None, "a split has at least one row"
            writer.close()

    def opened(folder: Path) -> TokenRows | None:
        try:
            tokens = TokenRows.open(folder / _FILE)
        except (OSError, KeyError, pa.ArrowException):
            return None
        return tokens if len(tokens) == len(rows) else None

    return open_or_make(cache_root("tokens") / digest, write, opened)


def encode_texts(
    texts: tuple[Sequence[str], Sequence[str] | None], *, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> pa.Table:
    """Tokenises one batch of texts, or of pairs, as pairs.

    Returns:
        A table for `TokenRows`. Rows beyond `max_length` are tokenised a second time with truncation, so that every
        row's full length is known and the cut is the tokenizer's own.

    Raises:
        DataError: a text has no token.
    """
    first, second = list(texts[0]), None if texts[1] is None else list(texts[1])
    encoded = _call(tokenizer, first, second)
    full_lengths = [len(ids) for ids in encoded["input_ids"]]
    if 0 in full_lengths:
        raise DataError(
            f"The tokenizer makes no token of {quoted(first[full_lengths.index(0)])}, nor one of its own around it.",
            hint="Leave out empty texts. If it is none, the checkpoint's tokenizer.json is damaged: download it again.",
        )
    too_long = [row for row, length in enumerate(full_lengths) if length > max_length]
    if too_long:
        pairs = None if second is None else [second[row] for row in too_long]
        cut = _call(tokenizer, [first[row] for row in too_long], pairs, truncation=True, max_length=max_length)
        for name, values in encoded.items():
            for row, value in zip(too_long, cut[name], strict=True):
                values[row] = value
    columns = {"input_ids": pa.array(encoded["input_ids"], pa.list_(pa.int32()))}
    if "token_type_ids" in encoded:
        columns["token_type_ids"] = pa.array(encoded["token_type_ids"], pa.list_(pa.int8()))
    columns["full_length"] = pa.array(full_lengths, pa.int32())
    return pa.table(columns)


def length_statistics(tokens: TokenRows) -> LengthStatistics:
    """Summarises how long the rows are and how much truncation took from them."""
    cut = tokens.full_lengths - tokens.lengths
    return LengthStatistics(
        rows=len(tokens),
        tokens=int(tokens.lengths.sum()),
        median=float(np.median(tokens.lengths)),
        percentile_95=float(np.percentile(tokens.lengths, 95)),
        longest=int(tokens.lengths.max()),
        longest_before_truncation=int(tokens.full_lengths.max()),
        truncated_rows=int((cut > 0).sum()),
        truncated_tokens=int(cut.sum()),
    )


def _call(tokenizer: Any, texts: list[str], pairs: list[str] | None, **options: Any) -> dict[str, list[list[int]]]:
    try:
        with panics_as_errors():
            # verbose=False: no warning about long texts, which are counted and reported instead.
            encoded = tokenizer(texts, pairs, return_attention_mask=False, padding=False, verbose=False, **options)
    except Exception as error:  # whatever a damaged vocabulary makes the tokenizer libraries raise
        raise CheckpointError(
            f"The tokenizer in {tokenizer.name_or_path!r} cannot encode the texts: {error}.",
            hint="Copy or download the checkpoint again.",
        ) from error
    return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}


def _text_columns(rows: Dataset) -> list[str]:
    return ["text", "text_pair"] if "text_pair" in rows.column_names else ["text"]


def _batches(rows: Dataset) -> Iterator[tuple[list[str], list[str] | None]]:
    chosen = rows.select_columns(_text_columns(rows))
    for start in range(0, len(rows), BATCH_ROWS):
        batch = chosen[start : start + BATCH_ROWS]
        yield batch["text"], batch.get("text_pair")


def _mapped(
    encode: Callable[[tuple[list[str], list[str] | None]], pa.Table],
    batches: Iterator[tuple[list[str], list[str] | None]],
    *,
    workers: int,
) -> Iterator[pa.Table]:
    if workers < 2:
        yield from map(encode, batches)
        return
    # spawn: a forked child would inherit the locks of this process's threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = []
        for batch in batches:
            pending.append(pool.submit(encode, batch))
            if len(pending) > 2 * workers:  # bounded, so that memory stays flat
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def _content_fingerprint(rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> str:
    """SHA-256 over everything the token ids depend on: the texts, the tokenizer and the cut."""
    head = [FORMAT_VERSION, max_length, _text_columns(rows), _describe(tokenizer)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for texts, pairs in _batches(rows):
        for text in (*texts, *(pairs or [])):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(4, "little"))
            digest.update(data)
    return digest.hexdigest()


def _describe(tokenizer: Any) -> list[str]:
    """What a tokenizer's output depends on, as text: a fast one serialises itself, a slow one is its vocabulary."""
    import tokenizers
    import transformers

    general = [type(tokenizer).__name__, str(tokenizer.model_input_names), tokenizer.truncation_side]
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        # Left over from its last call; each call sets its own.
        del state["truncation"], state["padding"]
        return [*general, tokenizers.__version__, json.dumps(state)]
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    options = repr(sorted(tokenizer.init_kwargs.items(), key=lambda item: item[0]))
    return [*general, transformers.__version__, vocabulary, options]
