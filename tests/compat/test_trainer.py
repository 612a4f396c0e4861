"""The Trainer on texts: the reference workflow, evaluation, prediction, callbacks, best model and files."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import tiny_tokenizer

from textune.compat import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    evaluate,
)
from textune.errors import ConfigError, TrainingError
from textune.training.checkpoint import verify

from .trainers import LABELS, accuracy, assert_same, classifier, losses, quiet, tokenized, trainer, weights


def test_the_reference_workflow(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The document's code in the spelling of its day, with a tiny checkpoint and a few pairs."""
    import datasets

    pairs = [
        {"sentence1": f"the {first} was good", "sentence2": f"the {second} was {word}", "label": int(word == "great")}
        for first, second in (("film", "film"), ("book", "song"), ("meal", "room"), ("shop", "play"))
        for word in ("great", "bad")
    ] * 2
    raw_datasets = datasets.DatasetDict(train=datasets.Dataset.from_list(pairs))
    raw_datasets["validation"] = datasets.Dataset.from_list(pairs[:5])
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)

    def tokenize_function(example: Any) -> Any:
        return tokenizer(example["sentence1"], example["sentence2"], truncation=True)

    tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
    data_collator = DataCollatorWithPadding(tokenizer=tokenizer)

    def compute_metrics(eval_preds: Any) -> Any:
        metric = evaluate.load("glue", "mrpc")
        logits, labels = eval_preds
        predictions = np.argmax(logits, axis=-1)
        return metric.compute(predictions=predictions, references=labels)

    training_args = TrainingArguments(str(tmp_path / "test-trainer"), evaluation_strategy="epoch", disable_tqdm=True)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    trainer = Trainer(
        model,
        training_args,
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        tokenizer=tokenizer,
        compute_metrics=compute_metrics,
    )
    output = trainer.train()
    assert (output.global_step, output.metrics["epoch"]) == (6, 3.0)
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["epoch"] for entry in evaluations] == [1.0, 2.0, 3.0]
    assert {"eval_accuracy", "eval_f1"} <= set(evaluations[0])
    predictions = trainer.predict(tokenized_datasets["validation"])
    assert (predictions.predictions.shape, predictions.label_ids.shape) == ((5, 2), (5,))
    assert predictions.metrics["test_accuracy"] == evaluations[-1]["eval_accuracy"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluations[-1]["eval_loss"], rel=1e-6)


def test_predictions_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    made = trainer(tmp_path, train_sampling_strategy="group_by_length")
    output = made.predict(tokenized())
    with torch.no_grad():
        for row in (0, 17, 63):
            inputs = {name: torch.tensor([tokenized()[row][name]]) for name in ("input_ids", "attention_mask")}
            np.testing.assert_allclose(output.predictions[row], made.model(**inputs).logits[0].numpy(), atol=1e-5)
    assert output.label_ids.tolist() == tokenized()["label"]
    assert set(output.metrics) == {
        "test_loss",
        "test_runtime",
        "test_samples_per_second",
        "test_steps_per_second",
    }
    unlabelled = made.predict(tokenized().remove_columns("label"))
    assert unlabelled.label_ids is None
    np.testing.assert_array_equal(unlabelled.predictions, output.predictions)


