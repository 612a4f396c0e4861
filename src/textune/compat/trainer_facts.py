"""What scripts ask a Trainer and its `accelerator` for, and what method bodies copied from transformers call."""

from __future__ import annotations

import contextlib
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

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Adds the gradient of a loss, scaled for fp16; `options` are those of `torch.Tensor.backward`."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward(**options)  # type: ignore[no-untyped-call]

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

    def pad_across_processes(self, tensor: Any, dim: int = 0, pad_index: int = 0, pad_first: bool = False) -> Any:
        """Tensors as wide in dimension `dim` as the widest process has them; tuples, lists and dicts of them too."""
        if self.num_processes == 1:
            return tensor
        if isinstance(tensor, Mapping):
            padded = {name: self.pad_across_processes(one, dim, pad_index, pad_first) for name, one in tensor.items()}
            return type(tensor)(padded)  # type: ignore[call-arg]
        if isinstance(tensor, (list, tuple)):
            return type(tensor)(self.pad_across_processes(one, dim, pad_index, pad_first) for one in tensor)
        if not -tensor.ndim <= dim < tensor.ndim:
            return tensor
        shape = list(tensor.shape)
        shape[dim] = int(self._processes.largest(shape[dim])) - shape[dim]
        filling = tensor.new_full(shape, pad_index)
        return torch.cat((filling, tensor) if pad_first else (tensor, filling), dim)

    def wait_for_everyone(self) -> None:
        self._processes.barrier()


class TrainerFacts:
    """Numbers and names that can be asked for.

    Attributes:
        model_accepts_loss_kwargs: whether models divide their loss by the step's number of labels, so that nothing
            else does. They never do here; see `TrainerSteps.training_step`.
        loss_is_scaled_for_ga: True in a subclass says that its loss is divided by the whole step's number of labels:
            it is then taken as it is.
        use_apex, deepspeed, is_deepspeed_enabled, is_fsdp_enabled, hp_search_backend: not there.
    """

    args: TrainingArguments
    model: Any
    optimizer: Any
    accelerator: ThisProcess
    processing_class: Any
    model_accepts_loss_kwargs = False
    loss_is_scaled_for_ga: bool | None = None
    use_apex = is_deepspeed_enabled = is_fsdp_enabled = False
    deepspeed = hp_search_backend = None
    _initial_num_input_tokens_seen = 0

    get_learning_rates = get_learning_rates
    get_num_trainable_parameters = get_num_trainable_parameters
    get_optimizer_group = get_optimizer_group

    @property
    def model_wrapped(self) -> Any:
        """The model: nothing is wrapped around it."""
        return self.model

    @property
    def tokenizer(self) -> Any:
        """The older name of `processing_class`."""
        return self.processing_class

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.processing_class = tokenizer

    @property
    def do_grad_scaling(self) -> bool:
        """Whether losses are scaled for fp16, by `scaler`."""
        return self.accelerator.scaler is not None

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

    def _prepare_context_parallel_inputs(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """A batch as it is, and a context without effect: texts are never cut among processes."""
        return contextlib.nullcontext, inputs
