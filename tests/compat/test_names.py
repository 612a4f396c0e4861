"""The public names of `textune.compat`, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from textune import compat

NAMES = [
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


def test_the_public_names() -> None:
    # Further names may be added; none may go.
    assert set(NAMES) <= set(compat.__all__)
    assert dir(compat) == sorted(compat.__all__)
    for name in compat.__all__:
        assert getattr(compat, name) is not None
    with pytest.raises(AttributeError, match=r"module 'textune\.compat' has no attribute 'Traner'"):
        _ = compat.Traner


def test_those_of_transformers_are_transformers_own() -> None:
    import transformers

    for name in ("DataCollatorWithPadding", "EarlyStoppingCallback", "EvalPrediction", "get_scheduler", "set_seed"):
        assert getattr(compat, name) is getattr(transformers, name)


def test_other_names_are_handed_on_to_transformers() -> None:
    import transformers

    from textune.compat import AutoModel, HfArgumentParser, default_data_collator, logging, pipeline

    assert AutoModel is transformers.AutoModel
    assert HfArgumentParser is transformers.HfArgumentParser
    assert default_data_collator is transformers.default_data_collator
    assert pipeline is transformers.pipeline
    assert logging is transformers.logging


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_importing_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from textune.compat import TrainingArguments, evaluate, load_dataset, AutoTokenizer, loading; "
        "evaluate.load('glue', 'mrpc'); "
        "print('loaded:', *(name for name in ('torch', 'transformers', 'datasets', 'sklearn') if name in sys.modules))"
    )
    assert run(code) == "loaded:"


def test_it_works_without_accelerate(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; sys.modules['accelerate'] = None; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name, *rest: None if name == 'accelerate' else find(name, *rest); "
        "from textune import compat; [getattr(compat, name) for name in compat.__all__]; "
        "arguments = compat.TrainingArguments('out', evaluation_strategy='epoch'); "
        "import torch; model = torch.nn.Linear(1, 1); rows = [{'x': 1.0}] * 4; "
        "model.forward = lambda x: {'loss': model.weight.sum() * x.sum()}; "
        f"quick = compat.TrainingArguments({str(tmp_path)!r}, max_steps=2, save_strategy='no', disable_tqdm=True); "
        "assert compat.Trainer(model, quick, train_dataset=rows).train().global_step == 2; "
        "print(arguments.eval_strategy.value, arguments.device.type, arguments.parallel_mode.value)"
    )
    assert run(code).startswith("epoch ")
