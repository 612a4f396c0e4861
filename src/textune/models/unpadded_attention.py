"""Attention among texts that lie one behind the other: each token sees the tokens of its own text.

Only here are the texts set apart again. On a CPU they are copied into blocks of texts of similar length, each
[rows * heads, width, head size], where batched matrix products do the work.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textune.data.collate import copy_to
from textune.data.tokens import IntArray
from textune.models.dropout import MaskSource, TorchMasks

# Widths are rounded up: matrix products of odd sizes are slow.
_WIDTH_MULTIPLE = 8
# Up to this many tokens, fused attention on a CPU takes longer than its parts one after the other.
_SHORT = 192
# What one more block costs, in attention scores (rows * heads * width * width) computed in the same time.
_BLOCK_COST = 32_000
# What a block of several texts may hold, in scores: in fp32 8 MiB. Steps are fastest where blocks stay in a processor's
# caches; and of tensors from 32 MiB on glibc's malloc keeps no pages, so that each layer would get new ones, cleared.
_MOST_SCORES = 2**21
# A process has one flag for cuDNN's attention. Of two threads that change it at once, one would put back the other's.
_CUDNN_FLAG = threading.Lock()


@dataclass(frozen=True)
class Block:
    """Texts that are padded to one width inside attention.

    Attributes:
        lengths: tokens of each text, int64 [rows].
        first_token: where each text begins in the batch, int64 [rows].
        width: of the longest text, rounded up.
    """

    lengths: IntArray
    first_token: IntArray
    width: int

    def tokens(self) -> IntArray:
        """Which token of the batch each place holds, int64 [rows, width]; places behind a text repeat its last."""
        places = np.minimum(np.arange(self.width), self.lengths[:, None] - 1)
        return places + self.first_token[:, None]


class Layout:
    """Where the texts of one batch lie, and how they are set apart for attention.

    Args:
        lengths: tokens per text, int64 [rows].
        num_heads: of the queries.
        num_key_heads: of keys and values; a divisor of `num_heads`.
        device: where the indices are needed.
        masks: the source of dropout masks.

    Attributes:
        first: where each text begins, int64 [rows], on the device.
        row_lengths: `lengths` on the device.
    """

    def __init__(
        self,
        lengths: IntArray,
        *,
        num_heads: int,
        num_key_heads: int,
        device: torch.device,
        masks: MaskSource | None = None,
    ) -> None:
        self.lengths = lengths
        self.num_heads = num_heads
        self.num_key_heads = num_key_heads
        self.device = device
        self.masks = masks or TorchMasks()
        self._first_token = np.cumsum(lengths) - lengths
        self.first = self._tensor(self._first_token)
        self.row_lengths = self._tensor(lengths)

    def _tensor(self, values: Any) -> torch.Tensor:
        return copy_to(torch.from_numpy(values), self.device)

    @cached_property
    def blocks(self) -> list[Block]:
        """The texts in blocks of similar length, longest first."""
        order = np.argsort(-self.lengths, kind="stable")
        edges = _split(self.lengths[order].tolist(), num_heads=self.num_heads)
        rows = [order[start:stop] for start, stop in pairwise(edges)]
        return [Block(self.lengths[r], self._first_token[r], _rounded(int(self.lengths[r].max()))) for r in rows]

    @cached_property
    def spread(self) -> torch.Tensor:
        """Query rows [tokens * heads] -> places of all blocks, each [rows, heads, width]."""
        return self._tensor(self._spread(np.arange(self.num_heads), self.num_heads))

    @cached_property
    def spread_keys(self) -> torch.Tensor:
        """The same for key and value rows [tokens * key heads]; heads that share a key each get a copy."""
        shared_by = self.num_heads // self.num_key_heads
        if shared_by == 1:
            return self.spread
        return self._tensor(self._spread(np.arange(self.num_heads) // shared_by, self.num_key_heads))

    def _spread(self, heads: IntArray, num_heads: int) -> IntArray:
        parts = [block.tokens()[:, None] * num_heads + heads[:, None] for block in self.blocks]
        return np.concatenate([part.ravel() for part in parts])

    @cached_property
    def collect(self) -> torch.Tensor:
        """The way back: where in the blocks each row of [tokens * heads] lies."""
        target = np.empty((int(self.lengths.sum()), self.num_heads), np.int64)
        offset = 0
        for block in self.blocks:
            shape = (len(block.lengths), self.num_heads, block.width)
            places = np.arange(offset, offset + math.prod(shape)).reshape(shape).swapaxes(1, 2)
            real = np.arange(block.width) < block.lengths[:, None]
            target[block.tokens()[real]] = places[real]
            offset += places.size
        return self._tensor(target.ravel())

    @cached_property
    def edges(self) -> torch.Tensor:
        """Where texts begin and the last one ends, int32 [rows + 1]."""
        return self._tensor(np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32))

    @cached_property
    def padded(self) -> torch.Tensor:
        """The texts as one block, [rows, width of the longest]: which of its rows * width places hold a token."""
        return self._tensor(np.flatnonzero(np.arange(self.lengths.max()) < self.lengths[:, None]))

    def set_apart(self, tokens: torch.Tensor) -> torch.Tensor:
        """[tokens, ...] -> that block, [rows, width of the longest, ...], with zeros where no token is."""
        shape = (len(self.lengths), int(self.lengths.max()))
        # Zeros are the padding, so that gradients are gathered and not summed by scattering.
        places = tokens.new_zeros(math.prod(shape), *tokens.shape[1:]).index_put((self.padded,), tokens)
        return places.view(*shape, *tokens.shape[1:])

    def padded_mask(self, window: int | None) -> torch.Tensor:
        """Which keys the queries of that block see, bool [rows, 1, 1 or width, width]."""
        if window not in self._padded_masks:
            seen = visible(self.lengths, int(self.lengths.max()), window=window)
            self._padded_masks[window] = self._tensor(seen)[:, None]
        return self._padded_masks[window]

    @cached_property
    def _padded_masks(self) -> dict[int | None, torch.Tensor]:
        return {}

    @cached_property
    def padding(self) -> torch.Tensor:
        """The places of the blocks that hold no token of their own."""
        real = np.zeros(len(self.spread), bool)
        real[self.collect.cpu().numpy()] = True
        return self._tensor(np.flatnonzero(~real))

    def biases(self, dtype: torch.dtype, *, window: int | None) -> list[torch.Tensor]:
        """What is added to each block's scores: -inf where nothing is to be seen; [rows * heads, 1 or width, width].

        Args:
            window: tokens further than this from each other do not see each other.
        """
        key = (dtype, window)
        if key not in self._biases:
            self._biases[key] = [self._bias(block, window).to(dtype) for block in self.blocks]
        return self._biases[key]

    @cached_property
    def _biases(self) -> dict[tuple[torch.dtype, int | None], list[torch.Tensor]]:
        return {}

    def _bias(self, block: Block, window: int | None) -> torch.Tensor:
        seen = visible(block.lengths, block.width, window=window)
        bias = np.where(seen, np.float32(0), np.float32(-np.inf))
        return self._tensor(np.repeat(bias, self.num_heads, axis=0))


def visible(lengths: IntArray, width: int, *, window: int | None) -> npt.NDArray[np.bool_]:
    """Which keys the queries of padded texts see, bool [rows, 1 or width, width]. In the padding they see some, too."""
    places = np.arange(width)
    seen: npt.NDArray[np.bool_] = (places < lengths[:, None])[:, None]
    if window is None or window >= width - 1:
        return seen
    # Beyond a text's end a query sees everything that is real: a row of nothing but -inf would become NaN.
    near: npt.NDArray[np.bool_] = np.abs(places[:, None] - places) <= window
    return np.logical_and(seen, near | ~seen.swapaxes(1, 2))


def _rounded(width: int) -> int:
    return -(-width // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE


def _split(lengths: Sequence[int], *, num_heads: int) -> list[int]:
    """Cuts texts, longest first, into blocks that cost least together. Returns the blocks' edges, from 0 to the end."""
    scores_of_row = [num_heads * _rounded(length) ** 2 for length in lengths]
    best, cut = [0.0], [0]
    for stop in range(1, len(lengths) + 1):
        lowest, chosen = math.inf, 0
        for start in range(stop - 1, -1, -1):
            scores = (stop - start) * scores_of_row[start]
            if scores > _MOST_SCORES and stop - start > 1:
                break  # the texts before are longer, so that with them there are more still
            cost = best[start] + scores + _BLOCK_COST
            if cost <= lowest:  # of equal ones the longest block
                lowest, chosen = cost, start
        cut.append(chosen)
        best.append(lowest)
    edges = [len(lengths)]
    while edges[-1]:
        edges.append(cut[edges[-1]])
    return edges[::-1]


