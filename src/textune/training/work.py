"""What the loop works on: steps of the training split, and the gradient of their loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from textune.data.batching import Plan
from textune.data.collate import copy_to
from textune.data.tokens import IntArray, TokenRows
from textune.errors import first_rows
from textune.models.losses import Loss
from textune.training.engine import Engine
from textune.training.parallel import ALONE, Processes

if TYPE_CHECKING:
    import torch

MAX_ROWS_NAMED = 32


@dataclass(frozen=True)
class Step:
    """The rows of one update of the weights.

    Attributes:
        passes: what goes through the model together; its gradients are added up over the passes.
        num_rows: rows in all passes of all processes.
        num_tokens: real (not padding) tokens in them.
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
        """The steps of an epoch from number `start` on; a pure function of seed and epoch. As many in each process."""
        ...

    def accumulate(self, step: Step) -> float:
        """Adds the gradient of the step's mean loss to the weights' gradients and returns that loss.

        Of several processes each gives its share: the sum over them is gradient and loss of the step.
        """
        ...

    @property
    def rows_per_pass(self) -> int:
        """Rows in the largest pass, as planned."""
        ...

    @property
    def processes_meet(self) -> bool:
        """Whether processes may wait for each other within passes, so that none may leave one out."""
        ...

    def cut(self, step: Step, rows: int | None) -> Step:
        """The same rows in passes of at most `rows`; as planned where that is None or passes cannot be cut.

        Where passes are planned by tokens, `rows` is for the largest, and the others are cut in as many parts.
        """
        ...

    def largest_pass(self, step: Step) -> int:
        """Rows in the largest pass of a step."""
        ...

    def drop_gradients(self) -> None:
        """Forgets gradients that `accumulate` has left somewhere else than at the weights when it failed."""
        ...

    def settle(self) -> None:
        """Brings the model up to date, for whoever looks at it between steps."""
        ...

    def rows_of(self, step: Step) -> dict[str, Any]:
        """Which rows the step holds, for a record: all of them, as JSON takes it."""
        ...

    def name_rows(self, step: Step) -> str:
        """Which rows the step holds, for a message."""
        ...


@dataclass(frozen=True)
class TextWork:
    """Tokenised texts and a transformers classifier: the usual work.

    Attributes:
        engine: how passes are computed.
        tokens: the training split.
        labels: of its rows, as `Loss` takes them.
        ids: of its rows, for messages.
        row_numbers: of its rows in the data they came from, from 1, int64 [num_rows]; for messages.
        plan: which rows make a step of all processes.
        between_passes: called after each pass of a step but the last; None where nobody wants to know.
        processes: those that share the passes of a step.
        scaler: of fp16's losses; None where there is none.
    """

    engine: Engine
    tokens: TokenRows
    labels: npt.NDArray[Any]
    ids: Sequence[Any]
    row_numbers: IntArray
    plan: Plan
    loss: Loss
    between_passes: Callable[[], None] | None = None
    processes: Processes = ALONE
    scaler: torch.amp.GradScaler | None = None

    processes_meet = False

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def rows_per_pass(self) -> int:
        return self.plan.rows_per_pass

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[Step]:
        for passes in self.plan.steps(epoch, start=start):
            rows = np.concatenate(passes)
            yield Step(passes, len(rows), int(self.tokens.lengths[rows].sum()))

    def accumulate(self, step: Step) -> float:
        """Divides by the weight of the whole step, so that 32 x 1, 8 x 4 and 4 x 8 rows give the same gradient.

        A process whose part of the step is empty adds nothing to loss and gradient.
        """
        import torch

        total_weight = self.loss.weight(self.labels[np.concatenate(step.passes)])
        total = torch.zeros((), device=self.engine.device)
        with self.engine.step():
            for number, rows in enumerate(self.processes.share(step.passes)):
                if number and self.between_passes is not None:
                    self.between_passes()
                labels = copy_to(torch.from_numpy(self.labels[rows]), self.engine.device)
                loss = self.loss.sum(self.engine.logits(self.tokens.take(rows)), labels) / total_weight
                torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
                self.engine.end_pass()
                total += loss.detach()
        return float(total)

    def cut(self, step: Step, rows: int | None) -> Step:
        return step if rows is None else replace(step, passes=self.plan.cut(step.passes, rows))

    def largest_pass(self, step: Step) -> int:
        return max(len(rows) for rows in step.passes)

    def drop_gradients(self) -> None:
        self.engine.drop_gradients()

    def settle(self) -> None:
        self.engine.settle()

    def rows_of(self, step: Step) -> dict[str, Any]:
        rows: IntArray = np.concatenate(step.passes)
        return {"ids": [self.ids[int(row)] for row in rows], "row_numbers": self.row_numbers[rows].tolist()}

    def name_rows(self, step: Step) -> str:
        rows: IntArray = np.concatenate(step.passes)
        ids = ", ".join(str(self.ids[int(row)]) for row in rows[:MAX_ROWS_NAMED])
        numbers = first_rows(self.row_numbers[rows].tolist(), shown=MAX_ROWS_NAMED)
        return f"{numbers} of the training split (id {ids})"
