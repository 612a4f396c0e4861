from __future__ import annotations

import pytest
from tiny import FAMILIES, make_tiny_model

from textune.errors import ConfigError
from textune.models.layers import freeze, parameter_depths

NUM_LAYERS = {family: 1 if family == "albert" else 2 for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_depths_rise_from_the_embeddings_to_the_head(family: str) -> None:
    model = make_tiny_model(family, label_names=["a", "b"])
    depths = parameter_depths(model)
    last = NUM_LAYERS[family] + 1
    assert set(depths) == {name for name, _ in model.named_parameters()}
    assert set(depths.values()) == set(range(last + 1))
    words = model.get_input_embeddings().weight
    assert [depths[name] for name, parameter in model.named_parameters() if parameter is words] == [0]
    for name, depth in depths.items():
        numbers = [int(part) for part in name.split(".") if part.isdecimal()]
        if numbers:
            assert depth == numbers[0] + 1, name
        if not name.startswith(f"{model.base_model_prefix}."):
            assert depth == last, name


def test_the_depths_of_bert_one_by_one() -> None:
    depths = parameter_depths(make_tiny_model("bert", label_names=["a", "b"]))
    shown = {
        "bert.embeddings.word_embeddings.weight": 0,
        "bert.embeddings.LayerNorm.bias": 0,
        "bert.encoder.layer.0.attention.self.query.weight": 1,
        "bert.encoder.layer.1.output.LayerNorm.bias": 2,
        "bert.pooler.dense.weight": 3,
        "classifier.weight": 3,
    }
    assert {name: depths[name] for name in shown} == shown


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("part", ["embeddings", "0", "1", "2", "encoder"])
def test_freezing_stops_exactly_the_part(family: str, part: str) -> None:
    model = make_tiny_model(family, label_names=["a", "b"])
    depths = parameter_depths(model)
    count = freeze(model, part)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    highest = {"embeddings": 0, "encoder": 2}.get(part)
    assert frozen == {name for name, depth in depths.items() if depth <= (int(part) if highest is None else highest)}
    assert frozen < set(depths)
    assert count == sum(parameter.numel() for name, parameter in model.named_parameters() if name in frozen)


def test_more_layers_than_there_are_cannot_be_frozen() -> None:
    model = make_tiny_model("bert", label_names=["a", "b"])
    with pytest.raises(ConfigError, match=r"model\.freeze: expected at most 2, the model's layers, found 3"):
        freeze(model, "3")
    assert all(parameter.requires_grad for parameter in model.parameters())
