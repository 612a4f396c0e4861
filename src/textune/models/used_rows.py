"""Training those rows of the embedding table that occur in the training data; the others cannot get a gradient.

MRPC uses 11,563 of BERT's 30,522 rows. The others have a gradient of zero at every step, so that AdamW leaves its
moments at zero and the rows where they are, but for weight decay: after steps of learning rates r1, r2, ... with decay
w they are (1 - r1 w) (1 - r2 w) ... times what they were. That product is all that has to be kept.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORTHWHILE = 0.9
"""Above this share of used rows the table is trained as it is."""


class UsedRows:
    """A small table of the rows that are used, which takes the place of the whole one in training.

    Outside `in_place` the model has its whole table. It holds what was trained once `write_back` has been called.

    Args:
        rows: the token ids that occur, ascending and each once.

    Attributes:
        weight: the rows that are trained, [num_used_rows, width]; what the optimiser is given.
        digest: SHA-256 of `rows`.
        decay: the product of (1 - learning rate x weight decay) over all updates: what `write_back` multiplies the
            unused rows with. Who updates the weights keeps it.
    """

    def __init__(self, model: PreTrainedModel, rows: npt.NDArray[np.integer[Any]]) -> None:
        table = model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        self._whole = table
        self._parent, self._name = next(
            (module, name) for module in model.modules() for name, child in module.named_children() if child is table
        )
        self._rows = torch.from_numpy(rows).to(table.weight.device)
        self.digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
        self._small = _SmallTable(table, self._rows)
        self._untrained: torch.Tensor | None = None
        self.weight = self._small.weight
        self.decay = 1.0

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model reads and trains the small table."""
        self._small.train(self._whole.training)
        setattr(self._parent, self._name, self._small)
        try:
            yield
        finally:
            setattr(self._parent, self._name, self._whole)

    def read(self) -> None:
        """Takes the rows from the whole table, after others have changed that."""
        with torch.no_grad():
            self.weight.copy_(self._whole.weight[self._rows])
        self._untrained, self.decay = None, 1.0

    @contextlib.contextmanager
    def loading(self, decay: float) -> Iterator[None]:
        """Inside the block the whole table becomes that of a checkpoint, at which unused rows had decayed by `decay`.

        Where they are what this model's rows become by that, further decay is taken of these, as if nothing had been.
        """
        untrained = self._whole.weight.detach().clone()
        yield
        self.read()
        with torch.no_grad():
            expected = (untrained * decay).index_copy_(0, self._rows, self.weight)
        if torch.equal(expected, self._whole.weight):
            self._untrained, self.decay = untrained, decay

    def write_back(self) -> None:
        """Puts the trained rows into the whole table, and decays the others."""
        weight = self._whole.weight
        with torch.no_grad():
            if self.decay != 1.0:
                if self._untrained is None:  # each product is taken of what they were, so that no rounding adds up
                    self._untrained = weight.clone()
                torch.mul(self._untrained, self.decay, out=weight)
            weight.index_copy_(0, self._rows, self.weight)


class _SmallTable(nn.Embedding):
    """Some rows of an embedding table, asked for by the numbers they have in the whole one."""

    position: torch.Tensor

    def __init__(self, whole: nn.Embedding, rows: torch.Tensor) -> None:
        position = torch.full((whole.num_embeddings,), -1, device=rows.device)
        position[rows] = torch.arange(len(rows), device=rows.device)
        # The row of the padding token, should it occur: it gets no gradient.
        padding = None if whole.padding_idx is None else int(position[whole.padding_idx])
        weight = whole.weight.detach()[rows]
        super().__init__(len(rows), whole.embedding_dim, padding if padding != -1 else None, _weight=weight)
        self.register_buffer("position", position, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(self.position[input])


def word_embeddings(model: PreTrainedModel) -> nn.Embedding | None:
    """The table that has a row for each token id; None where there is none, as in CANINE, which hashes them."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return table if isinstance(table, nn.Embedding) else None


def used_rows(model: PreTrainedModel, token_counts: npt.NDArray[np.integer[Any]]) -> UsedRows | None:
    """The used rows of a model's word embeddings, or None where the table is trained as it is.

    Args:
        token_counts: how often each token id occurs in the training data, [num_token_ids].
    """
    table = word_embeddings(model)
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return None
    if table.max_norm is not None or table.sparse or table.scale_grad_by_freq:
        return None
    rows = np.flatnonzero(token_counts)
    holders = sum(weight is table.weight for _, weight in model.named_parameters(remove_duplicate=False))
    if holders > 1 or len(rows) > WORTHWHILE * table.num_embeddings:
        return None
    return UsedRows(model, rows)
