from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from textune.config import DataConfig
from textune.data.prepare import prepare_training


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "cache"))


def test_splits_without_a_part_are_told(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"text": [f"text {number}" for number in range(20)], "label": ["a", "b"] * 10})
    DatasetDict(train=rows, holdout=rows).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "rows").mkdir()

    prepared = prepare_training(DataConfig(source=str(tmp_path / "saved")), seed=0, folder=tmp_path / "rows")

    assert prepared.roles.ignored == ("holdout",)
    assert "splits other than train, validation and test are not used: 'holdout'" in prepared.notes
    assert any(note.startswith("no validation split: 2 of 20 training rows") for note in prepared.notes)
