"""Every family's logits and gradients without padding against those of transformers with padding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textune.data.collate import Padding, pack, pad
from textune.data.tokens import Examples
from textune.models.dropout import DropoutStream
from textune.models.unpadded import means_by_adding, unpadded, why_padded

VOCABULARY = 60
MAX_TOKENS = 48
UNEVEN = [1, 40, 17, 2, 7, 33, 2]
NO_DROPOUT = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout_prob",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)
ROBERTA: dict[str, Any] = {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 1}
ROTARY: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
MODERNBERT: dict[str, Any] = {
    **ROTARY,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "local_attention": 10,
    "global_attn_every_n_layers": 2,
}
EUROBERT: dict[str, Any] = {**ROTARY, "num_key_value_heads": 2, "mask_token_id": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", ROBERTA),
    "xlm-roberta": ("xlm-roberta", ROBERTA),
    "camembert": ("camembert", ROBERTA),
    "distilbert": ("distilbert", {}),
    "electra": ("electra", {"embedding_size": 16}),
    "albert": ("albert", {"embedding_size": 16}),
    "modernbert": ("modernbert", MODERNBERT),
    "modernbert-mean": ("modernbert", {**MODERNBERT, "classifier_pooling": "mean"}),
    "nomic_bert": ("nomic_bert", {}),
    "eurobert": ("eurobert", EUROBERT),
    "eurobert-bos": ("eurobert", {**EUROBERT, "classifier_pooling": "bos"}),
    "eurobert-mean": ("eurobert", {**EUROBERT, "classifier_pooling": "mean"}),
}
WITH_TYPES = {"bert", "electra", "albert", "nomic_bert"}


def make_model(case: str = "bert", *, dropout: float = 0.0, **more: Any) -> Any:
    """Three layers with weights so large that attention is far from even."""
    from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

    family, special = CASES[case]
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": MAX_TOKENS,
        **special,
    }
    if family == "distilbert":
        values |= {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
        values = {name: value for name, value in values.items() if "hidden_size" not in name and "num_" not in name}
    known = CONFIG_MAPPING[family]()
    values |= {name: dropout for name in NO_DROPOUT if hasattr(known, name)}
    config = CONFIG_MAPPING[family](**{"num_labels": 3, **values, **more})
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    return model


def examples_of(model: Any, lengths: list[int], *, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    ids = [random.integers(5, VOCABULARY, length).astype(np.int32) for length in lengths]
    types = [(np.arange(length) > length // 2).astype(np.int8) for length in lengths]
    return Examples(ids, types if model.config.model_type in WITH_TYPES else None)


def padded_logits(model: Any, examples: Examples, *, side: str = "right") -> torch.Tensor:
    logits: torch.Tensor = model(**pad(examples, Padding(model.config.pad_token_id, side=side))).logits
    return logits


def unpadded_logits(model: Any, examples: Examples, **options: Any) -> torch.Tensor:
    with unpadded(model, **options) as encoder:
        return encoder(pack(examples))


def gradients(model: Any, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    (logits * torch.randn(logits.shape)).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        # The gradient of key biases is zero but for rounding.
        size = max(float(gradient.abs().max()), 1e-2 * largest)
        assert float((found[name] - gradient).abs().max()) < 1e-4 * size, name


@pytest.mark.parametrize("case", ["nomic_bert", "eurobert"])
@pytest.mark.parametrize("lengths", [UNEVEN, [11]], ids=["uneven", "one"])
def test_autocast_may_leave_queries_and_keys_in_fp32(case: str, lengths: list[int]) -> None:
    """Rotary positions do; the values are in bf16."""
    model = make_model(case).eval()
    examples = examples_of(model, lengths)
    exact = padded_logits(model, examples)
    wanted = gradients(model, exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = unpadded_logits(model, examples)
        with torch.no_grad():
            alone = unpadded_logits(model, examples)
    for logits in (found, alone):
        torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)
    largest = max(float(gradient.norm()) for gradient in wanted.values())
    for name, gradient in gradients(model, found.float()).items():  # with padding they are up to 0.04 off as well
        assert float((gradient - wanted[name]).norm()) < 0.06 * largest, name


def test_means_are_the_same_where_torch_has_no_kernel_for_them() -> None:
    lengths, hidden = torch.tensor([3, 1, 5]), torch.randn(9, 4, requires_grad=True)
    found = means_by_adding(hidden, lengths)
    expected = torch.stack([part.mean(0) for part in hidden.split(lengths.tolist())])
    torch.testing.assert_close(found, expected)
    weights = torch.randn(3, 4)
    pairs = [torch.autograd.grad((x * weights).sum(), hidden)[0] for x in (found, expected)]
    torch.testing.assert_close(*pairs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lengths", [UNEVEN, [11], [9, 9, 9]], ids=["uneven", "one", "even"])
@pytest.mark.parametrize("first_only", [True, False], ids=["first-only", "all"])
def test_logits_and_gradients_are_those_with_padding(case: str, lengths: list[int], first_only: bool) -> None:
    model = make_model(case).train()
    assert why_padded(model) is None
    examples = examples_of(model, lengths)
    expected = padded_logits(model, examples)
    wanted = gradients(model, expected)
    found = unpadded_logits(model, examples, last_layer_first_only=first_only)
    assert found.shape == (len(lengths), 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, found), wanted)


@pytest.mark.parametrize("case", ["modernbert-mean", "eurobert", "eurobert-mean"])
def test_padding_on_the_left_makes_no_difference_where_nobody_reads_position_0(case: str) -> None:
    model = make_model(case).eval()
    examples = examples_of(model, UNEVEN[1:])
    expected = padded_logits(model, examples, side="left")
    torch.testing.assert_close(unpadded_logits(model, examples), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["bert", "roberta", "distilbert", "modernbert", "eurobert"])
@pytest.mark.parametrize(
    ("num_labels", "problem_type"), [(1, "regression"), (3, "multi_label_classification")], ids=["one", "three"]
)
def test_other_heads(case: str, num_labels: int, problem_type: str) -> None:
    model = make_model(case, num_labels=num_labels, problem_type=problem_type).eval()
    examples = examples_of(model, UNEVEN)
    with torch.inference_mode():
        found = unpadded_logits(model, examples)
        assert found.shape == (len(UNEVEN), num_labels)
        torch.testing.assert_close(found, padded_logits(model, examples), rtol=1e-5, atol=1e-5)


def test_a_padding_token_inside_a_text_takes_no_position_as_in_roberta() -> None:
    model = make_model("roberta").eval()
    texts = [np.array([5, 1, 6, 7, 1]), np.array([1, 9]), np.array([8, 9, 10])]
    expected = model(**pad(Examples(texts, None), Padding(1))).logits
    torch.testing.assert_close(unpadded_logits(model, Examples(texts, None)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bf16_is_as_close_to_fp32_as_with_padding(case: str) -> None:
    model = make_model(case).eval()
    examples = examples_of(model, UNEVEN)
    with torch.no_grad():
        exact = padded_logits(model, examples)
        model.bfloat16()
        padded, found = padded_logits(model, examples), unpadded_logits(model, examples)
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() < 2 * (padded - exact).norm() + 0.01 * exact.norm()


@pytest.mark.parametrize("case", ["bert", "albert", "modernbert", "eurobert"])
def test_logits_do_not_depend_on_the_batch(case: str) -> None:
    model = make_model(case).eval()
    examples = examples_of(model, UNEVEN)
    with torch.no_grad(), unpadded(model) as encoder:
        together = encoder(pack(examples))
        for row in range(len(examples)):
            types = examples.token_type_ids
            alone = Examples(examples.input_ids[row : row + 1], None if types is None else types[row : row + 1])
            torch.testing.assert_close(encoder(pack(alone))[0], together[row], rtol=1e-6, atol=2e-6)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_any_lengths(lengths: list[int], seed: int) -> None:
    model = make_model("modernbert").eval()
    examples = examples_of(model, lengths, seed=seed)
    expected = padded_logits(model, examples)
    found = unpadded_logits(model, examples)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_as_before_afterwards(case: str) -> None:
    model = make_model(case, dropout=0.1).train()

    def state() -> Any:
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
        return [
            (name, type(module), module.training, set(vars(module)), [len(getattr(module, hook)) for hook in hooks])
            for name, module in model.named_modules()
        ]

    before, config = state(), model.config.to_json_string()
    examples = examples_of(model, [3, 9])
    with pytest.raises(KeyboardInterrupt), unpadded(model, dropout=DropoutStream(1)) as encoder:
        encoder(pack(examples))
        assert model.config.to_json_string() == config, "what is saved meanwhile names no attention of textune"
        raise KeyboardInterrupt
    assert state() == before
    assert model.config._attn_implementation == "eager"
    assert padded_logits(model.eval(), examples).shape == (2, 3)


@pytest.mark.parametrize("case", CASES)
def test_a_copy_of_a_prepared_model_computes_with_its_own_weights(case: str) -> None:
    model = make_model(case).eval()
    examples = examples_of(model, UNEVEN)
    batch = pad(examples, Padding(model.config.pad_token_id))
    with torch.no_grad(), unpadded(model):
        copied = copy.deepcopy(model)
        before = copied(**batch).logits
        for parameter in model.parameters():
            parameter.zero_()
        torch.testing.assert_close(copied(**batch).logits, before)
        assert before.any()


def test_a_model_is_prepared_once() -> None:
    model = make_model()
    with unpadded(model), pytest.raises(AssertionError, match="already"), unpadded(model):
        pass


def enable_checkpointing(model: Any, *, reentrant: bool) -> None:
    new_name = hasattr(model, "activation_checkpointing_enable")
    enable = model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()


def disable_checkpointing(model: Any) -> None:
    new_name = hasattr(model, "activation_checkpointing_disable")
    (model.activation_checkpointing_disable if new_name else model.gradient_checkpointing_disable)()


@pytest.mark.parametrize("case", ["bert", "distilbert", "modernbert", "nomic_bert"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(case: str, reentrant: bool) -> None:
    model = make_model(case).train()
    one, two = examples_of(model, UNEVEN), examples_of(model, [8, 30], seed=4)
    wanted = gradients(model, torch.cat([padded_logits(model, one), padded_logits(model, two)]))
    enable_checkpointing(model, reentrant=reentrant)
    with unpadded(model, dropout=DropoutStream(1)) as encoder:
        found = gradients(model, torch.cat([encoder(pack(one)), encoder(pack(two))]))
    assert_same_gradients(found, wanted)


def test_dropout_with_gradient_checkpointing_meets_the_same_masks_again() -> None:
    model = make_model("bert", dropout=0.2).train()
    examples = examples_of(model, UNEVEN)

    def found() -> dict[str, torch.Tensor]:
        with unpadded(model, dropout=DropoutStream(1), last_layer_first_only=False) as encoder:
            torch.manual_seed(3)
            return gradients(model, encoder(pack(examples)))

    enable_checkpointing(model, reentrant=False)
    recomputed = found()
    disable_checkpointing(model)
    torch.manual_seed(3)
    with unpadded(model, last_layer_first_only=False) as encoder:
        stored = gradients(model, encoder(pack(examples)))
    assert_same_gradients(recomputed, stored)


@pytest.mark.parametrize("side", ["right", "left"])
def test_gradient_checkpointing_of_a_padded_call(side: str) -> None:
    model = make_model("bert").train()
    examples = examples_of(model, UNEVEN)
    wanted = gradients(model, padded_logits(model, examples, side=side))
    enable_checkpointing(model, reentrant=False)
    with unpadded(model):
        assert_same_gradients(gradients(model, padded_logits(model, examples, side=side)), wanted)


def test_dropout_is_a_function_of_the_stream_and_keeps_the_expectation() -> None:
    model = make_model("bert", dropout=0.1).train()
    # Smaller weights: the expectation of a nonlinear function is only near the function of the expectation.
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    examples = examples_of(model, UNEVEN)
    stream = DropoutStream(1, 0)
    with torch.no_grad(), unpadded(model, dropout=stream) as encoder:
        draws = []
        for step in range(400):
            stream.reseed(1, step)
            draws.append(encoder(pack(examples)))
        stream.reseed(1, 7)
        assert torch.equal(encoder(pack(examples)), draws[7])
        assert not torch.equal(draws[7], draws[8])
        model.eval()
        still = encoder(pack(examples))
    mean, spread = torch.stack(draws).mean(0), torch.stack(draws).std(0)
    assert (spread > 0).all()
    assert ((mean - still).abs() < 5 * spread / 20 + 0.15 * spread).all()


def refusal(**changes: Any) -> str | None:
    model = make_model("bert")
    for name, value in changes.items():
        setattr(model.config, name, value)
    return why_padded(model)


def test_reasons_for_padding() -> None:
    from tiny import make_tiny_model

    assert why_padded(make_tiny_model("mpnet", label_names=["a", "b"])) == (
        "the architecture mpnet does not use transformers' attention interface"
    )
    assert "deberta-v2" in str(why_padded(make_tiny_model("deberta-v2", label_names=["a", "b"])))
    assert why_padded(make_tiny_model("bert")) == "BertModel is not a sequence classifier of transformers"
    assert refusal(is_decoder=True) == "BertForSequenceClassification is configured as a decoder"
    assert refusal(position_embedding_type="relative_key") == "its positions are 'relative_key', not absolute"
    assert "chunk_size_feed_forward" in str(refusal(chunk_size_feed_forward=8))
    assert refusal(output_hidden_states=True) == "it is configured to return more or other than logits"
    modern = make_model("modernbert")
    modern.config.rope_parameters["full_attention"]["rope_type"] = "dynamic"
    assert why_padded(modern) == "its rotary positions depend on the longest text of a batch"
    euro = make_model("eurobert")
    euro.config.classifier_pooling = "max"
    assert why_padded(euro) == "its pooling 'max' is not known"


def test_a_class_of_ones_own_is_left_padded() -> None:
    from transformers import BertForSequenceClassification

    class Own(BertForSequenceClassification):
        pass

    reason = why_padded(Own(make_model("bert").config))
    assert reason == "Own is not a sequence classifier of transformers"


class MeanPooler(torch.nn.Module):
    """Reads all tokens, where BERT's own reads the first."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.mean(1)


