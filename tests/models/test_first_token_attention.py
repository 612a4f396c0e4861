"""Attention from first tokens only against transformers' own, which computes all keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, DistilBertConfig
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention

from textune.models import unpadded
from textune.models.dropout import DropoutStream
from textune.models.first_token_attention import attend_from_first, pays
from textune.models.packed_linear import pack_linear_layers
from textune.models.unpadded import Projections
from textune.models.unpadded_attention import Layout

LENGTHS = np.array([1, 60, 9, 40])
FAMILIES = ["bert", "distilbert"]


def make_attention(family: str) -> Any:
    torch.manual_seed(0)
    module: nn.Module
    if family == "bert":
        shape = {"hidden_size": 32, "num_attention_heads": 4, "attention_probs_dropout_prob": 0.0}
        module = BertSelfAttention(BertConfig(**shape, attn_implementation="eager"))
    else:
        module = DistilBertSelfAttention(
            DistilBertConfig(dim=32, n_heads=4, attention_dropout=0.0, attn_implementation="eager")
        )
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3)
    return module


def names_in(family: str) -> Projections:
    projections = unpadded._FAMILIES[family].projections
    assert projections is not None
    return projections


BERT = names_in("bert")


def layout_of(lengths: Any = LENGTHS, *, seed: int = 0) -> Layout:
    return Layout(lengths, num_heads=4, num_key_heads=4, device=torch.device("cpu"), masks=DropoutStream(seed))


def hidden_states(num_tokens: int = int(LENGTHS.sum())) -> torch.Tensor:
    return torch.randn(1, num_tokens, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_the_module(family: str) -> None:
    module, hidden = make_attention(family), hidden_states()
    weights = torch.randn(len(LENGTHS), 32)

    def gradients(first: torch.Tensor) -> dict[str, torch.Tensor]:
        inputs = {"hidden": hidden, **dict(module.named_parameters())}
        return dict(zip(inputs, torch.autograd.grad((first * weights).sum(), list(inputs.values())), strict=True))

    expected = torch.cat([module(text)[0][0, :1] for text in hidden.split(LENGTHS.tolist(), 1)])
    layout = layout_of()
    assert pays(module, names_in(family), hidden)
    output = attend_from_first(module, names_in(family), hidden, layout=layout)

    assert output.shape == hidden.shape
    torch.testing.assert_close(output[0, layout.first], expected, rtol=1e-5, atol=1e-5)
    others = np.setdiff1d(np.arange(LENGTHS.sum()), layout.first.numpy())
    assert not output[0, others].any()
    wanted = gradients(expected)
    for name, gradient in gradients(output[0, layout.first]).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_drops_probabilities(family: str) -> None:
    module, hidden, length = make_attention(family).train(), hidden_states(110).detach(), 110
    module.dropout.p = 0.25

    def attend() -> torch.Tensor:
        layout = layout_of(np.array([length]), seed=3)
        return attend_from_first(module, names_in(family), hidden, layout=layout)[0, 0]

    found = attend()

    names = ("query", "key", "value") if family == "bert" else ("q_lin", "k_lin", "v_lin")
    query, key, value = (getattr(module, name)(hidden[0]).view(length, 4, 8).transpose(0, 1) for name in names)
    probability = (query[:, :1] @ key.transpose(1, 2) / 8**0.5).softmax(-1)
    mask = DropoutStream(3).mask(4 * length, 0.25, hidden).view(4, 1, length)
    expected = (probability * mask @ value).transpose(0, 1).reshape(32)
    if family == "distilbert":
        expected = module.out_lin(expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    module.eval()
    assert not torch.allclose(attend(), found)


def test_bf16_loses_no_more_than_the_module() -> None:
    module, hidden = make_attention("bert"), hidden_states().detach()
    exact = torch.cat([module(text)[0][0, :1] for text in hidden.split(LENGTHS.tolist(), 1)])
    module.bfloat16()
    low = hidden.bfloat16()
    usual = torch.cat([module(text)[0][0, :1] for text in low.split(LENGTHS.tolist(), 1)])
    layout = layout_of()
    found = attend_from_first(module, BERT, low, layout=layout)
    assert found.dtype == torch.bfloat16
    assert (found[0, layout.first] - exact).norm() < 1.2 * (usual - exact).norm()


def test_packed_weights_can_be_used() -> None:
    module, hidden = make_attention("bert").eval(), hidden_states().detach()
    expected = attend_from_first(module, BERT, hidden, layout=layout_of())
    pack_linear_layers(module)
    assert pays(module, BERT, hidden)
    torch.testing.assert_close(attend_from_first(module, BERT, hidden, layout=layout_of()), expected)


class Adapted(nn.Linear):
    """As an adapter does: more than a product with the weight."""


@pytest.mark.parametrize("name", ["key", "value"])
def test_layers_that_do_more_than_multiply_are_called(name: str) -> None:
    module, hidden = make_attention("bert"), hidden_states()
    hook = getattr(module, name).register_forward_hook(lambda *_: None)
    assert not pays(module, BERT, hidden)
    hook.remove()
    assert pays(module, BERT, hidden)
    setattr(module, name, Adapted(32, 32))
    assert not pays(module, BERT, hidden)


def test_few_tokens_do_without() -> None:
    assert not pays(make_attention("bert"), BERT, hidden_states(20))
