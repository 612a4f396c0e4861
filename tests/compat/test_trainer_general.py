"""The Trainer's general path: any module, data set, collator and loss, and the methods a script overrides."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import tiny_tokenizer

from textune.compat import Trainer, TrainerCallback
from textune.compat.trainer_work import _text_work
from textune.errors import ConfigError, DataError, TrainingError

from .trainers import arguments, assert_same, classifier, losses, quiet, tokenized, trainer, weights


class Linear(torch.nn.Module):
    """No model of transformers: a line through the inputs, and the loss as a dict or a tuple."""

    def __init__(self, *, gives_tuple: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)
        self.gives_tuple = gives_tuple

    def forward(self, values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.layer(values)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        if self.gives_tuple:
            return (logits,) if loss is None else (loss, logits)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def points(count: int = 20) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(count, 3)).astype(np.float32)
    return [{"values": torch.tensor(row), "label": int(row.sum() > 0), "name": "left out"} for row in rows]


class Points(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return points()[index]


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from points()


def train_on(folder: Path, data: Any, *, model: Any = None, kind: type[Trainer] = Trainer, **values: Any) -> Trainer:
    values = {"max_steps": 6, "learning_rate": 0.1, "per_device_train_batch_size": 4, **values}
    made = kind(model or Linear(), arguments(folder, **values), train_dataset=data, eval_dataset=data)
    made.train()
    return made


def their_arguments(folder: Path, **values: Any) -> Any:
    return transformers.TrainingArguments(str(folder), **{**quiet(), **values})


def test_lists_datasets_and_streams(tmp_path: Path) -> None:
    from_list, from_dataset = train_on(tmp_path, points()), train_on(tmp_path, Points())
    assert losses(from_list) == losses(from_dataset)
    assert losses(from_list)[-1] < losses(from_list)[0]
    stream = train_on(tmp_path, Stream())
    assert len(losses(stream)) == 6, "a stream that ends is read again"
    as_tuple = train_on(tmp_path, points(), model=Linear(gives_tuple=True))
    assert losses(as_tuple) == losses(from_list)
    for made in (from_list, as_tuple):
        assert made.predict(points()).predictions.shape == (20, 2)
    with pytest.raises(ConfigError, match="train_dataset has no length: say with max_steps"):
        train_on(tmp_path, Stream(), max_steps=-1)


def test_a_stream_without_rows_ends_with_an_error(tmp_path: Path) -> None:
    class Empty(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    with pytest.raises(TrainingError, match="Epoch 1 has no batch at all; there are 6 steps to go"):
        train_on(tmp_path, Empty())


def summed(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def averaged(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels)


class OldStyle(Trainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:  # type: ignore[override]
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs["logits"], labels)
        return (loss, outputs) if return_outputs else loss


class NewStyle(OldStyle):
    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return super().compute_loss(model, inputs, return_outputs)


class Scaled(Trainer):
    """Divides by the rows of a step itself, and says so."""

    loss_is_scaled_for_ga = True

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / 8
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("loss", ["model", "summed", "averaged", "OldStyle", "NewStyle", "Scaled"])
def test_accumulation_never_multiplies_loss_or_gradient(tmp_path: Path, loss: str) -> None:
    """8 x 1 = 2 x 4, also for 20 rows, whose last step is smaller, whether a loss divides by the number or not."""
    kind = {"OldStyle": OldStyle, "NewStyle": NewStyle, "Scaled": Scaled}.get(loss, Trainer)
    function = {"summed": summed, "averaged": averaged}.get(loss)
    found = []
    for size, passes in ((8, 1), (2, 4)):
        values = {"per_device_train_batch_size": size, "gradient_accumulation_steps": passes}
        given = arguments(tmp_path, **values, max_steps=9, max_grad_norm=0.1)
        made = kind(Linear(), given, train_dataset=points(), eval_dataset=points(), compute_loss_func=function)
        made.train()
        found.append(made)
    np.testing.assert_allclose(losses(found[0]), losses(found[1]), rtol=1e-5)
    assert_same(weights(found[1].model), weights(found[0].model), within=1e-6)
    evaluated = [made.evaluate()["eval_loss"] for made in found]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-5)


def test_a_scaled_loss_is_told_the_number_of_the_whole_step(tmp_path: Path) -> None:
    told = []

    def function(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        told.append(int(num_items_in_batch))
        return summed(outputs, labels, num_items_in_batch)

    class Says(Trainer):
        loss_is_scaled_for_ga: bool | None = None

    found = []
    for scaled in (None, True):
        Says.loss_is_scaled_for_ga = scaled
        given = arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, num_train_epochs=1)
        made = Says(Linear(), given, train_dataset=points(), compute_loss_func=function)
        made.train()
        found.append(losses(made))
    assert told == [4, 4, 4, 4, 4, 8, 8, 8, 8, 4]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    Says.loss_is_scaled_for_ga = True
    rows = list(tokenized().remove_columns("text").select([0] * 64))
    args = arguments(tmp_path, max_steps=2, gradient_accumulation_steps=2)
    found = []
    for kind in (Trainer, Says):
        made = kind(classifier(), args, train_dataset=rows)
        made.train()
        assert made.training_path == "general"
        found.append(losses(made))
    assert found[0] == found[1], "the loss of a classifier of transformers is a mean, whatever is said"


def test_accumulation_of_texts(tmp_path: Path) -> None:
    found = []
    for size, passes in ((32, 1), (8, 4), (4, 8)):
        made = trainer(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=passes,
            max_steps=4,
            learning_rate=5e-5,
        )
        made.train()
        found.append(weights(made.model))
    for other in found[1:]:
        assert_same(other, found[0], within=1e-6)


def test_what_a_script_overrides_is_called(tmp_path: Path) -> None:
    called: set[str] = set()

    class Own(Trainer):
        def training_step(self, *values: Any, **options: Any) -> Any:
            called.add("training_step")
            return super().training_step(*values, **options)

        def prediction_step(self, *values: Any, **options: Any) -> Any:
            called.add("prediction_step")
            return super().prediction_step(*values, **options)

        def get_train_dataloader(self) -> Any:
            called.add("get_train_dataloader")
            return torch.utils.data.DataLoader(points(), batch_size=10, collate_fn=self.data_collator_of_points)

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            called.add("get_eval_dataloader")
            return super().get_eval_dataloader(eval_dataset)

        def create_optimizer(self, model: Any = None) -> Any:
            called.add("create_optimizer")
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            return self.optimizer

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            called.add("create_scheduler")
            return super().create_scheduler(num_training_steps, optimizer)

        def log(self, logs: Any, start_time: Any = None) -> None:
            called.add("log")
            super().log({**logs, "own": 1.0}, start_time)

        @staticmethod
        def data_collator_of_points(rows: Any) -> Any:
            labels = torch.tensor([row["label"] for row in rows])
            return {"values": torch.stack([row["values"] for row in rows]), "labels": labels}

    made = train_on(tmp_path, points(), kind=Own, num_train_epochs=2, max_steps=-1)
    made.evaluate()
    assert called == {
        "training_step",
        "prediction_step",
        "get_train_dataloader",
        "get_eval_dataloader",
        "create_optimizer",
        "create_scheduler",
        "log",
    }
    assert made.state.global_step == 4
    assert all(entry["own"] == 1.0 for entry in made.state.log_history)
    assert isinstance(made.optimizer, torch.optim.SGD)


def test_an_own_training_step_may_use_the_accelerator(tmp_path: Path) -> None:
    class Own(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            model.train()
            loss = self.compute_loss(model, self._prepare_inputs(inputs)) / self.current_gradient_accumulation_steps
            self.accelerator.backward(loss)
            return loss.detach()

    values = {"gradient_accumulation_steps": 5, "num_train_epochs": 2, "max_steps": -1}
    found, expected = (train_on(tmp_path, points(), kind=kind, **values) for kind in (Own, Trainer))
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-5)


def test_an_override_that_nobody_calls_is_refused(tmp_path: Path) -> None:
    class Own(Trainer):
        def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
            """transformers' Trainer calls it."""

        def prediction_loop(self) -> None:
            """Of transformers 4."""

        def store_flos(self) -> None:
            """Of transformers 5."""

        def _prepare_context_parallel_inputs(self, model: Any, inputs: Any) -> Any:
            """textune's has it too, for copies of methods that call it."""

        def helper(self) -> None:
            """The script's own."""

    with pytest.raises(ConfigError) as caught:
        Own(Linear(), arguments(tmp_path), train_dataset=points())
    assert caught.value.problems == [
        f"Own overrides {name}, which textune's Trainer does not call."
        for name in ("_prepare_context_parallel_inputs", "_save", "prediction_loop", "store_flos")
    ]