class BlockAttention(torch.autograd.Function):
    """softmax(scale q k' + bias) v with dropout, block by block; gradients by hand, and not differentiable twice.

    Every token lies in exactly one place of the blocks, so that gradients are gathered as values are, never summed by
    scattering.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: Layout,
        window: int | None,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        """[tokens * heads, head size] three times (keys and values may have fewer heads) -> the shape of `query`."""
        queries = query.index_select(0, layout.spread)
        keys = key.index_select(0, layout.spread_keys)
        values = value.index_select(0, layout.spread_keys)
        output = torch.empty_like(queries)
        saved = []
        for place, bias in _places(layout, layout.biases(query.dtype, window=window)):
            q, k, v, o = (_block(x, place) for x in (queries, keys, values, output))
            probability = _softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale))
            if dropout:
                mask = layout.masks.mask(probability.numel(), dropout, probability).view(probability.shape)
                dropped = probability * mask
                saved += [probability, mask, dropped]
            else:
                dropped = probability
                saved.append(probability)
            torch.bmm(dropped, v, out=o)
        ctx.layout, ctx.scale, ctx.has_dropout = layout, scale, bool(dropout)
        ctx.save_for_backward(queries, keys, values, *saved)
        return output.index_select(0, layout.collect)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layout: Layout = ctx.layout
        queries, keys, values, *saved = ctx.saved_tensors
        gradients = gradient.index_select(0, layout.spread)
        # Rows behind a text's end took part as queries; their outputs went nowhere.
        gradients.index_fill_(0, layout.padding, 0)
        of_queries, of_keys, of_values = (torch.empty_like(x) for x in (queries, keys, values))
        stride = 3 if ctx.has_dropout else 1
        for number, (place, _) in enumerate(_places(layout, layout.blocks)):
            q, k, v, g = (_block(x, place) for x in (queries, keys, values, gradients))
            probability = saved[number * stride]
            dropped = saved[number * stride + stride - 1]
            torch.bmm(dropped.transpose(1, 2), g, out=_block(of_values, place))
            of_probability = torch.bmm(g, v.transpose(1, 2))
            if ctx.has_dropout:
                of_probability.mul_(saved[number * stride + 1])
            of_scores = torch._softmax_backward_data(of_probability, probability, -1, probability.dtype)
            torch.bmm(of_scores, k, out=_block(of_queries, place))
            torch.bmm(of_scores.transpose(1, 2), q, out=_block(of_keys, place))
        of_query = of_queries.index_select(0, layout.collect).mul_(ctx.scale)
        of_key = _sum_shared(of_keys.index_select(0, layout.collect).mul_(ctx.scale), layout)
        of_value = _sum_shared(of_values.index_select(0, layout.collect), layout)
        return of_query, of_key, of_value, None, None, None, None


def _places(layout: Layout, items: Sequence[Any]) -> Iterator[tuple[tuple[int, int, int], Any]]:
    """Each block's part of the spread rows, [start, rows * heads, width], with the item that belongs to it."""
    start = 0
    for block, item in zip(layout.blocks, items, strict=True):
        count = len(block.lengths) * layout.num_heads
        yield (start, count, block.width), item
        start += count * block.width


