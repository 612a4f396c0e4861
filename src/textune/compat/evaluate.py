"""`evaluate.load` and `evaluate.combine` of the `evaluate` library (0.4.6), without network.

>>> metric = evaluate.load("glue", "mrpc")
>>> metric.compute(predictions=[0, 1], references=[0, 1])
{'accuracy': 1.0, 'f1': 1.0}

Where `evaluate` computes on whatever it can convert, this says what is wrong: logits in the place of classes, NaN,
unequal lengths, labels that the task does not have.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.compat.metric_functions import METRIC_NAMES, Array, Kind, MetricDefinition, find_definition
from textune.errors import ConfigError, DataError, did_you_mean, first_rows

if TYPE_CHECKING:
    from datasets import Features

# Where and how `evaluate` finds and buffers things; here everything is in the package and in memory.
_OF_STORAGE = frozenset(
    {
        "cache_dir",
        "download_config",
        "download_mode",
        "experiment_id",
        "hash",
        "keep_in_memory",
        "max_concurrent_cache_files",
        "revision",
        "seed",
        "timeout",
    }
)


def load(path: str, config_name: str | None = None, **options: Any) -> EvaluationModule:
    """Returns a metric.

    Args:
        path: `glue`, accuracy, f1, precision, recall, matthews_correlation, pearsonr, spearmanr, mse or roc_auc.
        config_name: GLUE's task, or "multilabel", "multiclass" (roc_auc), "multilist" (mse).
        options: `module_type="metric"`, and those that say where `evaluate` stores things, which do nothing here.

    Raises:
        ConfigError: there is no such metric, task or option.
    """
    definition = find_definition(path, config_name)
    for name, value in options.items():
        if name in ("num_process", "process_id") and value not in (1 if name == "num_process" else 0, None):
            raise ConfigError(
                f"evaluate.load: {name}={value!r} is not supported.",
                hint="Gather predictions first: Trainer.evaluate and Trainer.predict give those of all processes.",
            )
        if name == "module_type" and value not in ("metric", None):
            raise ConfigError(f"evaluate.load: expected module_type='metric', found {value!r}.")
        if name not in _OF_STORAGE | {"num_process", "process_id", "module_type"}:
            known = sorted(_OF_STORAGE)
            raise ConfigError(f"evaluate.load has no option {name!r}.{did_you_mean(name, known)}")
    return EvaluationModule(definition, config_name=config_name)


def combine(evaluations: Sequence[Any] | Mapping[str, Any], force_prefix: bool = False) -> CombinedEvaluations:
    """Returns several metrics as one.

    Args:
        evaluations: names or metrics; the keys of a mapping are used as prefixes.
        force_prefix: prefix all names, not only those that occur twice.
    """
    return CombinedEvaluations(evaluations, force_prefix=force_prefix)


def list_evaluation_modules() -> list[str]:
    """The names that `load` takes."""
    return list(METRIC_NAMES)


class EvaluationModule:
    """A metric that collects rows until `compute`.

    Attributes:
        name: as `load` takes it.
        config_name: "default" if none was named.
        description: one sentence.
    """

    module_type = "metric"

    def __init__(self, definition: MetricDefinition, *, config_name: str | None) -> None:
        self._definition = definition
        self.name = definition.name
        self.config_name = config_name or "default"
        self.description = definition.description
        self._batches: list[dict[str, Array]] = []

    @property
    def input_names(self) -> tuple[str, ...]:
        """What `compute` and `add_batch` take: predictions and references, or as the metric calls them."""
        return tuple(self._definition.inputs)

    @property
    def features(self) -> Features:
        """The types of one row."""
        from datasets import Features, Sequence, Value

        types = {"class": Value("int32"), "number": Value("float32")}
        types |= {"classes": Sequence(types["class"]), "numbers": Sequence(types["number"])}
        return Features({name: types[kind] for name, kind in self._definition.inputs.items()})

    @property
    def inputs_description(self) -> str:
        """The names of inputs and options."""
        options = [f"{name}={default!r}" for name, default in self._definition.options.items()]
        return f"compute({', '.join([*self._definition.inputs, *options])})"

    def add(self, *, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """Adds one row.

        Raises:
            DataError: it is not what the metric takes.
        """
        given = {"predictions": prediction, "references": reference, **inputs}
        self._add({name: None if value is None else [_as_array(value)] for name, value in given.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> None:
        """Adds rows.

        Raises:
            DataError: they are not what the metric takes.
        """
        self._add({"predictions": predictions, "references": references, **inputs})

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any]:
        """Computes over these rows and those added before, and forgets them.

        Args:
            options: those of the metric, such as `average` for f1; also further inputs, `prediction_scores` of roc_auc.

        Raises:
            DataError: no rows, unequal lengths, or rows that are not what the metric takes.
            ConfigError: an option that the metric does not have.
        """
        inputs = {name: options.pop(name) for name in self._definition.inputs if name in options}
        known = self._definition.options
        for name in options:
            if name not in known:
                names = ", ".join(known) or "none"
                raise ConfigError(f"{self.name}: no option {name!r}; there are {names}.{did_you_mean(name, known)}")
        given = {"predictions": predictions, "references": references, **inputs}
        if any(value is not None for value in given.values()):
            self._add(given)
        batches, self._batches = self._batches, []
        if not batches:
            raise DataError(f"{self.name}: there are no rows to compute on: give predictions and references.")
        columns = {name: np.concatenate([batch[name] for batch in batches]) for name in self._definition.inputs}
        first = columns[next(iter(self._definition.inputs))]
        if self.name == "roc_auc":
            _require_both_classes(columns["references"])
        try:
            return self._definition.compute(columns["references"], first, **options)
        except ValueError as error:  # scikit-learn's word on labels, averages and options
            raise DataError(f"{self.name}: {error}", hint=_way_out(str(error))) from error

    def __len__(self) -> int:
        return sum(len(batch["references"]) for batch in self._batches)

    def __repr__(self) -> str:
        return f"EvaluationModule(name: {self.name!r}, {self.inputs_description}, stored examples: {len(self)})"

    def _add(self, given: dict[str, Any]) -> None:
        batch = self._checked(given)
        if len(batch["references"]):
            self._batches.append(batch)

    def _checked(self, given: dict[str, Any]) -> dict[str, Array]:
        """The inputs as arrays of equal length, of the kinds that the metric takes."""
        names = self._definition.inputs
        for name, value in given.items():
            if name not in names and value is not None:
                raise DataError(f"{self.name} takes {' and '.join(names)}, not {name}.")
        missing = [name for name in names if given.get(name) is None]
        if missing:
            raise DataError(f"{self.name} needs {' and '.join(names)}; {' and '.join(missing)} is missing.")
        arrays = {name: _as_array(given[name]) for name in names}
        lengths = {name: len(array) if array.ndim else 1 for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            counts = " and ".join(f"{count} {name}" for name, count in lengths.items())
            raise DataError(f"{self.name}: expected a reference for each prediction, found {counts}.")
        if not lengths["references"]:
            return arrays
        limit = self._definition.num_labels
        return {name: _of_kind(arrays[name], kind, f"{self.name}: {name}", limit) for name, kind in names.items()}


class CombinedEvaluations:
    """Several metrics that get the same rows; their values come in one dict."""

    def __init__(self, evaluations: Sequence[Any] | Mapping[str, Any], *, force_prefix: bool = False) -> None:
        named = (
            list(evaluations.items()) if isinstance(evaluations, Mapping) else [(None, item) for item in evaluations]
        )
        self.evaluation_modules = [load(item) if isinstance(item, str) else item for _, item in named]
        self.evaluation_module_names = [
            name or module.name for (name, _), module in zip(named, self.evaluation_modules, strict=True)
        ]
        self.force_prefix = force_prefix

    def add(self, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """Adds one row to each."""
        given = {"predictions": prediction, "references": reference, **inputs}
        self.add_batch(**{name: None if value is None else [_as_array(value)] for name, value in given.items()})

    def add_batch(self, predictions: Any = None, references: Any = None, **inputs: Any) -> None:
        """Adds rows to each."""
        given = {"predictions": predictions, "references": references, **inputs}
        for module in self.evaluation_modules:
            module.add_batch(**{name: given.get(name) for name in module.input_names})

    def compute(self, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any]:
        """Computes each; names that occur twice are prefixed with the metric's, and a number where that does too."""
        given = {"predictions": predictions, "references": references, **options}
        inputs = {name for module in self.evaluation_modules for name in module.input_names}
        options = {name: value for name, value in options.items() if name not in inputs}
        results = [
            module.compute(**{name: given.get(name) for name in module.input_names}, **options)
            for module in self.evaluation_modules
        ]
        times = collections.Counter(itertools.chain.from_iterable(results))
        same = collections.Counter(self.evaluation_module_names)
        numbers = {name: itertools.count() for name in same}
        merged: dict[str, Any] = {}
        for name, result in zip(self.evaluation_module_names, results, strict=True):
            number = next(numbers[name])
            prefix = f"{name}_{number}" if same[name] > 1 else name
            for key, value in result.items():
                merged[f"{prefix}_{key}" if self.force_prefix or times[key] > 1 else key] = value
        return merged


