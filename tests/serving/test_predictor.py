from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES

from textune.errors import CheckpointError, ConfigError, DataError, InputNotFoundError, TextuneError, UnavailableError
from textune.run import Run
from textune.serving.predictor import Prediction, Predictor
from textune.training.precision import Measurement

TEXTS = ["the film was good", "a bad meal .", "we liked the garden and the room", "song"]
PAIRS = [("the film was good", "a great film"), ("the meal was bad", "we liked it very very very very much")]


def pipeline_scores(folder: Path, inputs: list[Any], **options: Any) -> list[dict[str, float]]:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    return [{item["label"]: item["score"] for item in row} for row in classify(inputs, top_k=None, **options)]


def assert_same_scores(found: list[Prediction], expected: list[dict[str, float]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other, abs=1e-5)


def test_texts_equal_transformers_pipeline(text_run: Run) -> None:
    found = Predictor.load(text_run).predict(TEXTS)
    assert_same_scores(found, pipeline_scores(text_run.model_path, TEXTS))
    for prediction in found:
        assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=1e-6)
        assert prediction.label == max(prediction.scores, key=prediction.scores.__getitem__)
        assert prediction.score == prediction.scores[prediction.label]


def test_pairs_equal_transformers_pipeline(pair_run: Run) -> None:
    found = Predictor.load(pair_run).predict(PAIRS)
    inputs = [{"text": first, "text_pair": second} for first, second in PAIRS]
    assert_same_scores(found, pipeline_scores(pair_run.model_path, inputs))


def test_multi_label_equals_transformers_pipeline(multi_label_run: Run) -> None:
    found = Predictor.load(multi_label_run).predict(TEXTS)
    assert_same_scores(found, pipeline_scores(multi_label_run.model_path, TEXTS, function_to_apply="sigmoid"))
    for prediction in found:
        assert prediction.label == [name for name in ("art", "food") if prediction.scores[name] >= 0.5]


def test_regression_equals_the_model(regression_run: Run) -> None:
    found = Predictor.load(regression_run).predict(TEXTS)
    expected = pipeline_scores(regression_run.model_path, TEXTS, function_to_apply="none")
    for prediction, scores in zip(found, expected, strict=True):
        assert prediction.label == pytest.approx(scores["LABEL_0"], abs=1e-5)
        assert prediction.scores == {}
        assert prediction.score is None


def test_a_checkpoint_that_textune_did_not_train(tiny_model_folder: Callable[..., Path]) -> None:
    folder = tiny_model_folder("distilbert", label_names=["x", "y", "z"])
    predictor = Predictor.load(folder)
    assert predictor.schema is None
    assert predictor.label_set.names == ("x", "y", "z")
    assert_same_scores(predictor.predict(TEXTS), pipeline_scores(folder, TEXTS))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_left_of_a_predictor_that_is_let_go(tiny_model_folder: Callable[..., Path], precision: str) -> None:
    folder = tiny_model_folder("bert", label_names=["x", "y"])
    predictor = Predictor.load(folder, precision=precision)
    predictor.predict(TEXTS)
    model = weakref.ref(predictor._classifier.model)
    del predictor
    gc.collect()
    assert model() is None


def test_long_texts_are_cut_as_in_training(text_run: Run) -> None:
    long = "film " * 500
    found = Predictor.load(text_run).predict([long])
    assert_same_scores(found, pipeline_scores(text_run.model_path, [long], truncation=True))


def test_a_run_can_be_named_in_several_ways(text_run: Run) -> None:
    ways: list[Any] = [text_run, text_run.path, str(text_run.path), text_run.model_path]
    found = [Predictor.load(way) for way in ways]
    assert all(predictor.schema == found[0].schema and predictor.schema is not None for predictor in found)
    results = [predictor.predict(TEXTS[:1]) for predictor in found]
    assert all(result == results[0] for result in results)


def test_a_run_at_home(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(text_run.path.parent))
    for name in (f"~/{text_run.path.name}", f"~/{text_run.path.name}/model"):
        assert Predictor.load(name).schema is not None
    with pytest.raises(InputNotFoundError, match="There is no run or model '~/nothing'"):
        Predictor.load("~/nothing")


def test_folders_that_may_not_be_entered(closed_folder: Path) -> None:
    for path in (closed_folder, closed_folder / "run", closed_folder / "run" / "model"):
        with pytest.raises(InputNotFoundError, match=r"Cannot read '.*closed.*': Permission denied"):
            Predictor.load(path)


