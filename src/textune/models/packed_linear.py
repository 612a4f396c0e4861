"""Linear layers for prediction on a CPU, whose weights lie as oneDNN's products want them."""

from __future__ import annotations

import functools

import torch
from torch import nn

# Rows that the layout is made for; it is the same for all but a few.
_ROWS = 16


class PackedLinear(nn.Linear):
    """A linear layer that oneDNN has laid out once; otherwise it does so in every call.

    Products of 13 tokens take 0.6 of the time, of 128 and more 0.9. It cannot be trained, and its weight is no
    parameter any more.
    """

    packed: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """A copy, [out_features, in_features], for models that do more with it than multiply."""
        return self.packed.to_dense()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features], of the weight's type."""
        # What torch's own compiler makes of a linear layer with constant weights.
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")
        return output


@functools.cache
def can_multiply(dtype: torch.dtype) -> bool:
    """Whether torch's operators, which are private, are there and still give the product of a linear layer."""
    values, bias = torch.ones(2, 3, dtype=dtype), torch.ones(2, dtype=dtype)
    weight = torch.arange(6, dtype=dtype).reshape(2, 3)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        product = torch.ops.mkldnn._linear_pointwise(values, packed, bias, "none", [], "")
    except (AttributeError, TypeError, RuntimeError):
        return False
    return torch.equal(product, nn.functional.linear(values, weight, bias))


def pack_linear_layers(model: nn.Module) -> None:
    """Turns a model's linear layers, fp32 or bf16 on a CPU, into packed ones for good.

    They stay as they are where that does not work.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.Linear and can_multiply(module.weight.dtype):
            weight = module._parameters.pop("weight")
            assert weight is not None
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
            module.__class__ = PackedLinear
            module.packed = packed