def test_the_loss_of_an_evaluation_is_the_mean_over_rows(tmp_path: Path) -> None:
    losses = [trainer(tmp_path, per_device_eval_batch_size=size).evaluate()["eval_loss"] for size in (5, 64)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_several_eval_datasets(tmp_path: Path) -> None:
    parts = {"first": tokenized().select(range(8)), "second": tokenized().select(range(8, 20))}
    made = trainer(tmp_path, eval_dataset=parts, compute_metrics=accuracy)
    metrics = made.evaluate()
    assert {"eval_first_accuracy", "eval_second_loss"} <= set(metrics)
    assert made.evaluate(parts["first"])["eval_loss"] == metrics["eval_first_loss"]
    assert made.evaluate(parts["first"], metric_key_prefix="own")["own_accuracy"] == metrics["eval_first_accuracy"]


def test_what_metrics_are_given(tmp_path: Path) -> None:
    given: list[Any] = []

    def metrics(prediction: Any) -> dict[str, float]:
        given.append(prediction)
        return {"most": np.float32(prediction.predictions.max())}  # type: ignore[dict-item]

    made = trainer(
        tmp_path,
        compute_metrics=metrics,
        include_for_metrics=["inputs", "loss"],
        per_device_eval_batch_size=2,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    found = made.evaluate()
    assert type(found["eval_most"]) is float
    assert found["eval_most"] == 1.0
    assert given[0].predictions.shape == (64,)
    assert given[0].losses.shape == (64,)
    longest = max(map(len, tokenized()["input_ids"]))
    assert given[0].inputs.shape == (64, longest)
    assert (given[0].inputs == -100).any(), "narrower batches are filled up"
    assert trainer(tmp_path, compute_metrics=metrics, prediction_loss_only=True).evaluate().keys() >= {"eval_loss"}
    assert len(given) == 1


def test_evaluation_in_bfloat16_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    made, exact = trainer(tmp_path, bf16_full_eval=True), trainer(tmp_path)
    before = weights(made.model)
    found, expected = made.predict(tokenized()).predictions, exact.predict(tokenized()).predictions
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.1
    assert_same(weights(made.model), before, within=0)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}


def test_training_in_bfloat16(tmp_path: Path) -> None:
    made, exact = trainer(tmp_path, bf16=True, max_steps=8), trainer(tmp_path, max_steps=8)
    made.train()
    exact.train()
    difference = np.abs(np.array(losses(made)) - losses(exact)).max()
    assert 0 < difference < 0.02
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}


def test_a_model_in_half_precision_is_trained_in_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = trainer(tmp_path, model=classifier().half())
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}
    assert "The model was loaded in torch.float16; it is trained in float32." in caplog.text


def test_early_stopping_and_best_model(tmp_path: Path) -> None:
    values = iter([0.3, 0.5, 0.4, 0.2, 0.9])
    made = trainer(
        tmp_path,
        compute_metrics=lambda prediction: {"score": next(values)},
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        max_steps=20,
    )
    best: dict[str, Any] = {}

    class Keep(TrainerCallback):  # type: ignore[misc]
        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **values: Any) -> None:
            best[state.global_step] = weights(model)

    made.add_callback(Keep())
    made.train()
    assert made.state.global_step == 8
    assert (made.state.best_metric, made.state.best_global_step) == (0.5, 4)
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8"]
    assert_same(weights(made.model), best[4], within=0)
    assert any((best[8][name] != best[4][name]).any() for name in best[8])


def test_a_notebook_shows_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    python, display = ModuleType("IPython"), ModuleType("IPython.display")
    python.display = display  # type: ignore[attr-defined]
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda text, **options: shown.append(text) or SimpleNamespace(update=shown.append)  # type: ignore
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    # What transformers finds out once holds for the process.
    monkeypatch.setattr("textune.compat.trainer_callbacks.is_in_notebook", lambda: True)
    # The real one is imported with these, and forgotten with them.
    monkeypatch.setitem(sys.modules, "transformers.utils.notebook", None)
    del sys.modules["transformers.utils.notebook"]
    made = trainer(tmp_path, max_steps=2, eval_strategy="epoch", disable_tqdm=False)
    made.train()
    names = [type(callback).__name__ for callback in made.callback_handler.callbacks]
    assert names == ["DefaultFlowCallback", "NotebookProgressCallback"]
    assert "Validation Loss" in shown[-1]
    assert not any("Notebook" in type(item).__name__ for item in trainer(tmp_path).callback_handler.callbacks)
    monkeypatch.setitem(sys.modules, "transformers.utils.notebook", None)  # as where IPython is missing
    made = trainer(tmp_path, disable_tqdm=False)
    assert type(made.callback_handler.callbacks[-1]).__name__ == "ProgressCallback"


def test_a_callback_stops_an_epoch_and_training(tmp_path: Path) -> None:
    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            control.should_epoch_stop = state.global_step in (2, 3)
            control.should_training_stop = state.global_step == 7

    made = trainer(tmp_path, callbacks=[Stop])
    made.train()
    assert [entry["epoch"] for entry in made.state.log_history if "loss" in entry] == [
        0.125,
        0.25,
        1.125,
        2.125,
        2.25,
        2.375,
        2.5,
    ]
    made = trainer(tmp_path, callbacks=[Stop])
    assert isinstance(made.pop_callback(Stop), Stop)
    made.add_callback(Stop)
    made.remove_callback(Stop)
    assert made.train().global_step == 24


