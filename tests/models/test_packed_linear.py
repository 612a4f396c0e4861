from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from textune.models.packed_linear import PackedLinear, can_multiply, pack_linear_layers

from ..tiny import make_tiny_model


@pytest.mark.parametrize("family", ["bert", "albert", "distilbert", "modernbert", "deberta-v2", "mpnet"])
def test_packing_changes_no_logit(family: str) -> None:
    model = make_tiny_model(family, label_names=["no", "yes"]).eval()
    ids = torch.randint(5, 40, (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(ids).logits
        pack_linear_layers(model)
        torch.testing.assert_close(model(ids).logits, before, atol=1e-6, rtol=1e-5)
    assert sum(isinstance(module, PackedLinear) for module in model.modules()) > 6
    assert not any(type(module) is nn.Linear for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_rows", [1, 16, 300])
def test_products_and_weights_are_those_of_the_layer(bias: bool, num_rows: int, dtype: torch.dtype) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(24, 40, bias=bias)).to(dtype)
        values = torch.randn(2, num_rows, 24, dtype=dtype)
    weight, expected = layers[0].weight.detach().clone(), layers(values).detach()
    pack_linear_layers(layers)
    with torch.inference_mode():
        torch.testing.assert_close(layers(values), expected)
    assert isinstance(layers[0], PackedLinear)
    assert torch.equal(layers[0].weight, weight)
    assert dict(layers.named_parameters()).keys() == ({"0.bias"} if bias else set())


class Changed:
    """torch's private operators after a change of theirs."""

    def __init__(self, **operators: Any) -> None:
        self.__dict__.update(operators)


def refuse(*arguments: object) -> torch.Tensor:
    raise TypeError("takes 5 arguments")


@pytest.mark.parametrize(
    "operators",
    [
        Changed(),
        Changed(_linear_pointwise=refuse, _reorder_linear_weight=lambda weight, rows: weight),
        Changed(
            _linear_pointwise=lambda values, *others: values[..., :2],
            _reorder_linear_weight=lambda weight, rows: weight,
        ),
    ],
    ids=["gone", "another signature", "another product"],
)
def test_layers_stay_where_torchs_private_operators_have_changed(
    monkeypatch: pytest.MonkeyPatch, operators: Changed
) -> None:
    layers = nn.Sequential(nn.Linear(3, 2))
    can_multiply.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", operators)
        pack_linear_layers(layers)
    can_multiply.cache_clear()
    assert type(layers[0]) is nn.Linear
    assert isinstance(layers[0].weight, nn.Parameter)


def test_a_layer_of_another_kind_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        pass

    own, plain = Own(2, 2), nn.Linear(2, 2)
    pack_linear_layers(nn.ModuleList([own]))
    assert type(own) is Own
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    pack_linear_layers(nn.ModuleList([plain]))
    assert type(plain) is nn.Linear
