"""What the loop works on: steps of the training split, and the gradient of their loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from textune.data.batching import BatchPlan
from textune.data.collate import Padding, pad
from textune.data.tokens import IntArray, TokenRows
from textune.errors import first_rows
from textune.models.losses import Loss
from textune.training.precision import Arithmetic

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MAX_ROWS_NAMED = 32


@dataclass(frozen=True)
class Step:
    """The rows of one update of the weights.

    Attributes:
        passes: what goes through the model together; its gradients are added up over the passes.
        num_rows: rows in all passes.
        num_tokens: real (not padding) tokens in all passes.
    """

    passes: Sequence[Any]
    num_rows: int
    num_tokens: int


class Work(Protocol):
    """A training split and the loss on it."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the rows."""
        ...

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[Step]:
        """The steps of an epoch from number `start` on; a pure function of seed and epoch."""
        ...

    def accumulate(self, step: Step) -> float:
        """Adds the gradient of the step's mean loss to the weights' gradients and returns that loss."""
        ...

    def name_rows(self, step: Step) -> str:
        """Which rows the step holds, for a message."""
        ...


@dataclass(frozen=True)
class TextWork:
    """Tokenised texts and a transformers classifier: the usual work.

    Attributes:
        tokens: the training split.
        labels: of its rows, as `Loss` takes them.
        ids: of its rows, for messages.
        row_numbers: of its rows in the data they came from, from 1, int64 [num_rows]; for messages.
        plan: which rows make a step.
        between_passes: called after each pass of a step but the last; None where nobody wants to know.
    """

    model: PreTrainedModel
    device: torch.device
    tokens: TokenRows
    labels: npt.NDArray[Any]
    ids: Sequence[Any]
    row_numbers: IntArray
    plan: BatchPlan
    padding: Padding
    loss: Loss
    arithmetic: Arithmetic
    between_passes: Callable[[], None] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[Step]:
        for passes in self.plan.steps(epoch, start=start):
            rows = np.concatenate(passes)
            yield Step(passes, len(rows), int(self.tokens.lengths[rows].sum()))

    def accumulate(self, step: Step) -> float:
        """Divides by the weight of the whole step, so that 32 x 1, 8 x 4 and 4 x 8 rows give the same gradient."""
        import torch

        total_weight = self.loss.weight(self.labels[np.concatenate(step.passes)])
        total = torch.zeros((), device=self.device)
        for number, rows in enumerate(step.passes):
            if number and self.between_passes is not None:
                self.between_passes()
            batch = pad(self.tokens.take(rows), self.padding)
            inputs = {name: tensor.to(self.device) for name, tensor in batch.items()}
            labels = torch.from_numpy(self.labels[rows]).to(self.device)
            with self.arithmetic.autocast(self.device):
                logits = self.model(**inputs).logits
            loss = self.loss.sum(logits.float(), labels) / total_weight
            torch.autograd.backward(loss)
            total += loss.detach()
        return float(total)

    def name_rows(self, step: Step) -> str:
        rows: IntArray = np.concatenate(step.passes)
        ids = ", ".join(str(self.ids[int(row)]) for row in rows[:MAX_ROWS_NAMED])
        numbers = first_rows(self.row_numbers[rows].tolist(), shown=MAX_ROWS_NAMED)
        return f"{numbers} of the training split (id {ids})"
