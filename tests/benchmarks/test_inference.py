from __future__ import annotations

import importlib.util
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelFolder

import textune
from benchmarks import inference, material, predictors
from textune.run import Run


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
    for_all = ["textune", "textune-bf16", "pipeline"]
    assert inference.installed(task=None, long=False) == for_all
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: object())
    assert inference.installed(task=None, long=False) == [*for_all, "cross-encoder"]
    assert inference.installed(task="mnli", long=False) == [*for_all, "cross-encoder"]
    assert inference.installed(task="mnli", long=True) == for_all
    assert inference.installed(task="sst2", long=False) == for_all, "single sentences"


def test_latency_is_that_of_short_texts() -> None:
    asked = []

    def predict(texts: list[tuple[str, ...]], batch_size: int) -> list[list[float]]:
        asked.append((texts, batch_size))
        return [[1.0]]

    found = predictors.latency_of(predict, [("longer", "x"), ("a", "y")], calls=4, pairs=False)
    assert asked == [([("a",)], 1), *[([(text,)], 1) for text in ("a", "longer", "a", "longer")]]
    assert 0 <= found["p50"] <= found["p95"]
    asked.clear()
    predictors.latency_of(predict, [("a", "a much longer one"), ("longer", "x")], calls=2, pairs=True)
    assert [texts for texts, _ in asked[1:]] == [[("longer", "x")], [("a", "a much longer one")]]


def test_the_model_of_a_run_on_pairs_is_asked_for_pairs(
    in_this_process: Callable[..., None], tmp_path: Path, pair_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(inference)
    asked = []
    measure = predictors.latency_of

    def latency_of(predict: Any, texts: Any, **options: Any) -> dict[str, float]:
        asked.append(options["pairs"])
        return measure(predict, texts, **options)

    monkeypatch.setattr(predictors, "latency_of", latency_of)
    output = tmp_path / "found.json"
    options = f"--who textune pipeline --model {pair_run.model_path} --rows 4 --batch-sizes 2 --latency-calls 2"
    inference.main([*options.split(), "--rounds", "1", "--threads", "1", "--device", "cpu", "--output", str(output)])
    assert asked == [True, True], "all are asked for the same"
    summary = json.loads(output.read_text())["summary"]
    assert set(summary["latency_ratio"]["pipeline / textune"]) == {"p50", "p95"}
    assert summary["score_difference"]["textune"] < 1e-5


def test_what_a_model_was_trained_on(pair_run: Run, text_run: Run, tiny_checkpoint: Path) -> None:
    assert inference.trained_on_pairs(pair_run.model_path)
    assert not inference.trained_on_pairs(text_run.model_path)
    assert not inference.trained_on_pairs(tiny_checkpoint)


def test_textune_holds_one_model_whatever_the_batch_size(
    tiny_model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the others do, so that their peaks can be compared."""
    load = textune.Predictor.load
    sizes: list[int] = []
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def spy(model: str, **options: Any) -> textune.Predictor:
        alive.append(sum(one() is not None for one in made))
        sizes.append(options["batch_size"])
        predictor = load(model, **options)
        made.extend([weakref.ref(predictor), weakref.ref(predictor._classifier.model)])
        return predictor

    monkeypatch.setattr(textune.Predictor, "load", spy)
    predict = predictors.load_textune(str(tiny_model_folder("bert", label_names=("no", "yes"))), "cpu")
    for batch_size in (1, 1, 8, 1):
        predict([("the film was good .",)], batch_size)
    assert sizes == [1, 8, 1]
    assert alive == [0, 0, 0]


def test_a_split_that_the_data_lack_is_said(
    in_this_process: Callable[..., None],
    tiny_model_folder: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(inference)
    splits = material.read_splits(None, None)
    del splits["test"]
    monkeypatch.setattr(material, "read_splits", lambda task, local_copy: splits)
    model = tiny_model_folder("bert", label_names=("no", "yes"))
    with pytest.raises(SystemExit):
        inference.main(["--model", str(model), "--threads", "1", "--device", "cpu"])
    assert "--split test: the data have no such split, only train, validation" in capsys.readouterr().err
