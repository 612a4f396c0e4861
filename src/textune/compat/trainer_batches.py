"""What a collator may not return, token ids that a model has, and labels as losses take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from textune.compat.trainer_checks import is_text_classifier
from textune.compat.trainer_data import require_ids_from_zero
from textune.errors import DataError
from textune.models.tokenizer import check_token_ids
from textune.problem_types import MULTI_LABEL

# What a model takes as tensors, whatever else a script's own model may take as lists.
_TENSORS = ("input_ids", "attention_mask", "token_type_ids", "labels")


def require_tensors(batch: Any) -> None:
    """Looks for text and lists where the model takes tensors.

    Raises:
        DataError: the batch is text or rows of text, holds some under one of its names, or is None; or a name that
            models take as a tensor stands for a list.
    """
    if batch is None:
        raise DataError(
            "The collator returned None; expected a dict of tensors, named as the model's arguments.",
            hint="Is its `return` missing?",
        )
    if isinstance(batch, Mapping):
        for name, value in batch.items():
            if _is_text(value):
                raise DataError(
                    f"The collator gave text for {name!r} ({value!r:.60}); the model takes tensors.",
                    hint=f"Leave {name!r} out of the batch, or turn it into numbers.",
                )
            if name in _TENSORS and isinstance(value, (list, tuple)):
                raise DataError(
                    f"The collator gave a {type(value).__name__} for {name!r} ({value!r:.60}); "
                    "the model takes tensors.",
                    hint="torch.tensor(...) makes one of it; DataCollatorWithPadding(tokenizer) also pads.",
                )
    elif _is_text(batch) or _is_rows(batch):
        raise DataError(
            f"The collator returned a {type(batch).__name__} ({batch!r:.60}); expected a dict of tensors, named as the "
            "model's arguments.",
            hint="DataCollatorWithPadding(tokenizer) makes one out of tokenised rows.",
        )


def require_token_ids(batch: Any, model: Any) -> None:
    """Whether a classifier has an embedding for each token id of a batch: torch would not say for which it has none,
    and a GPU would not work after that.

    Raises:
        DataError: an id is below 0.
        CheckpointError: the model has none for the largest.
    """
    ids = batch.get("input_ids") if isinstance(batch, Mapping) and is_text_classifier(model) else None
    if not isinstance(ids, torch.Tensor) or ids.device.type != "cpu" or ids.is_floating_point() or not ids.numel():
        return
    lowest, largest = (int(value) for value in ids.aminmax())
    require_ids_from_zero(lowest, what="a batch")
    check_token_ids(model, largest, what="a batch")


def with_labels_as_taken(batch: Any, model: Any) -> Any:
    """The batch with labels of the type that a classifier's loss takes: 0 and 1 for each of several labels as
    decimals, truth values as whole numbers."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or not is_text_classifier(model):
        return batch
    if model.config.problem_type == MULTI_LABEL or labels.shape[1:] == (model.config.num_labels,):
        labels = labels.float()
    elif labels.dtype == torch.bool:
        labels = labels.long()
    else:
        return batch
    return type(batch)({**batch, "labels": labels})


def _is_text(value: Any) -> bool:
    """Whether it is text, or begins with it however deep."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _is_text(value[0])
    return isinstance(value, (str, bytes))


def _is_rows(value: Any) -> bool:
    """Whether it is the list of rows that the collator was given."""
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping)
