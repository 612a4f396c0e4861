"""Steps that went wrong: memory that ran out in one, numbers that are not finite."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textune.data.wording import counted
from textune.errors import OutOfMemoryError, TrainingError
from textune.memory import halved, is_out_of_memory
from textune.training.parallel import Processes
from textune.training.state import TrainingState
from textune.training.work import Step, Work

if TYPE_CHECKING:
    import torch


class ShortOfMemoryError(Exception):
    """Memory ran out and no weight has changed: the step can be tried again in smaller passes.

    Args:
        phase: what was being done, as words that follow "memory ran out".
        cause: the error that said so; None for that of another process.
    """

    def __init__(self, phase: str, cause: Exception | None) -> None:
        super().__init__(phase)
        self.phase = phase
        self.said = "another process" if cause is None else str(cause).partition("\n")[0] or type(cause).__name__


def share_of_loss(work: Work, step: Step, processes: Processes) -> float:
    """Calls `Work.accumulate`. Of several processes all go on or none does.

    Raises:
        ShortOfMemoryError: memory ran out in this process (see its cause) or in another one; gradients may be left.
        OutOfMemoryError: memory ran out, and other processes may be waiting for this one within their passes.
    """
    share, cause = math.nan, None
    try:
        share = work.accumulate(step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if work.processes_meet:
            raise OutOfMemoryError(
                f"Memory ran out in a pass of process {processes.rank}. Others may be waiting for it there, so that "
                "the step cannot be tried again in smaller passes.",
                hint="Halve per_device_train_batch_size and double gradient_accumulation_steps: same weights.",
            ) from error
        cause = error
    if not work.processes_meet and processes.largest(cause is not None):
        raise ShortOfMemoryError("in a forward or backward pass", cause) from cause
    return share


@contextlib.contextmanager
def whole_update(optimizer: torch.optim.Optimizer, *, can_retry: bool) -> Iterator[None]:
    """Where memory runs out inside the block, an update is not half done and then taken for a whole one.

    Args:
        can_retry: whether the step may be tried again as long as nothing has changed.

    Raises:
        ShortOfMemoryError: memory ran out before the first change.
        OutOfMemoryError: memory ran out after it, or the step may not be tried again.
    """
    before = _changes(optimizer)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if can_retry and _changes(optimizer) == before:
            raise ShortOfMemoryError("while the weights were updated", error) from error
        raise OutOfMemoryError(
            "Memory ran out while the weights were updated, some of them perhaps already; nothing of this was saved.",
            hint="Go on from the last checkpoint with smaller passes: half the batch size, twice the accumulation.",
        ) from error


def _changes(optimizer: torch.optim.Optimizer) -> int:
    """How often weights and the optimiser's state were changed in place, in all.

    Of torch's fused AdamW only the step counts tell; it raises them before it touches anything else.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return sum(getattr(value, "_version", 0) for value in [*weights, *moments])


def back_off(work: Work, state: TrainingState, step: Step, *, said: str) -> None:
    """Halves the rows of a pass, in `state.micro_batch_size`, until the largest pass of the step gets smaller.

    Args:
        step: as planned, not cut.
        said: the message of what failed, for an error.

    Raises:
        OutOfMemoryError: it cannot get smaller.
    """
    largest = work.largest_pass(work.cut(step, state.micro_batch_size))
    rows = state.micro_batch_size or work.rows_per_pass
    while rows > 1:
        rows = halved(rows)
        if work.largest_pass(work.cut(step, rows)) < largest:
            state.micro_batch_size = rows
            return
    at_once = counted(largest, "row")
    raise OutOfMemoryError(
        f"Step {state.step + 1} found no memory for {at_once} at once, and its passes cannot be made smaller; "
        f"the weights are those of step {state.step}. ({textwrap.shorten(said, 120)})",
        hint="Shorten the texts (--max-length 128), compute activations twice "
        "(--set engine.gradient_checkpointing=true), or take a smaller --model.",
    )


def not_finite(mean_loss: float, grad_norm: float) -> str | None:
    """What is wrong with a step's numbers, in words; None where both are finite."""
    if not math.isfinite(mean_loss):
        return f"loss {mean_loss}"
    return None if math.isfinite(grad_norm) else f"gradient norm {grad_norm}"


def require_finite_weights(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Looks at what was trained and at its moments, once, before they are saved.

    A finite gradient makes a finite update unless weights or learning rate are enormous.

    Raises:
        TrainingError: some number is not finite; names the weight.
    """
    import torch

    named = [(f"weight {name!r}", weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad]
    named += [
        ("moments of the optimiser", value)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    # The Euclidean norm is twenty times as quick as isfinite; where it overflows, the numbers are looked at again.
    norms = torch._foreach_norm([tensor for _, tensor in named])
    wrong = [
        name
        for (name, tensor), norm in zip(named, norms, strict=True)
        if not math.isfinite(norm) and not tensor.isfinite().all()
    ]
    if wrong:
        raise TrainingError(
            f"An update made {wrong[0]} something else than finite numbers. Nothing of it was saved; older checkpoints "
            "are whole.",
            hint="Go on from an older checkpoint with a lower --learning-rate, or start anew with one.",
        )
