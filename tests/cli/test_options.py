from __future__ import annotations

import click
import pytest

from textune.cli.evaluate import evaluate
from textune.cli.inspect import inspect
from textune.cli.options import near_flags
from textune.cli.predict import predict
from textune.cli.train import train
from textune.config import EVALUATE_OPTIONS, INSPECT_OPTIONS, SHORT_NAMES


def flags_of(command: click.Command) -> dict[str, click.Option]:
    return {parameter.opts[0]: parameter for parameter in command.params if isinstance(parameter, click.Option)}


def test_every_short_name_is_a_flag_of_train() -> None:
    flags = flags_of(train)
    assert {f"--{name.replace('_', '-')}" for name in SHORT_NAMES} < set(flags)
    assert set(flags) - {f"--{name.replace('_', '-')}" for name in SHORT_NAMES} == {
        "--epochs",
        "--config",
        "--set",
        "--resume",
        "--from",
        "--allow-changes",
        "--quiet",
        "--json",
    }


def test_evaluate_takes_what_the_function_takes() -> None:
    flags = set(flags_of(evaluate)) - {"--data", "--batch-size", "--device", "--precision", "--quiet", "--json"}
    assert flags == {f"--{name.replace('_', '-')}" for name in EVALUATE_OPTIONS}


def test_inspect_takes_what_the_function_takes() -> None:
    assert {f"--{name.replace('_', '-')}" for name in INSPECT_OPTIONS} < set(flags_of(inspect))


@pytest.mark.parametrize(
    ("command", "unknown", "flags"),
    [
        (train, "--lr", ["--learning-rate"]),
        (train, "--report-to", ["--tracker"]),
        (train, "--report_to", ["--tracker"]),
        (train, "--batch_size", ["--batch-size"]),
        (train, "--num-train-epochs", ["--epochs"]),
        (train, "--gradient-accumulation-steps", ["--accumulation"]),
        (train, "--label-smoothing", ["--set training.label_smoothing=VALUE"]),
        (train, "--save_steps", ["--set checkpoint.every=VALUE"]),
        (train, "--every", ["--evaluate-every", "--set checkpoint.every=VALUE"]),
        (predict, "--bs", ["--batch-size"]),
        (predict, "--output-dir", ["--output"]),
        (predict, "--lr", []),
        (evaluate, "--label-smoothing", []),
        (train, "--zzz", []),
    ],
)
def test_flags_of_other_tools(command: click.Command, unknown: str, flags: list[str]) -> None:
    assert near_flags(unknown, command) == flags


def test_flags_that_mean_something_else_than_in_training() -> None:
    for flag in ("--text", "--text-pair", "--label"):
        assert str(flags_of(evaluate)[flag].help).endswith("that of training when not given.")
    assert str(flags_of(inspect)["--seed"].help).startswith("Seed of the folds of --label-errors.")


@pytest.mark.parametrize(
    ("flag", "metavar", "words"),
    [
        ("--schedule", "linear|cosine|constant", "[default: linear]"),
        ("--problem-type", "single_label_classification|multi_label_classification|regression", "kind of label"),
        ("--warmup", "DURATION", "[default: 0steps]"),
        ("--batch-size", "N", "[default: 8]"),
        ("--learning-rate", "X", "[default: 5e-05]"),
        ("--max-length", "N", "Tokens kept per example"),
        ("--device", "TEXT", "[default: auto]"),
        ("--validation", "PATH", "validation rows"),
        ("--text", "TEXT", "found by its name"),
    ],
)
def test_flags_are_described_as_in_the_configuration(flag: str, metavar: str, words: str) -> None:
    option = flags_of(train)[flag]
    assert option.metavar == metavar
    assert words in str(option.help)
    assert "`" not in str(option.help)


def test_switches_take_no_value() -> None:
    assert {flag for flag, option in flags_of(train).items() if option.is_flag} == {
        "--drop-bad-rows",
        "--overwrite",
        "--allow-changes",
        "--compile",
        "--quiet",
        "--json",
    }
