from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from textune.models import unpadded_attention
from textune.models.dropout import DropoutStream, MaskSource
from textune.models.unpadded_attention import BlockAttention, Layout, attend, attend_by_length, attend_padded

LENGTHS = [5, 1, 21, 2, 9, 20]
CPU = torch.device("cpu")


def layout_of(
    lengths: list[int], *, num_heads: int = 4, num_key_heads: int = 4, masks: MaskSource | None = None
) -> Layout:
    return Layout(np.array(lengths), num_heads=num_heads, num_key_heads=num_key_heads, device=CPU, masks=masks)


def draw(lengths: list[int], heads: int, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), heads, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def text_by_text(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], *, window: int | None
) -> torch.Tensor:
    shared_by = query.shape[1] // key.shape[1]
    outputs = []
    for q, k, v in zip(*(x.split(lengths) for x in (query, key, value)), strict=True):
        places = torch.arange(len(q), device=q.device)
        near = (places[:, None] - places).abs() <= (len(q) if window is None else window)
        output = functional.scaled_dot_product_attention(
            *(x.repeat_interleave(n, 1).transpose(0, 1) for x, n in ((q, 1), (k, shared_by), (v, shared_by))),
            attn_mask=near,
            scale=0.3,
        )
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)


def blockwise(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, *, window: int | None, dropout: float
) -> torch.Tensor:
    rows = (x.flatten(0, 1) for x in (query, key, value))
    output: torch.Tensor = BlockAttention.apply(*rows, layout, window, 0.3, dropout)
    return output.view_as(query)


@pytest.mark.parametrize("window", [None, 4, 30])
@pytest.mark.parametrize("num_key_heads", [4, 2, 1])
@pytest.mark.parametrize("way", ["blocks", "padded"])
def test_both_ways_are_attention_text_by_text(window: int | None, num_key_heads: int, way: str) -> None:
    query, key, value = (draw(LENGTHS, heads, seed=heads) for heads in (4, num_key_heads, num_key_heads))
    layout = layout_of(LENGTHS, num_key_heads=num_key_heads)
    expected = text_by_text(query, key, value, LENGTHS, window=window)
    if way == "blocks":
        found = blockwise(query, key, value, layout, window=window, dropout=0.0)
    else:
        found = attend_padded(query, key, value, layout=layout, window=window, scale=0.3, dropout=0.0)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    for one, other in zip(torch.autograd.grad((found * weights).sum(), (query, key, value)), wanted, strict=True):
        torch.testing.assert_close(one, other)


def split_by_trying_all(lengths: list[int], *, num_heads: int) -> list[int]:
    """What `_split` has to find: of each text the cheapest block that ends there, of equal ones the longest."""
    best, cut = [0.0], [0]
    for stop in range(1, len(lengths) + 1):
        costs = []
        for start in range(stop):
            scores = (stop - start) * num_heads * unpadded_attention._rounded(lengths[start]) ** 2
            too_large = scores > unpadded_attention._MOST_SCORES and stop - start > 1
            costs.append(math.inf if too_large else best[start] + scores + unpadded_attention._BLOCK_COST)
        cut.append(int(np.argmin(costs)))
        best.append(costs[cut[-1]])
    edges = [len(lengths)]
    while edges[-1]:
        edges.append(cut[edges[-1]])
    return edges[::-1]


@given(
    lengths=st.lists(st.integers(1, 40) | st.integers(1, 700), min_size=1, max_size=80),
    num_heads=st.sampled_from([1, 2, 4, 12]),
)
def test_blocks_are_those_that_cost_least(lengths: list[int], num_heads: int) -> None:
    longest_first = sorted(lengths, reverse=True)
    found = unpadded_attention._split(longest_first, num_heads=num_heads)
    assert found == split_by_trying_all(longest_first, num_heads=num_heads)


def test_of_equal_costs_texts_stay_together() -> None:
    """Five texts as wide as the sixth have 5 * 4 * (104 ** 2 - 96 ** 2) scores more: what one more block costs."""
    lengths = [104, *[96] * 5]
    assert unpadded_attention._split(lengths, num_heads=4) == [0, 6] == split_by_trying_all(lengths, num_heads=4)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("num_key_heads", [4, 2])