def test_saved_models_and_checkpoints_are_loaded_by_transformers(tmp_path: Path) -> None:
    made = trainer(tmp_path, save_strategy="epoch", num_train_epochs=1)
    made.train()
    made.save_model()
    made.save_model(str(tmp_path / "elsewhere"))
    made.save_state()
    made.save_metrics("train", {"loss": 1.0})
    made.log_metrics("train", {"loss": 1.0})
    checkpoint = tmp_path / "checkpoint-8"
    verify(checkpoint)
    expected = made.predict(tokenized()).predictions
    for folder in (tmp_path, tmp_path / "elsewhere", checkpoint):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        assert tuple(model.config.id2label.values()) == LABELS
        assert model.config.problem_type == "single_label_classification"
        assert transformers.AutoTokenizer.from_pretrained(folder)("the film").input_ids
        found = trainer(tmp_path / "other", model=model).predict(tokenized()).predictions
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert json.loads((folder / "training_args.json").read_text())["num_train_epochs"] == 1
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert state["global_step"] == 8
    assert (tmp_path / "trainer_state.json").is_file()
    assert json.loads((tmp_path / "train_results.json").read_text()) == {"loss": 1.0}
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_the_model_is_made_anew_by_model_init(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), **quiet(), max_steps=3)
    made = Trainer(args=arguments, model_init=classifier, train_dataset=tokenized(), tokenizer=tiny_tokenizer())
    made.train()
    first = losses(made)
    made.train()
    assert losses(made) == first


def test_own_optimizer_and_schedule(tmp_path: Path) -> None:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    made = trainer(tmp_path, model=model, optimizers=(optimizer, schedule), max_steps=5)
    made.train()
    rates = [entry["learning_rate"] for entry in made.state.log_history if "loss" in entry]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
    assert made.optimizer is optimizer


def test_a_schedule_that_follows_a_metric(tmp_path: Path) -> None:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    values = {"model": model, "optimizers": (optimizer, schedule), "max_steps": 3, "eval_steps": 1}
    with pytest.raises(ConfigError, match="ReduceLROnPlateau follows a metric: name it with metric_for_best_model"):
        trainer(tmp_path, **values).train()
    made = trainer(
        tmp_path,
        **values,
        eval_strategy="steps",
        metric_for_best_model="score",
        compute_metrics=lambda prediction: {"score": 1.0},
    )
    made.train()
    rates = [entry["learning_rate"] for entry in made.state.log_history if "loss" in entry]
    assert rates == pytest.approx([0.5, 0.5, 0.05])


def test_parameters_outside_of_the_model_cannot_be_saved(tmp_path: Path) -> None:
    model = classifier()
    optimizer = torch.optim.SGD([*model.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(ConfigError, match="The optimiser has parameters that are none of the model's"):
        trainer(tmp_path, model=model, optimizers=(optimizer, None), save_strategy="steps").train()


def test_a_stream_of_datasets(tmp_path: Path) -> None:
    stream = tokenized().to_iterable_dataset()
    made = trainer(tmp_path, train_dataset=stream, eval_dataset=stream, max_steps=10)
    made.train()
    expected = trainer(tmp_path, train_sampling_strategy="sequential", max_steps=10)
    expected.train()
    np.testing.assert_allclose(losses(made), losses(expected), rtol=1e-5)
    assert made.evaluate()["eval_loss"] == pytest.approx(expected.evaluate()["eval_loss"], rel=1e-5)


def test_a_loss_that_is_not_finite_is_not_applied(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_steps=5)
    calls, before = 0, {}

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        nonlocal calls, before
        calls += 1
        if calls == 3:
            before = weights(made.model)
            return output * torch.nan
        return output

    made.model.classifier.register_forward_hook(spoil)
    with pytest.raises(TrainingError, match=r"Step 3 gave a loss nan; it was not applied.*of the training split"):
        made.train()
    assert_same(weights(made.model), before, within=0)
    assert made.is_in_train is False


def test_the_way_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "textune"):
        trainer(tmp_path, max_steps=1).train()
        trainer(tmp_path, max_steps=1, compute_loss_func=lambda outputs, labels, **rest: outputs.logits.sum()).train()
    lines = [record.getMessage() for record in caplog.records if "Training on" in record.getMessage()]
    assert lines == [
        "Training on the text path: texts and a transformers classifier.",
        "Training on the general path, batch by batch: compute_loss_func is given.",
    ]


@pytest.mark.parametrize("label", [-1, None])
def test_rows_with_placeholders_for_labels_are_predicted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, label: int | None
) -> None:
    unlabelled = tokenized().remove_columns("label")
    made = trainer(tmp_path, compute_metrics=accuracy)
    with caplog.at_level(logging.INFO, "textune"):
        found = made.predict(unlabelled.add_column("label", [label] * 64))
    np.testing.assert_array_equal(found.predictions, made.predict(unlabelled).predictions)
    assert found.label_ids is None
    assert caplog.messages == ["The test data have no labels: 'label' is -1 or empty in all rows."]


