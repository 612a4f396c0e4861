"""What all tests share: a world without network, small checkpoints made on the spot, small labelled text."""

from __future__ import annotations

import csv
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

# Libraries read these when they are imported, so they are set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
if os.environ.get("TEXTUNE_TEST_GPU") == "1":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it products on a GPU may differ in bits
else:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # many tests compare bits, those of a CPU
os.environ.pop("TEXTUNE_DATA", None)
os.environ.pop("TEXTUNE_DEBUG", None)

import pytest
from hypothesis import HealthCheck, settings
from tiny import BLAME, PRAISE, SUBJECTS, save_tiny_model

# Fixtures of finished runs, and what holds for every training in a test.
pytest_plugins = ["trained"]

# A busy machine is no failure.
settings.register_profile("textune", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("textune")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not _has_gpu():
        pytest.skip("needs an NVIDIA GPU, and TEXTUNE_TEST_GPU=1 in the environment")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


class ModelFolder(Protocol):
    """The type of `tiny_model_folder`."""

    def __call__(self, family: str = "bert", *, label_names: Sequence[str] | None = None) -> Path: ...


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """textune's cache lies in a folder of this session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A test may change torch's global settings; the next one does not notice.

    torch is not imported for the sake of this: a test that does without it stays quick.
    """
    saved = _torch_settings() if "torch" in sys.modules else None
    yield
    if "torch" in sys.modules:
        _restore_torch(saved or {})


def _torch_settings() -> dict[str, Any]:
    import torch

    return {
        "generator": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "matmul": torch.backends.mkldnn.matmul.fp32_precision,
        "precision": torch.get_float32_matmul_precision(),
    }


def _restore_torch(saved: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(saved.get("dtype", torch.float32))
    torch.set_float32_matmul_precision(saved.get("precision", "highest"))
    torch.backends.mkldnn.matmul.fp32_precision = saved.get("matmul", "none")
    if "generator" in saved:
        torch.set_rng_state(saved["generator"])


@pytest.fixture
def signals_are_heard() -> Iterator[None]:
    """Whoever starts the tests may ignore signals (nohup, a job in the background); processes pass that on."""
    usual = {"SIGHUP": signal.SIG_DFL, "SIGINT": signal.default_int_handler}
    before = {}
    for name, handler in usual.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def closed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be entered, not even by the superuser, whom no rights of the system keep out."""
    folder = tmp_path / "closed"
    folder.mkdir()
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if folder in path.absolute().parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with MRPC and other GLUE tasks that lies beside the repository on some machines."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_rows() -> list[dict[str, str]]:
    """64 rows of `text` and `label`, positive or negative, which one word decides; balanced, in mixed order."""
    pairs = [(subject, index) for index in range(4) for subject in SUBJECTS]
    rows = []
    for number, (subject, index) in enumerate(pairs):
        opening = ("the", "a", "we saw the", "today the")[number % 4]
        rows.append({"text": f"{opening} {subject} was {PRAISE[index]} .", "label": "positive"})
        rows.append({"text": f"{opening} {subject} was very {BLAME[index]}", "label": "negative"})
    return rows


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory, tiny_rows: list[dict[str, str]]) -> Path:
    """`tiny_rows` as a CSV file with the columns text and label."""
    path = tmp_path_factory.mktemp("tiny_csv") / "reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(tiny_rows)
    return path


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A function from a family's name to a checkpoint folder: two layers, hidden size 32, random weights.

    With `label_names` the checkpoint is a classifier with these labels, otherwise an encoder without a head. A folder
    is made once and shared: a test that changes it works on a copy.
    """
    made: dict[tuple[str, tuple[str, ...] | None], Path] = {}

    def make(family: str = "bert", *, label_names: Sequence[str] | None = None) -> Path:
        key = (family, None if label_names is None else tuple(label_names))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family) / f"tiny-{family}"
            save_tiny_model(made[key], family, label_names=label_names)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model_folder: ModelFolder) -> Path:
    """A BERT encoder of two layers without a head, in Hugging Face layout; it knows the words of `tiny_rows`."""
    return tiny_model_folder("bert")