def test_a_method_that_is_assigned_to_the_class_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Trainer.compute_loss
    called = []

    def mine(self: Any, *values: Any, **options: Any) -> Any:
        called.append(self)
        return usual(self, *values, **options)

    monkeypatch.setattr(Trainer, "compute_loss", mine)
    made = trainer(tmp_path, max_steps=2)
    made.train()
    assert made.training_path == "general"
    assert called == [made, made]
    monkeypatch.setattr(Trainer, "store_flos", mine, raising=False)
    with pytest.raises(ConfigError, match="Trainer overrides store_flos, which textune's Trainer does not call"):
        trainer(tmp_path)


def test_operations_of_a_batch(tmp_path: Path) -> None:
    asked = []

    class Own(Trainer):
        def floating_point_ops(self, inputs: Any) -> int:
            asked.append(inputs["input_ids"].numel())
            return asked[-1]

    batch = {"input_ids": torch.zeros(2, 7, dtype=torch.long)}
    theirs = transformers.Trainer(classifier(), their_arguments(tmp_path))
    made = trainer(tmp_path, max_steps=1)
    assert made.floating_point_ops(batch) == theirs.floating_point_ops(batch) > 0
    assert made.floating_point_ops({}) == theirs.floating_point_ops({}) == 0
    assert Trainer(Linear(), arguments(tmp_path)).floating_point_ops(batch) == 0
    made.train()
    tokens = 6 * made.model.num_parameters(exclude_embeddings=True)
    assert made.state.total_flos > 0 and made.state.total_flos % tokens == 0
    own = Own(
        classifier(),
        arguments(tmp_path, max_steps=3, gradient_accumulation_steps=2),
        train_dataset=tokenized(),
        processing_class=tiny_tokenizer(),
    )
    own.train()
    assert own.training_path == "general"
    assert len(asked) == 6
    assert own.state.total_flos == sum(asked)


