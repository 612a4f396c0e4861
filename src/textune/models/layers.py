"""How deep in the model each parameter lies: what freezing and per-layer learning rates go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textune.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def parameter_depths(model: PreTrainedModel) -> dict[str, int]:
    """Maps each parameter's name to its depth: 0 for embeddings, i + 1 for layer i, num_layers + 1 for what is above.

    The layers are the longest `ModuleList` of the encoder, which holds for every encoder in transformers; ALBERT,
    whose layers share their weights, has one.
    """
    from torch import nn

    base = model.base_model
    lists: list[tuple[str, nn.ModuleList]] = [
        (name, module) for name, module in base.named_modules() if isinstance(module, nn.ModuleList)
    ]
    layers_name, layers = max(lists, key=lambda item: len(item[1]), default=("", nn.ModuleList()))
    prefix = "" if base is model else f"{model.base_model_prefix}."
    embeddings = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for key, _ in module.named_parameters()
    }
    depths = {}
    for name, _ in model.named_parameters():
        inside = name.removeprefix(prefix) if prefix and name.startswith(prefix) else None
        if layers_name and inside is not None and inside.startswith(f"{layers_name}."):
            depths[name] = int(inside[len(layers_name) + 1 :].split(".")[0]) + 1
        elif inside is not None and ("embed" in inside or name in embeddings):
            depths[name] = 0
        else:
            depths[name] = len(layers) + 1
    return depths


def freeze(model: PreTrainedModel, part: str) -> int:
    """Stops the training of a part of the model and returns how many weights that leaves out.

    Args:
        part: `embeddings`; `encoder`: the embeddings and all layers, so that pooler and head are trained; or a number:
            the embeddings and that many lowest layers.

    Raises:
        ConfigError: the model has fewer layers.
    """
    depths = parameter_depths(model)
    num_layers = max(depths.values()) - 1
    if part.isdecimal() and int(part) > num_layers:
        raise ConfigError(f"model.freeze: expected at most {num_layers}, the model's layers, found {part}.")
    highest = {"embeddings": 0, "encoder": num_layers}.get(part)
    frozen = 0
    for name, parameter in model.named_parameters():
        if depths[name] <= (int(part) if highest is None else highest):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen
