"""What can be configured: one frozen tree of plain values, with the meaning and unit of each under its name.

`textune.config_reading` builds it from a file, flags and `--set`; `textune config` prints it with these texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from textune.problem_types import ProblemType

Section = Literal["data", "tokens", "model", "training", "engine", "evaluation", "checkpoint", "run"]


def _number(
    default: float | None,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A number with its bounds: `low <= x <= high`, `above < x < below`. The reader checks them."""
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return field(default=default, metadata={key: bound for key, bound in bounds.items() if bound is not None})


def _duration(default: str | None, *, by_clock: bool = False) -> Any:
    """A length of training, such as "500steps", "1epoch" or "10%", or by the clock "10min" (textune.durations)."""
    return field(default=default, metadata={"duration": True, "by_clock": by_clock})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the labelled text comes from and what its columns mean."""

    source: str = "sample"
    """`sample`, a GLUE task (`glue/mrpc`), a hub data set (`owner/name[:config]`), a file or a folder."""

    validation: str | None = None
    """A further file with the validation rows."""

    test: str | None = None
    """A further file with the test rows."""

    local_copy: str | None = None
    """Folder that holds GLUE tasks on this machine; otherwise a folder glue/TASK here, TEXTUNE_DATA, then the hub."""

    delimiter: str | None = None
    """What separates the fields of a CSV file; found by itself when not given."""

    encoding: str = "utf-8"
    """Encoding of text files that are not UTF-8, such as cp949 or cp1252."""

    text: str | None = None
    """Column with the text; found by its name when not given."""

    text_pair: str | None = None
    """Column with the second text of a pair; found by its name when not given."""

    label: str | None = None
    """Column with the label; found by its name when not given."""

    problem_type: ProblemType | None = None
    """What kind of label it is; found from the label column when not given."""

    label_names: tuple[str, ...] | None = None
    """Names of the labels in the order of their ids; for integer labels the name of label 0, 1, 2, ..."""

    label_separator: str | None = None
    """Character between the labels of one row, when a text column holds several."""

    validation_fraction: float = _number(0.1, low=0, below=1)
    """Share of the training rows set aside for validation when the data have no validation split; 0 sets none aside."""

    split_seed: int | None = _number(None, low=0, high=2**63 - 1)
    """Seed by which rows are set aside for validation or dealt out to folds; when not given, training.seed."""

    folds: int | None = _number(None, low=2, high=20)
    """Cross-validate: train this many times, each time without one part of the rows, then once on all of them."""

    fold: int | None = _number(None, low=1)
    """Train without this one of the folds only, counted from 1, and score it as validation."""

    drop_bad_rows: bool = False
    """Leave out rows that cannot be used, and count them, instead of stopping."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """How text becomes token ids and token ids become batches."""

    max_length: int | None = _number(None, low=4)
    """Tokens kept per example; when not given, what the checkpoint allows."""

    pad_to_multiple_of: int | None = _number(None, low=1)
    """Pad every batch to a multiple of this many tokens, for devices that want few shapes."""

    pad_to_max_length: bool = False
    """Pad every batch to `max_length`, for devices that want fixed shapes, instead of its longest example."""

    num_workers: int = _number(0, low=0)
    """Processes that tokenise. 0: one per core for slow tokenizers, none for fast ones, which use threads."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which pretrained encoder, and how its weights are treated."""

    checkpoint: str = "starter"
    """`starter`, a hub model (`owner/name`) or a local folder."""

    revision: str | None = None
    """Branch, tag or commit of a hub model; a folder or `starter` has none."""

    dropout: float | None = _number(None, low=0, below=1)
    """Probability for every dropout of the model; when not given, those of the checkpoint."""

    freeze: str | None = None
    """Parts that are not trained: `embeddings`, `encoder`, or a number: the embeddings and that many lowest layers."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimisation. The defaults are those of the reference workflow (`transformers.Trainer`)."""

    seed: int = _number(42, low=0, high=2**63 - 1)
    """Seed from which those of head, order and dropout are derived."""

    duration: str = _duration("3epochs")
    """How long to train, in epochs, steps or examples."""

    batch_size: int = _number(8, low=1)
    """Examples in one forward and backward pass of each process."""

    batching: Literal["shuffle", "length"] = "shuffle"
    """Which examples go together: any (`shuffle`), or those of similar `length`, so that less padding is needed."""

    tokens_per_batch: int | None = _number(None, low=1)
    """Tokens in one pass at most; then `batch_size` is not used. Padding counts where the architecture needs it."""

    gradient_accumulation_steps: int = _number(1, low=1)
    """Passes of each process whose gradients make one step: it sees `batch_size` times this examples per process."""

    learning_rate: float = _number(5e-5, above=0)
    """Highest learning rate of the schedule."""

    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after warm-up: linearly to zero, half a cosine to zero, or constant."""

    warmup: str = _duration("0steps")
    """How long the learning rate rises linearly from zero."""

    weight_decay: float = _number(0.0, low=0)
    """Decoupled weight decay (AdamW) on matrices; biases and norms have none."""

    adam_beta1: float = _number(0.9, low=0, below=1)
    """Decay of AdamW's running mean of gradients."""

    adam_beta2: float = _number(0.999, low=0, below=1)
    """Decay of AdamW's running mean of squared gradients."""

    adam_epsilon: float = _number(1e-8, above=0)
    """AdamW's guard against division by zero."""

    max_grad_norm: float = _number(1.0, low=0)
    """Norm to which the gradient of all weights together is clipped; 0 switches clipping off."""

    label_smoothing: float = _number(0.0, low=0, below=1)
    """Probability mass spread evenly over all labels (single-label problems)."""

    class_weights: str | None = None
    """Weight of each label in the loss: `balanced` (inverse frequency), or numbers in label order, as `1,2.5`."""

    layer_decay: float = _number(1.0, above=0, high=1)
    """Each layer's learning rate is that of the layer above times this; 1 treats all alike."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the products in training. `auto` measures here and takes bf16 where it is clearly faster."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps`."""

    threads: int | None = _number(None, low=1)
    """CPU threads of each process; when not given, OMP_NUM_THREADS, or else one per core, shared out."""

    skip_bad_steps: int = _number(0, low=0)
    """Steps of the whole training that may be left out because their loss or gradient is not finite; each is logged."""

    log_every: str = _duration("0.05epochs")
    """How often loss and learning rate are written to metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How passes are computed, at the same mathematics; what each saves of time or memory is in docs/performance.md."""

    unpadded: bool = True
    """Compute real tokens only, where the architecture allows it; otherwise, or when false, batches are padded."""

    working_copies: bool = True
    """In bf16, give autocast bf16 copies of linear layers' weights, made once per step; when false it converts them."""

    used_rows: bool = True
    """Train only the rows of the embedding table that the training data use; the others have no gradient anyway."""

    fast_dropout: bool = True
    """On a CPU, draw dropout masks from bulk random bits; when false, from torch's generator."""

    keep_memory: bool = True
    """On Linux, keep the memory of one step for the next instead of giving it back to the kernel."""

    few_kernels: bool = True
    """On a CPU, keep the compiled products of a few shapes instead of 1,024, which take hundreds of MiB."""

    compile: bool = False
    """Compile the layers with torch.compile: a minute or more at the start, and seldom a gain on a CPU."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When and how the validation rows are scored, and which weights are kept."""

    every: str = _duration("1epoch")
    """How often to evaluate on the validation split; the end of training always does."""

    batch_size: int = _number(32, low=1)
    """Examples scored at once."""

    metric: str | None = None
    """Metric that decides which weights are best; when not given, the task's first."""

    select: Literal["best", "last"] = "best"
    """Which weights become the result: those of the best evaluation or those of the last step."""

    patience: int | None = _number(None, low=1)
    """Stop after this many evaluations without a better one; when not given, never early."""

    min_improvement: float = _number(0.0, low=0)
    """How much better counts as better, in the metric's unit."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often the state of training is saved."""

    every: str = _duration("1epoch", by_clock=True)
    """How often to save, also by the clock, as `10min`; the end of training always does."""

    keep: int = _number(2, low=2)
    """How many of the last checkpoints stay, two or more, should one be damaged; the best stays as well."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the results go."""

    output: str | None = None
    """The run folder; when not given, `runs/DATA-MODEL-N` with the next free number."""

    overwrite: bool = False
    """Delete an older run in that folder first. Nothing but a run is ever deleted."""

    report: bool = True
    """Write report.html, one page about the run, at the end."""

    seeds: int | None = _number(None, low=2, high=100)
    """Train this many times, with training.seed and those after it; figures are then means over seeds."""

    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] | None = None
    """Trackers that get the figures too, as `tensorboard,mlflow`. `wandb` stays offline unless WANDB_MODE is set."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that shapes a run of `textune train`."""

    data: DataConfig = DataConfig()
    tokens: TokensConfig = TokensConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    engine: EngineConfig = EngineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    run: RunConfig = RunConfig()


