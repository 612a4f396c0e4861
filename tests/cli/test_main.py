from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from textune import __version__, errors
from textune.cli import main
from textune.cli.main import COMMANDS, EXIT_CODES, cli
from textune.errors import DataError, TextuneError
from textune.run import Run

from .conftest import Textune


def test_help_lists_every_command_and_exit_code(textune: Textune) -> None:
    done = textune("--help")
    assert done.code == 0
    for name, words in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(words)}", done.out, re.MULTILINE), name
    assert "Exit codes:" in done.out


def test_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for code in re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TextuneError)]
    own = {kind.exit_code for kind in kinds}
    by_signal = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)}
    assert listed == {0, errors.EXIT_INTERNAL, errors.EXIT_INTERRUPTED, *own, *by_signal}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(textune: Textune, command: str) -> None:
    done = textune(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: textune {command}")
    assert COMMANDS[command].split(maxsplit=1)[0] in done.out, "begins with the same verb"


def test_every_option_is_explained() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_version(textune: Textune) -> None:
    assert textune("--version").out == f"textune {__version__}\n"


def test_no_command_shows_the_help(textune: Textune) -> None:
    done = textune()
    assert done.code == 2
    assert "Usage: textune" in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "There is no command 'trian'. Did you mean 'train'?"),
        (["--versoin"], "No such option"),
        (["train", "--lerning-rate", "1"], "--learning-rate"),
        (["train", "--lr", "1"], "No such option '--lr'. Did you mean '--learning-rate'?"),
        (["train", "--label-smoothing", "1"], "Did you mean '--set training.label_smoothing=VALUE'?"),
        (["predict", "--report-to", "x"], "No such option '--report-to'."),
        (["predict", "run"], "Missing argument 'INPUT'"),
        (["predict", "run", "in.csv"], "Missing option '--output'"),
        (["predict", "run", "in.csv", "-o", "x.csv", "--batch-size", "0"], "0 is not in the range x>=1"),
        (["evaluate", "run"], "Name the data to score: textune evaluate RUN DATA."),
    ],
)
def test_wrong_usage(textune: Textune, arguments: list[str], words: str) -> None:
    done = textune(*arguments)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_errors_and_hints_go_to_standard_error(textune: Textune, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise DataError("expected a, found b", hint="do c")

    monkeypatch.setattr("textune.config_reading.read_config", fail)
    done = textune("config")
    assert (done.code, done.out, done.err) == (65, "", "error: expected a, found b\n  do c\n")


@pytest.mark.parametrize("world", [("1", "4"), ("x", "4"), ("", ""), ("0", "many")])
def test_only_train_looks_at_the_environment_of_several_processes(
    textune: Textune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: tuple[str, str]
) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE"), world, strict=True):
        monkeypatch.setenv(name, value)
    usage = textune("predict", "--nonsense")
    assert usage.code == 2 and "No such option" in usage.err
    done = textune("predict", tmp_path, tmp_path / "none.csv", "-o", tmp_path / "out.csv")
    assert done.code == 66
    assert done.err.startswith("error: There is no file ")


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", ""), ("WORLD_SIZE", "two"), ("RANK", "-1")])
def test_an_environment_of_several_processes_that_is_none(
    textune: Textune, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    whole = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for variable, usual in (whole | {name: value}).items():
        monkeypatch.setenv(variable, usual)
    assert "No such option" in textune("train", "--nonsense").err
    done = textune("train")
    assert done.code == 2
    assert done.err.splitlines()[0] == (
        f"error: {name}: expected a whole number in the environment variable, found {value!r}."
    )


def test_a_process_that_is_not_the_main_one_repeats_no_usage_error(
    textune: Textune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = textune("train", "--nonsense")
    assert (done.code, done.err) == (2, "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interruption(textune: Textune, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("textune.config_reading.read_config", interrupt)
    done = textune("config")
    assert done.code == 130
    assert done.err.strip() == "interrupted"


def test_own_mistakes_are_said_without_a_traceback(textune: Textune, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("textune.config_reading.read_config", break_down)
    done = textune("config")
    assert done.code == 70
    assert done.err.splitlines()[0] == "error: textune has made a mistake: ZeroDivisionError: division by zero"
    assert "Traceback" not in done.err
    monkeypatch.setenv("TEXTUNE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        textune("config")


def test_main_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["textune", "nonsense"])
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # as it was, behind the test
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 2


@pytest.fixture
def nobody_reads() -> Iterator[int]:
    """The end to write to of a pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("lost", ["pipe", "disk", "closed"])
def test_work_goes_on_when_nobody_can_read_what_is_said(
    train_flags: list[str], tmp_path: Path, nobody_reads: int, lost: str
) -> None:
    command = [sys.executable, "-m", "textune", "train", *train_flags, "--output", str(tmp_path / "run")]
    if lost == "closed":
        command = ["sh", "-c", f"{shlex.join(command)} 2>&-"]
    with Path("/dev/full").open("w") as full:
        stderr = {"pipe": nobody_reads, "disk": full.fileno(), "closed": None}[lost]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "accuracy" in done.stdout
    assert Run.open(tmp_path / "run").is_finished


def test_the_exit_code_of_an_error_that_nobody_can_read(nobody_reads: int) -> None:
    command = [sys.executable, "-m", "textune", "config", "--nonsense"]
    assert subprocess.run(command, stderr=nobody_reads, timeout=60, check=False).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_printed() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "textune", "config"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr.splitlines()[0] == "error: Standard output cannot be written: No space left on device."


@pytest.mark.parametrize("code", [0, 3])
def test_whoever_ends_the_process_chooses_the_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr("textune.config_reading.read_config", lambda *rest, **options: sys.exit(code))
    with pytest.raises(SystemExit) as caught:
        main.run(["config"])
    assert caught.value.code == code


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """As in `textune config | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "textune", "config"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors_said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), errors_said) == (0, b"")


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "평가 ± é"), ("latin-1", "\\ud3c9\\uac00 ± é")])
def test_letters_that_standard_output_cannot_show(tmp_path: Path, encoding: str, shown: str) -> None:
    (tmp_path / "mine.yaml").write_text("data:\n  text: 평가 ± é\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "textune", "config", str(tmp_path / "mine.yaml")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"  text: {shown}\n" in done.stdout.decode(encoding)