@pytest.mark.parametrize("kind", ["truth values", "whole numbers for several labels"])
def test_labels_are_cast(tmp_path: Path, kind: str) -> None:
    numbers = tokenized()["label"]
    given: list[Any] = [bool(x) for x in numbers] if kind == "truth values" else [[1 - x, x] for x in numbers]
    usual: list[Any] = numbers if kind == "truth values" else [[1.0 - x, float(x)] for x in numbers]
    found = []
    for labels in (given, usual):
        dataset = tokenized().remove_columns("label").add_column("labels", labels)
        for collator in (None, lambda rows: DataCollatorWithPadding(tiny_tokenizer())(rows)):
            values = {"train_dataset": dataset, "eval_dataset": dataset, "data_collator": collator, "max_steps": 2}
            made = trainer(tmp_path, **values)
            made.train()
            found.append([*losses(made), made.evaluate()["eval_loss"]])
    np.testing.assert_allclose(found, [found[-1]] * 4, rtol=1e-5)


def test_rows_made_while_they_are_read(tmp_path: Path) -> None:
    """By `with_transform`, whose rows may have other columns than the file."""

    def made_now(rows: Any) -> Any:
        return {**tiny_tokenizer()(rows["words"]), "labels": rows["class"]}

    plain = tokenized().select_columns(["text", "label"]).rename_columns({"text": "words", "label": "class"})
    misleading = plain.add_column("label", [0] * 64).with_transform(made_now)
    found = []
    for dataset in (plain.with_transform(made_now), misleading):
        values = {"train_dataset": dataset, "eval_dataset": dataset, "compute_metrics": accuracy}
        made = trainer(tmp_path, **values, remove_unused_columns=False, max_steps=2, eval_strategy="epoch")
        made.train()
        found.append(losses(made))
    expected = trainer(tmp_path, max_steps=2)
    expected.train()
    np.testing.assert_allclose(found, [losses(expected)] * 2, rtol=1e-5)


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_other_problem_types(tmp_path: Path, kind: str) -> None:
    numbers = tokenized()["label"]
    column = [float(value) for value in numbers] if kind == "regression" else [[1.0 - x, float(x)] for x in numbers]
    dataset = tokenized().remove_columns("label").add_column("labels", column)
    found = []
    for use_text in (True, False):
        model = classifier(label_names=("score",) if kind == "regression" else LABELS)
        options = {} if use_text else {"data_collator": lambda rows: DataCollatorWithPadding(tiny_tokenizer())(rows)}
        made = trainer(tmp_path, model=model, train_dataset=dataset, eval_dataset=dataset, max_steps=6, **options)
        made.train()
        assert made.training_path == ("text" if use_text else "general")
        assert "eval_loss" in made.evaluate()
        found.append(made)
    np.testing.assert_allclose(losses(found[0]), losses(found[1]), rtol=1e-5)
    expected = {"regression": "regression", "multi-label": "multi_label_classification"}[kind]
    assert {made.model.config.problem_type for made in found} == {expected}
