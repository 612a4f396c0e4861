"""What importing costs, and which way imports go."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import textune

PACKAGE = Path(textune.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# A room may import from the lines above its own and from itself, also for types only. A package is one room.
ROOMS = (
    {"errors", "problem_types"},
    {"config", "cores", "durations", "files", "hub", "limits", "memory", "seeds", "streams", "summary"},
    {"parquet"},
    {"config_reading", "lock"},
    {"options"},
    {"run"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"audit"},
    {"training"},
    {"display", "environment"},
    {"report", "serving"},
    {"preparation"},
    {"job"},
    {"results"},
    {"resume"},
    {"repeats"},
    {"finetune"},
    {"comparison", "evaluating", "inspection"},
    {"compat"},
    {"cli"},
    {"__main__"},
)
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

HEAVY = ("torch", "transformers", "datasets", "tokenizers", "huggingface_hub", "sklearn", "scipy", "pyarrow", "numpy")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of textune that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.partition(".")[0] == "textune")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "textune":
                yield from ((f"textune.{alias.name}", node.lineno) for alias in node.names)
            elif (node.module or "").startswith("textune."):
                yield str(node.module), node.lineno


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.name != "__init__.py"], ids=name_of
)
def test_imports_go_one_way(path: Path) -> None:
    here = room_of(path)
    assert here in LEVELS, f"{here} has no place in ROOMS yet"
    for module, line in imported(path):
        there = module.split(".")[1]
        if there in {here, "__version__"}:
            continue
        assert there in LEVELS, f"{name_of(path)}:{line} imports textune.{there}: import it from where it is defined"
        assert LEVELS[there] < LEVELS[here], f"{name_of(path)}:{line} imports {module}"


def test_one_file_alone_speaks_to_other_processes() -> None:
    speaking = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            if any(f"{name}.".startswith("torch.distributed.") for name in names):
                speaking.append(name_of(path))
    assert set(speaking) == {"training/parallel.py"}


def test_the_public_names() -> None:
    assert textune.__all__ == [
        "Config",
        "Predictor",
        "Run",
        "TextuneError",
        "Trainer",
        "TrainingArguments",
        "__version__",
        "compare",
        "evaluate",
        "inspect",
        "train",
    ]
    assert dir(textune) == sorted(textune.__all__)


def test_public_names_are_found_and_others_are_not() -> None:
    from textune.config import Config
    from textune.finetune import train

    assert textune.Config is Config
    assert textune.train is train
    for name in textune.__all__:
        assert getattr(textune, name) is not None
    with pytest.raises(AttributeError, match="module 'textune' has no attribute 'trian'"):
        _ = textune.trian


def test_the_type_marker_is_there() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        *([command, "--help"] for command in ("train", "predict", "evaluate", "compare", "inspect")),
        ["config"],
    ],
    ids=" ".join,
)
def test_looking_at_textune_loads_nothing_heavy(arguments: list[str]) -> None:
    """With no arguments, `import textune`; otherwise the command with them."""
    act = f"from textune.cli.main import run; assert run({arguments!r}) == 0" if arguments else "import textune"
    code = f"import sys; {act}; print('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def median_seconds(*arguments: str) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def test_help_is_quick() -> None:
    differences = []
    for _ in range(3):  # a neighbour on the machine may disturb one measurement, hardly three
        differences.append(median_seconds("-m", "textune", "--help") - median_seconds("-c", "import click"))
        if differences[-1] <= 0.2:
            return
    pytest.fail(f"--help took {min(differences):.2f} s more than importing click; expected at most 0.2 s")
