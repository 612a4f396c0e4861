"""The reference workflow's names: a script written for `datasets`, `transformers` and `evaluate` changes its imports.

>>> from textune.compat import AutoTokenizer, TrainingArguments, evaluate, load_dataset

The names are loaded when they are first used: importing this package imports neither torch nor transformers. Those
that textune takes as they are come from transformers itself; so does every other public name of it, such as
`HfArgumentParser`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import DataCollatorWithPadding as DataCollatorWithPadding
    from transformers import EarlyStoppingCallback as EarlyStoppingCallback
    from transformers import EvalPrediction as EvalPrediction
    from transformers import TrainerCallback as TrainerCallback
    from transformers import get_scheduler as get_scheduler
    from transformers import set_seed as set_seed

    from textune.compat import evaluate as evaluate
    from textune.compat.arguments import TrainingArguments as TrainingArguments
    from textune.compat.loading import AutoConfig as AutoConfig
    from textune.compat.loading import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from textune.compat.loading import AutoTokenizer as AutoTokenizer
    from textune.compat.loading import load_dataset as load_dataset
    from textune.compat.optimization import AdamW as AdamW
    from textune.compat.trainer import Trainer as Trainer

_HOME = {
    "AdamW": "textune.compat.optimization",
    "AutoConfig": "textune.compat.loading",
    "AutoModelForSequenceClassification": "textune.compat.loading",
    "AutoTokenizer": "textune.compat.loading",
    "DataCollatorWithPadding": "transformers",
    "EarlyStoppingCallback": "transformers",
    "EvalPrediction": "transformers",
    "Trainer": "textune.compat.trainer",
    "TrainerCallback": "transformers",
    "TrainingArguments": "textune.compat.arguments",
    "get_scheduler": "transformers",
    "load_dataset": "textune.compat.loading",
    "set_seed": "transformers",
}

__all__ = [
    "AdamW",
    "AutoConfig",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "DataCollatorWithPadding",
    "EarlyStoppingCallback",
    "EvalPrediction",
    "Trainer",
    "TrainerCallback",
    "TrainingArguments",
    "evaluate",
    "get_scheduler",
    "load_dataset",
    "set_seed",
]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("textune.compat.evaluate")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    # Python itself asks for names such as `__path__`, and for modules of this package before it imports them.
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is None:
        transformers = importlib.import_module("transformers")
        if hasattr(transformers, name):
            return getattr(transformers, name)
    raise AttributeError(f"module 'textune.compat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
