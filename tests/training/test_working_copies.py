from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.tiny import FAMILIES, make_tiny_model
from textune.training.working_copies import WorkingCopies

IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 13, 14, 15, 3]])
LABELS = torch.tensor([0, 1])


def classifier(family: str) -> PreTrainedModel:
    """Without dropout, so that two passes give the same."""
    return make_tiny_model(family, label_names=["no", "yes"]).eval()


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_autocast_to_the_bit(family: str) -> None:
    model, expected = classifier(family), classifier(family)
    copies = WorkingCopies(model, torch.bfloat16)
    for _ in range(2):  # the second pass adds to the first one's gradients
        copies.refresh()
        with copies.in_place(), bf16():
            found = model(input_ids=IDS, labels=LABELS)
        found.loss.backward()
        copies.collect_gradients()
        with bf16():
            wanted = expected(input_ids=IDS, labels=LABELS)
        wanted.loss.backward()
        assert torch.equal(found.logits, wanted.logits)
        for (name, one), other in zip(model.named_parameters(), expected.parameters(), strict=True):
            assert one.dtype == torch.float32, name
            assert (one.grad is None) == (other.grad is None), name
            assert one.grad is None or torch.equal(one.grad, other.grad), name


def test_gradients_of_several_passes_add_up_in_fp32() -> None:
    model = classifier("bert")
    copies = WorkingCopies(model, torch.bfloat16)
    copies.refresh()
    one = {}
    for passes in (1, 3):
        model.zero_grad()
        for _ in range(passes):
            with copies.in_place(), bf16():
                model(input_ids=IDS, labels=LABELS).loss.backward()
            copies.collect_gradients()
        for name, parameter in model.named_parameters():
            if passes == 1:
                one[name] = parameter.grad.clone()
            else:
                torch.testing.assert_close(parameter.grad, one[name] + one[name] + one[name], rtol=0, atol=0)


def test_the_model_has_its_own_weights_outside_the_block_also_after_an_error() -> None:
    model = classifier("albert")
    own = dict(model.named_parameters())
    copies = WorkingCopies(model, torch.bfloat16)
    with pytest.raises(ZeroDivisionError), copies.in_place():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                copied = isinstance(module, torch.nn.Linear)
                assert parameter.dtype == (torch.bfloat16 if copied else torch.float32), module
        raise ZeroDivisionError
    assert all(own[name] is parameter for name, parameter in model.named_parameters())


def test_weights_that_modules_share_stay_shared() -> None:
    """Also with one that has no copies: its gradient and theirs add up."""
    model = torch.nn.ModuleDict(
        {"one": torch.nn.Linear(3, 3), "two": torch.nn.Linear(3, 3), "table": torch.nn.Embedding(3, 3)}
    )
    model["two"].weight = model["table"].weight = model["one"].weight
    copies = WorkingCopies(model, torch.bfloat16)
    copies.refresh()
    with copies.in_place(), bf16():
        assert model["one"].weight is model["two"].weight
        outputs = model["one"](torch.ones(1, 3)) + model["two"](torch.ones(1, 3))
        (outputs.sum() + model["table"](torch.arange(3)).sum()).backward()
    copies.collect_gradients()
    assert torch.equal(model["one"].weight.grad, torch.full((3, 3), 3.0))


def test_frozen_weights_get_no_gradient() -> None:
    model = classifier("bert")
    model.base_model.requires_grad_(False)
    copies = WorkingCopies(model, torch.bfloat16)
    copies.refresh()
    with copies.in_place(), bf16():
        model(input_ids=IDS, labels=LABELS).loss.backward()
    copies.collect_gradients()
    assert {name for name, item in model.named_parameters() if item.grad is not None} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_weights_may_be_frozen_and_thawed_between_steps() -> None:
    model = torch.nn.Linear(3, 3)
    copies = WorkingCopies(model, torch.bfloat16)
    for trained in (False, True, False):
        model.requires_grad_(trained)
        model.zero_grad()
        copies.refresh()
        with copies.in_place(), bf16():
            model(torch.ones(1, 3, requires_grad=True)).sum().backward()
        copies.collect_gradients()
        assert (model.weight.grad is not None) == trained