def keeping_a_column(kind: Any) -> Any:
    class Own(kind):  # type: ignore[misc]
        """Weighs rows with a column of the data, as scripts for transformers do."""

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*self._signature_columns, "weight"]

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            factors = inputs.pop("weight")
            outputs = model(**inputs)
            each = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
            loss = (each * factors).mean()
            return (loss, outputs) if return_outputs else loss

    return Own


def test_a_column_of_weights_is_kept(tmp_path: Path) -> None:
    weighted = tokenized().add_column("weight", [float(row % 3) for row in range(64)])
    logs = []
    for kind, make in ((Trainer, arguments), (transformers.Trainer, their_arguments)):
        made = keeping_a_column(kind)(
            classifier(),
            make(tmp_path, max_steps=3, learning_rate=1e-3, per_device_train_batch_size=4),
            train_dataset=weighted,
            processing_class=tiny_tokenizer(),
        )
        made.train()
        logs.append(losses(made))
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-5)


def test_columns_set_from_outside_decide_the_way(tmp_path: Path) -> None:
    made = trainer(tmp_path, train_dataset=tokenized().add_column("position_ids", [[0]] * 64), max_steps=1)
    made._signature_columns = ["input_ids", "label"]
    made.train()
    assert made.training_path == "text"


def doubled(loss: Any) -> Any:
    return 2 * loss if loss is not None else None


