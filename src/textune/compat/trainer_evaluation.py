"""Evaluation and prediction of the Trainer: the overridable loop, and what it does with the script's metrics."""

from __future__ import annotations

import contextlib
import inspect
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import (
    EvalLoopOutput,
    PredictionOutput,
    denumpify_detensorize,
    has_length,
    speed_metrics,
)

from textune.compat.trainer_data import own_batches
from textune.compat.trainer_steps import TrainerSteps
from textune.errors import ConfigError, DataError, TextuneError, TrainingError, did_you_mean, first_rows
from textune.models.unpadded import unpadded_where_possible

IGNORED = -100
"""Fills arrays of unequal width, as transformers does."""


class TrainerEvaluation(TrainerSteps):
    """`evaluate`, `predict` and the loop under both."""

    compute_metrics: Any
    preprocess_logits_for_metrics: Any
    is_in_train: bool

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        raise NotImplementedError

    def tell(self, event: str, **values: Any) -> None:
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Scores a labelled data set, or each of several.

        Args:
            eval_dataset: in place of the Trainer's own; a dict of them puts their names into the metrics' names.
            ignore_keys: outputs of the model that are no predictions.
            metric_key_prefix: begins the name of each metric.

        Returns:
            Loss, what `compute_metrics` gives, run time and speed.

        Raises:
            TrainingError: the model's scores are not numbers.
            ConfigError: there is no data set, or `compute_metrics` failed.
            DataError: `compute_metrics` is given, and the rows have no labels.
        """
        datasets = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(datasets, dict):
            metrics: dict[str, float] = {}
            for name, dataset in datasets.items():
                one = dataset if eval_dataset is not None else name
                metrics |= self.evaluate(one, ignore_keys=ignore_keys, metric_key_prefix=f"{metric_key_prefix}_{name}")
            return metrics
        loader = self.get_eval_dataloader(eval_dataset)
        begin = time.time()
        output = self.evaluation_loop(
            loader,
            description="Evaluation",
            prediction_loss_only=True if self.compute_metrics is None else None,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        metrics = self._with_speed(output, begin, metric_key_prefix)
        self.log(metrics)
        self.tell("on_evaluate", metrics=metrics)
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Runs the model over a data set.

        Returns:
            `predictions` (the model's logits as NumPy arrays, in the order of the rows), `label_ids` (None without
            labels) and `metrics`.
        """
        loader = self.get_test_dataloader(test_dataset)
        begin = time.time()
        output = self.evaluation_loop(
            loader, description="Prediction", ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix
        )
        metrics = self._with_speed(output, begin, metric_key_prefix)
        self.tell("on_predict", metrics=metrics)
        return PredictionOutput(predictions=output.predictions, label_ids=output.label_ids, metrics=metrics)

    def _with_speed(self, output: EvalLoopOutput, begin: float, prefix: str) -> dict[str, float]:
        steps = -(-output.num_samples // (self.args.eval_batch_size * self.processes.world_size))
        metrics: dict[str, float] = output.metrics or {}
        return {**metrics, **speed_metrics(prefix, begin, num_samples=output.num_samples, num_steps=steps)}

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Goes through the batches; the loss is the mean over rows.

        Of several processes each goes through its part, and all get the whole, in the order of the data.
        """
        args = self.args
        dataloader = own_batches(dataloader, self.processes)
        loss_only = args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only
        parts: dict[str, list[Any]] = {"logits": [], "labels": [], "inputs": [], "losses": []}
        seen = 0
        self.model.eval()
        if callable(getattr(self.optimizer, "eval", None)):
            self.optimizer.eval()
        self.callback_handler.eval_dataloader = dataloader
        self.processes.share_buffers(self.model)
        with self.arithmetic.in_force(), self._full_eval_weights(), unpadded_where_possible(self.model):
            for inputs in dataloader:
                rows = int(find_batch_size(inputs) or args.eval_batch_size)
                seen += rows
                loss, logits, labels = self.prediction_step(self.model, inputs, loss_only, ignore_keys=ignore_keys)
                if loss is not None:
                    parts["losses"].append(np.repeat(_to_numpy(loss), rows))
                if "inputs" in args.include_for_metrics:
                    parts["inputs"].append(_to_numpy(inputs[getattr(self.model, "main_input_name", "input_ids")]))
                if logits is not None:
                    if self.preprocess_logits_for_metrics is not None:
                        logits = self.preprocess_logits_for_metrics(logits, labels)
                    parts["logits"].append(_to_numpy(logits))
                if labels is not None:
                    parts["labels"].append(_to_numpy(labels))
                self.tell("on_prediction_step")
        parts = {name: self.processes.gather_shared(pieces) for name, pieces in parts.items()}
        found = {name: concatenate(pieces) if pieces else None for name, pieces in parts.items()}
        _require_numbers(found["logits"], found["losses"], description)
        metrics: dict[str, Any] = {}
        if found["losses"] is not None:
            metrics["loss"] = float(found["losses"].mean())
        metrics |= self._metrics(found, loss_only=loss_only, predicting=description == "Prediction")
        metrics = {
            name if name.startswith(f"{metric_key_prefix}_") else f"{metric_key_prefix}_{name}": value
            for name, value in metrics.items()
        }
        dataset: Any = getattr(dataloader, "dataset", None)
        num_samples = len(dataset) if has_length(dataset) else int(self.processes.sum([seen])[0])
        return EvalLoopOutput(found["logits"], found["labels"], metrics, num_samples)

    def _metrics(self, found: dict[str, Any], *, loss_only: bool, predicting: bool) -> dict[str, Any]:
        if self.compute_metrics is None or loss_only:
            return {}
        if found["labels"] is None and not predicting:
            raise DataError(
                "compute_metrics is given, and the evaluated rows have no labels.",
                hint="Give an eval_dataset with a column 'label' or 'labels', or see label_names.",
            )
        if found["logits"] is None or found["labels"] is None:
            return {}
        asked = self.args.include_for_metrics
        extra = {"inputs": found["inputs"] if "inputs" in asked else None}
        extra["losses"] = found["losses"] if "loss" in asked else None
        prediction = EvalPrediction(predictions=found["logits"], label_ids=found["labels"], **extra)
        metrics = computed_metrics(self.compute_metrics, prediction)
        saves = self.args.save_strategy != "no" or self.args.enable_jit_checkpoint
        if self.is_in_train and not predicting and saves:
            _require_storable(metrics, where=_place(self.compute_metrics))
        return metrics

    @contextlib.contextmanager
    def _full_eval_weights(self) -> Iterator[None]:
        """Half weights inside the block where `bf16_full_eval` or `fp16_full_eval` ask for it, then the old ones."""
        if self.is_in_train or not (self.args.bf16_full_eval or self.args.fp16_full_eval):
            yield
            return
        kind = torch.bfloat16 if self.args.bf16_full_eval else torch.float16
        tensors = [*self.model.parameters(), *self.model.buffers()]
        before = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(kind)
            yield
        finally:
            for tensor, data in zip(tensors, before, strict=True):
                tensor.data = data


def computed_metrics(compute_metrics: Any, prediction: EvalPrediction) -> dict[str, Any]:
    """Calls the script's function; arrays and tensors in what it gives become lists, for the log is kept as JSON.

    Raises:
        ConfigError: it raised, or returned something else than a dict; names the place.
    """
    where = _place(compute_metrics)
    try:
        metrics = compute_metrics(prediction)
    except TextuneError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{Path(last.filename).name}:{last.lineno}"
        raise ConfigError(
            f"compute_metrics ({where}) raised {type(error).__name__} at {line}: {error}",
            hint="It is given EvalPrediction: predictions (what the model puts out) and label_ids, NumPy arrays.",
        ) from error
    if not isinstance(metrics, dict):
        raise ConfigError(
            f"compute_metrics ({where}) returned {type(metrics).__name__}; expected a dict of names and numbers.",
            hint="For example: return {'accuracy': 0.9}. A function without `return` gives None.",
        )
    return {name: _as_lists(value) for name, value in denumpify_detensorize(metrics).items()}


def _as_lists(value: Any) -> Any:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return type(value)(_as_lists(item) for item in value)
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return value


def _require_storable(metrics: dict[str, Any], *, where: str) -> None:
    """Says at the first evaluation what the next checkpoint could not hold: it keeps the log."""
    for name, value in metrics.items():
        try:
            json.dumps(value, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"compute_metrics ({where}): checkpoints keep the log as JSON, which cannot hold {name!r}: {error}.",
                hint="Return numbers, texts, lists and dicts, or use save_strategy='no'.",
            ) from error


def metric_value(metrics: dict[str, Any], name: str) -> float:
    """The metric that `metric_for_best_model` names, with or without `eval_`.

    Raises:
        ConfigError: there is none of this name, and it lists those that there are; or it is no number.
    """
    key = name if name.startswith("eval_") else f"eval_{name}"
    if key not in metrics:
        raise ConfigError(
            f"metric_for_best_model={name!r}: the evaluation gave {', '.join(metrics)}.{did_you_mean(key, metrics)}"
        )
    value = denumpify_detensorize(metrics[key])
    if not isinstance(value, (int, float)):
        raise ConfigError(
            f"metric_for_best_model={name!r}: expected a number, found a {type(value).__name__}.",
            hint="Let compute_metrics give one number under this name, such as a mean.",
        )
    return value


def concatenate(parts: list[Any]) -> Any:
    """Arrays of batches, or tuples and dicts of them, as one; narrower ones are filled up with -100."""
    first = parts[0]
    if isinstance(first, (list, tuple)):
        return type(first)(concatenate(list(items)) for items in zip(*parts, strict=True))
    if isinstance(first, dict):
        return {name: concatenate([part[name] for part in parts]) for name in first}
    arrays = [np.atleast_1d(part) for part in parts]
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    shape = np.max([array.shape[1:] for array in arrays], axis=0)
    whole = np.full((sum(len(array) for array in arrays), *shape), IGNORED, dtype=arrays[0].dtype)
    row = 0
    for array in arrays:
        whole[(slice(row, row + len(array)), *(slice(size) for size in array.shape[1:]))] = array
        row += len(array)
    return whole


def _to_numpy(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_to_numpy(item) for item in value)
    if isinstance(value, dict):
        return {name: _to_numpy(item) for name, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _require_numbers(logits: Any, losses: Any, description: str) -> None:
    """NaN among scores or losses is never reported as if it were a result."""
    for name, value in (("scores", logits), ("loss", losses)):
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
            rows = np.flatnonzero(np.isnan(value).reshape(len(value), -1).any(axis=1))
            if len(rows):
                raise TrainingError(
                    f"{description}: the model's {name} for {first_rows([int(row) + 1 for row in rows])} "
                    f"{'are' if name == 'scores' else 'is'} NaN.",
                    hint="Training has diverged or a row is broken: lower the learning_rate, look at these rows.",
                )


def _place(function: Any) -> str:
    """Where a function was written, for a message."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        return f"{name}, {Path(inspect.getsourcefile(function) or '').name}:{inspect.getsourcelines(function)[1]}"
    except (TypeError, OSError):
        return str(name)
