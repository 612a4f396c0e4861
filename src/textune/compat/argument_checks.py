"""What can be wrong with `TrainingArguments`, each problem one sentence; all are found at once."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np

from textune.compat.argument_fields import BY_METRIC, NO_EFFECT, REFUSED
from textune.compat.argument_table import Argument, arguments_table
from textune.errors import did_you_mean

_WORDS: dict[type, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a dict",
    type(None): "None",
}
_STEPS = ("logging_steps", "eval_steps", "save_steps")


def problems_of(values: dict[str, Any]) -> list[str]:
    """All that is wrong, in the order of the fields, then what contradicts itself.

    Args:
        values: field name -> value, for all fields of the table.
    """
    wrong = {name: list(wrong_value(name, value)) for name, value in values.items()}
    # With its default in the place of a wrong value, the rest can still be looked at.
    sound = {name: arguments_table()[name].default if wrong[name] else value for name, value in values.items()}
    return [*(problem for problems in wrong.values() for problem in problems), *contradictions(sound)]


def wrong_value(name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value by itself: of another type, out of bounds, unknown or refused."""
    row = arguments_table()[name]
    if row.status == REFUSED:
        if not _is_off(value, row):
            yield f"{name}={_shown(value)}: textune does not have it. {row.decision.text}"
    elif not _has_type(value, row.types):
        expected = " or ".join(_WORDS[kind] for kind in row.types)
        yield f"{name}: expected {expected}, found {value!r}."
    else:
        yield from _out_of_bounds(name, value, row)


def contradictions(values: dict[str, Any]) -> Iterator[str]:
    """Fields that are right by themselves and wrong together. Their types must have been checked."""
    yield from _wrong_intervals(values)
    yield from _wrong_best_model(values)
    if values["gradient_checkpointing"] != values["activation_checkpointing"]:
        # Construction makes them equal, so one was assigned afterwards.
        yield "gradient_checkpointing and activation_checkpointing differ: assign activation_checkpointing."
    for first, second in (("fp16", "bf16"), ("fp16_full_eval", "bf16_full_eval")):
        if values[first] and values[second]:
            yield f"{first} and {second} are both True; choose one of them."
    if values["enable_jit_checkpoint"] and values["save_only_model"]:
        yield (
            "enable_jit_checkpoint=True saves a checkpoint to go on from, and save_only_model=True keeps nothing to go "
            "on from; leave out one of them."
        )
    workers = values["dataloader_num_workers"]
    for name in ("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_persistent_workers"):
        if not workers and values[name]:
            yield f"{name}={values[name]!r} needs dataloader_num_workers of at least 1, found {workers}."
    warmup = values["warmup_steps"]
    if warmup > 1 and warmup != int(warmup):
        yield f"warmup_steps: expected a whole number of steps or a share below 1, found {warmup}."


def without_effect(values: dict[str, Any]) -> Iterator[str]:
    """One sentence for each field that was given and changes nothing."""
    for name, value in values.items():
        row = arguments_table()[name]
        if row.status == NO_EFFECT and value != row.default:
            yield f"{name}={_shown(value, secret=name.endswith('_token'))} changes nothing: {row.decision.text}."


def _is_off(value: Any, row: Argument) -> bool:
    """Whether it asks for nothing: `fsdp=""`, `deepspeed=False`, `debug=[]`."""
    if row.default is True:
        return value is None or bool(value)
    return value is None or value is False or value in ("", [], {}) or bool(value == row.default)


def _shown(value: Any, *, secret: bool = False) -> str:
    return "..." if secret else repr(value.value if isinstance(value, Enum) else value)


def _has_type(value: Any, types: tuple[type, ...]) -> bool:
    if value is None:
        return type(None) in types
    if isinstance(value, (bool, np.bool_)):
        return bool in types
    if isinstance(value, numbers.Integral):
        return int in types or float in types or (bool in types and value in (0, 1))
    if isinstance(value, numbers.Real):
        return float in types
    return isinstance(value, tuple(types)) or (list in types and isinstance(value, tuple))


def _out_of_bounds(name: str, value: Any, row: Argument) -> Iterator[str]:
    decision = row.decision
    if decision.choices and value is not None and not isinstance(value, bool):
        chosen = list(value) if isinstance(value, (list, tuple)) else [value]
        for item in chosen:
            if item not in decision.choices:
                listed = ", ".join(repr(choice) for choice in decision.choices)
                near = did_you_mean(str(item), decision.choices)
                yield f"{name}: expected one of {listed}, found {_shown(item)}.{near} {decision.instead}".strip()
    if isinstance(value, (int, float, np.number)):
        bounds = []
        if decision.low is not None and not value >= decision.low:
            bounds.append(f"at least {decision.low}")
        if decision.below is not None and not value < decision.below:
            bounds.append(f"less than {decision.below}")
        if not bounds and not math.isfinite(value):
            bounds.append("a finite number")
        if bounds:
            yield f"{name}: expected {' and '.join(bounds)}, found {value}."


def _wrong_intervals(values: dict[str, Any]) -> Iterator[str]:
    for name in _STEPS:
        strategy, steps = name.replace("steps", "strategy"), values[name]
        if values[strategy] != "steps":
            continue
        if not steps:
            yield f"{strategy}='steps' needs {name} above 0, found {steps}."
        elif steps > 1 and steps != int(steps):
            yield f"{name}: expected a whole number of steps or a share below 1, found {steps}."


def _wrong_best_model(values: dict[str, Any]) -> Iterator[str]:
    evaluate, save = values["eval_strategy"], values["save_strategy"]
    if values["lr_scheduler_type"] == BY_METRIC and evaluate == "no":
        yield f"lr_scheduler_type={BY_METRIC!r} needs an eval_strategy that is not 'no': it follows a metric."
    if save == "best" and evaluate == "no":
        yield "save_strategy='best' needs an eval_strategy that is not 'no': without evaluations none is the best."
    if not values["load_best_model_at_end"] or save == "best":
        return
    if evaluate == "no":
        yield "load_best_model_at_end=True needs an eval_strategy that is not 'no': otherwise none is known to be best."
    elif evaluate != save:
        yield (
            f"load_best_model_at_end=True needs eval_strategy and save_strategy to be the same, or "
            f"save_strategy='best'; found {_shown(evaluate)} and {_shown(save)}."
        )
    elif evaluate == "steps" and values["eval_steps"] and values["save_steps"]:
        yield from _wrong_multiple(values["eval_steps"], values["save_steps"])


def _wrong_multiple(eval_steps: float, save_steps: float) -> Iterator[str]:
    start = "load_best_model_at_end=True needs save_steps to be a multiple of eval_steps"
    if (eval_steps < 1) != (save_steps < 1):
        yield f"{start}; a share of all steps and a number of steps cannot be compared: {save_steps} and {eval_steps}."
    elif not math.isclose(save_steps / eval_steps, round(save_steps / eval_steps), rel_tol=1e-9) or (
        save_steps < eval_steps
    ):
        yield f"{start}; found save_steps={save_steps} and eval_steps={eval_steps}."
