"""What scripts ask a Trainer and its `accelerator` for, and what method bodies copied from transformers call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_learning_rates, get_num_trainable_parameters, get_optimizer_group
from transformers.trainer_utils import has_length

from textune.training.parallel import ALONE, Processes

if TYPE_CHECKING:
    from textune.compat.arguments import TrainingArguments


def as_taken(function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    """The arguments of an overridable method, less the last one where an override for older releases has no place
    for it."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return arguments[:-1]
    return arguments


class ThisProcess:
    """What scripts use of `trainer.accelerator`, without accelerate.

    Attributes:
        scaler: of fp16's losses; None where there is none.
        distributed_type: one of accelerate's names.
    """

    def __init__(
        self, device: torch.device, processes: Processes = ALONE, scaler: torch.amp.GradScaler | None = None
    ) -> None:
        self.device, self.scaler = device, scaler
        self._processes = processes
        kind = "MULTI_GPU" if device.type == "cuda" else "MULTI_CPU"
        self.distributed_type = kind if processes.world_size > 1 else "NO"
        self.num_processes, self.process_index = processes.world_size, processes.rank
        self.is_main_process, self.local_process_index = processes.is_main, processes.local_rank
        self.is_local_main_process = processes.local_rank == 0

    def backward(self, loss: torch.Tensor) -> None:
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    @property
    def state(self) -> ThisProcess:
        """accelerate's `AcceleratorState`, whose numbers are here themselves."""
        return self

    def prepare(self, *items: Any) -> Any:
        """What it is given: device, arithmetic and each process's batches are seen to elsewhere."""
        return items[0] if len(items) == 1 else items

    def print(self, *values: Any, **options: Any) -> None:
        """Prints once, not once per process."""
        if self.is_local_main_process:
            print(*values, **options)  # noqa: T201 - the script asks for it

    def unwrap_model(self, model: Any, **options: Any) -> Any:
        return model

    def gather(self, tensors: Any) -> Any:
        """The rows of all processes' tensors, in the order of the processes; tuples, lists and dicts of them too."""
        if self.num_processes == 1:
            return tensors
        if isinstance(tensors, Mapping):
            return type(tensors)({name: self.gather(value) for name, value in tensors.items()})  # type: ignore[call-arg]
        if isinstance(tensors, (list, tuple)):
            return type(tensors)(self.gather(value) for value in tensors)
        values = tensors.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        parts = self._processes.gather(np.atleast_1d(values.numpy()))
        return torch.from_numpy(np.concatenate(parts)).to(tensors)

    gather_for_metrics = gather

    def wait_for_everyone(self) -> None:
        self._processes.barrier()


class TrainerFacts:
    """Numbers and names that can be asked for.

    Attributes:
        model_accepts_loss_kwargs: whether models divide their loss by the step's number of labels, so that nothing
            else does. They never do here; see `TrainerSteps.training_step`.
    """

    args: TrainingArguments
    model: Any
    optimizer: Any
    accelerator: ThisProcess
    model_accepts_loss_kwargs = False

    get_learning_rates = get_learning_rates
    get_num_trainable_parameters = get_num_trainable_parameters
    get_optimizer_group = get_optimizer_group

    @property
    def model_wrapped(self) -> Any:
        """The model: nothing is wrapped around it."""
        return self.model

    @property
    def _train_batch_size(self) -> int:
        return self.args.train_batch_size

    def num_examples(self, dataloader: Any) -> int:
        """Rows of a loader's data set; where that has no length, of full batches."""
        dataset: Any = getattr(dataloader, "dataset", None)
        return len(dataset) if has_length(dataset) else len(dataloader) * self.args.per_device_train_batch_size

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows of one step, of all processes together."""
        return args.train_batch_size * args.gradient_accumulation_steps * args.world_size
