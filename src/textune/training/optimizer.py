"""AdamW with weight decay where it belongs and a learning rate per depth."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from textune.errors import ConfigError
from textune.models.layers import parameter_depths

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from textune.config import TrainingConfig


def build_optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Makes AdamW (Loshchilov and Hutter, 2019, with Adam's bias correction) over the weights that are trained.

    Biases and norms, all parameters with fewer than two dimensions, have no weight decay. With `layer_decay` d, the
    learning rate of a parameter that lies k layers below the top is d**k times the schedule's; each group keeps that
    factor as `lr_scale`.

    Raises:
        ConfigError: everything is frozen.
    """
    import torch

    depths = parameter_depths(model)
    top = max(depths.values())
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups[config.layer_decay ** (top - depths[name]), decay].append(parameter)
    if not groups:
        raise ConfigError("model.freeze leaves nothing to train.")
    settings: list[dict[str, Any]] = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(
        settings,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the rate of the coming step, times each group's `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
