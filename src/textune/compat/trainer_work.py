"""What the Trainer trains on: tokenised texts in the engine's own way, or batches of any data set and model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding, set_seed
from transformers.trainer_pt_utils import find_batch_size

from textune.compat.trainer_checks import is_text_classifier
from textune.compat.trainer_data import (
    LABEL_COLUMNS,
    LEFT_OUT,
    EpochSampler,
    NotTextError,
    SampledPlan,
    SharedSampler,
    text_rows,
)
from textune.compat.trainer_facts import as_taken
from textune.config import EngineConfig
from textune.data.collate import Padding
from textune.errors import ConfigError, first_rows
from textune.models.dropout import DropoutStream
from textune.models.losses import Loss
from textune.models.unpadded import unpadded_where_possible, why_padded
from textune.problem_types import SINGLE_LABEL
from textune.seeds import derive_seed
from textune.training.engine import build_engine
from textune.training.work import MAX_ROWS_NAMED, Step, TextWork, Work

if TYPE_CHECKING:
    from textune.compat.trainer import Trainer

# A subclass that changes one of these has its batches made and its losses computed by them.
_OWN_STEPS = (
    "compute_loss",
    "training_step",
    "get_train_dataloader",
    "compute_loss_context_manager",
    "floating_point_ops",
    "_prepare_inputs",
    "_prepare_input",
    "_remove_unused_columns",
    "_get_collator_with_removed_columns",
    "_get_train_sampler",
)


# What a script may have put around a model, and the engine would pass by: it calls the parts of a classifier.
_OWN_FORWARD = ("forward", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# The optimiser may be a script's own, or be looked at by one: it is given the model's own parameters.
ENGINE = EngineConfig(used_rows=False)


def choose_work(trainer: Trainer, loader: Any, *, steps_per_epoch: int, stack: ExitStack) -> tuple[Work, str | None]:
    """Texts for a transformers classifier go the engine's own way; everything else goes batch by batch.

    Args:
        stack: what the model is prepared with is taken back when it is closed.

    Returns:
        The work, and why it is not the engine's own; None where it is.

    Raises:
        DataError: a label that the model has no output for.
    """
    try:
        return _text_work(trainer, stack), None
    except NotTextError as reason:
        dropout = DropoutStream(0) if trainer.args.device.type == "cpu" else None
        stack.enter_context(unpadded_where_possible(trainer.model, dropout=dropout))
        return BatchWork(trainer, loader, steps_per_epoch, dropout, own_generators(trainer, loader, stack)), str(reason)


def _text_work(trainer: Trainer, stack: ExitStack) -> TextWork:
    args, model = trainer.args, trainer.model
    if changed := [name for name in _OWN_STEPS if trainer.has_own(name)]:
        raise NotTextError(f"{changed[0]} is the script's own")
    if trainer.compute_loss_func is not None:
        raise NotTextError("compute_loss_func is given")
    name = type(model).__name__
    if not is_text_classifier(model):
        raise NotTextError(f"{name} is no classifier of transformers")
    if any(vars(model).get(attribute) for attribute in _OWN_FORWARD):
        raise NotTextError(f"this {name} has a forward or hooks of the script's own")
    if args.label_names not in (None, ["labels"]) or not args.remove_unused_columns:
        raise NotTextError("label_names or remove_unused_columns are given")
    if not args.average_tokens_across_devices and args.world_size > 1:
        raise NotTextError("average_tokens_across_devices=False takes the mean of the processes' means")
    if args.include_num_input_tokens_seen == "all":
        raise NotTextError("include_num_input_tokens_seen='all' counts padding")
    padding = _padding(trainer.data_collator)
    if padding.width is None and why_padded(model) is None:
        # Scripts round widths for the sake of speed, which is more without any padding.
        padding = replace(padding, multiple_of=None)
    config: Any = model.config
    rows = text_rows(
        trainer.train_dataset,
        accepted=[name for name in trainer._kept_columns() if name not in LABEL_COLUMNS],
        num_labels=config.num_labels,
        problem_type=config.problem_type,
    )
    if trainer.label_smoother is not None and rows.problem_type != SINGLE_LABEL:
        raise ConfigError("label_smoothing_factor is for whole numbers as labels; these are several or decimals.")
    # transformers writes it to the configuration when it sees the first labels; it is saved with the model.
    config.problem_type = rows.problem_type
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, EpochSampler), "a table has a length"
    size = args.train_batch_size
    kept = len(sampler) // size * size if args.dataloader_drop_last else len(sampler)
    smoothing = 0.0 if trainer.label_smoother is None else args.label_smoothing_factor
    engine = build_engine(
        model, ENGINE, tokens=rows.tokens, padding=padding, arithmetic=trainer.arithmetic, device=args.device
    )
    return TextWork(
        engine=stack.enter_context(engine),
        tokens=rows.tokens,
        labels=rows.labels,
        ids=range(len(rows.labels)),
        row_numbers=np.arange(1, len(rows.labels) + 1),
        plan=SampledPlan(
            kept, size, args.gradient_accumulation_steps * trainer.processes.world_size, sampler.seed, sampler
        ),
        loss=Loss(rows.problem_type, label_smoothing=smoothing),
        between_passes=lambda: trainer.tell("on_substep_end"),
        processes=trainer.processes,
        scaler=trainer.scaler,
    )


def _padding(collator: Any) -> Padding:
    if type(collator) is not DataCollatorWithPadding:
        raise NotTextError("the collator is not DataCollatorWithPadding")
    strategy = str(getattr(collator.padding, "value", collator.padding))
    tokenizer, longest = collator.tokenizer, strategy in ("True", "longest")
    if not (longest or (strategy == "max_length" and collator.max_length)) or tokenizer.pad_token_id is None:
        raise NotTextError(f"the collator pads with {collator.padding!r}")
    width = None if longest else collator.max_length
    return Padding.of(tokenizer, multiple_of=collator.pad_to_multiple_of, width=width)


def own_generators(trainer: Trainer, loader: Any, stack: ExitStack) -> dict[torch.Generator, int]:
    """The generators that a script's own loader and sampler draw from, with their seeds of the first epoch.

    A `RandomSampler`, which is what `shuffle=True` makes, is given one: its order is then that of transformers (with
    accelerate), as textune's own is.

    Args:
        stack: what the generators were is brought back when it is closed.
    """
    args, sampler = trainer.args, getattr(loader, "sampler", None)
    inner = [getattr(part, "sampler", None) for part in (sampler, getattr(loader, "batch_sampler", None))]
    seeds = {}
    for part in (loader, sampler, *inner):
        generator = getattr(part, "generator", None)
        if isinstance(part, torch.utils.data.RandomSampler):
            stack.callback(setattr, part, "generator", generator)
            part.generator = torch.Generator()
            seeds[part.generator] = args.seed if args.data_seed is None else args.data_seed
        elif isinstance(generator, torch.Generator) and generator not in seeds:
            stack.callback(generator.set_state, generator.get_state())
            seeds[generator] = generator.initial_seed()
    return seeds


def count_items(inputs: Any) -> int:
    """What the mean loss of a batch is a mean over: labels not left out, or rows where labels are no tensor."""
    labels = inputs.get("labels") if isinstance(inputs, Mapping) else None
    return int(labels.ne(LEFT_OUT).sum()) if isinstance(labels, torch.Tensor) else _num_rows(inputs)


def _num_rows(inputs: Any) -> int:
    return int(find_batch_size(inputs) or 1)


def _cut(inputs: Any, rows: int) -> list[Any]:
    """A batch in parts of `rows` rows; whole where something in it is no tensor with a row per example."""
    num_rows = _num_rows(inputs)
    if not isinstance(inputs, Mapping) or not all(
        isinstance(value, torch.Tensor) and value.ndim and len(value) == num_rows for value in inputs.values()
    ):
        return [inputs]
    return [{name: value[first : first + rows] for name, value in inputs.items()} for first in range(0, num_rows, rows)]


@dataclass
class BatchWork:
    """Batches of a DataLoader, whatever they hold; `Trainer.training_step` gives gradient and loss of each.

    Attributes:
        loader: the batches of this process; those of a step are the same number of the loader's in each process.
        dropout: where the masks of a model that is computed without padding come from; None for torch's own.
        generators: those of the loader and its sampler, with their seeds of the first epoch.
    """

    trainer: Trainer
    loader: Any
    steps_per_epoch: int
    dropout: DropoutStream | None
    generators: Mapping[torch.Generator, int]
    rows_per_pass: int = field(default=1, init=False)
    _rows: str = field(default="rows of an unknown order", init=False)

    @property
    def processes_meet(self) -> bool:
        """A script's own loss may gather from all processes."""
        return self.trainer.processes.world_size > 1

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[Step]:
        size = self.trainer.args.gradient_accumulation_steps
        processes, sampler = self.trainer.processes, getattr(self.loader, "sampler", None)
        whole = sampler.sampler if isinstance(sampler, SharedSampler) else sampler
        parts: tuple[Any, ...] = (sampler, getattr(self.loader, "dataset", None), self.loader)
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        order = whole.order(epoch) if isinstance(whole, EpochSampler) else None
        for generator, seed in self.generators.items():
            generator.manual_seed(seed + epoch)
        self._seed(epoch, 0)
        batches = iter(self.loader)
        for number in itertools.count():
            if number:
                self._seed(epoch, number)
            passes = list(itertools.islice(batches, size))
            if number < start:
                continue
            rows = [_num_rows(inputs) for inputs in passes]
            self.rows_per_pass = max([self.rows_per_pass, *rows])
            tokens, operations = sum(self._tokens(inputs) for inputs in passes), 0
            if self.trainer.has_own("floating_point_ops"):
                operations = sum(self.trainer.floating_point_ops(inputs) for inputs in passes)
            sums = processes.sum([len(passes), sum(rows), tokens, operations])
            num_passes, num_rows, num_tokens, self.trainer.step_operations = (int(value) for value in sums)
            if not num_passes:
                return
            if order is not None:
                first = number * size * processes.world_size * self.trainer.args.train_batch_size
                self._rows = first_rows([int(row) + 1 for row in order[first : first + num_rows]], shown=MAX_ROWS_NAMED)
            else:
                self._rows = f"batch {number * size + 1} of the epoch"
            yield Step(passes, num_rows, num_tokens)

    def _seed(self, epoch: int, number: int) -> None:
        """What a script's sampler, data set or collator draws for a step is a function of nothing but its place.

        The same in all processes, so that their samplers agree. The first epoch begins as transformers' does.
        """
        seed = self.trainer.args.seed
        set_seed(derive_seed(seed, f"batches-{epoch}-{number}") % 2**32 if epoch or number else seed)

    def accumulate(self, step: Step) -> float:
        """Each pass counts by its share of the step's labels: 32 x 1, 8 x 4 and 4 x 8 rows give the same gradient.

        A loss that a script says to be scaled is told the step's number of labels and counts as it is.
        """
        if self.dropout is not None:
            self.dropout.reseed(torch.initial_seed())
        items, world = [count_items(inputs) for inputs in step.passes], self.trainer.processes
        self.trainer.current_gradient_accumulation_steps = len(items)
        if self.trainer.args.average_tokens_across_devices:
            step_items = world.sum([sum(items)])[0]
            mean_items = step_items / world.world_size
        else:
            step_items = mean_items = sum(items)
        scaled = self._loss_is_scaled()
        total = torch.zeros((), device=self.trainer.args.device)
        for number, (inputs, count) in enumerate(zip(step.passes, items, strict=True)):
            if number:
                self.trainer.tell("on_substep_end")
            self.trainer.pass_weight = 1.0 if scaled else count / max(mean_items, 1 / world.world_size)
            items_told = torch.tensor(int(step_items) if scaled else count, device=self.trainer.args.device)
            step_of_pass = self.trainer.training_step
            loss = step_of_pass(*as_taken(step_of_pass, self.trainer.model, inputs, items_told))
            total += loss.detach().to(total)
        self.trainer.pass_weight = 1.0
        if world.world_size > 1:
            # Losses of `training_step` are such that their mean over the processes is right; the engine adds them up.
            for parameter in self.trainer.model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= world.world_size
        return float(total) / world.world_size

    def _loss_is_scaled(self) -> bool:
        trainer = self.trainer
        # transformers' own heads take the mean of a batch, whatever a script says.
        own = trainer.has_own("compute_loss") or trainer.compute_loss_func is not None
        return bool(trainer.loss_is_scaled_for_ga) and (own or not is_text_classifier(trainer.model))

    def cut(self, step: Step, rows: int | None) -> Step:
        """Batches that are no mappings of tensors, each with a row per example, stay as they are."""
        if rows is None:
            return step
        return replace(step, passes=[part for inputs in step.passes for part in _cut(inputs, rows)])

    def largest_pass(self, step: Step) -> int:
        return max(_num_rows(inputs) for inputs in step.passes)

    def drop_gradients(self) -> None:
        """There are none but those of the model's own weights."""
        self.trainer.model.zero_grad(set_to_none=True)

    def settle(self) -> None:
        """The model is always up to date."""

    def name_rows(self, step: Step) -> str:
        return f"{self._rows} of train_dataset"

    def rows_of(self, step: Step) -> dict[str, Any]:
        return {"rows": self.name_rows(step)}

    def _tokens(self, inputs: Any) -> int:
        """Tokens of a batch; with padding only where `include_num_input_tokens_seen` says so."""
        if not isinstance(inputs, Mapping):
            return 0
        mask = inputs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and self.trainer.args.include_num_input_tokens_seen != "all":
            return int(mask.sum())
        main = inputs.get(getattr(self.trainer.model, "main_input_name", "input_ids"))
        return int(np.prod(main.shape)) if isinstance(main, torch.Tensor) else 0
