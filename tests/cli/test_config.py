from __future__ import annotations

from pathlib import Path

from textune.config import Config
from textune.config_reading import option_fields, read_config

from .conftest import Textune


def test_prints_every_option_as_a_file_that_can_be_read(textune: Textune, tmp_path: Path) -> None:
    done = textune("config")
    assert (done.code, done.err) == (0, "")
    for name in option_fields():
        assert f"  {name.partition('.')[2]}: " in done.out, name
    (tmp_path / "mine.yaml").write_text(done.out)
    assert read_config(tmp_path / "mine.yaml") == Config()


def test_prints_the_values_of_a_file(textune: Textune, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training:\n  learning_rate: 1e-3\n")
    assert "  learning_rate: 0.001\n" in textune("config", tmp_path / "mine.yaml").out