def replaced_forward(model: Any) -> None:
    inner = model.forward

    @functools.wraps(inner)
    def forward(*values: Any, **options: Any) -> Any:
        outputs = inner(*values, **options)
        outputs.loss = doubled(outputs.loss)
        return outputs

    model.forward = forward


def hooked(model: Any) -> None:
    def hook(module: Any, inputs: Any, outputs: Any) -> Any:
        outputs.loss = doubled(outputs.loss)
        return outputs

    model.register_forward_hook(hook)


@pytest.mark.parametrize("change", [replaced_forward, hooked])
def test_what_a_script_puts_around_a_model_is_trained_on(tmp_path: Path, change: Any) -> None:
    model = classifier()
    before = trainer(tmp_path, model=model, max_steps=1, learning_rate=0)
    before.train()
    assert before.training_path == "text"
    change(model)
    after = trainer(tmp_path, model=model, max_steps=1, learning_rate=0)
    after.train()
    assert after.training_path == "general"
    np.testing.assert_allclose(losses(after), 2 * np.array(losses(before)), rtol=1e-5)


@pytest.mark.parametrize("name", ["_prepare_input", "_remove_unused_columns"])
def test_overrides_of_a_batch_act_in_training_too(tmp_path: Path, name: str) -> None:
    called = []

    class Own(Trainer):
        pass

    def override(self: Any, *values: Any) -> Any:
        called.append(self.is_in_train)
        return getattr(Trainer, name)(self, *values)

    setattr(Own, name, override)
    made = Own(
        classifier(), arguments(tmp_path, max_steps=1), train_dataset=tokenized(), processing_class=tiny_tokenizer()
    )
    made.train()
    assert called
    assert made.training_path == "general"


class OfTransformers4(Trainer):
    def training_step(self, model: Any, inputs: Any) -> Any:  # type: ignore[override]
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        self.accelerator.backward(loss)
        return loss.detach()

    def log(self, logs: Any) -> None:  # type: ignore[override]
        super().log({**logs, "own": 1.0})


class Copied(Trainer):
    """Bodies of transformers' own methods, with their comments left out."""

    def get_train_dataloader(self) -> Any:
        collator = self._get_collator_with_removed_columns(self.data_collator, description="training")
        data = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=collator,
            sampler=self._get_train_sampler(self.train_dataset),
        )
        assert self.num_examples(data) == 20
        return self.accelerator.prepare(data)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if not self.model_accepts_loss_kwargs and self.compute_loss_func is None:
            loss = loss / self.current_gradient_accumulation_steps
        if self.accelerator.distributed_type == "DEEPSPEED":
            raise AssertionError("never")
        self.accelerator.backward(loss)
        return loss.detach()


class CopiedFromTransformers4(Trainer):
    """As scripts with FGM or PGD have it, between two backward passes."""

    def training_step(self, model: Any, inputs: Any) -> Any:  # type: ignore[override]
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        if self.args.n_gpu > 1:
            loss = loss.mean()
        if self.args.gradient_accumulation_steps > 1 and not self.deepspeed:
            loss = loss / self.args.gradient_accumulation_steps
        if self.do_grad_scaling:
            self.scaler.scale(loss).backward()
        elif self.use_apex or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise AssertionError("never")
        else:
            loss.backward()
        return loss.detach()


class CopiedFromTransformers5(Trainer):
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        cp_context, inputs = self._prepare_context_parallel_inputs(model, inputs)
        with cp_context():
            model.train()
            inputs = self._prepare_inputs(inputs)
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            kwargs = {"retain_graph": True}
            if self.loss_is_scaled_for_ga is not None:
                loss_is_scaled_for_ga = self.loss_is_scaled_for_ga
            else:
                loss_is_scaled_for_ga = (
                    self.model_accepts_loss_kwargs and num_items_in_batch is not None
                ) or self.compute_loss_func is not None
            if not loss_is_scaled_for_ga:
                loss = loss / self.current_gradient_accumulation_steps
            self.accelerator.backward(loss, **kwargs)
            return loss.detach()


