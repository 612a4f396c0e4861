from __future__ import annotations

import pytest
import torch

from textune.config import TrainingConfig
from textune.errors import ConfigError
from textune.models.layers import freeze
from textune.training.optimizer import allocate_moments, build_optimizer, clip_gradients, set_learning_rate

from .engine import tiny_model, weights


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict[str, object]:
    return next(group for group in optimizer.param_groups if any(item is parameter for item in group["params"]))


def test_no_decay_on_biases_and_norms() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.1))
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        assert group_of(optimizer, parameter)["weight_decay"] == (0.0 if exempt else 0.1), name


def test_every_parameter_is_in_one_group() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.1, layer_decay=0.9))
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "below_the_top"),
    [
        ("bert.embeddings.word_embeddings.weight", 3),
        ("bert.encoder.layer.0.output.dense.weight", 2),
        ("bert.encoder.layer.1.attention.self.query.bias", 1),
        ("bert.pooler.dense.weight", 0),
        ("classifier.bias", 0),
    ],
)
def test_layer_decay_lowers_the_rate_per_depth(name: str, below_the_top: int) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 0.08)
    assert group_of(optimizer, model.get_parameter(name))["lr"] == pytest.approx(0.08 * 0.5**below_the_top)


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_model()
    freeze(model, "encoder")
    optimizer = build_optimizer(model, TrainingConfig())
    assert {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} == {
        id(parameter) for module in (model.base_model.pooler, model.classifier) for parameter in module.parameters()
    }


def test_nothing_left_to_train_is_refused() -> None:
    model = tiny_model().requires_grad_(False)
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        build_optimizer(model, TrainingConfig())


def test_steps_equal_plain_adamw_with_bias_correction() -> None:
    config = TrainingConfig(weight_decay=0.05, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, learning_rate=3e-3)
    ours, reference = tiny_model(), tiny_model()
    optimizer = build_optimizer(ours, config)
    decayed = [parameter for parameter in reference.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in reference.parameters() if parameter.ndim < 2]
    plain = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=3e-3,
        betas=(0.8, 0.95),
        eps=1e-6,
        fused=False,
        foreach=False,
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        optimizer.step()
        plain.step()
    found = weights(ours)
    for name, expected in weights(reference).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_clipping_inside_the_step_is_torch_s_clipping(max_norm: float) -> None:
    one, two = tiny_model(), tiny_model()
    ours = build_optimizer(one, TrainingConfig(learning_rate=0.01))
    theirs = torch.optim.AdamW(two.parameters(), lr=0.01, weight_decay=0.0, fused=True)
    for step in range(3):
        for number, (left, right) in enumerate(zip(one.parameters(), two.parameters(), strict=True)):
            generator = torch.Generator().manual_seed(100 * step + number)
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        set_learning_rate(ours, 0.01)
        found = clip_gradients(ours, max_norm=max_norm)
        expected = torch.nn.utils.clip_grad_norm_(two.parameters(), max_norm or float("inf"))
        assert found == pytest.approx(float(expected))
        ours.step()
        theirs.step()
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


def test_where_the_fused_step_may_not_scale_gradients_they_are_scaled_before_it() -> None:
    """On a device other than CPU and CUDA, as Apple's, whose kernel ignored the scale in torch before 2.13."""
    assert hasattr(build_optimizer(tiny_model(), TrainingConfig()), "grad_scale")
    assert not hasattr(build_optimizer(tiny_model().to("meta"), TrainingConfig()), "grad_scale")


def test_the_gradients_of_other_optimizers_are_scaled() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients(torch.optim.SGD([weight]), max_norm=1.0) == pytest.approx(5.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


def test_gradients_that_are_not_finite_are_left_alone() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, float("nan")])
    assert clip_gradients(torch.optim.SGD([weight]), max_norm=1.0) != clip_gradients(
        torch.optim.SGD([weight]), max_norm=1.0
    )
    assert weight.grad[0] == 3.0


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"fused": True, "amsgrad": True}])
def test_moments_are_those_that_torch_makes_in_its_first_step(options: dict[str, bool]) -> None:
    states = []
    for early in (True, False):
        model = tiny_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
        if early:
            allocate_moments(optimizer)
            assert len(optimizer.state) == len(list(model.parameters()))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        for _ in range(2):
            optimizer.step()
        states.append([*weights(model).values(), *(v for s in optimizer.state.values() for v in s.values())])
        layout = [[(name, value.dtype, value.stride()) for name, value in s.items()] for s in optimizer.state.values()]
        states[-1].append(layout)
    *found, found_layout = states[0]
    *expected, expected_layout = states[1]
    assert found_layout == expected_layout
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_moments_are_there_before_the_first_step_and_none_is_made_anew() -> None:
    optimizer = build_optimizer(tiny_model(), TrainingConfig())
    moments = {id(value) for state in optimizer.state.values() for value in state.values()}
    assert len(moments) == 3 * sum(len(group["params"]) for group in optimizer.param_groups)
    allocate_moments(optimizer)
    assert {id(value) for state in optimizer.state.values() for value in state.values()} == moments


def test_other_optimizers_are_left_alone() -> None:
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=1e-2, momentum=0.9)
    allocate_moments(optimizer)
    assert not optimizer.state