def test_a_run_whose_model_may_not_be_looked_at(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent.name == "model":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    for path in (text_run.path, text_run.model_path):
        with pytest.raises(InputNotFoundError, match=r"Cannot read '.*': Permission denied"):
            Predictor.load(path)


def test_pairs_can_be_written_in_several_ways(pair_run: Run) -> None:
    predictor = Predictor.load(pair_run)
    first, second = PAIRS[0]
    ways: list[Any] = [(first, second), [first, second], {"text": first, "text_pair": second}]
    one, *others = (predictor.predict([way])[0] for way in ways)
    assert all(other == one for other in others)


@pytest.mark.parametrize("kind", [tuple, iter, np.array, dict.fromkeys])
def test_any_collection_of_texts_will_do(text_run: Run, kind: Callable[[list[str]], Any]) -> None:
    predictor = Predictor.load(text_run)
    assert predictor.predict(kind(TEXTS)) == predictor.predict(TEXTS)


@pytest.mark.parametrize("empty", [[], (), iter([]), np.array([])])
def test_no_texts_give_no_predictions(text_run: Run, empty: Any) -> None:
    assert Predictor.load(text_run).predict(empty) == []


def test_results_do_not_depend_on_the_batch_size(text_run: Run) -> None:
    one, many = (Predictor.load(text_run, batch_size=size).predict(TEXTS) for size in (1, 32))
    for single, batched in zip(one, many, strict=True):
        assert single.scores == pytest.approx(batched.scores, abs=1e-6)


def test_several_threads_may_ask_one_predictor(text_run: Run) -> None:
    """Long texts too: these are cut by the tokenizer, whose settings are shared as the model's are."""
    predictor = Predictor.load(text_run, batch_size=2)
    requests = [[*TEXTS[: 1 + number % 4], "film " * (10 + 40 * (number % 3))] for number in range(60)]
    expected = [predictor.logits(texts) for texts in requests]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(predictor.logits, requests))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_precisions_that_are_not_known(text_run: Run) -> None:
    with pytest.raises(ConfigError, match="precision: expected auto, fp32, bf16, found 'fp16'"):
        Predictor.load(text_run, precision="fp16")


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_scores_are_near_those_in_fp32(tiny_model_folder: Callable[..., Path], family: str) -> None:
    folder = tiny_model_folder(family, label_names=["x", "y", "z"])
    exact, rounded = (Predictor.load(folder, precision=precision) for precision in ("fp32", "bf16"))
    # Two layers and a head round about ten times, each by at most 2^-8 of values near 1; a score moves at most half as
    # far as the logits.
    for one, other in zip(exact.predict(TEXTS), rounded.predict(TEXTS), strict=True):
        assert other.scores == pytest.approx(one.scores, abs=10 * 2**-8 / 2)
    assert not np.array_equal(exact.logits(TEXTS), rounded.logits(TEXTS))


def test_bf16_rounds_parameters_and_leaves_buffers(tiny_model_folder: Callable[..., Path]) -> None:
    """Rotary frequencies are a buffer; in bf16 they would lose far positions."""
    predictor = Predictor.load(tiny_model_folder("modernbert", label_names=["x", "y"]), precision="bf16")
    model = predictor._classifier.model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {item.dtype for item in model.buffers() if item.is_floating_point()} == {torch.float32}


def test_fp32_is_the_default_to_the_bit(text_run: Run) -> None:
    usual, asked = Predictor.load(text_run), Predictor.load(text_run, precision="fp32")
    assert usual.arithmetic.precision == "fp32"
    assert {parameter.dtype for parameter in usual._classifier.model.parameters()} == {torch.float32}
    assert np.array_equal(usual.logits(TEXTS), asked.logits(TEXTS))


@pytest.mark.parametrize(("bf16_gflops", "chosen"), [(1000.0, "bf16"), (100.0, "fp32")])
def test_auto_takes_bf16_where_it_is_faster(
    text_run: Run, monkeypatch: pytest.MonkeyPatch, bf16_gflops: float, chosen: str
) -> None:
    rates = [Measurement("fp32-blas", 100.0, 1e-7), Measurement("bf16", bf16_gflops, 1e-3)]
    monkeypatch.setattr("textune.training.precision.measured_here", lambda device, anew: (rates, "2026-11-22"))
    predictor = Predictor.load(text_run, precision="auto")
    assert predictor.arithmetic.precision == chosen
    dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
    assert {parameter.dtype for parameter in predictor._classifier.model.parameters()} == {dtype}


