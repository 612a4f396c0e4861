"""Low-precision copies of linear layers' weights for the passes; the model's own fp32 weights stay the masters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WorkingCopies:
    """Copies that stand in the places of linear layers' weights during passes under autocast.

    Autocast (mixed precision as Micikevicius et al., 2018, describe it) converts these weights in each pass, and the
    gradient of each back. Here one copy of all is made per update, and the gradients are converted once per pass, when
    they are added to the masters' `.grad`, in fp32: the same bits. What autocast leaves in fp32, such as norms and
    embeddings, has no copy. Outside `in_place` the model is the fp32 model it always was.

    Args:
        dtype: of the copies; that of autocast.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self._places: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
        for module in (module for module in model.modules() if isinstance(module, nn.Linear)):
            for name, master in module.named_parameters(recurse=False, remove_duplicate=False):
                if not master.is_floating_point():  # quantised
                    continue
                if master not in copies:  # modules may share one
                    copies[master] = nn.Parameter(torch.empty_like(master, dtype=dtype), master.requires_grad)
                self._places.append((module, name, master, copies[master]))
        self._masters, self._copies = list(copies), list(copies.values())

    def refresh(self) -> None:
        """Rounds the masters into the copies, which are trained where the masters are by now."""
        for master, copy in zip(self._masters, self._copies, strict=True):
            copy.requires_grad_(master.requires_grad)
        with torch.no_grad():
            torch._foreach_copy_([*self._copies], [*self._masters])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model computes with the copies, and backward passes give them gradients."""
        for module, name, _, copy in self._places:
            module._parameters[name] = copy
        try:
            yield
        finally:
            for module, name, master, _ in self._places:
                module._parameters[name] = master

    def drop_gradients(self) -> None:
        """Forgets the copies' gradients, those of a pass that did not come to its end."""
        for copy in self._copies:
            copy.grad = None

    def collect_gradients(self) -> None:
        """Adds the copies' gradients to those of the masters, in fp32, and forgets them."""
        for master, copy in zip(self._masters, self._copies, strict=True):
            if copy.grad is None:
                continue
            if master.grad is None:
                master.grad = copy.grad.to(master.dtype)
            else:
                master.grad.add_(copy.grad)
            copy.grad = None