def _block(rows: torch.Tensor, place: tuple[int, int, int]) -> torch.Tensor:
    start, count, width = place
    return rows[start : start + count * width].view(count, width, -1)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    # Over 16-bit floats torch's softmax is slower than over their fp32 copies.
    return torch.softmax(scores.float(), -1).to(scores.dtype) if scores.element_size() == 2 else scores.softmax(-1)


def _sum_shared(gradient: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[tokens * heads, size] -> [tokens * key heads, size]: the gradient of copies is the sum of theirs."""
    shared_by = layout.num_heads // layout.num_key_heads
    if shared_by == 1:
        return gradient
    return gradient.view(-1, shared_by, gradient.shape[-1]).sum(1)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    layout: Layout,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for each layer, as its attention interface asks for it.

    Args:
        query: [1, heads, tokens, head size]; `key` and `value` may have fewer heads.
        attention_mask: None.
        layout: of the batch; comes from the call of the model.
        sliding_window: only whether it is None; the width is read from the configuration, in the sense of its masks.

    Returns:
        [1, tokens, heads, head size], and no weights.
    """
    window = None if sliding_window is None else int(module.config.sliding_window)  # type: ignore[union-attr, arg-type]
    if query.dtype != value.dtype:  # under autocast rotary positions leave queries and keys in fp32
        query, key = query.to(value.dtype), key.to(value.dtype)
    on_cpu = query.device.type == "cpu"
    kernel = None if on_cpu or dropout else _variable_length_kernel(query.device, query.dtype, query.shape[-1])
    alone = len(layout.lengths) == 1 and window is None and not dropout and not torch.is_grad_enabled()
    if alone and kernel is None:
        return attend_alone(query, key, value, scale=scaling), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if on_cpu:
        head_rows = (x.reshape(-1, x.shape[-1]) for x in (q, k, v))
        output = BlockAttention.apply(*head_rows, layout, window, scaling, dropout)  # type: ignore[no-untyped-call]
        return output.view(1, -1, query.shape[1], query.shape[-1]), None
    if kernel is not None:
        return attend_by_length(kernel, q, k, v, layout=layout, window=window, scale=scaling)[None], None
    return attend_padded(q, k, v, layout=layout, window=window, scale=scaling, dropout=dropout)[None], None


def attend_alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float) -> torch.Tensor:
    """A single text needs no setting apart. [1, heads, tokens, head size] each -> [1, tokens, heads, head size]."""
    if query.device.type == "cpu" and query.shape[2] <= _SHORT and query.shape[1] == key.shape[1]:
        scores = torch.bmm(query[0], key[0].transpose(1, 2)).mul_(scale)
        return torch.bmm(_softmax(scores), value[0]).transpose(0, 1)[None]
    return _fused(query, key, value, scale=scale, enable_gqa=query.shape[1] != key.shape[1]).transpose(1, 2)


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
    """torch's own attention; on a GPU not by cuDNN, which makes a plan for each new shape, and lengths are many."""
    if not query.is_cuda:
        return functional.scaled_dot_product_attention(query, key, value, **options)
    with _CUDNN_FLAG:
        before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            return functional.scaled_dot_product_attention(query, key, value, **options)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(before)


