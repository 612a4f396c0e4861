from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import parity


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="the Trainer needs it")
def test_both_take_the_same_steps(
    in_this_process: Callable[..., None],
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(parity)
    monkeypatch.setattr("textune.models.starter.starter_folder", lambda: tiny_checkpoint)
    folder = tmp_path / "data" / "CoLA"
    folder.mkdir(parents=True)
    lines = [f"book\t{number % 2}\t\tthe film was {'good' if number % 2 else 'bad'} {number}" for number in range(24)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    output = tmp_path / "new" / "found.json"
    options = f"--task cola --local-copy {folder.parent} --steps 3 --threads 1 --output {output}"
    parity.main(options.split())
    found = json.loads(output.read_text())
    assert {who: len(losses) for who, losses in found["losses"].items()} == {"textune": 3, "transformers.Trainer": 3}
    assert found["loss"]["relative"] < 1e-5
    assert found["weights"]["absolute"] < 1e-5 < found["weights"]["moved"]
    assert found["about"]["options"] == {"threads": 1, "task": "cola", "steps": 3, "seed": 42, "bf16": False}
    assert found["about"]["machine"]["threads"] == 1
    assert "3 steps of cola in fp32, textune beside transformers.Trainer" in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["a", "b"])
def test_weights_that_are_no_numbers_are_not_hidden(tmp_path: Path, bad: str) -> None:
    """Whichever comes first."""

    def saved(name: str, **values: float) -> Path:
        weights = {key: torch.tensor([value]) for key, value in values.items()}
        save_file(weights | {f"moved.{key}": value.clone() for key, value in weights.items()}, tmp_path / name)
        return tmp_path / name

    fine = {"a": 1.0, "b": 2.0}
    found = parity.compare(saved("ours", **fine | {bad: math.nan}), saved("theirs", **fine))
    assert math.isnan(found["absolute"])
    assert found["where"] == bad
    assert math.isnan(found["relative"])
    assert math.isnan(parity.compare(saved("ours", **fine), saved("theirs", **fine | {bad: math.nan}))["moved"])
    assert parity.compare(saved("ours", a=1.0, b=2.5), saved("theirs", **fine)) == {
        "absolute": 0.5,
        "where": "b",
        "relative": pytest.approx(0.5 / math.sqrt(5)),
        "moved": 2.0,
    }
