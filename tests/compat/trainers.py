"""Small data, models and arguments for the tests of the Trainer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import BLAME, PRAISE, SUBJECTS, make_tiny_model, tiny_tokenizer

from textune.compat.arguments import TrainingArguments
from textune.compat.trainer import Trainer

LABELS = ("negative", "positive")


def sentences() -> list[dict[str, Any]]:
    """64 texts of different lengths with labels 0 and 1."""
    pairs = [(subject, word) for subject in SUBJECTS for word in (*PRAISE, *BLAME)]
    return [
        {"text": f"the {subject} was{' very' * (number % 5)} {word} .", "label": int(word in PRAISE)}
        for number, (subject, word) in enumerate(pairs)
    ]


@functools.cache
def tokenized(family: str = "bert") -> Any:
    """`sentences` as a `datasets.Dataset` with the columns of the family's tokenizer; made once."""
    import datasets

    tokenizer = tiny_tokenizer(family)
    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(sentences()).map(lambda rows: tokenizer(rows["text"]), batched=True)


def classifier(family: str = "bert", *, dropout: float = 0.0, label_names: Sequence[str] = LABELS) -> Any:
    """A tiny classifier, always the same; its weights are spread wide enough for it to learn something."""
    model = make_tiny_model(family, label_names=label_names)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "StableDropout":
            module.p = module.drop_prob = dropout
        if hasattr(module, "attention_dropout") and isinstance(module.attention_dropout, float):
            module.attention_dropout = dropout
    return model


def arguments(folder: Path, **values: Any) -> TrainingArguments:
    """Arguments with which nothing is printed or saved unless it is asked for."""
    return TrainingArguments(str(folder), **{**quiet(), **values})


def quiet() -> dict[str, Any]:
    """For textune's and for transformers' TrainingArguments."""
    return {
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 1,
        "learning_rate": 1e-3,
    }


def trainer(folder: Path, *, model: Any = None, callbacks: Any = None, **values: Any) -> Trainer:
    """A Trainer over `tokenized`; values that the constructor knows go there, others to the arguments."""
    own = {name: values.pop(name) for name in CONSTRUCTOR if name in values}
    given = {"train_dataset": tokenized(), "eval_dataset": tokenized(), "processing_class": tiny_tokenizer(), **own}
    return Trainer(model or classifier(), arguments(folder, **values), callbacks=callbacks, **given)


CONSTRUCTOR = (
    "compute_loss_func",
    "compute_metrics",
    "data_collator",
    "eval_dataset",
    "optimizers",
    "preprocess_logits_for_metrics",
    "processing_class",
    "train_dataset",
)


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def losses(found: Any) -> list[float]:
    """The losses of a Trainer's log."""
    return [entry["loss"] for entry in found.state.log_history if "loss" in entry]


def weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A copy of all parameters but the key biases, whose gradient is nothing but rounding."""
    return {
        name: parameter.detach().numpy().copy()
        for name, parameter in model.named_parameters()
        if not name.endswith(("key.bias", "k_lin.bias", "key_proj.bias", "attn.k.bias"))
    }


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], *, within: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(np.abs(found[name] - value).max()) <= within, name