def attend_padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    layout: Layout,
    window: int | None,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """torch's own attention, for devices where it is the fastest; [tokens, heads, head size] three times and back."""
    output = _fused(
        *(layout.set_apart(x).transpose(1, 2) for x in (query, key, value)),
        attn_mask=layout.padded_mask(window),
        dropout_p=dropout,
        scale=scale,
        enable_gqa=layout.num_heads != layout.num_key_heads,
    )
    return output.transpose(1, 2).flatten(0, 1).index_select(0, layout.padded)


def attend_by_length(
    kernel: Callable[..., Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    layout: Layout,
    window: int | None,
    scale: float,
) -> torch.Tensor:
    """Attention by a kernel that knows where texts end, torch's `varlen_attn`; shapes as in `attend_padded`."""
    edges, longest = layout.edges, int(layout.lengths.max())
    output = kernel(
        *(query.contiguous(), key.contiguous(), value.contiguous(), edges, edges, longest, longest),
        scale=scale,
        window_size=(-1, -1) if window is None else (window, window),
        enable_gqa=layout.num_heads != layout.num_key_heads,
    )
    assert isinstance(output, torch.Tensor)
    return output


@cache
def _variable_length_kernel(device: torch.device, dtype: torch.dtype, head_size: int) -> Callable[..., Any] | None:
    """torch's kernel for texts one behind the other, without dropout; None where torch or the hardware has none."""
    if device.type != "cuda" or dtype.itemsize != 2 or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    # Of larger heads some GPUs cannot compute the gradient.
    if head_size % 8 or head_size > 192 or not torch.backends.cuda.is_flash_attention_available():
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if not {"scale", "window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return None
    return varlen_attn
