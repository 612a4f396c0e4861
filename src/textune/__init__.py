"""Fine-tune pretrained transformer encoders for text classification.

>>> import textune
>>> run = textune.train("sample", model="starter", output="runs/first")
>>> run.summary["validation"]["accuracy"]["value"]
>>> textune.Predictor.load(run).predict([("He left.", "He went away.")])

The public names are loaded when they are first used: `import textune` imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textune.comparison import compare as compare
    from textune.compat.arguments import TrainingArguments as TrainingArguments
    from textune.compat.trainer import Trainer as Trainer
    from textune.config import Config as Config
    from textune.errors import TextuneError as TextuneError
    from textune.evaluating import evaluate as evaluate
    from textune.finetune import train as train
    from textune.inspection import inspect as inspect
    from textune.run import Run as Run
    from textune.serving.predictor import Predictor as Predictor

__version__ = "0.1.0.dev0"

_HOME = {
    "Config": "textune.config",
    "Predictor": "textune.serving.predictor",
    "Run": "textune.run",
    "TextuneError": "textune.errors",
    "Trainer": "textune.compat.trainer",
    "TrainingArguments": "textune.compat.arguments",
    "compare": "textune.comparison",
    "evaluate": "textune.evaluating",
    "inspect": "textune.inspection",
    "train": "textune.finetune",
}

__all__ = [
    "Config",
    "Predictor",
    "Run",
    "TextuneError",
    "Trainer",
    "TrainingArguments",
    "__version__",
    "compare",
    "evaluate",
    "inspect",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'textune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
