from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import CanineConfig, CanineForSequenceClassification, PreTrainedModel

from tests.tiny import make_tiny_model
from textune.models.tokenizer import check_token_ids
from textune.models.used_rows import UsedRows, used_rows

USED = np.array([0, 1, 2, 5, 7, 11, 30])


def classifier(family: str) -> PreTrainedModel:
    """Without dropout, so that two passes give the same."""
    return make_tiny_model(family, label_names=["no", "yes"]).eval()


def counts(num_ids: int, rows: np.ndarray = USED) -> np.ndarray:
    found = np.zeros(num_ids, np.int64)
    found[rows] = 3
    return found


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_weights_are_those_of_adamw_on_the_whole_table(family: str, weight_decay: float) -> None:
    reference = classifier(family)
    model = copy.deepcopy(reference)
    small = UsedRows(model, USED)
    with small.in_place():
        ours = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=weight_decay)
    theirs = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        ids = torch.from_numpy(USED[2:])[torch.randint(len(USED) - 2, (4, 6), generator=generator)]
        labels = torch.tensor([0, 1, 0, 1])
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
        reference(input_ids=ids, labels=labels).loss.backward()
        theirs.step()
        with small.in_place():
            model(input_ids=ids, labels=labels).loss.backward()
        ours.step()
    small.decay = (1 - 0.01 * weight_decay) ** 5
    small.write_back()
    small.write_back()  # looking twice changes nothing
    for (name, expected), found in zip(reference.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5, msg=name)


def test_outside_the_block_the_model_is_as_it_was() -> None:
    model = classifier("bert")
    before, state = model.get_input_embeddings(), copy.deepcopy(model.state_dict())
    small = UsedRows(model, USED)
    with small.in_place():
        assert model.get_input_embeddings().weight is small.weight
    assert model.get_input_embeddings() is before
    small.write_back()
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], state[name]) for name in state)


def test_reading_takes_up_weights_that_were_loaded() -> None:
    model = classifier("bert")
    small = UsedRows(model, USED)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    small.read()
    torch.testing.assert_close(small.weight, model.get_input_embeddings().weight[torch.from_numpy(USED)])


def test_a_table_that_is_used_or_shared_is_left_alone() -> None:
    model = classifier("bert")
    table = model.get_input_embeddings()
    size = table.num_embeddings
    assert used_rows(model, counts(size)) is not None
    assert used_rows(model, np.ones(size, np.int64)) is None
    table.weight.requires_grad_(False)
    assert used_rows(model, counts(size)) is None
    table.weight.requires_grad_(True)
    model.decoder = torch.nn.Linear(table.embedding_dim, size)
    model.decoder.weight = table.weight
    assert used_rows(model, counts(size)) is None


def test_a_checkpoint_of_this_training_decays_on_as_if_nothing_had_been() -> None:
    """Each product is taken of what the rows were, so that no rounding adds up."""
    decays = np.random.default_rng(0).uniform(0.99, 1, size=6).tolist()
    model = classifier("bert")
    original, used = copy.deepcopy(model), used_rows(model, counts(100))
    assert used is not None
    for decay in decays[:3]:
        used.decay *= decay
    used.write_back()
    stored, at = model.get_input_embeddings().weight.detach().clone(), used.decay
    for decay in decays[3:]:
        used.decay *= decay
    used.write_back()

    resumed = used_rows(original, counts(100))
    assert resumed is not None
    with resumed.loading(at), torch.no_grad():
        original.get_input_embeddings().weight.copy_(stored)
    for decay in decays[3:]:
        resumed.decay *= decay
    resumed.write_back()
    assert torch.equal(original.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_checkpoint_of_another_table_is_taken_as_it_is() -> None:
    model = classifier("bert")
    used = used_rows(model, counts(100))
    assert used is not None
    with used.loading(0.5), torch.no_grad():
        model.get_input_embeddings().weight.fill_(2.0)
    assert used.decay == 1.0
    assert (used.weight == 2.0).all()
    used.write_back()
    assert (model.get_input_embeddings().weight == 2.0).all()


def test_an_architecture_that_hashes_characters_has_no_rows() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = CanineForSequenceClassification(CanineConfig(num_hash_buckets=64, **sizes))
    assert used_rows(model, counts(100)) is None
    check_token_ids(model, 0x10FFFF, what="train")
