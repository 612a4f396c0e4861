"""From YAML, flags and `--set a.b=v` to a `Config`, with every mistake found in one go; and back to YAML."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from textune import config as config_module
from textune.config import FOREIGN_NAMES, Config, flag_of
from textune.durations import Duration
from textune.errors import ConfigError, InputNotFoundError, did_you_mean, nearest
from textune.files import user_path
from textune.problem_types import SINGLE_LABEL

MAX_FILE_BYTES = 1 << 20
_MOST_PROBLEMS = 50
_LARGEST = 2**63 - 1
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("more than", operator.gt),
    "below": ("less than", operator.lt),
}


def read_config(path: str | Path | None = None, settings: Mapping[str, Any] | None = None) -> Config:
    """Builds the configuration from a YAML file, overridden by dotted settings such as {"training.seed": 1}.

    Args:
        path: a YAML file with the sections of `Config`; what it does not name keeps its default.
        settings: dotted names and values; a text is read as YAML reads a scalar where a number or flag is expected.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: names that do not exist or values that do not fit, all of them, with the nearest known name.
    """
    problems: list[str] = []
    values = {} if path is None else _flatten_file(user_path(path), problems)
    values.update(settings or {})
    return _build(values, problems)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Splits a `--set` argument, "training.seed=1", into name and value.

    The value stays the text it is, which the option's type then reads, unless YAML makes a list, null or a quoted text
    of it: a label column called 007 keeps its name.

    Raises:
        ConfigError: there is no "=".
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"--set: expected NAME=VALUE, as training.seed=1, found {text!r}.")
    try:
        loaded = _Loader(value).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, ArithmeticError):
        return name.strip(), value
    quoted = value.strip()[:1] in {"'", '"'}
    return name.strip(), loaded if quoted or loaded is None or isinstance(loaded, list) else value.strip()


def flat_options(config: Config) -> dict[str, Any]:
    """The configuration as {"training.seed": 42, ...}."""
    return {
        f"{section.name}.{name}": value
        for section in dataclasses.fields(config)
        for name, value in dataclasses.asdict(getattr(config, section.name)).items()
    }


def plain_options(config: Config) -> dict[str, Any]:
    """As `flat_options`, with lists as JSON has them in the place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat_options(config).items()}


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """The configuration as nested plain values, for YAML and JSON."""
    return {
        section.name: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(getattr(config, section.name)).items()
        }
        for section in dataclasses.fields(config)
    }


def to_yaml(config: Config, *, explained: bool = False) -> str:
    """The configuration as YAML that `read_config` takes back; with `explained`, each option's meaning above it."""
    if not explained:
        return _dump(to_dict(config))
    lines: list[str] = []
    for section, values in to_dict(config).items():
        kind = type(getattr(config, section))
        lines += ["", f"# {inspect.getdoc(kind)}", f"{section}:"]
        for key, value in values.items():
            lines += [f"  # {explanations()[f'{section}.{key}']}", f"  {key}: {value_yaml(value)}"]
    return "\n".join(lines[1:]) + "\n"


def value_yaml(value: Any) -> str:
    """A plain value as a configuration file has it behind an option's name."""
    return _dump(value, default_flow_style=True).removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    """YAML with each text on one line: PyYAML does not read every line break back as it wrote it."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _dump(value: Any, *, default_flow_style: bool = False) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=default_flow_style,
        sort_keys=False,
        allow_unicode=True,
        width=MAX_FILE_BYTES,
    )
    return text


@cache
def explanations() -> dict[str, str]:
    """The text under each option in `textune.config`, by dotted name."""
    classes = {field.type: field.name for field in dataclasses.fields(Config)}
    texts: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(config_module)).body:
        if not isinstance(node, ast.ClassDef) or node.name not in classes:
            continue
        for target, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(target, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(target.target, ast.Name)
                texts[f"{classes[node.name]}.{target.target.id}"] = ast.literal_eval(text.value)
    return texts


@cache
def option_fields() -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Every option by dotted name, with its dataclass field and its resolved type."""
    known: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for section, kind in typing.get_type_hints(Config).items():
        hints = typing.get_type_hints(kind)
        known |= {f"{section}.{field.name}": (field, hints[field.name]) for field in dataclasses.fields(kind)}
    return known