def test_batch_size_must_be_positive(text_run: Run) -> None:
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, found 0"):
        Predictor.load(text_run, batch_size=0)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("one text", "Expected a list of texts, found one text."),
        (["good", 5], "Text 2: expected a text or a pair of texts, found 5."),
        (["good", None], "Text 2: expected a text or a pair of texts, found None."),
        ([b"good"], "Text 1: expected a text or a pair of texts, found b'good'."),
        ([("good", "bad", "dull")], "Text 1: expected a text or a pair of texts"),
        ([("good", None)], "Text 1: expected a text or a pair of texts"),
        (["good", "", "bad"], "Text 2: the text is empty."),
        ([" \u3000\n"], "Text 1: the text is empty."),
        (["a", "a \ud83d b"], "Text 2: half a surrogate pair, such as \\ud83d alone; it is no character."),
        ([("good", "bad"), ("good", " ")], "Text 2: the second text is empty."),
        ([{"txt": "good"}], "Text 1: expected a text or a pair of texts, found {'txt': 'good'}."),
        ([{"text_pair": "good"}], "Text 1: expected a text or a pair of texts"),
        ([{"text": "good", "pair": "bad"}], "Text 1: expected a text or a pair of texts"),
        ([{}], "Text 1: expected a text or a pair of texts"),
        (["good", ("good", "bad")], "Expected all pairs or all single texts, found 1 pair among 2."),
        ([("good", "bad")], "This model was trained on single texts, found pairs."),
    ],
)
def test_what_is_no_text_is_refused(text_run: Run, texts: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        Predictor.load(text_run).predict(texts)
    assert caught.value.message.startswith(words)


def test_single_texts_for_a_model_of_pairs(pair_run: Run) -> None:
    with pytest.raises(DataError, match="This model was trained on pairs of texts, found single texts"):
        Predictor.load(pair_run).predict(TEXTS)


@pytest.mark.parametrize("name", ["runs/moives", "./moives", "~/no/such/folder"])
def test_no_such_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that begins with a folder that is there means a folder, not a model of the hub."""
    for folder in ("runs/movies", "movies"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError) as caught:
        Predictor.load(name)
    assert caught.value.message.startswith(f"There is no run or model {name!r}.")
    assert name.startswith("~") or caught.value.message.endswith("Did you mean 'movies'?")


def test_hub_models_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-base").mkdir()  # near, but not what is asked for
    for name in ("owner/name", "bert-base-uncased"):
        with pytest.raises(UnavailableError, match=name):
            Predictor.load(name)


@pytest.mark.parametrize("name", ["folder", "folder/notes.txt"])
def test_what_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"is neither a run of textune .* nor a model"):
        Predictor.load(tmp_path / name)


def test_unfinished_run(text_run: Run, tmp_path: Path) -> None:
    shutil.copytree(text_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(InputNotFoundError, match="has no model yet: its training has not finished") as caught:
        Predictor.load(tmp_path / "run")
    assert f"`textune train --resume {tmp_path / 'run'}`" in str(caught.value.hint)


def test_an_encoder_without_a_head(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a trained classifier: it lacks .*classifier"):
        Predictor.load(tiny_checkpoint)


def test_damaged_data_json(text_run: Run, tmp_path: Path) -> None:
    for contents in ("{}", "[]", '{"schema": {}}', "{"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(text_run.path, folder, ignore=shutil.ignore_patterns("checkpoints"))
        (folder / "data.json").write_text(contents)
        for source in (folder, folder / "model"):
            with pytest.raises(TextuneError, match=r"schema|JSON"):
                Predictor.load(source)


def test_scores_that_are_not_finite_are_refused(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(text_run)
    with torch.no_grad():
        predictor._classifier.model.get_parameter("classifier.bias").fill_(torch.nan)
    with pytest.raises(CheckpointError, match="gave scores that are not finite numbers, first for text 1"):
        predictor.predict(TEXTS)


def test_calibrated_and_threshold(text_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_run.model_path, folder)
    path = folder / "calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 3.0}))
    plain, calibrated = (Predictor.load(folder, calibrated=on).predict(TEXTS) for on in (False, True))
    for one, other in zip(plain, calibrated, strict=True):
        odds, flattened = (item.scores["positive"] / item.scores["negative"] for item in (one, other))
        assert flattened == pytest.approx(odds ** (1 / 3), rel=1e-4)
        assert one.label == other.label
    highest = max(item.scores["positive"] for item in plain)
    strict = Predictor.load(folder, threshold=highest).predict(TEXTS)
    assert [item.label for item in strict].count("positive") == 1
    assert {item.label for item in Predictor.load(folder, threshold="0").predict(TEXTS)} == {"positive"}


def test_a_model_without_calibration(text_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_run.model_path, folder)
    (folder / "calibration.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no calibration\.json"):
        Predictor.load(folder, calibrated=True)
    with pytest.raises(ConfigError, match=r"found 'f3'"):
        Predictor.load(folder, threshold="f3")


def test_regression_has_neither(regression_run: Run) -> None:
    assert not (regression_run.model_path / "calibration.json").exists()
    with pytest.raises(ConfigError, match="--threshold: this model gives numbers"):
        Predictor.load(regression_run, threshold=0.5)
