from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import textune
from textune import errors
from textune.errors import ConfigError, DataError, TextuneError, did_you_mean, first_rows, nearest

EXIT_CODES = {
    "TextuneError": 1,
    "ConfigError": 2,
    "DataError": 65,
    "CheckpointError": 65,
    "InputNotFoundError": 66,
    "UnavailableError": 69,
    "OutputError": 73,
    "StorageError": 74,
    "TrainingError": 1,
    "OutOfMemoryError": 1,
}


def test_every_error_has_its_documented_exit_code() -> None:
    classes = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    assert {name: kind.exit_code for name, kind in classes.items()} == {**EXIT_CODES, "Interrupted": 130}
    assert errors.Interrupted("SIGTERM", signal_number=15).exit_code == 143
    assert (errors.EXIT_INTERNAL, errors.EXIT_INTERRUPTED) == (70, 130)


def test_the_table_at_the_head_of_the_module_is_the_truth() -> None:
    assert errors.__doc__ is not None
    words = [line.split() for line in errors.__doc__.splitlines()]
    assert {line[0]: int(line[1]) for line in words if line and line[0].endswith("Error")} == EXIT_CODES


def test_the_help_of_the_command_line_names_every_exit_code() -> None:
    from textune.cli.main import EXIT_CODES as TEXT

    told = {int(line.split()[0]) for line in TEXT.splitlines() if line.split() and line.split()[0].isdigit()}
    assert told == {0, errors.EXIT_INTERNAL, errors.EXIT_INTERRUPTED, 129, 138, 143, *EXIT_CODES.values()}


# Raised and caught inside one package; no user ever sees it.
SIGNALS = {"NotTextError", "ShortOfMemoryError"}


def test_there_is_one_exception_tree() -> None:
    """Public exceptions are defined in textune.errors alone and descend from TextuneError."""
    assert all(issubclass(getattr(errors, name), TextuneError) for name in EXIT_CODES)
    package = Path(textune.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or path == package / "errors.py" or node.name.startswith("_"):
                continue
            if node.name in SIGNALS:
                continue
            bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
            assert not any(base.endswith(("Error", "Exception", "Interrupt", "Warning")) for base in bases), node.name


def test_the_hint_has_its_own_line() -> None:
    error = DataError("expected a column 'text', found none.", hint="Name it with --text.")
    assert str(error) == "expected a column 'text', found none.\nName it with --text."
    assert (error.message, error.hint) == ("expected a column 'text', found none.", "Name it with --text.")
    assert str(DataError("only this")) == "only this"


def test_a_configuration_error_keeps_its_problems_apart() -> None:
    error = ConfigError(["first.", "second."], hint="Look.")
    assert error.problems == ["first.", "second."]
    assert str(error) == "first.\nsecond.\nLook."
    assert ConfigError("alone.").problems == ["alone."]


@pytest.mark.parametrize(
    ("name", "answer"),
    [("sentense", " Did you mean 'sentence'?"), ("sentence", " Did you mean 'sentence'?"), ("zzz", ""), ("", "")],
)
def test_near_names_are_suggested(name: str, answer: str) -> None:
    assert did_you_mean(name, ["label", "sentence"]) == answer


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("god.csv", ["a.csv", "good.csv"], "good.csv"),
        ("none.csv", ["b.csv"], None),
        ("a.csv", ["b.csv"], None),
        ("reviews.cvs", ["a.csv", "reviews.csv"], "reviews.csv"),
        ("data.json", ["a.json", "data.jsonl"], "data.jsonl"),
        ("reviews", ["reviews.csv"], "reviews.csv"),
        ("nothing", ["encoding", "patience"], None),
        ("eval_f1", ["eval_loss", "eval_accuracy"], None),
        ("num_epochs", ["num_train_epochs"], "num_train_epochs"),
        ("ret", ["rte", "sst2"], "rte"),
        ("mrpc", ["glue/mrpc"], "glue/mrpc"),
        ("a" * 201, ["a" * 200], None),
    ],
)
def test_what_is_near_is_no_suffix_or_beginning_in_common(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == meant


def test_rows_are_named_and_cut_short() -> None:
    assert first_rows([7]) == "row 7"
    assert first_rows([1, 2]) == "rows 1, 2"
    assert first_rows(range(1, 11)) == "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert first_rows(range(1, 52)) == "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 41 more"
    assert first_rows([1, 2, 3, 4], shown=3) == "rows 1, 2, 3 and 1 more"


@given(count=st.integers(2, 1000), shown=st.integers(1, 20))
def test_rows_named_and_rows_counted_are_all_rows(count: int, shown: int) -> None:
    words = first_rows(range(count), shown=shown).removeprefix("rows ")
    named, _, more = words.partition(" and ")
    assert len(named.split(", ")) + int(more.split()[0] if more else 0) == count
