"""How passes are computed: over which tokens, in which arithmetic, and which weights they read and train."""

from __future__ import annotations

import contextlib
import dataclasses
import textwrap
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textune.data.tokens import Examples, IntArray
from textune.errors import ConfigError
from textune.evaluation.forward import Forward, padded_forward, unpadded_forward, why_batches_are_padded
from textune.models.tokenizer import check_token_ids
from textune.training.allocator import keep_freed_memory
from textune.training.precision import Arithmetic

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textune.config import EngineConfig
    from textune.data.collate import Padding
    from textune.data.tokens import TokenRows
    from textune.models.dropout import DropoutStream
    from textune.models.used_rows import UsedRows
    from textune.training.compiled import CompiledLayers
    from textune.training.working_copies import WorkingCopies


@dataclass(frozen=True)
class Engine:
    """What computes the passes of a training.

    Between steps the model is an ordinary one with fp32 weights, which anything may look at; only the embeddings of the
    used rows are up to date no earlier than after `settle`.

    Attributes:
        forward: examples -> logits, in training and in evaluation.
        used: the rows of the embedding table that are trained; None for all.
        copies: linear layers' weights in low precision, which passes read; None where they read the model's own.
        dropout: the source of dropout masks; None for torch's own.
        compiled: the layers as torch.compile makes them; None where they run as they are.
        notes: what was chosen, and why, one line each.
    """

    device: torch.device
    arithmetic: Arithmetic
    forward: Forward
    used: UsedRows | None
    copies: WorkingCopies | None
    dropout: DropoutStream | None
    compiled: CompiledLayers | None
    notes: tuple[str, ...]

    @contextlib.contextmanager
    def trained_weights(self) -> Iterator[None]:
        """Inside the block the model's parameters are those that are trained."""
        with self.used.in_place() if self.used is not None else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Inside the block passes compute as they do in training."""
        import torch

        if self.dropout is not None:
            self.dropout.reseed(torch.initial_seed())  # what the loop has seeded torch's generators with for this step
        if self.copies is not None:
            self.copies.refresh()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.trained_weights())
            for part in (self.copies, self.compiled):
                if part is not None:
                    stack.enter_context(part.in_place())
            yield

    def logits(self, examples: Examples) -> torch.Tensor:
        """Runs one pass inside `step`; fp32 [num_examples, num_outputs]."""
        with self.arithmetic.autocast(self.device):
            return self.forward(examples).float()

    def end_pass(self) -> None:
        """Brings the gradients of a backward pass to the model's own weights."""
        if self.copies is not None:
            self.copies.collect_gradients()

    def drop_gradients(self) -> None:
        """Forgets what a pass that did not come to its end has left."""
        if self.copies is not None:
            self.copies.drop_gradients()

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Notes what each update decays the weights by, for those that the optimiser does not know of."""
        if self.used is None:
            return
        used = self.used
        groups = enumerate(optimizer.param_groups)
        number = next(number for number, item in groups if any(weight is used.weight for weight in item["params"]))

        def note(*_: object) -> None:
            group = optimizer.param_groups[number]  # loading moments makes new ones
            used.decay *= 1 - group["lr"] * group["weight_decay"]

        optimizer.register_step_post_hook(note)

    @property
    def embedding_rows(self) -> str | None:
        """By what the token ids are known whose embeddings are trained; None for all."""
        return None if self.used is None else self.used.digest

    @property
    def untrained_decay(self) -> float:
        """What the embeddings that are not trained are to be multiplied with by now."""
        return 1.0 if self.used is None else self.used.decay

    @contextlib.contextmanager
    def loading(self, untrained_decay: float) -> Iterator[None]:
        """Inside the block the model gets a checkpoint's weights, until which the untrained ones had decayed so."""
        with self.used.loading(untrained_decay) if self.used is not None else contextlib.nullcontext():
            yield

    def settle(self) -> None:
        """Brings the whole model up to date."""
        if self.used is not None:
            self.used.write_back()


