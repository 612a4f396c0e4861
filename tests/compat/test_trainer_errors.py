"""What is wrong with a Trainer is said once, clearly, and as early as it can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import make_tiny_model, tiny_tokenizer

from textune.compat import Trainer
from textune.errors import CheckpointError, ConfigError, DataError, OutputError, TextuneError, TrainingError

from .trainers import accuracy, arguments, classifier, tokenized, trainer


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Trainer(**values)
    return caught.value.problems


def test_all_problems_of_the_constructor_at_once(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    assert problems(
        args=arguments(tmp_path, eval_strategy="epoch", metric_for_best_model="f1"),
        tokenizer=tokenizer,
        processing_class=tokenizer,
        train_datset=tokenized(),
    ) == [
        "Trainer has no argument 'train_datset'. Did you mean 'train_dataset'?",
        "tokenizer and processing_class are the same argument; give one of them.",
        "Trainer needs a model, or a function model_init that makes one.",
        "eval_strategy='epoch' needs an eval_dataset; there is none.",
        "metric_for_best_model='f1' needs compute_metrics, which gives it; there is none.",
    ]


def test_contradictions(tmp_path: Path) -> None:
    args, model = arguments(tmp_path), classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert problems(model=model, args=args, model_init=classifier, optimizers=(optimizer, None)) == [
        "model and model_init are both given; give one of them.",
        "model_init and optimizers cannot go together: override create_optimizer instead.",
    ]
    both = {"optimizers": (optimizer, None), "optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1})}
    assert problems(model=model, args=args, **both) == [
        "optimizers and optimizer_cls_and_kwargs are both given; give one of them."
    ]
    args.eval_strategy = "epoch"
    assert problems(model=model, args=args) == ["eval_strategy='epoch' needs an eval_dataset; there is none."]
    args.eval_strategy, args.load_best_model_at_end = "epoch", True
    assert "load_best_model_at_end=True needs eval_strategy and save_strategy" in problems(model=model, args=args)[0]


def test_several_processes_without_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert problems(model=classifier(), args=arguments(tmp_path)) == [
        "WORLD_SIZE=2 in the environment, but no RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT."
    ]


def test_things_of_the_wrong_kind(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    assert problems(model="bert-base-uncased", args=args) == ["model: expected a torch module, found str."]
    assert problems(model=make_tiny_model(), args=args)[0].startswith("BertModel computes hidden states and no loss")
    assert problems(model=classifier(), args={"output_dir": "x"}) == [
        "args: expected textune's TrainingArguments, found builtins.dict; import it from textune.compat."
    ]
    assert problems(model=classifier(), args=args, data_collator=tiny_tokenizer().pad_token) == [
        "data_collator: expected a function, found str."
    ]
    assert problems(args=args, model_init=lambda: None)[0].startswith("model_init returned None")


def test_data_without_labels(tmp_path: Path) -> None:
    renamed = tokenized().rename_column("label", "lable")
    with pytest.raises(DataError, match=r"train_dataset: expected a column 'label'.* found text, lable.*mean 'label'"):
        trainer(tmp_path, train_dataset=renamed)
    rows = [{"input_ids": [1, 2], "label": "good"}]
    with pytest.raises(DataError, match=r"column 'label' holds text \('good' in row 1\)"):
        trainer(tmp_path, train_dataset=rows)
    made = trainer(tmp_path, train_dataset=None, eval_dataset=renamed, compute_metrics=accuracy)
    with pytest.raises(DataError, match="compute_metrics is given, and the evaluated rows have no labels"):
        made.evaluate()


def test_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    labels = [*tokenized()["label"][:-2], 2, 5]
    dataset = tokenized().remove_columns("label").add_column("label", labels)
    with pytest.raises(DataError, match=r"label 2 in rows 63, 64; the model has 2 labels, 0 to 1") as caught:
        trainer(tmp_path, train_dataset=dataset).train()
    assert caught.value.hint == "Load the model with num_labels=6."
    missing = tokenized().remove_columns("label").add_column("label", [None, *labels[1:-2], 0, 1])
    with pytest.raises(DataError, match="row 1 has no label"):
        trainer(tmp_path, train_dataset=missing).train()


def test_token_ids_that_the_model_does_not_have(tmp_path: Path) -> None:
    rows = [{"input_ids": [2, 10, 3], "label": 0}, {"input_ids": [2, 10_000, 3], "label": 1}]
    with pytest.raises(CheckpointError, match=r"token id 10,000; the model has \d+ embeddings"):
        trainer(tmp_path, train_dataset=rows).train()
    rows[1]["input_ids"] = [2, -100, 3]
    with pytest.raises(DataError, match=r"^train_dataset: input_ids: expected token ids, from 0 on, found -100"):
        trainer(tmp_path, train_dataset=rows).train()


def test_token_ids_of_other_rows_that_the_model_does_not_have(tmp_path: Path) -> None:
    made = trainer(tmp_path, train_dataset=None)
    many = [{"input_ids": [2, 10, 3], "label": 0}, {"input_ids": [2, 10_000, 3], "label": 1}]
    negative = [many[0], {"input_ids": [2, -1, 3], "label": 1}]
    for ask in (made.evaluate, made.predict):
        with pytest.raises(CheckpointError, match=r"^a batch: .* token id 10,000; the model has \d+ embeddings"):
            ask(many)
        with pytest.raises(DataError, match=r"^a batch: input_ids: expected token ids, from 0 on, found -1\."):
            ask(negative)


def test_token_ids_of_a_scripts_own_batches_that_the_model_does_not_have(tmp_path: Path) -> None:
    made = trainer(tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs.logits.sum())
    batch = {"input_ids": torch.tensor([[2, 10_000, 3]]), "labels": torch.tensor([0])}
    made.get_train_dataloader = lambda: [batch]
    with pytest.raises(CheckpointError, match=r"^a batch: .* token id 10,000"):
        made.train()


@pytest.mark.parametrize("label", [2, -1])
def test_labels_of_other_rows_that_the_model_does_not_have(tmp_path: Path, label: int) -> None:
    made = trainer(tmp_path, train_dataset=None)
    wrong = relabelled([label, *tokenized()["label"][1:]])
    for ask in (made.evaluate, made.predict):
        with pytest.raises(DataError, match=f"label {label} in a batch; the model has 2 labels, 0 to 1"):
            ask(wrong)


def relabelled(labels: Any) -> Any:
    return tokenized().remove_columns("label").add_column("label", labels)


def test_labels_of_evaluations_are_looked_at_before_training(tmp_path: Path) -> None:
    wrong = relabelled([2, *tokenized()["label"][1:]])
    for given in (wrong, list(wrong), {"other": wrong}):
        with pytest.raises(DataError, match=r"eval_dataset.*: label 2 in row 1; the model has 2 labels, 0 to 1"):
            trainer(tmp_path, eval_dataset=given, eval_strategy="epoch")
    some = relabelled([-1, *tokenized()["label"][1:]])
    with pytest.raises(DataError, match=r"eval_dataset: label -1 in row 1") as caught:
        trainer(tmp_path, eval_dataset=some, eval_strategy="epoch")
    assert "Leave these rows out" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"train_dataset: label -1 in row 1"):
        trainer(tmp_path, train_dataset=some)
    none = relabelled([-1] * 64)
    with pytest.raises(
        DataError, match=r"eval_dataset: 'label' is -1 or empty in all rows.*compute_metrics needs them"
    ):
        trainer(tmp_path, eval_dataset=none, eval_strategy="epoch", compute_metrics=accuracy)
    assert trainer(tmp_path, eval_dataset=wrong).eval_dataset is wrong, "nothing says that it will be used"


def test_decimals_as_labels_of_several_classes(tmp_path: Path) -> None:
    decimals = relabelled([float(label) for label in tokenized()["label"]])
    with pytest.raises(
        DataError, match=r"train_dataset: the labels are decimals \(.* in row 1\).* has 2 outputs"
    ) as caught:
        trainer(tmp_path, train_dataset=decimals)
    assert "num_labels=1" in str(caught.value.hint)


def test_missing_data(tmp_path: Path) -> None:
    made = trainer(tmp_path, train_dataset=None, eval_dataset=None)
    with pytest.raises(ConfigError, match=r"Trainer\.train needs a train_dataset"):
        made.train()
    with pytest.raises(ConfigError, match=r"Trainer\.evaluate needs an eval_dataset"):
        made.evaluate()
    with pytest.raises(ConfigError, match="There is no eval_dataset 'other'"):
        made.evaluate("other")
    with pytest.raises(ConfigError, match="train_dataset gives no batch"):
        trainer(tmp_path, train_dataset=tokenized().select(range(3)), dataloader_drop_last=True).train()


def returns_nothing(prediction: Any) -> Any:
    """Forgot its return."""


def fails(prediction: Any) -> Any:
    return {"accuracy": prediction.predictions["logits"]}


def test_metrics_that_fail(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(returns_nothing, test_trainer_errors.py:\d+\) returned NoneType"):
        trainer(tmp_path, compute_metrics=returns_nothing).evaluate()
    with pytest.raises(ConfigError, match=r"\(fails, .*\) raised IndexError at test_trainer_errors.py:\d+: only integ"):
        trainer(tmp_path, compute_metrics=fails).evaluate()
    made = trainer(
        tmp_path, compute_metrics=accuracy, metric_for_best_model="acuracy", eval_strategy="steps", eval_steps=1
    )
    with pytest.raises(ConfigError, match=r"gave eval_loss, eval_accuracy, .*Did you mean 'eval_accuracy'"):
        made.train()


def test_metrics_that_are_more_than_numbers(tmp_path: Path) -> None:
    values: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    values["max_steps"] = 1

    def several(prediction: Any) -> dict[str, Any]:
        return {"per_label": np.array([0.5, 0.25]), "more": {"matrix": torch.eye(2)}, "f1": np.float32(0.5)}

    made = trainer(tmp_path, compute_metrics=several, **values)
    made.train()
    log = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["log_history"]
    (found,) = (entry for entry in log if "eval_f1" in entry)
    assert found["eval_per_label"] == [0.5, 0.25]
    assert found["eval_more"] == {"matrix": [[1.0, 0.0], [0.0, 1.0]]}
    with pytest.raises(ConfigError, match="metric_for_best_model='per_label': expected a number, found a list"):
        trainer(tmp_path, compute_metrics=several, metric_for_best_model="per_label", **values).train()

    made = trainer(tmp_path, compute_metrics=lambda prediction: {"kinds": {1, 2}}, **values)
    with pytest.raises(ConfigError, match=r"\(<lambda>, .*\): .* cannot hold 'kinds': Object of type set"):
        made.train()
    assert made.evaluate()["eval_kinds"] == {1, 2}, "nothing is saved there"


def test_scores_that_are_not_numbers(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    torch.nn.init.constant_(made.model.classifier.bias, float("nan"))
    with pytest.raises(TrainingError, match=r"Prediction: the model's scores for rows 1, 2, .* are NaN"):
        made.predict(tokenized())


def test_what_transformers_has_and_textune_has_not(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    for name in ("hyperparameter_search", "push_to_hub"):
        with pytest.raises(ConfigError, match=f"textune's Trainer does not have {name}"):
            getattr(made, name)()
    with pytest.raises(ConfigError, match=r"does not have train\(trial="):
        made.train(trial={"learning_rate": 1.0})
    with pytest.raises(ConfigError, match=r"has no argument 'dataset_tag'\. Did you mean 'dataset_tags'"):
        made.create_model_card(dataset_tag="glue")


def test_label_smoothing_of_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_smoothing_factor is for one label of several; this model predicts"):
        trainer(tmp_path, model=classifier(label_names=("score",)), label_smoothing_factor=0.1)
    several = tokenized().remove_columns("label").add_column("labels", [[0.0, 1.0]] * 64)
    with pytest.raises(ConfigError, match="label_smoothing_factor is for whole numbers as labels"):
        trainer(tmp_path, train_dataset=several, label_smoothing_factor=0.1).train()


def test_label_smoothing_that_a_loss_function_passes_by_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return torch.nn.functional.cross_entropy(outputs.logits, labels)

    class Own(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
            """May use both."""

    made = trainer(tmp_path, compute_loss_func=loss, label_smoothing_factor=0.1)
    assert made.label_smoother is None
    assert "label_smoothing_factor is not used: compute_loss_func gives the loss." in caplog.text
    caplog.clear()
    own = Own(classifier(), arguments(tmp_path, label_smoothing_factor=0.1), compute_loss_func=loss)
    assert own.label_smoother is not None
    assert "not used" not in caplog.text


class Bare(torch.nn.Module):
    """Knows nothing of activation checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def test_activation_checkpointing_of_models_without_it(tmp_path: Path) -> None:
    args = arguments(tmp_path, activation_checkpointing=True)
    assert problems(model=Bare(), args=args) == [
        "activation_checkpointing=True: Bare has no activation_checkpointing_enable."
    ]
    model = classifier()
    model.supports_gradient_checkpointing = False
    assert problems(model=model, args=args) == [
        "activation_checkpointing=True: BertForSequenceClassification does not support activation checkpointing."
    ]
    args.activation_checkpointing_kwargs = "offload"
    assert problems(model=classifier(), args=args) == [
        "activation_checkpointing_kwargs: expected a dict, found 'offload'."
    ]


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Cannot write"):
        trainer(tmp_path / "file")


def test_the_positional_order_is_that_of_transformers() -> None:
    import inspect

    found, expected = (list(inspect.signature(kind.__init__).parameters) for kind in (Trainer, transformers.Trainer))
    assert found[: len(expected)] == expected
    assert issubclass(ConfigError, TextuneError)
