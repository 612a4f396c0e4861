"""Flags made from the configuration, so that each option is described in one place."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal

import click

from textune.config import SHORT_NAMES
from textune.config_reading import explanations, option_fields, without_none
from textune.options import full_names

_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
_FILES = {"data.validation", "data.test", "data.local_copy", "run.output"}
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_flags(names: Iterable[str], **meanings: str) -> Decorator:
    """Adds a flag for each of these short names. Values stay text: the configuration checks them all at once.

    Args:
        meanings: by short name, what an option means here, where that is not what it means for training.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(list(names)):
            function = _flag(name, meanings.get(name))(function)
        return function

    return decorate


def scoring_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of `Predictor.load`: how texts are scored."""
    options = (
        click.option(
            "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Texts scored at once."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="fp32",
            show_default=True,
            help="bf16 is faster on many machines, but moves scores by up to some hundredths; "
            "auto: bf16 where it pays.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def near_flags(unknown: str, command: click.Command) -> list[str]:
    """What the command calls an option that it does not know as `unknown`, but another tool or `textune config` does.

    Hyphens and underscores are alike: "--report_to" is ["--tracker"] here.
    """
    name = unknown.lstrip("-").replace("-", "_")
    flags = {flag for parameter in command.params for flag in parameter.opts}
    if _spelled(name) in flags:
        return [_spelled(name)]
    if name.endswith("epochs") and "--epochs" in flags:
        return ["--epochs"]  # not --duration, which wants a unit
    short_names = {full: _spelled(short) for short, full in SHORT_NAMES.items()}
    near = [short_names.get(full, f"--set {full}=VALUE") for full in full_names(name)]
    return [flag for flag in near if flag.partition(" ")[0] in flags]


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flag(name: str, meaning: str | None) -> Decorator:
    dotted = SHORT_NAMES[name]
    field, kind = option_fields()[dotted]
    text = (meaning or explanations()[dotted]).replace("`", "")
    flags = [_spelled(name), *(["-o"] if name == "output" else [])]
    if kind is bool:
        return click.option(*flags, name, is_flag=True, default=None, help=text)
    if field.default is not None:
        text += f"  [default: {field.default}]"
    return click.option(*flags, name, metavar=_metavar(dotted, kind, field.metadata), help=text)


def _metavar(dotted: str, kind: Any, metadata: typing.Mapping[str, Any]) -> str:
    kind = without_none(kind)
    if typing.get_origin(kind) is Literal:
        return "|".join(str(option) for option in typing.get_args(kind))
    if metadata.get("duration"):
        return "DURATION"
    return "PATH" if dotted in _FILES else _METAVARS.get(kind, "TEXT")
