"""Examples -> logits, without padding where the architecture allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from textune.data.collate import Padding, copy_to, pack, pad
from textune.data.tokens import Examples
from textune.models.unpadded import unpadded, why_padded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textune.models.dropout import DropoutStream

Forward = Callable[[Examples], "torch.Tensor"]
"""Runs a model in its mode (training or evaluation) and returns its logits, [num_examples, num_outputs]."""


def why_batches_are_padded(model: PreTrainedModel, padding: Padding) -> str | None:
    """Returns what was asked for or what the model needs, in words; None where real tokens alone can be computed."""
    if padding.width is not None:
        return "pad_to_max_length"
    return why_padded(model) if padding.multiple_of is None else "pad_to_multiple_of"


@contextlib.contextmanager
def padded_forward(
    model: PreTrainedModel, *, padding: Padding, device: torch.device, dropout: DropoutStream | None = None
) -> Iterator[Forward]:
    """Runs the model over examples padded to one length; `dropout` as for `unpadded_forward`."""

    def run(examples: Examples) -> torch.Tensor:
        batch = pad(examples, padding)
        logits: torch.Tensor = model(**{name: copy_to(tensor, device) for name, tensor in batch.items()}).logits
        return logits

    from textune.models.dropout import fast_dropout

    with contextlib.nullcontext() if dropout is None else fast_dropout(model, dropout):
        yield run


@contextlib.contextmanager
def unpadded_forward(
    model: PreTrainedModel, *, device: torch.device, dropout: DropoutStream | None = None
) -> Iterator[Forward]:
    """Runs the model over real tokens only; `why_padded` has found nothing against it.

    Args:
        dropout: where masks come from; None for torch's own.
    """
    with unpadded(model, dropout=dropout) as encoder:
        yield lambda examples: encoder(pack(examples).to(device))


@contextlib.contextmanager
def fastest_forward(model: PreTrainedModel, *, padding: Padding, device: torch.device) -> Iterator[Forward]:
    """Runs the model unpadded where it can."""
    if why_batches_are_padded(model, padding) is None:
        chosen = unpadded_forward(model, device=device)
    else:
        chosen = padded_forward(model, padding=padding, device=device)
    with chosen as forward:
        yield forward