# Short names of the common options: the command line's flags and the keywords of `textune.train`.
SHORT_NAMES: dict[str, str] = {
    "data": "data.source",
    "validation": "data.validation",
    "test": "data.test",
    "local_copy": "data.local_copy",
    "text": "data.text",
    "text_pair": "data.text_pair",
    "label": "data.label",
    "problem_type": "data.problem_type",
    "label_names": "data.label_names",
    "label_separator": "data.label_separator",
    "delimiter": "data.delimiter",
    "encoding": "data.encoding",
    "validation_fraction": "data.validation_fraction",
    "drop_bad_rows": "data.drop_bad_rows",
    "model": "model.checkpoint",
    "output": "run.output",
    "overwrite": "run.overwrite",
    "tracker": "run.trackers",
    "duration": "training.duration",
    "batch_size": "training.batch_size",
    "accumulation": "training.gradient_accumulation_steps",
    "learning_rate": "training.learning_rate",
    "schedule": "training.schedule",
    "warmup": "training.warmup",
    "weight_decay": "training.weight_decay",
    "class_weights": "training.class_weights",
    "skip_bad_steps": "training.skip_bad_steps",
    "max_length": "tokens.max_length",
    "precision": "training.precision",
    "device": "training.device",
    "compile": "engine.compile",
    "seed": "training.seed",
    "seeds": "run.seeds",
    "cv": "data.folds",
    "evaluate_every": "evaluation.every",
    "metric": "evaluation.metric",
    "select": "evaluation.select",
    "patience": "evaluation.patience",
}
EVALUATE_OPTIONS = ("local_copy", "text", "text_pair", "label", "delimiter", "encoding", "drop_bad_rows")
"""The short names that `textune evaluate` and `textune.evaluate` take."""
INSPECT_OPTIONS = (
    *("validation", "test", "local_copy", "text", "text_pair", "label", "problem_type", "label_names"),
    *("label_separator", "delimiter", "encoding", "model", "seed"),
)
"""The short names that `textune inspect` and `textune.inspect` take."""