@pytest.mark.parametrize("kind", [OfTransformers4, Copied, CopiedFromTransformers4, CopiedFromTransformers5])
def test_methods_written_for_transformers(tmp_path: Path, kind: type[Trainer]) -> None:
    found, expected = (train_on(tmp_path, points(), kind=kind) for kind in (kind, Trainer))
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-6)
    if kind is OfTransformers4:
        assert all(entry["own"] == 1.0 for entry in found.state.log_history)


def test_what_scripts_ask_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = train_on(tmp_path, points())
    theirs = transformers.Trainer(Linear(), their_arguments(tmp_path, per_device_train_batch_size=4))
    theirs.optimizer = made.optimizer
    assert made.model_wrapped is made.model
    assert made.get_num_trainable_parameters() == theirs.get_num_trainable_parameters() == 8
    assert made.get_learning_rates() == theirs.get_learning_rates()
    assert (
        made.get_optimizer_group()
        == theirs.get_optimizer_group()
        == [[made.model.layer.weight], [made.model.layer.bias]]
    )
    for loader in (made.get_train_dataloader(), [None] * 5):
        assert made.num_examples(loader) == theirs.num_examples(loader) == 20
    assert made.get_total_train_batch_size(made.args) == theirs.get_total_train_batch_size(theirs.args) == 4
    accelerator = made.accelerator
    assert accelerator.prepare(made.model) is made.model
    assert accelerator.prepare(1, 2) == (1, 2)
    assert accelerator.state.num_processes == 1
    assert accelerator.pad_across_processes(made.model.layer.weight, dim=1, pad_index=-100) is made.model.layer.weight
    assert (made.hp_search_backend, made.deepspeed) == (None, None)
    assert made.tokenizer is made.processing_class is None
    made.tokenizer = tokenizer = tiny_tokenizer()
    assert made.processing_class is tokenizer
    capsys.readouterr()
    accelerator.print("said", end="")
    assert capsys.readouterr().out == "said"


def test_worker_processes_give_the_same_batches(tmp_path: Path) -> None:
    alone, helped = (train_on(tmp_path, points(), dataloader_num_workers=number) for number in (0, 1))
    assert losses(alone) == losses(helped)


def test_unused_columns(tmp_path: Path) -> None:
    import datasets

    plain = datasets.Dataset.from_list([{**row, "values": row["values"].tolist()} for row in points()])
    assert losses(train_on(tmp_path, plain)) == pytest.approx(losses(train_on(tmp_path, points())), rel=1e-6)
    made = Trainer(Linear(), arguments(tmp_path), eval_dataset=None)
    for rows in (datasets.Dataset.from_dict({"words": [1]}), [{"words": 1}]):
        with pytest.raises(DataError, match="test data have the columns words; Linear takes values, labels"):
            made.predict(rows)
    texts = [{"text": "good", "label": 1}]
    for rows in (datasets.Dataset.from_list(texts), texts):
        with pytest.raises(
            DataError, match=r"training data have the columns text, label; Bert.* takes input_ids"
        ) as caught:
            trainer(tmp_path, train_dataset=rows).train()
        assert "Tokenise the texts first" in str(caught.value.hint)


def test_a_collator_that_gives_text_is_named(tmp_path: Path) -> None:
    def collate(rows: Any) -> Any:
        return {"values": torch.stack([row["values"] for row in rows]), "names": [row["name"] for row in rows]}

    made = Trainer(
        Linear(),
        arguments(tmp_path, remove_unused_columns=False),
        data_collator=collate,
        train_dataset=points(),
    )
    with pytest.raises(DataError, match=r"The collator gave text for 'names' \(\['left out'"):
        made.train()


def test_a_model_without_loss_is_named(tmp_path: Path) -> None:
    rows = [{"values": row["values"]} for row in points()]
    made = Trainer(Linear(), arguments(tmp_path), data_collator=torch.utils.data.default_collate, train_dataset=rows)
    with pytest.raises(DataError, match="Linear gave no loss; its batch held values"):
        made.train()


