"""Attention of the first token of each text only, without keys and values: for a last layer whose head reads no other.

With x_t the hidden states of a text's tokens and q the query of its first, in each head

    q' (K x_t + b) = (K' q)' x_t + q' b        and        sum_t p_t (V x_t + c) = V (sum_t p_t x_t) + c sum_t p_t

so that K and V are multiplied with one vector of each text and not with each token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from textune.models.packed_linear import PackedLinear

if TYPE_CHECKING:
    from textune.models.unpadded import Projections
    from textune.models.unpadded_attention import Layout

# Up to this many tokens two products with all of them take no longer than the more, but smaller ones here.
_FEW_TOKENS = 100


def pays(module: nn.Module, names: Projections, hidden: torch.Tensor) -> bool:
    """Whether `attend_from_first` is possible and faster than the module itself for hidden states, [1, tokens, size].

    A GPU does the two products with all tokens in less time than it takes to start the smaller ones.
    """
    if hidden.device.type != "cpu" or hidden.shape[1] <= _FEW_TOKENS:
        return False
    # The weights are used without calling the layers: they must be all that these do.
    projections: list[Any] = [getattr(module, name) for name in (names.key, names.value)]
    return all(
        type(linear) in (nn.Linear, PackedLinear) and not linear._forward_hooks and not linear._forward_pre_hooks
        for linear in projections
    )


def attend_from_first(module: Any, names: Projections, hidden: torch.Tensor, *, layout: Layout) -> torch.Tensor:
    """Attends within each text of a batch.

    Args:
        module: attention of transformers, with `scaling`, `attention_head_size` and `dropout`.
        names: of its linear layers.
        hidden: [1, tokens, size].
        layout: of the batch.

    Returns:
        What the module returns for the first token of each text, and zeros for the others, [1, tokens, size].
    """
    tokens = hidden[0]
    queries = getattr(module, names.query)(tokens.index_select(0, layout.first))
    # In fp32 throughout: for products as small as these oneDNN's 16-bit kernels are the slower ones.
    with torch.autocast(hidden.device.type, enabled=False):
        output = _attend(module, names, tokens, queries, layout)
    if names.output is not None:
        output = getattr(module, names.output)(output)
    return output.new_zeros(len(tokens), output.shape[-1]).index_copy(0, layout.first, output)[None]


def _attend(
    module: Any, names: Projections, tokens: torch.Tensor, queries: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """Attention between the queries, [rows, size], and their texts; [rows, size] in the queries' type."""
    dtype, head_size = queries.dtype, module.attention_head_size
    places = layout.set_apart(tokens).float()  # [rows, width, size]
    rows = len(places)
    queries = (queries.float() * module.scaling).view(rows, -1, head_size).transpose(0, 1)  # [heads, rows, head size]
    key_weight, key_bias = _by_head(getattr(module, names.key), head_size, dtype)
    scores = torch.bmm(torch.bmm(queries, key_weight).transpose(0, 1), places.transpose(1, 2))
    if key_bias is not None:  # the same for all tokens: it changes nothing, but has a gradient (of rounding errors)
        scores = scores + torch.bmm(queries, key_bias).transpose(0, 1)
    seen = layout.padded_mask(None)[:, 0]
    probability = scores.masked_fill(~seen, -torch.inf).softmax(-1)  # [rows, heads, width]
    if module.training and module.dropout.p:
        mask = layout.masks.mask(probability.numel(), module.dropout.p, probability)
        probability = probability * mask.view(probability.shape)
    value_weight, value_bias = _by_head(getattr(module, names.value), head_size, dtype)
    output = torch.bmm(torch.bmm(probability, places).transpose(0, 1), value_weight.transpose(1, 2))
    if value_bias is not None:
        sums = probability.sum(-1).t()[..., None]  # 1, but for dropout
        output = output + sums * value_bias.transpose(1, 2)
    return output.transpose(0, 1).reshape(rows, -1).to(dtype)


def _by_head(linear: nn.Linear, head_size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A projection's weight, [heads, head size, in_features], and bias, [heads, head size, 1], in fp32.

    Args:
        dtype: what they are rounded to, as autocast would.
    """
    weight = linear.weight.to(dtype).float().view(-1, head_size, linear.in_features)
    bias: torch.Tensor | None = linear.bias
    return weight, None if bias is None else bias.to(dtype).float().view(-1, head_size, 1)
