"""`TrainingArguments`: the fields and defaults of `transformers.TrainingArguments`, without accelerate.

What each field does here is decided in `textune.compat.argument_fields`. A field that textune does not have is refused
by name with what to use instead; one that changes nothing here is said in a log line. None is ignored in silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import logging
import math
import os
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.compat.argument_checks import problems_of, without_effect
from textune.compat.argument_fields import BY_METRIC, TRACKERS
from textune.compat.argument_setters import ArgumentSetters
from textune.compat.argument_table import RENAMED, Renamed, arguments_table, known_names
from textune.environment import find_device
from textune.errors import ConfigError, did_you_mean
from textune.training.parallel import Processes, join

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

_PATHS = ("output_dir", "logging_dir", "resume_from_checkpoint")
_BARE_FLAGS = ("activation_checkpointing", "gradient_checkpointing")
"""None by default, and True where a command line has the name without a value."""
_WAY_OUT = "Leave it out, or use bf16=True (bf16_full_eval=True), which the CPU has too."
_OLD_GPU = "Leave it out, or use fp16=True."
_DICTS = tuple(name for name, row in arguments_table().items() if dict in row.types)


class _TakesOlderNames(type):
    """Turns names of earlier releases into today's before the class is called.

    It is not done in `__init__`, because a subclass made with `@dataclass` has an `__init__` of its own.
    """

    def __call__(cls, *positional: Any, **values: Any) -> Any:
        problems, values = _translated(cls, {name: _plain(value) for name, value in values.items()})
        try:
            arguments = super().__call__(*positional, **values)
        except ConfigError as error:
            raise ConfigError([*problems, *error.problems]) from None
        if problems:
            raise ConfigError(problems)
        return arguments


def _plain(value: Any) -> Any:
    """Python's own numbers in the place of NumPy's, which pass for numbers and which JSON does not take."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: _plain(item) for name, item in value.items()}
    return value


