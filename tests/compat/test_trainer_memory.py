"""`auto_find_batch_size`: a Trainer that finds no memory goes on in smaller passes, with the same rows in a step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_tokenizer

from textune.compat.trainer import Trainer
from textune.errors import OutOfMemoryError

from .trainers import arguments, assert_same, classifier, losses, tokenized, trainer, weights


def short_of_memory(model: Any, limit: int) -> list[int]:
    """Lets passes of more rows than `limit` fail; returns the rows of each pass that is tried, while it grows."""
    tried: list[int] = []

    def look(module: Any, inputs: Any, logits: torch.Tensor) -> None:
        if module.training:
            tried.append(len(logits))
            if len(logits) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    # With a stranger's hook the model would run padded, and dropout's masks would depend on the width of a batch.
    look.__module__ = "torch"
    model.get_submodule("classifier").register_forward_hook(look)
    return tried


class General(Trainer):
    """Whose steps go batch by batch."""

    def compute_loss(self, *values: Any, **options: Any) -> Any:
        return super().compute_loss(*values, **options)


@pytest.mark.parametrize("kind", [Trainer, General])
def test_smaller_passes_give_the_weights_of_a_smaller_batch(
    tmp_path: Path, kind: type[Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for size, accumulation, limit in ((8, 1, 3), (2, 4, 8)):
        model = classifier(dropout=0.1)
        tried = short_of_memory(model, limit)
        given = arguments(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            auto_find_batch_size=True,
        )
        found.append(kind(model, given, train_dataset=tokenized(), processing_class=tiny_tokenizer()))
        with caplog.at_level(logging.WARNING):
            found[-1].train()
        assert tried == ([8, 4] if size == 8 else []) + [2] * 12
    assert found[0].training_path == ("text" if kind is Trainer else "general")
    assert losses(found[0]) == pytest.approx(losses(found[1]), rel=1e-6)
    assert_same(weights(found[0].model), weights(found[1].model), within=0 if kind is Trainer else 1e-6)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Memory ran out")]
    assert said == [
        "Memory ran out in a forward or backward pass of step 1: "
        f"from now on {rows} rows in a pass, and more passes in a step."
        for rows in (4, 2)
    ]


def test_a_batch_that_cannot_be_cut_ends_training(tmp_path: Path) -> None:
    class WithNames(General):
        def _prepare_inputs(self, inputs: Any) -> Any:
            return super()._prepare_inputs({name: value for name, value in inputs.items() if name != "names"})

    def collate(rows: list[Any]) -> dict[str, Any]:
        return {
            "input_ids": torch.tensor([[1, 2, 3]] * len(rows)),
            "labels": torch.tensor([row["label"] for row in rows]),
            "names": ["name"] * len(rows),
        }

    model = classifier()
    short_of_memory(model, 3)
    given = arguments(tmp_path, max_steps=1, auto_find_batch_size=True, remove_unused_columns=False)
    made = WithNames(model, given, train_dataset=tokenized(), data_collator=collate)
    with pytest.raises(OutOfMemoryError, match="Step 1 found no memory for 8 rows at once, and its") as caught:
        made.train()
    assert "set gradient_checkpointing=True" in str(caught.value.hint), "in the words of a script"


def test_without_it_a_script_gets_the_error_itself(tmp_path: Path) -> None:
    model = classifier()
    short_of_memory(model, 4)
    with pytest.raises(torch.OutOfMemoryError):
        trainer(tmp_path, model=model, max_steps=1).train()


def test_which_layers_compute_their_activations_again(tmp_path: Path) -> None:
    model = classifier()
    options = {"every_n_layers": 2, "offload": False, "use_reentrant": False}
    found = trainer(
        tmp_path, model=model, max_steps=2, activation_checkpointing=True, activation_checkpointing_kwargs=options
    )
    assert [layer.gradient_checkpointing for layer in model.bert.encoder.layer] == [True, False]
    assert options == {"every_n_layers": 2, "offload": False, "use_reentrant": False}, "the script's own stays"
    expected = trainer(tmp_path, max_steps=2)
    for made in (found, expected):
        made.train()
        assert made.training_path == "text"
    assert_same(weights(model), weights(expected.model), within=1e-6)


class OlderName(torch.nn.Module):
    """A model of no library, which knows the method as it was called before."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.given: list[dict[str, Any]] = []

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        self.given.append(options)


def test_models_that_know_activation_checkpointing_by_its_older_name(tmp_path: Path) -> None:
    model = OlderName()
    for given in (None, {"use_reentrant": True}, {"offload": True}):
        Trainer(model, arguments(tmp_path, gradient_checkpointing=True, gradient_checkpointing_kwargs=given))
    assert model.given == [{}, {"gradient_checkpointing_kwargs": {"use_reentrant": True}}, {"offload": True}]