def _as_array(values: Any) -> Array:
    if hasattr(values, "detach"):  # a tensor, wherever it lies
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # which NumPy does not have
            values = values.float()
    elif isinstance(values, (list, tuple)) and values and hasattr(values[0], "detach"):
        values = [_as_array(value) for value in values]
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unequal lengths
        raise DataError(f"Expected rows of the same shape: {error}") from error


def _of_kind(array: Array, kind: Kind, name: str, num_labels: int | None) -> Array:
    """Checks one column and gives it its type: int64 for classes, float64 for numbers."""
    dimensions = 2 if kind in ("classes", "numbers") else 1
    classes = kind in ("class", "classes")
    expected = "class ids" if classes else "numbers"
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected {expected}, found values such as {array.ravel()[0].item()!r}.")
    if array.ndim != dimensions:
        shape = "one per row" if dimensions == 1 else "several per row"
        hint = None
        if dimensions == 1 and array.ndim == 2:
            hint = (
                "Logits are no classes: take np.argmax(predictions, axis=-1) first."
                if classes
                else "Take the one column first: predictions[:, 0]."
            )
        raise DataError(f"{name}: expected {expected}, {shape}; found an array of shape {array.shape}.", hint=hint)
    if not np.isfinite(array).all():
        rows = np.unique(np.nonzero(~np.isfinite(array))[0])
        raise DataError(
            f"{name}: found NaN or infinity in {first_rows([int(row) + 1 for row in rows])}.",
            hint="The model's weights or inputs are not finite: the loss of that evaluation is not either.",
        )
    if not classes:
        return array.astype(np.float64)
    if array.dtype.kind == "f" and not (array == np.round(array)).all():
        first = array[array != np.round(array)].flat[0]
        raise DataError(
            f"{name}: expected class ids, found numbers such as {first:.6g}.",
            hint="Logits and probabilities are no classes: take np.argmax(..., axis=-1), or for two classes > 0.5.",
        )
    _require_in_range(array, name, num_labels)
    return array.astype(np.int64)


def _require_in_range(array: Array, name: str, num_labels: int | None) -> None:
    if num_labels is None:
        return
    outside = np.nonzero((array < 0) | (array >= num_labels))[0]
    if len(outside):
        hint = "Label -1 marks rows without a label, as in GLUE's test splits." if (array == -1).any() else None
        raise DataError(
            f"{name}: expected class ids from 0 to {num_labels - 1}, found {int(array[outside[0]])} in "
            f"{first_rows([int(row) + 1 for row in outside])}.",
            hint=hint,
        )


def _require_both_classes(references: Array) -> None:
    columns = references.reshape(len(references), -1)
    for column in columns.T:
        if len(np.unique(column)) < 2:
            raise DataError(
                f"roc_auc: expected at least two classes in references, found only {int(column[0])}.",
                hint="With one class there is no curve: use accuracy, or more rows.",
            )


def _way_out(message: str) -> str | None:
    if "multiclass" in message and "average" in message:
        return "With more than two classes say how to average: compute(..., average='macro')."
    if "multi_class" in message:
        return "With more than two classes: evaluate.load('roc_auc', 'multiclass') and multi_class='ovr' or 'ovo'."
    return None
