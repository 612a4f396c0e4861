"""A tiny BERT, random rows and a `Setup` around them, for the tests of the training engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

from textune.config import EngineConfig, TrainingConfig
from textune.data.batching import BatchPlan
from textune.data.collate import Padding
from textune.data.tokens import TokenRows
from textune.models.losses import Loss
from textune.training.callbacks import Callback, Record
from textune.training.engine import build_engine
from textune.training.optimizer import build_optimizer
from textune.training.precision import Arithmetic
from textune.training.schedule import Schedule
from textune.training.setup import Intervals, Selection, Setup
from textune.training.state import TrainingState
from textune.training.work import TextWork

VOCABULARY = 60
NEVER = 10**6
# Setups are used beyond the function that makes them.
_OPEN = ExitStack()
FP32 = Arithmetic("fp32", "fp32-blas", "for tests", ())


@dataclass(frozen=True)
class TrainingRows:
    """Tokens, labels and ids of the same rows."""

    tokens: TokenRows
    labels: NDArray[Any]
    ids: list[str]


def tiny_model(
    *, num_labels: int = 2, dropout: float = 0.0, problem_type: str = "single_label_classification"
) -> BertForSequenceClassification:
    """A BERT of two layers whose weights depend on nothing but these arguments."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=num_labels,
        problem_type=problem_type,
        # Larger than usual, so that fifty steps change the loss visibly.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return BertForSequenceClassification(config).eval()


def random_rows(num_rows: int, *, num_labels: int = 2, seed: int = 3) -> TrainingRows:
    """Rows of 4 to 20 random tokens with random labels; ids are "row-1", "row-2", ..."""
    generator = np.random.default_rng(seed)
    ids = [generator.integers(5, VOCABULARY, size=generator.integers(4, 21)).tolist() for _ in range(num_rows)]
    table = pa.table(
        {
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "full_length": pa.array([len(row) for row in ids], pa.int32()),
        }
    )
    labels = generator.integers(0, num_labels, size=num_rows)
    return TrainingRows(TokenRows(table), labels, [f"row-{number + 1}" for number in range(num_rows)])


def make_setup(
    folder: Path,
    *,
    model: BertForSequenceClassification | None = None,
    rows: TrainingRows | None = None,
    steps: int = 10,
    batch_size: int = 8,
    accumulation: int = 1,
    config: TrainingConfig | None = None,
    engine_config: EngineConfig | None = None,
    arithmetic: Arithmetic = FP32,
    schedule: Schedule | None = None,
    loss: Loss | None = None,
    intervals: Intervals | None = None,
    evaluate: Callable[[], dict[str, Any]] | None = None,
    min_improvement: float = 0.0,
    keep_best: bool = True,
    keep_checkpoints: int = 2,
) -> Setup:
    """Everything `textune.training.loop.train` needs; by default ten plain steps without evaluation in between."""
    config = config or TrainingConfig(learning_rate=1e-3)
    model = model or tiny_model()
    rows = rows or random_rows(40)
    engine = _OPEN.enter_context(
        build_engine(
            model,
            engine_config or EngineConfig(),
            tokens=rows.tokens,
            padding=Padding(token_id=0),
            arithmetic=arithmetic,
            device=torch.device("cpu"),
        )
    )
    with engine.trained_weights():
        optimizer = build_optimizer(model, config)
    engine.watch(optimizer)
    work = TextWork(
        engine=engine,
        tokens=rows.tokens,
        labels=rows.labels,
        ids=rows.ids,
        row_numbers=np.arange(1, len(rows.labels) + 1),
        plan=BatchPlan(len(rows.labels), batch_size, accumulation, config.seed),
        loss=loss or Loss("single_label_classification"),
    )
    return Setup(
        model=model,
        work=work,
        optimizer=optimizer,
        schedule=schedule or Schedule("linear", 0, steps),
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        intervals=intervals or Intervals(log=1, evaluation=NEVER, checkpoint=NEVER),
        selection=Selection("accuracy", True, min_improvement, keep_best=keep_best),
        evaluate=evaluate or (lambda: {"accuracy": 0.5, "loss": 1.0}),
        checkpoints=folder / "checkpoints",
        keep_checkpoints=keep_checkpoints,
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Recorder(Callback):
    """Remembers every event in order."""

    def __init__(self) -> None:
        self.logs: list[Record] = []
        self.evaluations: list[Record] = []
        self.checkpoints: list[str] = []
        self.events: list[str] = []

    def on_train_begin(self, state: TrainingState) -> None:
        self.events.append("begin")

    def on_step(self, state: TrainingState) -> None:
        self.events.append("step")

    def on_log(self, state: TrainingState, record: Record) -> None:
        self.events.append("log")
        self.logs.append(dict(record))

    def on_evaluate(self, state: TrainingState, record: Record) -> None:
        self.events.append("evaluate")
        self.evaluations.append(dict(record))

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        self.events.append("checkpoint")
        self.checkpoints.append(folder.name)

    def on_train_end(self, state: TrainingState) -> None:
        self.events.append("end")


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, within: float) -> None:
    """Compares weights, all but the key biases.

    Softmax does not change when the same number is added to all of its inputs, so that the gradient of a key's bias is
    zero but for rounding. AdamW makes whole steps of that rounding, which change nothing that the model computes.
    """
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.endswith("key.bias"):
            assert float((found[name] - tensor).abs().max()) <= within, name
