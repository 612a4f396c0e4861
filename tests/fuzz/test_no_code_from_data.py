"""Nothing that textune reads can make it run code: the source has no way to, and training works without unpickling."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import textune
from faults.material import rows, save_tiny_model, write_json_lines

PACKAGE = Path(textune.__file__).parent

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code"}
FUNCTIONS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("torch.load", "torch.hub", "torch.jit.load", "os.system", "os.popen"),
}
KEYWORDS = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "weights_only": True}
# Names of the package's own modules, from a table in the same file.
IMPORTS_BY_NAME = {"__init__.py", "cli/main.py", "compat/__init__.py"}


def violations(source: str) -> Iterator[str]:
    """Every place of a module where code could come from data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"import {alias.name}" for alias in names if alias.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                named = {f"{module}.{alias.name}" for alias in names}
                if module.partition(".")[0] in MODULES or named & METHODS:
                    yield f"from {module} import"
            case ast.Name(id=name, ctx=ast.Load()) if name in FUNCTIONS:
                yield name
            case ast.Attribute() if ast.unparse(node) in METHODS:
                yield ast.unparse(node)
            case ast.keyword(arg=str(name), value=value) if name in KEYWORDS:
                if not (isinstance(value, ast.Constant) and value.value is KEYWORDS[name]):
                    yield f"{name}={ast.unparse(value)}"
            case ast.Call(func=function, args=[argument, *_]) if ast.unparse(function).endswith("import_module"):
                if not isinstance(argument, ast.Constant):
                    yield f"import_module({ast.unparse(argument)})"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_run_what_it_reads(path: Path) -> None:
    found = list(violations(path.read_text(encoding="utf-8")))
    if str(path.relative_to(PACKAGE)) in IMPORTS_BY_NAME:
        found = [item for item in found if not item.startswith("import_module")]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, dill.source",
        "from joblib import load",
        "from torch import load",
        "from yaml import unsafe_load_all",
        "def f():\n    eval('1')",
        "f = exec",
        "yaml.load(text, Loader=Loader)",
        "yaml.full_load_all(text)",
        "torch.load(path, weights_only=True)",
        "torch.hub.load(name)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=chosen)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "importlib.import_module(name)",
    ],
)
def test_what_the_walk_finds(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(x)", "yaml.safe_load(x)", "f(trust_remote_code=False)"])
def test_what_the_walk_allows(source: str) -> None:
    assert not list(violations(source))


UNPICKLERS = (
    *("pickle.Unpickler", "pickle._Unpickler", "pickle.load", "pickle.loads", "pickle._load", "pickle._loads"),
    *("_pickle.Unpickler", "_pickle.load", "_pickle.loads", "dill.load", "dill.loads", "torch.load"),
)


class UnpickledError(BaseException):
    """No `except Exception` hides it."""


@pytest.fixture
def no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever unpickles fails. Other processes are not covered: tokenising uses none here.

    Nor is marshal, by which Python reads modules; the walk through the source finds it.
    """

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise UnpickledError

    places = [name.rpartition(".") for name in UNPICKLERS]
    modules = [importlib.import_module(module) for module, _, _ in places]  # all before one of them is changed
    for module, (_, _, attribute) in zip(modules, places, strict=True):
        original = getattr(module, attribute)
        # Modules that are imported later derive unpicklers of their own from the classes.
        refusing = type(attribute, (original,), {"__init__": refuse}) if isinstance(original, type) else refuse
        monkeypatch.setattr(module, attribute, refusing)


def test_the_whole_way_unpickles_nothing(tmp_path: Path, no_unpickling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from textune.display import Display
    from textune.finetune import train
    from textune.serving.predictor import Predictor

    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "cache"))
    model = save_tiny_model(tmp_path / "tiny")
    data = write_json_lines(tmp_path / "train.jsonl", rows(32))
    run = train(
        str(data),
        model=str(model),
        output=str(tmp_path / "run"),
        duration="4steps",
        precision="fp32",
        settings={"checkpoint.every": "2steps", "training.threads": 1, "tokens.num_workers": 0},
        display=Display(),
    )
    (run.path / "summary.json").unlink()  # as if it had been killed at its end
    resumed = train(resume=run.path, display=Display())
    assert len(Predictor.load(resumed, device="cpu").predict(["the film was good"])) == 1


def test_unpickling_would_be_noticed(no_unpickling: None) -> None:
    import pickle

    with pytest.raises(UnpickledError):
        pickle.loads(b"N.")
