"""What is wrong with data, collator and metrics of a Trainer: one clear error each, before training where it can be
known then. Arguments that contradict each other are in test_trainer_errors.py and test_arguments.py, the metrics' own
checks in test_evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textune.compat import EvalPrediction, evaluate
from textune.errors import ConfigError, DataError

from .trainers import accuracy, tokenized, trainer


@pytest.mark.parametrize("method", ["train", "evaluate", "predict"])
@pytest.mark.parametrize(
    ("collator", "message"),
    [
        (lambda rows: "text", r"The collator returned a str \('text'\); expected a dict of tensors"),
        (lambda rows: ["a", "b"], r"The collator returned a list \(\['a', 'b'\]\); expected a dict of tensors"),
        (lambda rows: rows, r"The collator returned a list \(\[\{'.*; expected a dict of tensors"),
        (lambda rows: None, r"The collator returned None; expected a dict of tensors"),
        (lambda rows: {"labels": ["good"] * len(rows)}, r"The collator gave text for 'labels' \(\['good', 'good'"),
        (lambda rows: {"input_ids": [["a"]] * len(rows)}, r"The collator gave text for 'input_ids' \(\[\['a'\]"),
        (lambda rows: {"input_ids": [[1, 2]] * len(rows)}, r"The collator gave a list for 'input_ids' \(\[\[1, 2\]"),
        (lambda rows: {"labels": [row["label"] for row in rows]}, r"The collator gave a list for 'labels' \(\["),
    ],
    ids=["text", "texts", "rows", "nothing", "labels", "tokens", "lists", "list of labels"],
)
def test_a_collator_that_returns_no_tensors(
    tmp_path: Path, collator: Callable[[Any], Any], message: str, method: str
) -> None:
    made = trainer(tmp_path, data_collator=collator)
    with pytest.raises(DataError, match=message):
        made.predict(tokenized()) if method == "predict" else getattr(made, method)()


def test_evaluated_rows_without_labels_are_found_before_training(tmp_path: Path) -> None:
    unlabelled = tokenized().remove_columns("label")
    during: dict[str, Any] = {"eval_strategy": "epoch", "compute_metrics": accuracy}
    with pytest.raises(DataError, match="eval_dataset: expected a column 'label', 'labels' or 'label_ids', found text"):
        trainer(tmp_path, eval_dataset=unlabelled, **during)
    with pytest.raises(DataError, match="eval_dataset 'second': expected a column 'label'"):
        trainer(tmp_path, eval_dataset={"first": tokenized(), "second": unlabelled}, **during)
    with pytest.raises(DataError, match=r"eval_dataset: column 'label' holds text \('good' in row 1\)"):
        trainer(tmp_path, eval_dataset=unlabelled.add_column("label", ["good"] * 64), **during)
    # Where nothing is computed on them while training, they may be there to be predicted.
    assert trainer(tmp_path, eval_dataset=unlabelled, compute_metrics=accuracy).predict(unlabelled).label_ids is None


def mistyped(prediction: EvalPrediction) -> Any:
    return evaluate.load("acuracy").compute(predictions=prediction.predictions, references=prediction.label_ids)


def one_short(prediction: EvalPrediction) -> Any:
    classes = prediction.predictions.argmax(axis=-1)
    return evaluate.load("accuracy").compute(predictions=classes[:-1], references=prediction.label_ids)


def logits_with_nan(prediction: EvalPrediction) -> Any:
    scores = np.where(np.arange(64) == 4, np.nan, prediction.predictions[:, 1])
    return evaluate.load("roc_auc").compute(prediction_scores=scores, references=prediction.label_ids)


@pytest.mark.parametrize(
    ("compute_metrics", "kind", "message"),
    [
        (mistyped, ConfigError, r"there is no metric 'acuracy'; there are glue, accuracy.* Did you mean 'accuracy'\?"),
        (one_short, DataError, "accuracy: expected a reference for each prediction, found 63 predictions and 64 ref"),
        (logits_with_nan, DataError, "roc_auc: prediction_scores: found NaN or infinity in row 5"),
    ],
)
def test_what_a_metric_says_comes_through_the_trainer(
    tmp_path: Path, compute_metrics: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        trainer(tmp_path, compute_metrics=compute_metrics).evaluate()
