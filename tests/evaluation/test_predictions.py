from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import expit, softmax
from transformers import BertConfig, BertForSequenceClassification

from textune.data.collate import Padding
from textune.data.tokens import TokenRows
from textune.errors import TextuneError
from textune.evaluation.forward import fastest_forward
from textune.evaluation.predictions import (
    Decision,
    FloatArray,
    LabelSet,
    decide,
    logits_of_table,
    name_labels,
    predict_logits,
    predictions_table,
    to_scores,
)

SINGLE = LabelSet("single_label_classification", ("no", "yes"))
SEVERAL = LabelSet("multi_label_classification", ("a", "b", "c"))
NUMBER = LabelSet("regression", ())


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.3,
        id2label={0: "no", 1: "yes", 2: "maybe"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def tokens() -> TokenRows:
    generator = np.random.default_rng(0)
    ids = [generator.integers(1, 60, size=generator.integers(2, 31)).tolist() for _ in range(37)]
    lengths = pa.array([len(row) for row in ids], pa.int32())
    return TokenRows(pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "full_length": lengths}))


def predict(model: BertForSequenceClassification, tokens: TokenRows, **options: Any) -> FloatArray:
    model.eval()
    with fastest_forward(model, padding=Padding(0), device=torch.device("cpu")) as forward:
        return predict_logits(forward, tokens, **options)


def test_rows_keep_their_order(model: BertForSequenceClassification, tokens: TokenRows) -> None:
    found = predict(model, tokens, batch_size=8)
    assert found.shape == (37, 3)
    assert found.dtype == np.float32
    model.eval()
    for row in range(len(tokens)):
        ids = torch.tensor(tokens.take([row]).input_ids[0], dtype=torch.long)
        with torch.no_grad():
            alone = model(input_ids=ids[None]).logits[0].numpy()
        np.testing.assert_allclose(found[row], alone, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 37, 100])
def test_batch_size_does_not_change_scores(
    model: BertForSequenceClassification, tokens: TokenRows, batch_size: int
) -> None:
    expected = predict(model, tokens, batch_size=8)
    found = predict(model, tokens, batch_size=batch_size)
    np.testing.assert_allclose(
        to_scores(found, SINGLE.problem_type), to_scores(expected, SINGLE.problem_type), atol=1e-6
    )


def test_progress_counts_every_row(model: BertForSequenceClassification, tokens: TokenRows) -> None:
    model.train()
    seen: list[int] = []
    first = predict(model, tokens, batch_size=10, on_progress=seen.append)
    assert seen == [10, 10, 10, 7]
    model.train()
    assert np.array_equal(first, predict(model, tokens, batch_size=10))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("none left"), MemoryError()], ids=["torch", "python"])
def test_fewer_rows_at_once_where_memory_runs_out(
    model: BertForSequenceClassification, tokens: TokenRows, error: Exception
) -> None:
    expected = predict(model, tokens, batch_size=20)
    sizes: list[int] = []

    def short(examples: Any) -> torch.Tensor:
        sizes.append(len(examples))
        if len(examples) > 6:
            raise error
        return forward(examples)

    smaller: list[int] = []
    done: list[int] = []
    with fastest_forward(model, padding=Padding(0), device=torch.device("cpu")) as forward:
        found = predict_logits(short, tokens, batch_size=20, on_progress=done.append, on_out_of_memory=smaller.append)
    kind = SINGLE.problem_type
    np.testing.assert_allclose(to_scores(found, kind), to_scores(expected, kind), atol=1e-6)
    assert smaller == [10, 5]
    assert sizes == [20, 10, *[5] * 7, 2]
    assert sum(done) == 37


