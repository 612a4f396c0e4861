from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from textune.config import Config, ModelConfig, TrainingConfig
from textune.report.card import model_card

SUMMARY: dict[str, Any] = {
    "selected": {
        "weights": "best",
        "step": 8,
        "epoch": 1.0,
        "split": "validation",
        "metric": "accuracy",
        "note": "accuracy on validation chose the weights.",
    },
    "validation": {
        "accuracy": {"value": 0.75, "interval": [0.7, 0.8]},
        "pearson": {"value": None},
        "loss": {"value": 0.5},
        "per_class": {"value": {"precision": 0.5}},
        "calibration": {"brier_score": 0.1},
        "num_rows": 1408,
    },
    "training": {"precision": "fp32", "processes": 1},
}


def card(
    *,
    name: str = "reviews",
    label_names: tuple[str, ...] = ("no", "yes"),
    pair: bool = False,
    processes: int = 1,
    training: TrainingConfig | None = None,
    model: str = "starter",
    location: str = "data/reviews.csv",
    task: Any = None,
    summary: dict[str, Any] = SUMMARY,
) -> str:
    prepared: Any = SimpleNamespace(
        source=SimpleNamespace(name=name, location=location, task=task),
        schema=SimpleNamespace(label_names=label_names, text_pair="other" if pair else None),
        roles=SimpleNamespace(validation=("validation",), test=("test",)),
        rows={"train": range(2000)},
        train="train",
        dropped={"train": {"text is empty": 3}},
    )
    config = Config(training=training or TrainingConfig(), model=ModelConfig(checkpoint=model))
    summary = {**summary, "training": {**summary["training"], "processes": processes}}
    return model_card(config=config, prepared=prepared, summary=summary)


def test_text() -> None:
    text = card(pair=True)
    assert "Takes a pair of texts, gives `no`, `yes`." in text
    assert "(2,000 training rows)" in text
    assert "| metric | validation |\n|" in text
    assert "| accuracy % | 75.0 [70.0, 80.0] |\n| pearson % | undefined |\n| loss | 0.5 |\n| rows | 1,408 |" in text
    assert "step 8, the best by accuracy: accuracy on validation chose the weights." in text
    assert "`reviews`: train 2,000 rows; 3 that could not be used were left out." in text
    assert '{"text": "One text", "text_pair": "and another"}' in text
    assert "Takes one text, gives a number." in card(label_names=())
    assert "Batch size 8 x 1, learning rate" in text
    by_length = TrainingConfig(batching="length", tokens_per_batch=4096)
    assert "Batches of at most 4,096 tokens x 1, grouped by length, learning rate" in card(training=by_length)
    assert "Batch size 8 x 1 in each of 4 processes, learning rate" in card(processes=4)


def test_what_the_figures_speak_of_and_that_nothing_was_learned() -> None:
    told = {"positive_label": "yes", "baseline": {"answer": "'no'", "metric": "accuracy", "score": 0.6}}
    selected = {**SUMMARY["selected"], "failed": "it says 'no' of every row"}
    text = card(summary={**SUMMARY, "validation": {**SUMMARY["validation"], **told}, "selected": selected})
    assert "- positive label: 'yes' (the second label; --label-names changes the order)\n" in text
    assert "- always 'no': accuracy 60.0 % on validation\n" in text
    assert "- **This model has learned nothing**: it says 'no' of every row.\n" in text
    assert "| rows | 1,408 |\n\nIn brackets" in card()


def test_metadata_is_valid_for_the_hub_and_leaves_out_what_is_undefined() -> None:
    results = ModelCard(card()).data.eval_results
    assert {item.metric_type: item.metric_value for item in results} == {"accuracy": 0.75, "loss": 0.5}
    assert {item.dataset_split for item in results} == {"validation"}


@pytest.mark.parametrize("name", ["a: b", "---", "ünï 한국어", "x # y", "'quotes\"", "- item"])
def test_any_name_gives_valid_metadata(name: str) -> None:
    data = ModelCard(card(name=name)).data
    assert data.eval_results[0].dataset_name == name
    assert data.model_name == f"{name}-classifier"


def test_label_names_stay_in_their_quotes() -> None:
    assert r"gives ``` a``b ```, `'c\nd'`. Fine-tuned" in card(label_names=("a``b", "c\nd"))
    assert "gives `' yes '`, `no`, `yes`. Fine-tuned" in card(label_names=(" yes ", "no", "yes"))


def test_without_labelled_rows() -> None:
    summary = {"selected": {**SUMMARY["selected"], "weights": "last", "note": None}, "training": SUMMARY["training"]}
    text = card(summary=summary)
    assert "There were no labelled rows to measure it on." in text
    assert "The weights are those of step 8, the last one." in text
    assert ModelCard(text).data.eval_results == []


def test_checkpoint_and_data_are_named_where_the_hub_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ModelCard(card()).data
    assert (data.base_model, data.datasets) == ("sentence-transformers/all-MiniLM-L6-v2", None)
    assert (data.license, data.language) == (None, None)
    data = ModelCard(card(model="own/bert", location="own/reviews:de on the hub, commit 0a1b")).data
    assert (data.base_model, data.datasets) == ("own/bert", ["own/reviews"])
    assert data.eval_results[0].dataset_type == "own/reviews"
    assert ModelCard(card(task=SimpleNamespace(name="mrpc"))).data.datasets == ["nyu-mll/glue"]
    assert ModelCard(card(model="bert-base-uncased")).data.base_model == "bert-base-uncased"
    for elsewhere in ("../bert", "./bert", "~/bert", "/models/bert", "runs/bert/model"):
        assert ModelCard(card(model=elsewhere)).data.base_model is None
    (tmp_path / "bert-base-uncased").mkdir()
    assert ModelCard(card(model="bert-base-uncased")).data.base_model is None
    (tmp_path / "own" / "bert").mkdir(parents=True)
    assert ModelCard(card(model="own/bert")).data.base_model is None