def test_a_model_with_a_part_of_ones_own_is_left_padded() -> None:
    model: Any = make_model("bert")
    model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
    assert why_padded(model) is None, "made of torch's modules, which see one text or token at a time"
    own = copy.deepcopy(model)
    own.bert.pooler = MeanPooler()
    assert why_padded(own) == "its bert.pooler is a MeanPooler, which may want whole texts"
    hooked = copy.deepcopy(model)
    handle = hooked.bert.encoder.register_forward_hook(lambda *_: None)
    assert why_padded(hooked) == "its bert.encoder has a forward or hooks of somebody's own, which may want whole texts"
    handle.remove()
    assert why_padded(hooked) is None
    hooked.bert.pooler.forward = lambda hidden: hidden.mean(1)
    assert str(why_padded(hooked)).startswith("its bert.pooler has a forward")


@pytest.mark.parametrize("case", CASES)
def test_a_padded_call_of_a_prepared_model(case: str) -> None:
    model = make_model(case).train()
    batch = pad(examples_of(model, UNEVEN), Padding(model.config.pad_token_id))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    expected = model(**batch, labels=labels)
    wanted = gradients(model, expected.logits)
    with unpadded(model):
        found = model(**batch, labels=labels)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
        assert_same_gradients(gradients(model, found.logits), wanted)


def test_calls_that_a_prepared_model_runs_as_ever() -> None:
    model = make_model("bert").eval()
    examples = examples_of(model, UNEVEN)
    batch = pad(examples, Padding(0))
    expected = model(**batch, output_hidden_states=True)
    on_the_left = padded_logits(model, examples, side="left")
    with unpadded(model) as encoder:
        found = model(**batch, output_hidden_states=True)
        assert all(map(torch.equal, found.hidden_states, expected.hidden_states))
        assert torch.equal(padded_logits(model, examples, side="left"), on_the_left)
        torch.testing.assert_close(encoder(pack(examples)), expected.logits, rtol=1e-5, atol=1e-5)