def test_no_memory_for_one_row(tokens: TokenRows) -> None:
    def short(examples: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    with pytest.raises(TextuneError, match="There is no memory to score even one row alone"):
        predict_logits(short, tokens, batch_size=3)


def test_other_errors_of_the_model_are_left_alone(tokens: TokenRows) -> None:
    def wrong(examples: Any) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict_logits(wrong, tokens, batch_size=3)


def test_label_set_of_a_model(model: BertForSequenceClassification) -> None:
    assert LabelSet.of_model(model) == LabelSet("single_label_classification", ("no", "yes", "maybe"))
    config = BertConfig(**{**model.config.to_dict(), "id2label": {0: "LABEL_0"}, "num_hidden_layers": 1})
    assert LabelSet.of_model(BertForSequenceClassification(config)) == NUMBER


def test_scores_and_decisions() -> None:
    logits = np.array([[0.0, 1.0, -1.0], [3.0, -2.0, 0.5]], np.float32)
    np.testing.assert_allclose(to_scores(logits, SINGLE.problem_type), softmax(logits, axis=1))
    np.testing.assert_allclose(to_scores(logits, SEVERAL.problem_type), expit(logits))
    assert to_scores(logits[:, :1], NUMBER.problem_type).tolist() == [[0.0], [3.0]]
    assert decide(logits, SINGLE.problem_type).tolist() == [1, 0]
    assert decide(logits, SEVERAL.problem_type).tolist() == [[1, 1, 0], [1, 0, 1]], "a score of one half counts"
    assert decide(logits[:, :1], NUMBER.problem_type).tolist() == [0.0, 3.0]


def test_scores_of_extreme_logits_are_finite() -> None:
    logits = np.array([[1e4, -1e4], [-1e38, 1e38]], np.float32)
    for kind in (SINGLE.problem_type, SEVERAL.problem_type):
        scores = to_scores(logits, kind)
        assert np.isfinite(scores).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_names() -> None:
    assert name_labels(np.array([1, 0]), SINGLE) == ["yes", "no"]
    assert name_labels(np.array([[1, 0, 1], [0, 0, 0]], np.float32), SEVERAL) == [["a", "c"], []]
    assert name_labels(np.array([1.5], np.float32), NUMBER) == [1.5]


def test_single_label_table() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    table = predictions_table(logits, SINGLE, ids=["x", "y"], labels=np.array([1, 1]))
    assert table.column_names == ["id", "label", "prediction", "score_no", "score_yes"]
    assert table.column("id").to_pylist() == ["x", "y"]
    assert table.column("label").to_pylist() == ["yes", "yes"]
    assert table.column("prediction").to_pylist() == ["yes", "no"]
    assert table.schema.field("score_yes").type == pa.float32()
    np.testing.assert_allclose(table.column("score_yes").to_numpy(), softmax(logits, axis=1)[:, 1])


def test_multi_label_table() -> None:
    logits = np.array([[1.0, -1.0, 0.5], [-1.0, -1.0, -1.0]], np.float32)
    table = predictions_table(logits, SEVERAL, ids=[1, 2])
    assert table.column_names == ["id", "prediction", "score_a", "score_b", "score_c"]
    assert table.column("prediction").to_pylist() == [["a", "c"], []]


def test_multi_label_table_without_any_label_keeps_its_type() -> None:
    """A batch in which nothing is predicted is written like any other."""
    table = predictions_table(np.full((2, 3), -1.0, np.float32), SEVERAL, ids=[1, 2])
    assert table.schema.field("prediction").type == pa.list_(pa.string())


def test_regression_table() -> None:
    table = predictions_table(np.array([[0.25], [3.0]], np.float32), NUMBER, ids=[1, 2], labels=np.float32([0.5, 3.0]))
    assert table.to_pydict() == {"id": [1, 2], "label": [0.5, 3.0], "prediction": [0.25, 3.0]}


def test_a_decision_changes_scores_and_predictions_of_the_table() -> None:
    logits = np.float32([[0, 2], [0, 4], [2, 0]])
    decision = Decision(SINGLE.problem_type, temperature=2.0, thresholds=np.array([0.8]))
    table = predictions_table(logits, SINGLE, ids=[1, 2, 3], decision=decision)
    assert table["prediction"].to_pylist() == ["no", "yes", "no"]
    expected = 1 / (1 + np.exp(-np.array([1.0, 2.0, -1.0])))
    assert table["score_yes"].to_pylist() == pytest.approx(list(expected), rel=1e-6)


def test_thresholds_of_several_labels_are_each_labels_own() -> None:
    decision = Decision("multi_label_classification", thresholds=np.array([0.2, 0.9]))
    assert decision.predictions(np.float32([[0, 0], [-3, 3]])).tolist() == [[1, 0], [0, 1]]
    usual = Decision("multi_label_classification")
    assert usual.predictions(np.float32([[0, 0], [-3, 3]])).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("label_set", [SINGLE, SEVERAL, NUMBER])
def test_a_table_gives_its_logits_back(label_set: LabelSet) -> None:
    width = max(1, len(label_set.names))
    logits = np.random.default_rng(0).normal(0, 4, (50, width)).astype(np.float32)
    found = logits_of_table(predictions_table(logits, label_set, ids=list(range(50))), label_set)
    assert np.allclose(to_scores(found, label_set.problem_type), to_scores(logits, label_set.problem_type), atol=1e-6)
    assert (decide(found, label_set.problem_type) == decide(logits, label_set.problem_type)).all()


def test_scores_that_float32_rounds_to_0_or_1_stay_finite() -> None:
    for label_set in (SINGLE, SEVERAL):
        logits = np.full((2, len(label_set.names)), -300.0, np.float32)
        logits[:, 0] = 300.0
        found = logits_of_table(predictions_table(logits, label_set, ids=[1, 2]), label_set)
        assert np.isfinite(found).all()
        assert (decide(found, label_set.problem_type) == decide(logits, label_set.problem_type)).all()