def test_a_kernel_for_packed_texts_is_told_where_they_end(window: int | None, num_key_heads: int) -> None:
    """Stands in for torch's `varlen_attn`, with its arguments, which needs a GPU."""

    def kernel(*arguments: Any, scale: float, window_size: tuple[int, int], enable_gqa: bool) -> torch.Tensor:
        *values, edges, key_edges, longest, longest_key = arguments
        assert all(x.is_contiguous() for x in values) and edges.dtype == torch.int32
        assert torch.equal(edges, key_edges) and longest == longest_key == 21 and enable_gqa == (num_key_heads < 4)
        assert scale == 0.3 and window_size == ((-1, -1) if window is None else (window, window))
        return text_by_text(*values, edges.diff().tolist(), window=window)

    query, key, value = (draw(LENGTHS, heads, seed=heads) for heads in (4, num_key_heads, num_key_heads))
    layout = layout_of(LENGTHS, num_key_heads=num_key_heads)
    found = attend_by_length(kernel, query, key, value, layout=layout, window=window, scale=0.3)
    torch.testing.assert_close(
        found, attend_padded(query, key, value, layout=layout, window=window, scale=0.3, dropout=0)
    )


def test_which_gpus_and_heads_have_that_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, kernel_for = torch.device("cuda"), unpadded_attention._variable_length_kernel.__wrapped__
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert kernel_for(gpu, torch.bfloat16, 64) is not None
    assert kernel_for(gpu, torch.float32, 64) is None
    assert kernel_for(gpu, torch.bfloat16, 36) is None
    assert kernel_for(gpu, torch.bfloat16, 264) is None
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert kernel_for(gpu, torch.bfloat16, 64) is None


@pytest.mark.parametrize("lengths", [[7], LENGTHS])
def test_that_kernel_is_taken_also_for_a_single_text(monkeypatch: pytest.MonkeyPatch, lengths: list[int]) -> None:
    """Another kernel would be prepared anew for each length. A device without memory stands in for a GPU."""
    meta, found = torch.device("meta"), []

    def kernel(query: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        found.append(query.shape)
        return query

    monkeypatch.setattr(unpadded_attention, "_variable_length_kernel", lambda *_: kernel)
    query = torch.empty(1, 4, sum(lengths), 8, device=meta)
    layout = Layout(np.array(lengths), num_heads=4, num_key_heads=4, device=meta)
    with torch.no_grad():
        output, _ = attend(torch.nn.Module(), query, query, query, None, scaling=0.3, layout=layout)
    assert found == [(sum(lengths), 4, 8)] and output.shape == (1, sum(lengths), 4, 8)


def test_on_a_gpu_torch_does_not_ask_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []

    def attention(*_: Any, **__: Any) -> None:
        allowed.append((torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    for on_gpu in (True, False):
        unpadded_attention._fused(*[SimpleNamespace(is_cuda=on_gpu)] * 3, scale=1.0)
    assert allowed == [(False, True), (True, True)] and torch.backends.cuda.cudnn_sdp_enabled()


def test_threads_put_back_what_cudnn_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, second_began = [], threading.Event()

    def attention(*_: Any, **__: Any) -> None:
        if threading.current_thread() is second:
            second_began.set()
            first.join()
        else:
            second.start()
            second_began.wait(0.3)  # in vain, unless both are here at once
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    queries = [SimpleNamespace(is_cuda=True)] * 3
    first, second = (threading.Thread(target=unpadded_attention._fused, args=queries) for _ in range(2))
    first.start()
    first.join()
    second.join()
    assert allowed == [False, False] and torch.backends.cuda.cudnn_sdp_enabled()


def on_a_gpu(
    values: list[torch.Tensor], *, window: int | None, dropout: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the engine's attention gives, and the gradients of a weighted sum of that."""
    layout = Layout(np.array(LENGTHS), num_heads=4, num_key_heads=values[1].shape[1], device=values[0].device)
    module: Any = SimpleNamespace(config=SimpleNamespace(sliding_window=window))
    packed = (x.transpose(0, 1)[None] for x in values)
    output, _ = attend(module, *packed, None, scaling=0.3, layout=layout, dropout=dropout, sliding_window=window)
    return output[0], *gradients_of(output[0], values)


def gradients_of(output: torch.Tensor, values: list[torch.Tensor]) -> Any:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad((output.float() * weights.to(output.device)).sum(), values)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().float(), expected.detach()
    return float((found - expected).abs().mean() / expected.abs().mean())


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("num_key_heads", [4, 2])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-3), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)], ids=str
)
def test_attention_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, most: float, num_key_heads: int, window: int | None
) -> None:
    """Torch's kernel for packed texts in 16 bits, where the GPU has it, else a padded copy."""
    ways = []

    def spied(name: str) -> Any:
        original = getattr(unpadded_attention, name)
        return lambda *arguments, **options: ways.append(name) or original(*arguments, **options)

    for name in ("attend_by_length", "attend_padded"):
        monkeypatch.setattr(unpadded_attention, name, spied(name))
    heads = (4, num_key_heads, num_key_heads)
    values = [draw(LENGTHS, n, seed=seed).detach().to("cuda", dtype).requires_grad_() for seed, n in enumerate(heads)]
    exact = [x.detach().float().requires_grad_() for x in values]
    expected = text_by_text(exact[0], exact[1], exact[2], LENGTHS, window=window)
    wanted = (expected, *gradients_of(expected, exact))
    for one, other in zip(on_a_gpu(values, window=window), wanted, strict=True):
        assert one.dtype == dtype and difference(one, other) < most
    has_kernel = dtype.itemsize == 2 and torch.cuda.get_device_capability() >= (8, 0)
    assert ways == ["attend_by_length" if has_kernel else "attend_padded"]


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_attention_with_dropout_on_a_gpu(dtype: torch.dtype, window: int | None) -> None:
    """Each draw differs, their mean does not; nor do the gradients', which are linear in the mask."""
    values = [draw(LENGTHS, 4, seed=seed).detach().to("cuda", dtype).requires_grad_() for seed in range(3)]
    exact = [x.detach().float().requires_grad_() for x in values]
    expected = text_by_text(exact[0], exact[1], exact[2], LENGTHS, window=window)
    torch.manual_seed(0)
    draws = [on_a_gpu(values, window=window, dropout=0.1) for _ in range(200)]
    for found, one in zip(zip(*draws, strict=True), (expected, *gradients_of(expected, exact)), strict=True):
        assert 0.03 < difference(found[0], one) < 1
        assert difference(torch.stack(found).float().mean(0), one) < 0.06


