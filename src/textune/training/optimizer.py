"""AdamW with weight decay where it belongs, a learning rate per depth, and clipping inside the step."""

from __future__ import annotations

import math
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

    Each group knows its parameters' names (`param_names`). `grad_scale`, which the fused step divides gradients by, is
    there for `clip_gradients`; but not on other devices than CPU and CUDA.

    Biases and norms, all parameters with fewer than two dimensions, have no weight decay. With `layer_decay` d, the
    learning rate of a parameter that lies k layers below the top is d**k times the schedule's; each group keeps that
    factor as `lr_scale`.

    Raises:
        ConfigError: everything is frozen.
    """
    import torch

    depths = parameter_depths(model)
    top = max(depths.values())
    groups: dict[tuple[float, float], list[tuple[str, torch.nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups[config.layer_decay ** (top - depths[name]), decay].append((name, parameter))
    if not groups:
        raise ConfigError("model.freeze leaves nothing to train.")
    settings: list[dict[str, Any]] = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    optimizer = torch.optim.AdamW(
        settings,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )
    if model.device.type in ("cpu", "cuda"):  # on MPS the step ignores it in torch before 2.13
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    allocate_moments(optimizer)
    return optimizer


def allocate_moments(optimizer: torch.optim.Optimizer) -> None:
    """Makes the state that torch's AdamW makes in its first step, so that memory cannot run out amid that one.

    Other optimisers, and what has a state already, are left alone.
    """
    import torch

    if not isinstance(optimizer, torch.optim.AdamW):
        return
    for group in optimizer.param_groups:
        on_device = group["fused"] or group["capturable"]
        for weight in group["params"]:
            state = optimizer.state[weight]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device if on_device else "cpu")
                for moment in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])):
                    state[moment] = torch.zeros_like(weight, memory_format=torch.preserve_format)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the rate of the coming step, times each group's `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def clip_gradients(optimizer: torch.optim.Optimizer, *, max_norm: float) -> float:
    """Limits the norm of all gradients together and returns what it was, as torch's `clip_grad_norm_` does.

    The optimisers made here get the divisor for their next step, which reads each gradient anyway; for others the
    gradients themselves are divided. Gradients whose norm is not finite are left alone.

    Args:
        max_norm: 0 for no limit.
    """
    import torch

    gradients = [item.grad for group in optimizer.param_groups for item in group["params"] if item.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    excess = (norm + 1e-6) / max_norm if max_norm and math.isfinite(norm) else 0.0
    if hasattr(optimizer, "grad_scale"):
        optimizer.grad_scale = torch.tensor(excess, device=gradients[0].device) if excess > 1 else None
    elif excess > 1:
        torch._foreach_div_(gradients, excess)
    return norm
