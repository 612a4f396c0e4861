from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ModelFolder

from benchmarks import inference, predictors


def test_predictors_are_compared(
    in_this_process: Callable[..., None],
    tmp_path: Path,
    tiny_model_folder: ModelFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(inference)
    output = tmp_path / "found.json"
    model = tiny_model_folder("bert", label_names=("no", "yes"))
    options = f"--who textune pipeline --model {model} --rows 9 --batch-sizes 1 4 --latency-calls 3 --rounds 2"
    inference.main([*options.split(), "--threads", "1", "--device", "cpu", "--output", str(output)])
    found = json.loads(output.read_text())
    assert [(run["round"], run["who"]) for run in found["runs"]] == [
        (1, "textune"),
        (1, "pipeline"),
        (2, "textune"),
        (2, "pipeline"),
    ]
    summary = found["summary"]
    assert list(summary["samples_per_second"]["textune"]) == ["batch 1", "batch 4"], "textune sorts by itself"
    assert len(summary["samples_per_second"]["pipeline"]) == 4
    assert summary["score_difference"]["textune"] < 1e-5
    assert set(summary["latency_ratio"]["pipeline / textune"]) == {"p50", "p95"}
    assert "scores" not in found["runs"][0]
    assert "texts per second, textune / pipeline, the best way of each" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
@pytest.mark.filterwarnings("default")  # of its dependencies
def test_all_give_the_same_scores(tiny_model_folder: ModelFolder) -> None:
    import torch

    model = str(tiny_model_folder("bert", label_names=("no", "yes")))
    pairs = [("the film was good .", "a dull book"), ("we liked the song", "the song was great and lovely .")]
    found = {who: one.load(model, torch.device("cpu"))(pairs, 2) for who, one in predictors.PREDICTORS.items()}
    for who, scores in found.items():
        rounding = 1e-2 if who == predictors.TEXTUNE_BF16 else 1e-5
        for row, expected in zip(scores, found[predictors.TEXTUNE], strict=True):
            assert row == pytest.approx(expected, abs=rounding)


def test_who_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: None)
    assert inference.installed(long=False) == ["textune", "textune-bf16", "pipeline"]
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: object())
    assert inference.installed(long=False) == ["textune", "textune-bf16", "pipeline", "cross-encoder"]
    assert inference.installed(long=True) == ["textune", "textune-bf16", "pipeline"]


def test_latency_is_that_of_short_texts() -> None:
    asked = []

    def predict(texts: list[tuple[str, ...]], batch_size: int) -> list[list[float]]:
        asked.append((texts, batch_size))
        return [[1.0]]

    found = predictors.latency_of(predict, [("longer", "x"), ("a", "y")], calls=4)
    assert asked == [([("a",)], 1), *[([(text,)], 1) for text in ("a", "longer", "a", "longer")]]
    assert 0 <= found["p50"] <= found["p95"]