@pytest.mark.parametrize("window", [None, 3])
def test_gradients_with_dropout_are_those_of_the_masks_drawn(window: int | None) -> None:
    lengths = [3, 1, 9]
    stream = DropoutStream(0)

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        stream.reseed(5)
        layout = layout_of(lengths, num_heads=2, num_key_heads=2, masks=stream)
        return blockwise(query, key, value, layout, window=window, dropout=0.3)

    assert torch.autograd.gradcheck(attention, tuple(draw(lengths, 2, seed=seed) for seed in range(3)))


def test_no_gradient_of_gradients() -> None:
    values = draw([2, 3], 4)
    output = blockwise(values, values, values, layout_of([2, 3]), window=None, dropout=0.0)
    (gradient,) = torch.autograd.grad(output.square().sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=20), num_heads=st.sampled_from([1, 2, 12]))
def test_blocks_hold_every_token_once(lengths: list[int], num_heads: int) -> None:
    layout = layout_of(lengths, num_heads=num_heads, num_key_heads=num_heads)
    rows = torch.arange(sum(lengths) * num_heads)
    spread = rows[layout.spread]
    assert torch.equal(spread[layout.collect], rows)
    assert len(layout.collect.unique()) == len(rows)
    assert len(layout.padding) + len(rows) == len(spread)
    assert sorted(int(n) for block in layout.blocks for n in block.lengths) == sorted(lengths)
    assert all(block.width >= block.lengths.max() and block.width % 8 == 0 for block in layout.blocks)


def test_texts_of_very_different_lengths_do_not_share_a_block() -> None:
    widths = [block.width for block in layout_of([200] + [10] * 30, num_heads=12, num_key_heads=12).blocks]
    assert widths == [200, 16]
    assert len(layout_of([12, 10, 9, 16], num_heads=12, num_key_heads=12).blocks) == 1


def test_blocks_of_long_texts_stay_small() -> None:
    layout = layout_of([512] * 8 + [200] * 8 + [16] * 8, num_heads=12, num_key_heads=12)

    rows = [len(block.lengths) for block in layout.blocks]
    scores = [len(block.lengths) * 12 * block.width**2 for block in layout.blocks]

    assert rows[:8] == [1] * 8 and max(rows[8:]) > 1
    assert all(held <= 2**21 for held in scores[8:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_padding_never_shows(dtype: torch.dtype) -> None:
    """Even where scores are huge nothing becomes NaN, also in the rows that are thrown away."""
    query, key, value = (draw(LENGTHS, 4, dtype=dtype, seed=seed) for seed in range(3))
    output = blockwise(query * 1000, key * 1000, value, layout_of(LENGTHS), window=2, dropout=0.0)
    found = torch.autograd.grad(output.float().square().sum(), (query, key, value))
    assert all(x.isfinite().all() for x in (output, *found))
