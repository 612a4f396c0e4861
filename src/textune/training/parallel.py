"""Several processes that train one model: the only file that imports torch.distributed.

`torchrun --nproc-per-node N` starts the processes and says through the environment which is which. Each holds the whole
model, takes its part of the rows of a step, and gets the sum of all gradients, so that all hold the same weights
bit for bit. With one process every method does nothing, so that callers need not ask how many there are.

Values that processes tell each other are numbers, arrays and JSON; nothing is pickled.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from textune.errors import ConfigError, TrainingError
from textune.memory import is_out_of_memory
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import torch

Items = TypeVar("Items", Sequence[Any], npt.NDArray[Any])

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others in the middle of training: as in torch and transformers."""
PATIENCE = timedelta(days=7)
"""How long it waits while the main process prepares data or writes. If that one dies, the wait ends at once."""

_HOW_TO_START = "Start several processes with torchrun --nproc-per-node N, or unset WORLD_SIZE for one."


@dataclass(frozen=True)
class Processes:
    """Which of the processes this is, and what they do together.

    Each method that says so is called by all of them, in the same order; otherwise they wait for each other in vain
    until the time allowed is over.

    Attributes:
        rank: which of all processes this is; 0 is the main process, the only one that writes.
        world_size: how many there are.
        local_rank: which of those on this machine; it is also the number of its GPU.
        local_world_size: how many are on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    _values: Any = field(default=None, repr=False, compare=False)
    _patient: Any = field(default=None, repr=False, compare=False)
    _owns_group: bool = field(default=False, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def device(self, found: torch.device) -> torch.device:
        """The device of this process, where `found` is what would be taken by a process alone.

        Raises:
            ConfigError: there are fewer GPUs than processes, or the device cannot be shared out.
        """
        import torch

        if self.world_size == 1 or found.type == "cpu":
            return found
        if str(found) != "cuda":
            raise ConfigError(
                f"Several processes train on one GPU each or on the CPU, not all on {str(found)!r}.",
                hint="Say cuda (each process takes its own) or cpu (use_cpu=True in a script).",
            )
        gpus = torch.cuda.device_count()
        if self.local_rank >= gpus:
            raise ConfigError(
                f"{self.local_world_size} processes on this machine need as many GPUs; there are {gpus}.",
                hint=f"Start with torchrun --nproc-per-node {gpus}.",
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def stream(self, purpose: str) -> str:
        """The name of this process's own stream of random numbers; with one process, the name as it is."""
        return purpose if self.world_size == 1 else f"{purpose}-{self.rank}"

    def share(self, items: Items) -> Items:
        """This process's part: every `world_size`-th item. It may be empty."""
        return items[self.rank :: self.world_size]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: float) -> float:
        """Makes each gradient the sum over all processes and returns the sum of `loss`. All call it.

        One flat all-reduce. A parameter that has a gradient in no process keeps none.
        """
        import torch

        if self.world_size == 1:
            return loss
        device = parameters[0].device
        head = [loss, *(0.0 if parameter.grad is None else 1.0 for parameter in parameters)]
        flat = torch.cat([torch.tensor(head, device=device), *(_flat_gradient(item, device) for item in parameters)])
        with self._together():
            torch.distributed.all_reduce(flat, group=self._group_of(flat))
        parts = torch.split(flat, [len(head), *(parameter.numel() for parameter in parameters)])
        total, *holders = parts[0].tolist()
        for parameter, held_by, part in zip(parameters, holders, parts[1:], strict=True):
            parameter.grad = part.view_as(parameter).to(parameter) if held_by else None
        return float(total)

    def share_weights(self, model: torch.nn.Module) -> None:
        """Gives all processes the main process's parameters and buffers. All call it."""
        self._broadcast([*model.parameters(), *model.buffers()])

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Gives all processes the main process's buffers, which no gradient keeps equal. All call it."""
        self._broadcast(list(model.buffers()))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, number by number. All call it."""
        return self._reduced(values, "SUM")

    def largest(self, value: float) -> float:
        """The largest of all processes' numbers. All call it."""
        return self._reduced([value], "MAX")[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in their order; all get all of it. All call it.

        Args:
            value: NumPy arrays (none of objects), numbers, texts and None, in lists, tuples and dicts with texts as
                keys.
        """
        import torch

        if self.world_size == 1:
            return [value]
        own = torch.frombuffer(bytearray(_packed(value)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        with self._together():
            torch.distributed.all_gather(sizes, torch.tensor([len(own)]), group=self._values)
            longest = max(int(size) for size in sizes)
            found = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world_size)]
            padded = torch.nn.functional.pad(own, (0, longest - len(own)))
            torch.distributed.all_gather(found, padded, group=self._values)
        return [_unpacked(part.numpy()[: int(size)].tobytes()) for part, size in zip(found, sizes, strict=True)]

    def gather_shared(self, parts: Sequence[Any]) -> list[Any]:
        """Undoes `share`: all processes' items, in the order they had before. All call it."""
        if self.world_size == 1:
            return list(parts)
        gathered = self.gather(list(parts))
        longest = max(len(items) for items in gathered)
        return [items[number] for number in range(longest) for items in gathered if number < len(items)]

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in the main process, the only one that calls it; see `gather` for its kind. All call it."""
        return self.gather(make() if self.is_main else None)[0]

    def require_same(self, value: Any, *, what: str) -> None:
        """Whether all processes see the same. All call it.

        Raises:
            ConfigError: one of them sees something else than the main process.
        """
        found = self.gather(value)
        odd = [rank for rank, other in enumerate(found) if other != found[0]]
        if odd:
            raise ConfigError(
                f"Process {odd[0]} found other {what} than process 0: {found[odd[0]]} and {found[0]}.",
                hint="Start all processes with the same command, files and versions.",
            )

    def agree(self, state: TrainingState) -> None:
        """Makes a wish of one process, or its stop, that of all. All call it."""
        if self.world_size == 1:
            return
        names = ("log", "evaluate", "save", "end_epoch")
        asked = [getattr(state.requests, name) for name in names]
        *wanted, interrupt, stop = self._reduced(
            [*asked, state.requests.interrupt, state.stop_reason is not None], "MAX"
        )
        state.requests.interrupt = int(interrupt)
        for name, value in zip(names, wanted, strict=True):
            setattr(state.requests, name, bool(value))
        if stop:
            state.stop_reason = next(reason for reason in self.gather(state.stop_reason) if reason is not None)

    def barrier(self) -> None:
        """Waits for the others, however long the main process prepares or writes. All call it."""
        import torch

        if self.world_size > 1:
            with self._together():
                torch.distributed.barrier(group=self._patient)

    @contextlib.contextmanager
    def main_first(self, *, local: bool = False) -> Iterator[None]:
        """Lets the main process go through the block first; the others find what it left in the cache. All call it.

        Args:
            local: the first process of each machine goes first.
        """
        goes_first = self.local_rank == 0 if local else self.is_main
        if not goes_first:
            self.barrier()
        yield
        if goes_first:
            self.barrier()

    def _broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch

        if self.world_size > 1:
            with self._together():
                for tensor in tensors:
                    value = tensor.detach().contiguous()
                    torch.distributed.broadcast(value, src=0, group=self._group_of(value))
                    tensor.detach().copy_(value)

    def _group_of(self, tensor: torch.Tensor) -> Any:
        """torch's default group is NCCL wherever there are GPUs, also while training runs on the CPU."""
        return None if tensor.is_cuda else self._values

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        import torch

        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        with self._together():
            operator = getattr(torch.distributed.ReduceOp, operation)
            torch.distributed.all_reduce(tensor, op=operator, group=self._values)
        return [float(value) for value in tensor.tolist()]

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Turns a lost connection into an error that points to the process that was first to end."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0])
            raise TrainingError(
                f"Process {self.rank} stops: another one has ended or does not answer.",
                hint=f"The message of the process that ended first says why. ({textwrap.shorten(reason, 100)})",
            ) from error


ALONE = Processes()


def environment_rank() -> int:
    """Which process this is by torchrun's environment, without connecting; 0 for one alone.

    Raises:
        ConfigError: a number of the environment is none.
    """
    return _from_environment("RANK", default=0) if _from_environment("WORLD_SIZE", default=1) > 1 else 0


def _from_environment(name: str, *, default: int) -> int:
    """One of the numbers by which torchrun tells a process which one it is.

    Raises:
        ConfigError: it is no whole number.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not text.strip().isdecimal():
        raise ConfigError(
            f"{name}: expected a whole number in the environment variable, found {text!r}.", hint=_HOW_TO_START
        )
    return int(text)


@contextlib.contextmanager
def connect() -> Iterator[Processes]:
    """Joins the processes that torchrun started, and leaves them when the block ends well.

    After an error the connections end with the process: the others must notice, and leaving could wait for them.

    Raises:
        ConfigError: the environment names several processes and is not whole.
        TrainingError: the others do not come.
    """
    before = _joined
    try:
        yield join()
    except BaseException:
        atexit.unregister(_leave_unless_failing)
        raise
    if _joined is not before:
        leave()


# torch has one default group per process, and so has this.
_joined: Processes | None = None


def join(*, backend: str | None = None, timeout: timedelta = DEFAULT_TIMEOUT) -> Processes:
    """Connects to the other processes of torchrun's environment, once in a process; later calls give the same.

    Args:
        backend: `gloo` or `nccl`, which carry the gradients; None for NCCL where there are GPUs and gloo elsewhere.
        timeout: how long a process waits for the others in the middle of training.

    Raises:
        ConfigError: the environment names several processes and is not whole.
        TrainingError: the others do not come.
    """
    global _joined
    if _joined is not None:
        return _joined
    if _from_environment("WORLD_SIZE", default=1) <= 1:
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment, but no {', '.join(missing)}.",
            hint=_HOW_TO_START,
        )
    import torch

    rank, world_size, local_rank = (_from_environment(name, default=0) for name in names[:3])
    alone = Processes(rank, world_size, local_rank, _from_environment("LOCAL_WORLD_SIZE", default=1))
    distributed = torch.distributed
    owns_group = not distributed.is_initialized()
    with alone._together():
        if owns_group:
            gpus = torch.cuda.is_available() and distributed.is_nccl_available()
            distributed.init_process_group(backend or ("nccl" if gpus else "gloo"), timeout=timeout)
            atexit.register(_leave_unless_failing)
        # Numbers and metrics are on the CPU and go by gloo whatever carries the gradients.
        values, patient = (distributed.new_group(backend="gloo", timeout=limit) for limit in (timeout, PATIENCE))
    _joined = replace(alone, _values=values, _patient=patient, _owns_group=owns_group)
    return _joined


def leave() -> None:
    """Ends the connections. All call it, when there is nothing left to do together."""
    global _joined
    import torch

    if _joined is not None and _joined._owns_group:
        torch.distributed.destroy_process_group()
    _joined = None


def _leave_unless_failing() -> None:
    if getattr(sys, "last_value", None) is None:
        leave()


def _flat_gradient(parameter: torch.nn.Parameter, device: torch.device) -> torch.Tensor:
    gradient = parameter.grad
    if gradient is None:
        return parameter.detach().new_zeros(parameter.numel()).to(device)
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1).to(device)


def _packed(value: Any) -> bytes:
    """JSON that says what there is, and behind it the numbers of its arrays."""
    arrays: list[bytes] = []

    def described(item: Any) -> Any:
        if isinstance(item, (np.ndarray, np.generic)):
            array = np.asarray(item)
            assert not array.dtype.hasobject, "only plain numbers and texts are told to other processes"
            arrays.append(array.tobytes())
            return {"array": array.dtype.str, "shape": array.shape}
        if isinstance(item, dict):
            return {"dict": {name: described(entry) for name, entry in item.items()}}
        if isinstance(item, (list, tuple)):
            return {"tuple" if isinstance(item, tuple) else "list": [described(entry) for entry in item]}
        return item

    head = json.dumps(described(value)).encode()
    return b"".join([len(head).to_bytes(8, "little"), head, *arrays])


def _unpacked(data: bytes) -> Any:
    start = 8 + int.from_bytes(data[:8], "little")
    place = start

    def made(item: Any) -> Any:
        nonlocal place
        if not isinstance(item, dict):
            return item
        if "array" in item:
            kind, shape = np.dtype(item["array"]), tuple(item["shape"])
            count = int(np.prod(shape))
            array = np.frombuffer(data, kind, count, place).reshape(shape).copy()
            place += count * kind.itemsize
            return array
        if "dict" in item:
            return {name: made(entry) for name, entry in item["dict"].items()}
        (kind, entries), *_ = item.items()
        found = [made(entry) for entry in entries]
        return tuple(found) if kind == "tuple" else found

    return made(json.loads(data[8:start]))
