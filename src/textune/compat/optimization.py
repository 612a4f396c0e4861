"""`AdamW` with the signature and defaults it had in transformers before 5."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch  # the class below is a subclass; this module is imported by those who ask for it

from textune.errors import ConfigError


class AdamW(torch.optim.AdamW):
    """torch's AdamW under the signature of `transformers.AdamW`.

    The defaults are transformers' (lr 1e-3, eps 1e-6, no decay); the arithmetic is torch's. transformers 4 added `eps`
    before it corrected the second moment's bias, so that it weighed up to 32 times as much in the first steps, and it
    decayed weights after the step instead of before. Both are felt only where gradients are as small as `eps`.

    Args:
        params: parameters, or dicts that define groups of them.
        lr: learning rate.
        betas: decay of the means of gradients and of squared gradients.
        eps: guard against division by zero.
        weight_decay: decoupled weight decay.
        correct_bias: must be True.
        no_deprecation_warning: taken, and void: there is no such warning here.

    Raises:
        ConfigError: a value is out of range, or `correct_bias` is False.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        no_deprecation_warning: bool = False,
    ) -> None:
        if not correct_bias:
            raise ConfigError(
                "AdamW: correct_bias=False is not supported: its first steps are three times too large.",
                hint="Leave it out. For the original BERT optimiser's small start use a warm-up of some steps.",
            )
        try:
            super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        except ValueError as error:
            raise ConfigError(f"AdamW: {error}") from error