def without_none(kind: Any) -> Any:
    """The X of `X | None`, and any other type as it is."""
    # `Literal[...] | None` is a typing.Union, other unions are types.UnionType before Python 3.14.
    if typing.get_origin(kind) not in {types.UnionType, typing.Union}:
        return kind
    return next(option for option in typing.get_args(kind) if option is not types.NoneType)


def _flatten_file(path: Path, problems: list[str]) -> dict[str, Any]:
    tree = _load_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `training:`, found a {type(tree).__name__}.")
    values: dict[str, Any] = {}
    sections = [field.name for field in dataclasses.fields(Config)]
    for section, options in tree.items():
        if section not in sections:
            near = did_you_mean(str(section), sections) if len(problems) < _MOST_PROBLEMS else ""
            problems.append(f"{path}: there is no section {section!r}.{near} The sections are {', '.join(sections)}.")
        elif options is not None and not isinstance(options, dict):
            problems.append(f"{path}: expected options under `{section}:`, found {options!r}.")
        else:
            values |= {f"{section}.{key}": value for key, value in (options or {}).items()}
    return values


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which may expand a small file to gigabytes, without tags, which claim that a value is what
    it is not, and without names that silently win."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="YAML aliases (*name) are not allowed in a configuration")
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            message = f"YAML tags ({event.tag}) are not allowed in a configuration"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                message = f"{key.value!r} is given twice"
                raise yaml.MarkedYAMLError(problem=message, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def _load_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: expected a configuration of at most 1 MiB; this file is larger.")
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.name = path.name  # what messages call it
        return loader.get_single_data()
    except FileNotFoundError as error:
        raise InputNotFoundError(f"There is no configuration file {str(path)!r}.") from error
    except OSError as error:
        raise InputNotFoundError(f"Cannot read the configuration {str(path)!r}: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{path}: expected YAML; it cannot be read: {error}") from error


def _build(values: Mapping[str, Any], problems: list[str]) -> Config:
    sections: dict[str, dict[str, Any]] = {field.name: {} for field in dataclasses.fields(Config)}
    for name, value in values.items():
        if name not in option_fields():
            near = _suggest(name) if len(problems) < _MOST_PROBLEMS else ""
            problems.append(f"There is no option {name!r}.{near}")
            continue
        field, kind = option_fields()[name]
        try:
            section, key = name.split(".")
            sections[section][key] = _convert(value, kind, field.metadata)
        except ValueError as error:
            problems.append(f"{flag_of(name)}: {error}{'' if str(error).endswith(('.', '?')) else '.'}")
    hints = typing.get_type_hints(Config)
    config = Config(**{section: hints[section](**options) for section, options in sections.items()})
    problems += _check_together(config)
    if problems:
        if len(problems) > _MOST_PROBLEMS:
            problems[_MOST_PROBLEMS:] = [f"And {len(problems) - _MOST_PROBLEMS:,} mistakes more."]
        raise ConfigError(problems, hint="`textune config` prints every option with its meaning and default.")
    return config


def _suggest(name: str) -> str:
    """The nearest full name, also when the section was left out or was the wrong one, or the name another tool's."""
    section, _, key = name.rpartition(".")
    keys = {known: known.rpartition(".")[2] for known in option_fields()}
    meant = key if key in keys.values() else nearest(key, keys.values())
    candidates = [FOREIGN_NAMES[key]] if key in FOREIGN_NAMES else [known for known in keys if keys[known] == meant]
    candidates.sort(key=lambda known: not known.startswith(f"{section}."))
    return f" Did you mean {candidates[0]!r}?" if candidates else ""


def _convert(value: Any, kind: Any, metadata: Mapping[str, Any]) -> Any:
    """Checks `value` against the option's type and bounds.

    Raises:
        ValueError: it does not fit; the message says what was expected and found.
    """
    plain = without_none(kind)
    if value is None and plain is not kind:
        return None
    kind, options = plain, typing.get_args(plain)
    if typing.get_origin(kind) is Literal:
        if value not in options:
            raise ValueError(f"expected {_either(options)}, found {value!r}.{did_you_mean(str(value), options)}")
        return value
    if typing.get_origin(kind) is tuple:
        items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not items:
            raise ValueError(f"expected a list, as [a, b] or a,b, found {value!r}")
        return tuple(_convert(item, options[0], {}) for item in items)
    if kind is bool:
        value = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, found {value!r}")
        return value
    if kind is str:
        return _convert_text(value, metadata)
    return _convert_number(value, kind, metadata)


def _convert_text(value: Any, metadata: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        raise ValueError(f"expected a text, found {value!r}; YAML reads yes, no, on and off so unless they are quoted")
    if isinstance(value, (dict, list, tuple)) or value is None:
        raise ValueError(f"expected a text, found {value!r:.60}")
    text = str(value)
    if metadata.get("duration"):
        Duration.parse(text, by_clock=metadata["by_clock"])
    return text


def _convert_number(value: Any, kind: type, metadata: Mapping[str, Any]) -> int | float:
    noun = "a whole number" if kind is int else "a number"
    if isinstance(value, str):  # YAML 1.1 reads 5e-5 as a text
        try:
            value = float(value) if kind is float else int(value)
        except ValueError:
            raise ValueError(f"expected {noun}, found {value!r}") from None
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"expected {noun}, found {value!r}")
    if kind is int and value != int(value):
        raise ValueError(f"expected {noun}, found {value!r}")
    for name, bound in metadata.items():
        words, holds = _BOUNDS[name]
        if not holds(value, bound):
            raise ValueError(f"expected {noun} {words} {bound:g}, found {value!r}")
    return int(value) if kind is int else float(value)


def _either(options: Iterable[Any]) -> str:
    return " or ".join(repr(option) for option in options)


def _check_together(config: Config) -> list[str]:
    """Mistakes that a type alone does not show, or only two options side by side."""
    problems = []
    if config.tokens.pad_to_max_length and config.tokens.max_length is None:
        problems.append(f"tokens.pad_to_max_length needs {flag_of('tokens.max_length')}: the length to pad to.")
    training = config.training
    length = Duration.parse(training.duration)
    if length.unit == "percent" or length.value == 0:
        problems.append(
            f"{flag_of('training.duration')}: expected epochs, steps or examples above 0, found {training.duration!r}."
        )
    intervals = {
        "training.log_every": training.log_every,
        "evaluation.every": config.evaluation.every,
        "checkpoint.every": config.checkpoint.every,
    }
    problems += [
        f"{flag_of(name)}: expected an interval above 0, found {text!r}."
        for name, text in intervals.items()
        if Duration.parse(text, by_clock=True).value == 0
    ]
    freeze = config.model.freeze
    if freeze is not None and freeze not in {"embeddings", "encoder"} and not freeze.isdecimal():
        problems.append(f"model.freeze: expected 'embeddings', 'encoder' or a number of layers, found {freeze!r}.")
    weights = training.class_weights
    if weights is not None and weights != "balanced":
        problems += _check_weights(weights)
    if training.label_smoothing and config.data.problem_type not in {None, SINGLE_LABEL}:
        problems.append(f"training.label_smoothing works with single labels only, not with {config.data.problem_type}.")
    return problems + _check_repeats(config)


def _check_repeats(config: Config) -> list[str]:
    problems = []
    folds, fold, seeds = config.data.folds, config.data.fold, config.run.seeds
    if fold is not None and (folds is None or fold > folds):
        problems.append(f"data.fold: expected a number from 1 to data.folds ({folds}), found {fold}.")
    if folds is not None and seeds is not None:
        problems.append("--seeds and --cv: choose one; for another seed of the folds say --cv again with --seed.")
    if folds is not None and fold is None and config.evaluation.patience is not None:
        problems.append("--patience would stop by the rows that are to measure it: with --cv say how long to train.")
    if seeds is not None and config.training.seed + seeds > _LARGEST:
        option = flag_of("training.seed")
        problems.append(f"{option}: {seeds} seeds from {config.training.seed} on go beyond {_LARGEST}.")
    return problems


def _check_weights(weights: str) -> list[str]:
    try:
        numbers = [float(item) for item in weights.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) and number >= 0 for number in numbers) or sum(numbers) == 0:
        option = flag_of("training.class_weights")
        return [f"{option}: expected 'balanced' or numbers as 1,2.5, found {weights!r}."]
    return []
