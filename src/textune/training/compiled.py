"""The layers of an encoder by torch.compile, in training passes only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


class CompiledLayers:
    """Compiled calls of a model's layers, which take the place of the plain ones inside `in_place`.

    Elsewhere layers run as they are: evaluations compute in another arithmetic, for which all would be compiled anew.
    Layers of equal shape share what is compiled; sizes of batches are left open. A layer with hooks, as the last one
    has where only first tokens are read, stays as it is: torch.compile does not notice that layers differ in hooks.
    Attention stays outside, since it is laid out for each batch, and the dropout of layers is torch's own.
    """

    def __init__(self, model: nn.Module) -> None:
        self._calls: list[tuple[nn.Module, Any]] = []
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer) and not _has_hooks(layer):
                layer.compile(dynamic=True)
                self._calls.append((layer, layer._compiled_call_impl))
                layer._compiled_call_impl = None

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the layers run compiled; the first pass compiles them."""
        for layer, call in self._calls:
            layer._compiled_call_impl = call
        try:
            yield
        finally:
            for layer, _ in self._calls:
                layer._compiled_call_impl = None


def _has_hooks(layer: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())