# What other tools call them: not accepted, but understood when the right name is suggested.
FOREIGN_NAMES: dict[str, str] = {
    "lr": "training.learning_rate",
    "bs": "training.batch_size",
    "per_device_train_batch_size": "training.batch_size",
    "train_batch_size": "training.batch_size",
    "wd": "training.weight_decay",
    "epochs": "training.duration",
    "num_epochs": "training.duration",
    "num_train_epochs": "training.duration",
    "max_steps": "training.duration",
    "lr_scheduler": "training.schedule",
    "lr_scheduler_type": "training.schedule",
    "scheduler": "training.schedule",
    "warmup_ratio": "training.warmup",
    "warmup_steps": "training.warmup",
    "label_smoothing_factor": "training.label_smoothing",
    "logging_steps": "training.log_every",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "max_len": "tokens.max_length",
    "max_seq_length": "tokens.max_length",
    "model_name": "model.checkpoint",
    "model_name_or_path": "model.checkpoint",
    "output_dir": "run.output",
    "report_to": "run.trackers",
    "eval_steps": "evaluation.every",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "metric_for_best_model": "evaluation.metric",
    "early_stopping_patience": "evaluation.patience",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
}


def flag_of(name: str) -> str:
    """What messages call an option: "--batch-size (training.batch_size)"; its dotted name where it has no flag."""
    flag = next((short.replace("_", "-") for short, dotted in SHORT_NAMES.items() if dotted == name), None)
    return name if flag is None else f"--{flag} ({name})"
