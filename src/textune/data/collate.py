"""Examples of different lengths -> one batch of tensors, with padding or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textune.data.tokens import Examples, IntArray

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Padding:
    """How batches are padded.

    Attributes:
        token_id: fills `input_ids`.
        type_id: fills `token_type_ids`.
        side: "right" or "left", as the tokenizer wants it.
        multiple_of: the width is rounded up to a multiple of this.
        width: fixed width in tokens; None pads to the longest example of the batch.
    """

    token_id: int
    type_id: int = 0
    side: str = "right"
    multiple_of: int | None = None
    width: int | None = None

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, *, multiple_of: int | None = None, width: int | None = None
    ) -> Padding:
        """Takes ids and side from the tokenizer."""
        assert isinstance(tokenizer.pad_token_id, int)
        return cls(tokenizer.pad_token_id, tokenizer.pad_token_type_id, tokenizer.padding_side, multiple_of, width)

    def widths(self, longest: IntArray) -> IntArray:
        """How wide batches are padded whose longest examples have these lengths, int64 [num_batches]."""
        width = longest if self.width is None else np.full_like(longest, self.width)
        return width if self.multiple_of is None else -(-width // self.multiple_of) * self.multiple_of


def pad(examples: Examples, padding: Padding) -> dict[str, torch.Tensor]:
    """Pads examples into the inputs of a transformers model; the same as its `DataCollatorWithPadding`.

    Returns:
        `input_ids`, `attention_mask` (1 for real tokens) and, where there are any, `token_type_ids`:
        int64 [batch, width].
    """
    import torch

    longest = max(len(ids) for ids in examples.input_ids)
    width = int(padding.widths(np.array(longest)))
    assert longest <= width, "examples are cut before they are padded"
    columns = {"input_ids": (examples.input_ids, padding.token_id)}
    if examples.token_type_ids is not None:
        columns["token_type_ids"] = (examples.token_type_ids, padding.type_id)
    columns["attention_mask"] = ([np.ones(len(ids), np.int64) for ids in examples.input_ids], 0)
    return {
        name: torch.from_numpy(_fill(rows, filler, width=width, side=padding.side))
        for name, (rows, filler) in columns.items()
    }


@dataclass(frozen=True)
class PackedBatch:
    """Texts one behind the other, without padding.

    Attributes:
        input_ids: int64 [1, tokens].
        token_type_ids: int64 [1, tokens], or None where the tokenizer has none.
        positions: of each token in its own text, from 0; int64 [1, tokens].
        lengths: tokens per text, int64 [rows]; in the order of the texts. It stays in the CPU's memory.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor | None
    positions: torch.Tensor
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch with its tensors on another device."""
        types = self.token_type_ids
        return PackedBatch(
            copy_to(self.input_ids, device),
            None if types is None else copy_to(types, device),
            copy_to(self.positions, device),
            self.lengths,
        )


def copy_to(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU's memory on another device; a GPU fetches it while the CPU goes on."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def pack(examples: Examples) -> PackedBatch:
    """Lays examples one behind the other. Each has at least one token."""
    import torch

    lengths = np.array([len(ids) for ids in examples.input_ids], dtype=np.int64)
    assert len(lengths) and lengths.min() > 0, "an example has at least one token"
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum(), dtype=np.int64) - np.repeat(starts, lengths)

    def joined(rows: list[IntArray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(rows, dtype=np.int64)[None])

    types = examples.token_type_ids
    return PackedBatch(
        joined(examples.input_ids),
        None if types is None else joined(types),
        torch.from_numpy(positions[None]),
        lengths,
    )


def _fill(rows: list[IntArray], filler: int, *, width: int, side: str) -> IntArray:
    filled = np.full((len(rows), width), filler, dtype=np.int64)
    for target, row in zip(filled, rows, strict=True):
        if side == "right":
            target[: len(row)] = row
        else:
            target[width - len(row) :] = row
    return filled
