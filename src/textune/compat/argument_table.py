"""`TrainingArguments` as a table, a row per name of any release: for checks, class and migration guide."""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from typing import Any

from textune.compat.argument_fields import HONOURED, ArgumentFields, Decision, Status

FIRST_OLDER_FIELD = "overwrite_output_dir"
"""Where the fields of transformers 5.23 end and those that only earlier releases had begin."""


@dataclass(frozen=True)
class Argument:
    """One field of `TrainingArguments`.

    Attributes:
        name: as in transformers.
        default: its value when not given.
        types: what its value may be; bool, int, float, str, list, dict or NoneType.
        decision: what textune does with it.
        older: transformers 5.23 has it no more.
    """

    name: str
    default: Any
    types: tuple[type, ...]
    decision: Decision
    older: bool

    @property
    def status(self) -> Status:
        return self.decision.status


@dataclass(frozen=True)
class Renamed:
    """A name of an earlier release that means one of today's.

    Attributes:
        name: the older name.
        new: today's name.
        default: what it is when not given.
        text: how its value becomes today's.
        alias: today's field takes its values as they are, so that a command line may use either name.
    """

    name: str
    new: str
    default: Any = None
    text: str = "The same values."
    alias: bool = True


RENAMED: dict[str, Renamed] = {
    row.name: row
    for row in (
        Renamed("evaluation_strategy", "eval_strategy"),
        Renamed("per_gpu_train_batch_size", "per_device_train_batch_size"),
        Renamed("per_gpu_eval_batch_size", "per_device_eval_batch_size"),
        Renamed("no_cuda", "use_cpu", default=False),
        Renamed("xpu_backend", "ddp_backend"),
        Renamed("warmup_ratio", "warmup_steps", default=0.0, text="A share of all steps; `warmup_steps` goes first."),
        Renamed(
            "evaluate_during_training",
            "eval_strategy",
            default=False,
            text="True: `eval_strategy='steps'`.",
            alias=False,
        ),
        Renamed(
            "group_by_length",
            "train_sampling_strategy",
            default=False,
            text="True: `train_sampling_strategy='group_by_length'`.",
            alias=False,
        ),
        Renamed("adafactor", "optim", default=False, text="True: `optim='adafactor'`.", alias=False),
        Renamed(
            "include_inputs_for_metrics",
            "include_for_metrics",
            default=False,
            text="True: `include_for_metrics=['inputs']`.",
            alias=False,
        ),
    )
}


@functools.cache
def arguments_table() -> dict[str, Argument]:
    """Every field by name, in the order of `TrainingArguments`."""
    hints = typing.get_type_hints(ArgumentFields, include_extras=True)
    rows: dict[str, Argument] = {}
    older = False
    for field in dataclasses.fields(ArgumentFields):
        older = older or field.name == FIRST_OLDER_FIELD
        annotated, decision = typing.get_args(hints[field.name])
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        rows[field.name] = Argument(field.name, default, _plain_types(annotated), decision, older)
    return rows


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """`dict[str, Any] | str | None` -> (dict, str, NoneType)"""
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return (annotation,)
    if origin in (list, dict):
        return (origin,)
    if origin is typing.Literal:
        return tuple(type(value) for value in typing.get_args(annotation))
    return tuple(kind for part in typing.get_args(annotation) for kind in _plain_types(part))


def known_names() -> list[str]:
    """All names that `TrainingArguments` takes, today's and older ones."""
    return [*arguments_table(), *RENAMED]


def markdown_table() -> str:
    """The table of the migration guide: name, default, what textune does with it."""
    lines = ["| argument | default | in textune |", "|---|---|---|"]
    for row in arguments_table().values():
        lines.append(f"| `{row.name}` | `{row.default!r}` | {_in_words(row)} |")
    for renamed in RENAMED.values():
        lines.append(f"| `{renamed.name}` | `{renamed.default!r}` | `{renamed.new}`. {renamed.text} |")
    return "\n".join(lines) + "\n"


def _in_words(row: Argument) -> str:
    decision = row.decision
    words = decision.text if row.status == HONOURED else f"**{row.status}**: {decision.text}"
    if decision.choices:
        words = f"{words} Values: {', '.join(f'`{choice}`' for choice in decision.choices)}."
    return f"{words} {decision.instead}".strip() if decision.instead else words
