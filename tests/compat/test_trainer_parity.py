"""The Trainer beside `transformers.Trainer`: same weights, seed and data, dropout 0, fp32."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import tiny_tokenizer

import textune.compat
from textune.compat import Trainer, TrainingArguments

from .trainers import accuracy, assert_same, classifier, losses, quiet, tokenized, weights

pytestmark = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="transformers.Trainer needs it")
CLS = tiny_tokenizer().cls_token_id
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert")


def both(folder: Path, family: str = "bert", *, callback: Any = None, **values: Any) -> tuple[Any, Any]:
    """textune's Trainer and transformers', trained alike."""
    made = []
    for name, kind, arguments in (
        ("ours", Trainer, TrainingArguments),
        ("theirs", transformers.Trainer, transformers.TrainingArguments),
    ):
        trainer = kind(
            classifier(family),
            arguments(str(folder / name), **{**quiet(), **values}),
            train_dataset=tokenized(family),
            eval_dataset=tokenized(family),
            processing_class=tiny_tokenizer(family),
            compute_metrics=accuracy,
            callbacks=[callback()] if callback else None,
        )
        trainer.train()
        made.append(trainer)
    return made[0], made[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_weights_of_fifty_steps(tmp_path: Path, family: str) -> None:
    ours, theirs = both(tmp_path, family, max_steps=50)
    assert ours.training_path == "text"
    assert len(losses(ours)) == 50
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    assert_same(weights(ours.model), weights(theirs.model), within=1e-4)
    assert max(losses(ours)) - min(losses(ours)) > 0.01, "the comparison means something only if the loss changes"
    found, expected = (trainer.predict(tokenized(family)) for trainer in (ours, theirs))
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-4)
    np.testing.assert_array_equal(found.label_ids, expected.label_ids)
    assert set(expected.metrics) - set(found.metrics) <= {"test_model_preparation_time"}
    assert found.metrics["test_accuracy"] == expected.metrics["test_accuracy"]


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 42},
        {"seed": 7, "data_seed": 3},
        {"train_sampling_strategy": "sequential"},
        {"per_device_train_batch_size": 10, "dataloader_drop_last": True},
        {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 3},
    ],
    ids=lambda values: next(reversed(values)),
)
@pytest.mark.parametrize("path", ["text", "general"])
def test_the_same_rows_in_the_same_order(tmp_path: Path, path: str, values: dict[str, Any]) -> None:
    """Batch by batch, over two epochs; texts all differ, so that their tokens, padded or not, say which row it is."""
    seen: dict[str, list[list[int]]] = {"ours": [], "theirs": []}
    for name, library in (("ours", textune.compat), ("theirs", transformers)):
        model = classifier()

        class OwnLoss(library.Trainer):  # type: ignore[misc, name-defined]
            def compute_loss(self, *values: Any, **options: Any) -> Any:
                return super().compute_loss(*values, **options)

        def note(_: Any, arguments: Any, inputs: dict[str, Any], batches: Any = seen[name]) -> None:
            tokens = arguments[0] if arguments else inputs["input_ids"]
            batches.append(tokens[tokens > 0].tolist())

        model.base_model.register_forward_pre_hook(note, with_kwargs=True)
        trainer = (library.Trainer if path == "text" else OwnLoss)(
            model,
            library.TrainingArguments(str(tmp_path / name), **quiet(), num_train_epochs=2, **values),
            train_dataset=tokenized(),
            processing_class=tiny_tokenizer(),
        )
        torch.rand(5)  # numbers drawn by others in between change nothing
        trainer.train()
        assert name == "theirs" or trainer.training_path == path
    assert seen["ours"] == seen["theirs"]
    assert sum(batch.count(CLS) for batch in seen["ours"]) >= 120, "two epochs of 64 rows"
    half = len(seen["ours"]) // 2
    assert (seen["ours"][:half] == seen["ours"][half:]) == ("sequential" in values.values())


@pytest.mark.parametrize(
    "values",
    [
        {"lr_scheduler_type": "cosine", "warmup_steps": 3, "weight_decay": 0.1},
        {"label_smoothing_factor": 0.2, "max_grad_norm": 0.01},
        {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 5},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 10, "data_seed": 3, "seed": 1},
        {"num_train_epochs": 1.3, "max_steps": -1},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 2}
        | {"lr_scheduler_kwargs": {"patience": 0, "threshold": 0.5}},
        *({"optim": name, "weight_decay": 0.1} for name in ("sgd", "adafactor", "rmsprop", "adagrad")),
    ],
    ids=lambda values: values.get("optim", next(iter(values))),
)
def test_arguments_mean_the_same(tmp_path: Path, values: dict[str, Any]) -> None:
    ours, theirs = both(tmp_path, **{"max_steps": 10, **values})
    assert ours.state.global_step == theirs.state.global_step
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    rates = [[entry.get("learning_rate") for entry in one.state.log_history] for one in (ours, theirs)]
    assert rates[0] == rates[1]
    assert_same(weights(ours.model), weights(theirs.model), within=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch", "num_train_epochs": 2},
        {"eval_strategy": "steps", "eval_steps": 3, "logging_steps": 2, "logging_first_step": True, "max_steps": 7},
        {"eval_on_start": True, "eval_strategy": "epoch", "eval_delay": 2, "num_train_epochs": 3},
        {"include_num_input_tokens_seen": "all", "max_steps": 3},
        {"include_num_input_tokens_seen": "non_padding", "max_steps": 3},
        {"gradient_accumulation_steps": 3, "num_train_epochs": 1, "logging_steps": 1},
    ],
    ids=lambda values: next(iter(values)),
)
def test_log_has_the_same_entries(tmp_path: Path, values: dict[str, Any]) -> None:
    ours, theirs = both(tmp_path, **values)
    expected = [
        {name: entry[name] for name in ("step", "epoch", "num_input_tokens_seen") if name in entry}
        | {"keys": set(entry)}
        for entry in theirs.state.log_history
    ]
    found = [
        {name: entry[name] for name in ("step", "epoch", "num_input_tokens_seen") if name in entry}
        | {"keys": set(entry)}
        for entry in ours.state.log_history
    ]
    assert found == expected
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == sorted(
        path.name for path in (tmp_path / "theirs").iterdir()
    )


class Recorder(transformers.TrainerCallback):
    """Writes down every event with the step."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []


def _record(event: str) -> Any:
    def note(self: Recorder, args: Any, state: Any, control: Any, **values: Any) -> None:
        self.events.append((event, state.global_step))

    return note


for _event in (name for name in dir(transformers.TrainerCallback) if name.startswith("on_")):
    setattr(Recorder, _event, _record(_event))


@pytest.mark.parametrize(
    "values",
    [
        {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 2, "eval_on_start": True},
        {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 3, "max_steps": 4},
        {"gradient_accumulation_steps": 3, "num_train_epochs": 1, "logging_steps": 2},
        {
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "best",
            "metric_for_best_model": "loss",
            "load_best_model_at_end": True,
            "max_steps": 6,
        },
    ],
    ids=("epoch", "steps", "accumulation", "best"),
)
def test_callbacks_hear_the_same_events_in_the_same_order(tmp_path: Path, values: dict[str, Any]) -> None:
    ours, theirs = both(tmp_path, callback=Recorder, **values)
    found, expected = (
        next(item for item in trainer.callback_handler.callbacks if isinstance(item, Recorder)).events
        for trainer in (ours, theirs)
    )
    assert found == expected


def test_the_same_model_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cards = []
    for trainer in both(tmp_path, max_steps=3, eval_strategy="steps", eval_steps=2):
        trainer.create_model_card(tasks="text-classification", language="en", dataset_tags="glue", model_name="tiny")
        card = (Path(trainer.args.output_dir) / "README.md").read_text(encoding="utf-8")
        cards.append(card)
    assert "| Validation Loss | Accuracy |" in cards[0]
    assert cards[0] == cards[1].replace("OptimizerNames.ADAMW_TORCH_FUSED", "adamw_torch_fused")


def test_accumulation_where_the_reference_is_wrong(tmp_path: Path) -> None:
    """32 x 1, 8 x 4 and 4 x 8 rows are the same mean over 32 rows. transformers 5.23 multiplies a BERT's loss and
    gradient by the number of passes. docs/migration.md has the same figures.
    """
    first: dict[str, dict[int, tuple[float, float]]] = {"ours": {}, "theirs": {}}
    final: dict[int, Any] = {}
    for passes in (1, 4, 8):
        trainers = both(
            tmp_path / str(passes),
            max_steps=4,
            per_device_train_batch_size=32 // passes,
            gradient_accumulation_steps=passes,
            learning_rate=5e-5,
        )
        final[passes] = weights(trainers[0].model)
        for name, trainer in zip(first, trainers, strict=True):
            entry = trainer.state.log_history[0]
            first[name][passes] = (entry["loss"], entry["grad_norm"])
    assert_same(final[4], final[1], within=1e-6)
    assert_same(final[8], final[1], within=1e-6)
    loss, norm = 0.6845, 0.2535
    assert first["ours"] == {passes: pytest.approx((loss, norm), rel=1e-3) for passes in (1, 4, 8)}
    assert first["theirs"] == {passes: pytest.approx((passes * loss, passes * norm), rel=1e-3) for passes in (1, 4, 8)}


def test_the_general_path_is_the_same_too(tmp_path: Path) -> None:
    class Own(Trainer):
        def compute_loss(self, *values: Any, **options: Any) -> Any:
            return super().compute_loss(*values, **options)

    found = []
    for kind in (Trainer, Own):
        trainer = kind(
            classifier(),
            TrainingArguments(str(tmp_path / kind.__name__), **quiet(), max_steps=12),
            train_dataset=tokenized(),
            processing_class=tiny_tokenizer(),
        )
        trainer.train()
        found.append(trainer)
    assert [trainer.training_path for trainer in found] == ["text", "general"]
    np.testing.assert_allclose(losses(found[1]), losses(found[0]), rtol=1e-5)
    assert_same(weights(found[1].model), weights(found[0].model), within=1e-5)
    assert torch.is_grad_enabled()
