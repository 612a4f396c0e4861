"""`AdamW` as transformers had it, on torch's arithmetic."""

from __future__ import annotations

import inspect

import pytest
import torch

from textune.compat import AdamW
from textune.errors import ConfigError


def steps(optimizer_class: type[torch.optim.Optimizer], **options: object) -> torch.Tensor:
    """The weights of a small problem after 20 steps."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(6, 4, generator=generator))
    bias = torch.nn.Parameter(torch.zeros(4))
    inputs = torch.randn(16, 6, generator=generator)
    targets = torch.randn(16, 4, generator=generator)
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias]}]
    optimizer = optimizer_class(groups, **options)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(inputs @ weight + bias, targets).backward()
        optimizer.step()
    return torch.cat([weight.detach().ravel(), bias.detach()])


def test_the_defaults_are_those_transformers_had() -> None:
    signature = inspect.signature(AdamW)
    assert {name: parameter.default for name, parameter in list(signature.parameters.items())[1:]} == {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 0.0,
        "correct_bias": True,
        "no_deprecation_warning": False,
    }
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))])
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-6, 0.0)
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_the_steps_are_those_of_torch(betas: tuple[float, float]) -> None:
    ours = steps(AdamW, lr=3e-2, betas=betas, no_deprecation_warning=True)
    theirs = steps(torch.optim.AdamW, lr=3e-2, betas=betas, eps=1e-6, weight_decay=0.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_what_is_refused() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(ConfigError, match="correct_bias=False is not supported"):
        AdamW(parameters, correct_bias=False)
    with pytest.raises(ConfigError, match=r"AdamW: Invalid learning rate: -1\.0"):
        AdamW(parameters, lr=-1.0)
    with pytest.raises(ConfigError, match="AdamW: optimizer got an empty parameter list"):
        AdamW([])