@contextlib.contextmanager
def build_engine(
    model: PreTrainedModel,
    config: EngineConfig,
    *,
    tokens: TokenRows,
    padding: Padding,
    arithmetic: Arithmetic,
    device: torch.device,
) -> Iterator[Engine]:
    """Prepares a model on its device for training; behind the block it is as it was, but for its weights.

    Args:
        tokens: the training split, for the token ids that occur in it.

    Raises:
        CheckpointError: the tokenizer gives ids for which the model has no embedding.
        ConfigError: the architecture has no gradient checkpointing.
    """
    import torch

    from textune.models.dropout import DropoutStream
    from textune.models.used_rows import used_rows
    from textune.training.working_copies import WorkingCopies

    counts = _count_ids(tokens, padding)
    check_token_ids(model, len(counts) - 1, what="training rows and padding")
    notes = []
    if config.keep_memory and device.type == "cpu":
        keep_freed_memory()
    stack = contextlib.ExitStack()
    if config.gradient_checkpointing:
        stack.enter_context(_gradient_checkpointing(model))
        notes.append("activations are computed again in the backward pass (gradient checkpointing)")
    # What is computed again has to meet the same masks: torch's generator can be set back for that.
    fast = config.fast_dropout and device.type == "cpu" and not model.is_activation_checkpointing
    dropout = DropoutStream(0) if fast else None
    reason = why_batches_are_padded(model, padding) if config.unpadded else "engine.unpadded is false"
    if reason is None:
        opened = unpadded_forward(model, device=device, dropout=dropout)
        notes.append("without padding: passes compute real tokens only")
    else:
        opened = padded_forward(model, padding=padding, device=device, dropout=dropout)
        notes.append(f"with padding: {reason}")
    used = used_rows(model, counts) if config.used_rows else None
    if used is not None:
        rows, all_rows = len(used.weight), len(model.get_input_embeddings().weight)
        notes.append(f"embeddings: trains the {rows:,} of {all_rows:,} rows that occur in the training data")
    copies = None
    if arithmetic.precision == "bf16" and config.working_copies:
        with used.in_place() if used is not None else contextlib.nullcontext():
            copies = WorkingCopies(model, torch.bfloat16)
    with stack, opened as forward:
        engine = Engine(device, arithmetic, forward, used, copies, dropout, None, tuple(notes))
        yield _compile(engine, model, tokens) if config.compile else engine


@contextlib.contextmanager
def _gradient_checkpointing(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block layers keep their inputs only, and compute again what the backward pass needs."""
    if not model.supports_gradient_checkpointing:
        raise ConfigError(f"engine.gradient_checkpointing: {type(model).__name__} does not have it.")
    before = model.is_activation_checkpointing
    model.activation_checkpointing_enable()
    try:
        yield
    finally:
        if not before:
            model.activation_checkpointing_disable()


def _compile(engine: Engine, model: PreTrainedModel, tokens: TokenRows) -> Engine:
    """The engine with compiled layers, tried on two passes; as it was where there is no compiler or it fails."""
    import torch

    from textune.training.compiled import CompiledLayers

    compiled = dataclasses.replace(engine, compiled=CompiledLayers(model))
    longest_first = np.argsort(-tokens.lengths)
    training, began = model.training, time.perf_counter()
    model.train()
    try:
        for rows in (longest_first[:2], longest_first[-3:]):  # a second size shows it that sizes differ
            with warnings.catch_warnings(action="ignore"), compiled.step():  # about its own insides
                torch.autograd.backward(compiled.logits(tokens.take(rows)).sum())
                compiled.end_pass()
    except Exception as error:  # compilers fail in many ways; training can do without
        what = textwrap.shorten(str(error), 200, placeholder=" ...")
        note = f"not compiled, since torch.compile failed: {type(error).__name__}: {what}"
        compiled = engine
    else:
        note = f"compiled the layers in {time.perf_counter() - began:.0f} s"
    finally:
        model.train(training)
        engine.drop_gradients()  # what a backward pass that failed has left
        with engine.trained_weights():
            model.zero_grad(set_to_none=True)
    return dataclasses.replace(compiled, notes=(*engine.notes, note))


def _count_ids(tokens: TokenRows, padding: Padding) -> IntArray:
    """How often each token id occurs in training, where the padding token always does; int64 [largest id + 1]."""
    counts = tokens.id_counts
    counts = np.pad(counts, (0, max(padding.token_id + 1 - len(counts), 0)))
    counts[padding.token_id] += 1
    return counts