def _translated(cls: type, values: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The same values under today's names, and what is wrong with the names."""
    problems: list[str] = []
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    today = {name: value for name, value in values.items() if takes_all or name in parameters}
    for name, value in values.items():
        if name in RENAMED:
            today.pop(name, None)
            problems += _take_older(RENAMED[name], value, today)
        elif name not in today:
            near = did_you_mean(name, known_names())
            problems.append(f"TrainingArguments has no argument {name!r}.{near}")
    return problems, today


def _take_older(row: Renamed, value: Any, today: dict[str, Any]) -> list[str]:
    """Puts the value of an older name into `today`; returns what contradicts it."""
    if value is None or (value == row.default and isinstance(value, type(row.default))):
        return []
    default = arguments_table()[row.new].default
    meant = _as_today(row, value, today.get(row.new, default))
    given = today.get(row.new, default)
    if row.name == "warmup_ratio":
        if not (isinstance(value, (int, float)) and 0 <= value < 1):
            return [f"warmup_ratio: expected at least 0 and less than 1, found {value!r}."]
        if given:
            _logger.warning("warmup_steps=%s is used, not warmup_ratio=%s.", given, value)
            return []
    if row.new != "include_for_metrics" and given not in (default, meant):
        return [f"{row.name}={value!r} and {row.new}={given!r} contradict each other; leave out {row.name}."]
    today[row.new] = meant
    return []


def _as_today(row: Renamed, value: Any, given: Any) -> Any:
    if row.alias:
        return value
    default = arguments_table()[row.new].default
    if row.new == "include_for_metrics":
        others = [item for item in given if item != "inputs"]
        return [*others, "inputs"] if value else others
    meant = {"eval_strategy": "steps", "train_sampling_strategy": "group_by_length", "optim": "adafactor"}[row.new]
    return meant if value else default


@dataclasses.dataclass(repr=False)
class TrainingArguments(ArgumentSetters, metaclass=_TakesOlderNames):
    """What `Trainer` is told: fields, defaults and computed attributes as in transformers 5.23.

    The names of all earlier releases are taken as well (`evaluation_strategy`, `no_cuda`, ...). Attributes may be
    assigned afterwards; `check()` looks at them again, and the Trainer calls it.

    Raises:
        ConfigError: with all problems at once: unknown names, wrong values, refused fields, contradictions, and
            arithmetic that this machine does not have.
    """

    # The metric that greater_is_better was derived from; "" where it was given. Without annotation it is no field.
    _derived_from = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "greater_is_better":
            self.__dict__.pop("_derived_from", None)
        super().__setattr__(name, _plain(value))

    def __post_init__(self) -> None:
        problems = self._read_json()
        for name in _PATHS:
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                setattr(self, name, os.fspath(value))
        if self.use_cpu:
            self.dataloader_pin_memory = False
        if self.world_size > 1:
            self.local_rank = self.local_process_index
        self._complete()
        problems += self._problems()
        if problems:
            raise ConfigError(problems)
        if self.should_log:
            for note in self.notes:
                _logger.warning(note)
        self._use_enums()

    def check(self) -> None:
        """Looks at all fields as they are now, and settles the metric that those assigned since construction need.

        Raises:
            ConfigError: as at construction.
        """
        self._complete_metric()
        if problems := self._problems():
            raise ConfigError(problems)
        self._use_enums()

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each field that was given and changes nothing."""
        return tuple(without_effect(self._values()))

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in arguments_table()}

    def _problems(self) -> list[str]:
        return [*problems_of(self._values()), *self._missing_arithmetic()]

    def _read_json(self) -> list[str]:
        """Command lines give dicts as JSON."""
        problems = []
        for name in _DICTS:
            value = getattr(self, name)
            if isinstance(value, str) and value.startswith("{"):
                try:
                    setattr(self, name, json.loads(value))
                except ValueError as error:
                    problems.append(f"{name}: expected an object in JSON, found {value!r} ({error}).")
        return problems

    def _complete(self) -> None:
        """Fills what follows from other fields, as transformers does."""
        if self.output_dir is None:
            self.output_dir = "trainer_output"
        if isinstance(self.output_dir, str):
            # Or os.makedirs("~/out") would make a folder called ~.
            self.output_dir = os.path.expanduser(self.output_dir)  # noqa: PTH111 - stays text
        for older, new in (
            ("gradient_checkpointing", "activation_checkpointing"),
            ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
        ):
            if getattr(self, new) is None:
                setattr(self, new, getattr(self, older))
            setattr(self, older, getattr(self, new))
        if self.activation_checkpointing is None:
            self.activation_checkpointing = self.gradient_checkpointing = False
        if isinstance(self.include_num_input_tokens_seen, bool):
            self.include_num_input_tokens_seen = "all" if self.include_num_input_tokens_seen else "no"
        if self.report_to in (None, "none", ["none"]):
            self.report_to = []
        elif self.report_to in ("all", ["all"]):
            self.report_to = [name for name in TRACKERS if importlib.util.find_spec(name) is not None]
        elif isinstance(self.report_to, str):
            self.report_to = [self.report_to]
        self.debug = self.debug or []
        if self.eval_strategy != "no":
            self.do_eval = True
        if self.eval_strategy == "steps" and not self.eval_steps:
            self.eval_steps = self.logging_steps
        self._complete_metric()
        if self.disable_tqdm is None:
            from transformers.utils import logging as transformers_logging

            self.disable_tqdm = transformers_logging.get_verbosity() > logging.WARNING

    def _complete_metric(self) -> None:
        """Fills which metric decides, where one is needed, and whether more of it is better."""
        needs_metric = (
            self.load_best_model_at_end or self.lr_scheduler_type == BY_METRIC or self.save_strategy == "best"
        )
        if needs_metric and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        metric = self.metric_for_best_model
        is_outdated = self._derived_from not in ("", metric)
        if isinstance(metric, str) and (self.greater_is_better is None or is_outdated):
            self.greater_is_better = not metric.endswith("loss")
            self._derived_from = metric

    def _settle(self) -> None:
        self._complete()
        self._use_enums()

    def _use_enums(self) -> None:
        """Strategies become transformers' enums, which are equal to their text, and `optim` becomes text."""
        from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

        self.eval_strategy = IntervalStrategy(self.eval_strategy)
        self.logging_strategy = IntervalStrategy(self.logging_strategy)
        self.save_strategy = SaveStrategy(self.save_strategy)
        self.lr_scheduler_type = SchedulerType(self.lr_scheduler_type)
        if isinstance(self.optim, Enum):
            self.optim = self.optim.value
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(self, name)
            if steps is not None and steps >= 1:
                setattr(self, name, int(steps))

    def _missing_arithmetic(self) -> list[str]:
        """Arithmetic that was asked for and that the device does not have. Looks at the device only if need be."""
        asked = [name for name in ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32") if getattr(self, name)]
        if not asked and self.ddp_backend != "nccl":
            return []
        import torch

        device = find_device("cpu" if self.use_cpu else "auto")
        if device.type != "cuda":
            needy = [f"{name}=True" for name in asked if not name.startswith("bf16")]
            problems = [f"{name} needs a CUDA GPU; this runs on {device.type!r}. {_WAY_OUT}" for name in needy]
            if self.ddp_backend == "nccl":
                problems.append(f"ddp_backend='nccl' needs CUDA GPUs; this runs on {device.type!r}. Leave it out.")
            return problems
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return []
        gpu, newer = torch.cuda.get_device_name(device), [name for name in asked if not name.startswith("fp16")]
        return [f"{name}=True needs an Ampere GPU or a newer one; this is {gpu}. {_OLD_GPU}" for name in newer]

    # ---- What follows from the fields and the machine ----

    @property
    def processes(self) -> Processes:
        """This process among those that torchrun started; connects to them when it is first asked for.

        Raises:
            ConfigError, TrainingError: see `textune.training.parallel.join`.
        """
        return join(backend=self.ddp_backend, timeout=self.ddp_timeout_delta)

    @property
    def device(self) -> torch.device:
        """Where this process computes.

        Raises:
            ConfigError: there are more processes than GPUs.
        """
        import torch

        device = self.processes.device(find_device("cpu" if self.use_cpu else "auto"))
        return torch.device("cuda", self.local_process_index) if device.type == "cuda" else device

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: 0 or 1."""
        return 0 if self.device.type == "cpu" else 1

    @property
    def train_batch_size(self) -> int:
        """Examples of one process in one pass."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Examples one process scores at once."""
        return self.per_device_eval_batch_size

    @property
    def world_size(self) -> int:
        """Number of processes (torchrun's WORLD_SIZE)."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def process_index(self) -> int:
        """Which of all processes this is (torchrun's RANK)."""
        return int(os.environ.get("RANK", "0"))

    @property
    def local_process_index(self) -> int:
        """Which of this machine's processes this is (torchrun's LOCAL_RANK)."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    @property
    def parallel_mode(self) -> Any:
        """transformers' `ParallelMode`: distributed with several processes, otherwise not parallel."""
        from transformers.training_args import ParallelMode

        return ParallelMode.DISTRIBUTED if self.world_size > 1 else ParallelMode.NOT_PARALLEL

    @property
    def should_log(self) -> bool:
        """Whether this process logs."""
        return (self.local_process_index if self.log_on_each_node else self.process_index) == 0

    @property
    def should_save(self) -> bool:
        """Whether this process writes: one of all does."""
        return self.process_index == 0

    @property
    def ddp_timeout_delta(self) -> timedelta:
        return timedelta(seconds=self.ddp_timeout)

    def get_process_log_level(self) -> int:
        """The level that transformers' logger should have in this process."""
        from transformers.utils import logging as transformers_logging

        level = self.log_level if self.should_log else self.log_level_replica
        if level == "passive":
            return int(transformers_logging.get_verbosity())
        return int(transformers_logging.get_log_levels_dict()[level])

    @contextlib.contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """For the preparation of data in scripts: one process goes through the block first, the others then find it.

        Args:
            local: the first process of each machine goes first, not only that of all.
            desc: taken for transformers' sake.
        """
        with self.processes.main_first(local=local):
            yield

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of the linear rise, of this many in all."""
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return math.ceil(num_training_steps * self.warmup_steps)

    # ---- As data ----

    def to_dict(self) -> dict[str, Any]:
        """Field name -> plain value; tokens are hidden. Older fields are in it where they were given."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            row = arguments_table().get(field.name)
            if row is not None and row.older and value == row.default:
                continue
            if isinstance(value, Enum):
                value = value.value
            values[field.name] = f"<{field.name.upper()}>" if field.name.endswith("_token") else value
        return values

    def to_json_string(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """`to_dict` with the batch sizes of a process, and text for all that is no number, text or boolean."""
        values = {
            **self.to_dict(),
            "train_batch_size": self.train_batch_size,
            "eval_batch_size": self.eval_batch_size,
        }
        return {name: value if type(value) in (bool, int, float, str) else str(value) for name, value in values.items()}

    def __repr__(self) -> str:
        lines = "".join(f"{name}={value},\n" for name, value in sorted(self.to_dict().items()))
        return f"{type(self).__name__}(\n{lines})"


class _OlderName:
    """An attribute with an older name that reads and writes today's field."""

    def __init__(self, row: Renamed) -> None:
        self._row = row

    def __get__(self, arguments: TrainingArguments | None, owner: type) -> Any:
        if arguments is None:
            return self
        value = getattr(arguments, self._row.new)
        if self._row.name == "warmup_ratio":
            return value if value < 1 else 0.0
        if self._row.alias:
            return value
        if self._row.new == "include_for_metrics":
            return "inputs" in value
        return value == _as_today(self._row, True, value)

    def __set__(self, arguments: TrainingArguments, value: Any) -> None:
        setattr(arguments, self._row.new, _as_today(self._row, value, getattr(arguments, self._row.new)))


def _describe_fields() -> None:
    """Gives each field the text and the older spellings that `HfArgumentParser` shows and takes."""
    for field in dataclasses.fields(TrainingArguments):
        decision = arguments_table()[field.name].decision
        aliases = [f"--{row.name}" for row in RENAMED.values() if row.alias and row.new == field.name]
        described: dict[str, Any] = {"help": decision.text.replace("%", "%%")}
        if aliases:
            described["aliases"] = aliases
        if field.name in _BARE_FLAGS:
            described |= {"nargs": "?", "const": True}
        field.metadata = MappingProxyType(described)


for _row in RENAMED.values():
    setattr(TrainingArguments, _row.name, _OlderName(_row))
_describe_fields()