def test_a_step_that_is_not_finite_names_its_rows(tmp_path: Path) -> None:
    rows = points()
    rows[7]["values"] = torch.full((3,), math.nan)
    with pytest.raises(TrainingError, match=r"gave a loss nan; it was not applied.*rows .*\b8\b.* of train_dataset"):
        train_on(tmp_path, rows, max_steps=5)
    with pytest.raises(TrainingError, match=r"Evaluation: the model's loss for rows? .*\b8\b.* is NaN"):
        Trainer(Linear(), arguments(tmp_path), eval_dataset=rows).evaluate()


def test_a_collator_that_rounds_widths_needs_no_padding(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_steps=1)
    made.train()
    made.data_collator = transformers.DataCollatorWithPadding(tiny_tokenizer(), pad_to_multiple_of=8)
    with ExitStack() as stack:
        assert "without padding: passes compute real tokens only" in _text_work(made, stack).engine.notes


def test_padded_rows_and_own_models_go_batch_by_batch(tmp_path: Path) -> None:
    texts = [row["text"] for row in tokenized()]
    padded = tokenized().remove_columns(["input_ids", "attention_mask", "token_type_ids"])
    columns = tiny_tokenizer()(texts, padding=True)
    for name, column in columns.items():
        padded = padded.add_column(name, column)
    found = trainer(tmp_path, train_dataset=padded, max_steps=5)
    found.train()
    expected = trainer(tmp_path, max_steps=5)
    expected.train()
    assert (found.training_path, expected.training_path) == ("general", "text")
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-4)

    class OwnModel(type(classifier())):  # type: ignore[misc]
        def forward(self, **inputs: Any) -> Any:
            output = super().forward(**inputs)
            output.loss = 3 * output.loss
            return output

    model = classifier()
    model.__class__ = OwnModel
    own = trainer(
        tmp_path,
        model=model,
        max_steps=1,
        remove_unused_columns=False,
        train_dataset=tokenized().remove_columns("text"),
    )
    own.train()
    assert losses(own)[0] == pytest.approx(3 * losses(expected)[0], rel=1e-5)


def test_events_within_a_step(tmp_path: Path) -> None:
    class Check(TrainerCallback):  # type: ignore[misc]
        seen = 0

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            self.before = model.layer.weight.detach().clone()
            assert model.layer.weight.grad.norm() <= 0.011

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            assert model.layer.weight.grad is not None
            assert not torch.equal(model.layer.weight, self.before)
            Check.seen += 1

    made = Trainer(
        Linear(), arguments(tmp_path, max_steps=3, max_grad_norm=0.01), train_dataset=points(), callbacks=[Check]
    )
    made.train()
    assert Check.seen == 3


def test_on_a_gpu_labels_are_looked_at_before_they_get_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind that, a label without an output ends the whole process. No GPU is needed to see what comes first."""
    batch = {**tokenized().with_format("torch", columns=["input_ids", "attention_mask"])[:1], "labels": None}

    def own_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return outputs.logits.sum() + labels.sum()

    usual, own = trainer(tmp_path), trainer(tmp_path, compute_loss_func=own_loss)
    monkeypatch.setattr(type(usual.args), "device", torch.device("cuda", 0))
    moved: list[Any] = []
    for made in (usual, own):
        monkeypatch.setattr(made, "_prepare_inputs", lambda inputs: moved.append(inputs["labels"].item()) or 1 / 0)
        for label in (1, -100, 2):
            batch["labels"] = torch.tensor([label])
            for ask in (
                lambda made=made: made.training_step(made.model, batch),
                lambda made=made: made.prediction_step(made.model, batch, prediction_loss_only=True),
            ):
                with pytest.raises((DataError, ZeroDivisionError)):
                    ask()
    assert moved == [1, 1, -100, -100, 1, 1, -100, -100, 2, 2]


def test_only_the_fused_optimizer_is_told_which_kernel_to_take(tmp_path: Path) -> None:
    """torch itself updates many weights at once on a GPU, unless it is told something."""
    for name, fused in (("adamw_torch", None), ("adamw_torch_fused", True)):
        assert trainer(tmp_path, optim=name).create_optimizer().defaults["fused"] is fused
