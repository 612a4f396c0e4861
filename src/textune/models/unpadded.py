"""Runs a transformers classifier over real tokens only.

The model stays transformers' own. It is called with all texts one behind the other as one row, [1, tokens]; its linear
layers, norms and activations see no padding. Three things need to know where texts begin: positions, which are handed
over; attention, which a function registered with transformers does (`textune.models.unpadded_attention`); and the
head, which a hook hands what it reads of each text as a batch of texts, each of length 1.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textune.data.collate import PackedBatch

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from textune.models.dropout import DropoutStream
    from textune.models.unpadded_attention import Layout

_ATTENTION = "textune_unpadded"
# Models that are prepared now. Preparing one twice would undo itself in the wrong order.
_PREPARED: weakref.WeakSet[Any] = weakref.WeakSet()


@dataclass(frozen=True)
class Projections:
    """Where a layer's attention and the linear layers in it are.

    Attributes:
        attention: the module within the layer.
        query, key, value: the linear layers within the module.
        output: behind them, where it is within the module.
    """

    attention: str
    query: str
    key: str
    value: str
    output: str | None = None


@dataclass(frozen=True)
class _Family:
    """What differs between architectures.

    Attributes:
        encoder: where in the base model the output of the last layer can be changed before pooler and norm see it:
            the list of layers, or a module that runs them.
        narrow: in the last layer, the module in front of which only the first token of each text is still needed.
        projections: in the last layer, of attention that adds nothing to what linear layers make of hidden states and
            can so be computed for the first tokens without keys and values; None where it turns them by position.
        positions_after_padding: positions count from the padding token's id + 1 and skip that token.
        pooling: configuration field that says what the head reads; None where it is always the first token.
    """

    encoder: str
    narrow: str | None = None
    projections: Projections | None = None
    positions_after_padding: bool = False
    pooling: str | None = None


_BERT = _Family("encoder.layer", "attention.output", Projections("attention.self", "query", "key", "value"))
_ROBERTA = replace(_BERT, positions_after_padding=True)
_DISTILBERT = Projections("attention", "q_lin", "k_lin", "v_lin", output="out_lin")
_FAMILIES = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _Family("transformer.layer", "sa_layer_norm", _DISTILBERT),
    "albert": _Family("encoder"),
    "nomic_bert": _Family("layers", "post_attention_layernorm"),
    "modernbert": _Family("layers", pooling="classifier_pooling"),
    "eurobert": _Family("layers", pooling="classifier_pooling"),
}
_FIRST_TOKEN = ("cls", "bos")
_MEAN = "mean"
_MEAN_OF_LOGITS = "late"
# What a call may have besides the texts to be computed without padding.
_CALLS_WITH = frozenset({"labels", "num_items_in_batch", "return_dict"})
# Whose modules and hooks either see each token by itself or are known here.
_KNOWN_PACKAGES = ("transformers", "torch", "textune", "peft", "bitsandbytes")


def why_padded(model: PreTrainedModel) -> str | None:
    """Returns why the model needs padded batches, in words that follow "because"; None where it can do without."""
    config: Any = model.config
    family = _FAMILIES.get(config.model_type)
    name = type(model).__name__
    if family is None:
        known = getattr(model, "_supports_attention_backend", False)
        what = "was never tried without padding" if known else "does not use transformers' attention interface"
        return f"the architecture {config.model_type} {what}"
    if not (type(model).__module__.startswith("transformers.models.") and name.endswith("ForSequenceClassification")):
        return f"{name} is not a sequence classifier of transformers"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return f"{name} is configured as a decoder"
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return f"its positions are {config.position_embedding_type!r}, not absolute"
    if getattr(config, "chunk_size_feed_forward", 0):
        return "chunk_size_feed_forward cuts its batches into pieces"
    if config.output_attentions or config.output_hidden_states or not config.return_dict:
        return "it is configured to return more or other than logits"
    if _rotation_depends_on_batch(getattr(config, "rope_parameters", None)):
        return "its rotary positions depend on the longest text of a batch"
    if family.pooling and getattr(config, family.pooling) not in (*_FIRST_TOKEN, _MEAN, _MEAN_OF_LOGITS):
        return f"its pooling {getattr(config, family.pooling)!r} is not known"
    return _changed_part(model)


def _changed_part(model: PreTrainedModel) -> str | None:
    """A module within the model, in words, that somebody has changed who may count on seeing whole texts."""
    for name, module in model.named_modules():
        if module is model:  # it is called as ever
            continue
        if not _is_known(type(module)):
            return f"its {name} is a {type(module).__name__}, which may want whole texts"
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if "forward" in vars(module) or not all(_is_known(hook) for hook in hooks):
            return f"its {name} has a forward or hooks of somebody's own, which may want whole texts"
    return None


def _is_known(definition: Any) -> bool:
    return str(getattr(definition, "__module__", "")).partition(".")[0] in _KNOWN_PACKAGES


def _rotation_depends_on_batch(parameters: dict[str, Any] | None) -> bool:
    groups = [parameters or {}, *(value for value in (parameters or {}).values() if isinstance(value, dict))]
    return any(group.get("rope_type") in ("dynamic", "longrope") for group in groups)


class UnpaddedEncoder:
    """A classifier as a function of packed texts. `unpadded` makes one."""

    def __init__(self, model: PreTrainedModel, masks: DropoutStream | None) -> None:
        config: Any = model.config
        self._model = model
        self._masks = masks
        self._family = _FAMILIES[config.model_type]
        self._num_heads = int(config.num_attention_heads)
        self._num_key_heads = int(getattr(config, "num_key_value_heads", None) or self._num_heads)
        self._has_types = bool(getattr(config, "type_vocab_size", 0))

    def __call__(self, batch: PackedBatch) -> torch.Tensor:
        """Runs the model in its mode (training or evaluation).

        Args:
            batch: with its tensors on the model's device.

        Returns:
            Logits, [rows, num_labels].
        """
        logits: torch.Tensor = self._model(**self.arguments(batch)).logits
        return logits

    def arguments(self, batch: PackedBatch) -> dict[str, Any]:
        """What the model is called with for a batch."""
        from textune.models.unpadded_attention import Layout

        layout = Layout(
            batch.lengths,
            num_heads=self._num_heads,
            num_key_heads=self._num_key_heads,
            device=batch.input_ids.device,
            masks=self._masks,
        )
        types = {"token_type_ids": batch.token_type_ids} if self._has_types else {}
        positions = self._position_ids(batch, layout)
        return {"input_ids": batch.input_ids, "position_ids": positions, "layout": layout, **types}

    def _position_ids(self, batch: PackedBatch, layout: Layout) -> torch.Tensor:
        if not self._family.positions_after_padding:
            return batch.positions
        # As RobertaEmbeddings counts: a padding token within a text takes no position.
        padding_id: int = self._model.config.pad_token_id
        counted = batch.input_ids.ne(padding_id).long()
        sums = counted.cumsum(1)
        before = (sums - counted)[0, layout.first]
        starts = before.repeat_interleave(layout.row_lengths, output_size=counted.shape[1])
        return (sums - starts) * counted + padding_id


@contextmanager
def unpadded(
    model: PreTrainedModel, *, dropout: DropoutStream | None = None, last_layer_first_only: bool = True
) -> Iterator[UnpaddedEncoder]:
    """Prepares a model, for which `why_padded` finds nothing, to run without padding; afterwards it is as before.

    Logits and gradients equal those of the model over texts padded on the right, to rounding; a text's logits do not
    depend on the batch it lies in. Meanwhile the model itself can be called as ever: of a padded batch it computes the
    real tokens; calls that ask for more than logits and loss, or have something else than padding on the right, run as
    before.

    Args:
        dropout: where masks come from on a CPU; None for torch's own dropout, which is used with gradient
            checkpointing and on other devices anyway.
        last_layer_first_only: leaves out what the last layer would compute for tokens the head does not read.
    """
    reason = why_padded(model)
    assert reason is None, f"{type(model).__name__} needs padded batches: {reason}"
    assert model not in _PREPARED, "the model runs without padding already"
    from textune.models.dropout import fast_dropout

    # A layer that is computed a second time must meet the same masks, and no hook that only the last call prepared.
    recomputed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    stream = None if recomputed else dropout
    narrowed = last_layer_first_only and not recomputed
    with ExitStack() as stack:
        encoder = UnpaddedEncoder(model, stream)
        usual = _install_attention(model, stack)
        _install_hooks(model, encoder, usual_attention=usual, narrowed=narrowed, stack=stack)
        if stream is not None:
            stack.enter_context(fast_dropout(model, stream))
        _PREPARED.add(model)
        stack.callback(_PREPARED.discard, model)
        yield encoder


@contextmanager
def unpadded_where_possible(model: Any, *, dropout: DropoutStream | None = None) -> Iterator[None]:
    """Prepares a model whose calls are others' as `unpadded` does, unless it is so already or cannot be.

    Args:
        model: any; those of transformers that classify texts can.
        dropout: as for `unpadded`.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model in _PREPARED or why_padded(model) is not None:
        yield
    else:
        with unpadded(model, dropout=dropout):
            yield


def _install_attention(model: PreTrainedModel, stack: ExitStack) -> str:
    """Returns the name of the attention that the model had."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    from textune.models.unpadded_attention import attend

    AttentionInterface.register(_ATTENTION, torch.compiler.disable(attend))  # type: ignore[no-untyped-call]
    AttentionMaskInterface.register(_ATTENTION, lambda *_, **__: None)
    usual: str = model.config._attn_implementation
    stack.callback(model.set_attn_implementation, usual)
    model.set_attn_implementation(_ATTENTION)
    return usual


def _without_padding(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[PackedBatch, dict[str, Any]] | None:
    """The real tokens of a padded batch and what the model was called with besides; None for another kind of call."""
    import torch

    given = {name: value for name, value in keywords.items() if value is not None}
    ids, mask, types = (given.pop(name, None) for name in ("input_ids", "attention_mask", "token_type_ids"))
    if arguments or not isinstance(ids, torch.Tensor) or ids.ndim != 2 or given.keys() - _CALLS_WITH:
        return None
    if mask is None:
        mask = torch.ones_like(ids)
    lengths = mask.sum(1)
    places = torch.arange(ids.shape[1], device=ids.device)
    if mask.shape != ids.shape or not torch.equal(mask.bool(), places < lengths[:, None]) or not lengths.all():
        return None
    real = mask.bool()

    def packed(values: torch.Tensor) -> torch.Tensor:
        return values[real][None]

    types = None if types is None else packed(types)
    return PackedBatch(packed(ids), types, packed(places.expand_as(ids)), lengths.cpu().numpy()), given


def _install_hooks(
    model: PreTrainedModel, encoder: UnpaddedEncoder, *, usual_attention: str, narrowed: bool, stack: ExitStack
) -> None:
    family = _FAMILIES[model.config.model_type]
    pooling = getattr(model.config, family.pooling) if family.pooling else _FIRST_TOKEN[0]
    hooks = _Hooks(stack)
    hooks.prepare_calls(model, encoder, usual_attention=usual_attention)
    if pooling == _MEAN_OF_LOGITS:
        hooks.after(model.get_submodule("classifier"), _mean_of_texts)
    elif pooling == _MEAN:
        hooks.after(model.base_model, _mean_of_texts)
    else:
        hooks.first_of_texts(model.base_model, family, narrowed=narrowed)


class _Hooks:
    """Hooks that hand the head what it reads of each text, [rows, 1, size], in place of tokens, [1, tokens, size]."""

    layout: Layout | None = None
    """Of the call that is running; None for one that runs with padding."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def prepare_calls(self, model: PreTrainedModel, encoder: UnpaddedEncoder, *, usual_attention: str) -> None:
        def before(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if "layout" not in keywords:
                found = _without_padding(arguments, keywords)
                if found is None:
                    self.layout = None
                    attention(usual_attention)
                    return None
                batch, others = found
                arguments, keywords = (), {**encoder.arguments(batch), **others}
            self.layout = keywords["layout"]
            # Set before a call and not back after it: with gradient checkpointing the backward pass needs it, too.
            attention(_ATTENTION)
            return arguments, keywords

        def attention(name: str) -> None:
            if model.config._attn_implementation != name:  # setting it takes longer than a small layer
                model.config._attn_implementation = name

        self._stack.callback(model.register_forward_pre_hook(before, with_kwargs=True).remove)

    def after(self, module: nn.Module, change: Callable[[torch.Tensor, Layout], torch.Tensor]) -> None:
        """Changes the module's output: a tensor, or a transformers output with `last_hidden_state`."""
        import torch

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if self.layout is None:
                return None
            if isinstance(output, torch.Tensor):
                return change(output, self.layout)
            output.last_hidden_state = change(output.last_hidden_state, self.layout)
            return output

        self._stack.callback(module.register_forward_hook(hook).remove)

    def first_of_texts(self, base_model: nn.Module, family: _Family, *, narrowed: bool) -> None:
        """Keeps the first token of each text: behind the last layer, or within it where that is possible."""
        from torch import nn

        encoder = base_model.get_submodule(family.encoder)
        last = encoder[-1] if isinstance(encoder, nn.ModuleList) else encoder
        if narrowed and family.narrow is not None:

            def keep_first(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
                if self.layout is None:
                    return None
                first = self.layout.first
                return tuple(x.index_select(1, first) for x in inputs)

            narrow = last.get_submodule(family.narrow)
            self._stack.callback(narrow.register_forward_pre_hook(keep_first).remove)
            self.after(last, lambda hidden, _: hidden.transpose(0, 1))
            if family.projections is not None:
                self._attend_from_first(last, family.projections)
        else:
            self.after(last, lambda hidden, layout: hidden.index_select(1, layout.first).transpose(0, 1))

    def _attend_from_first(self, layer: nn.Module, projections: Projections) -> None:
        from textune.models.first_token_attention import attend_from_first, pays

        module = layer.get_submodule(projections.attention)
        usual: Any = type(module)
        hooks = self

        class FirstTokenAttention(usual):  # type: ignore[misc]
            def forward(self, hidden_states: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
                if hooks.layout is None or not pays(self, projections, hidden_states):
                    return super().forward(hidden_states, *arguments, **keywords)
                return attend_from_first(self, projections, hidden_states, layout=hooks.layout), None

        # The class is exchanged and not the method, so that a copy of the model computes with its own weights.
        module.__class__ = FirstTokenAttention
        self._stack.callback(setattr, module, "__class__", usual)


def _mean_of_texts(hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    import torch

    values = hidden[0].float()
    if values.is_mps:  # torch has no segment_reduce there
        means = means_by_adding(values, layout.row_lengths)
    else:
        # The lengths fit; a GPU would be waited for to have them checked.
        means = torch.segment_reduce(values, "mean", lengths=layout.row_lengths, unsafe=True)
    return means.to(hidden.dtype)[:, None]


def means_by_adding(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean of each text's rows in [tokens, size]; on a GPU they are added in any order."""
    import torch

    texts = torch.arange(len(lengths), device=values.device).repeat_interleave(lengths, output_size=len(values))
    sums = values.new_zeros(len(lengths), values.shape[1]).index_add(0, texts, values)
    return sums / lengths[:, None]
