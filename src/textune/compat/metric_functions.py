"""The metrics of the `evaluate` library for classifiers and regressors: options, returned names and values.

The values are scikit-learn's and SciPy's. GLUE's come from `textune.evaluation.metrics`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textune.data.glue import GLUE_TASKS, GlueTask
from textune.errors import ConfigError, did_you_mean
from textune.evaluation.metrics import metric_values
from textune.evaluation.sums import Outcome

Array = npt.NDArray[Any]
Kind = Literal["class", "classes", "number", "numbers"]
"""What one row has: a class id, a 0 or 1 for each label, a number, or several numbers."""


@dataclass(frozen=True)
class MetricDefinition:
    """One metric in one configuration.

    Attributes:
        name: as `evaluate` calls it.
        description: one sentence.
        compute: (references, predictions, **options) -> name -> value.
        inputs: input name -> what its rows have; the predictions' name first.
        num_labels: class ids lie below it; None where any are right.
    """

    name: str
    description: str
    compute: Callable[..., dict[str, Any]]
    inputs: Mapping[str, Kind]
    num_labels: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Option -> default."""
        parameters = list(inspect.signature(self.compute).parameters.values())[2:]
        return {parameter.name: parameter.default for parameter in parameters}


def _accuracy(references: Array, predictions: Array, normalize: bool = True, sample_weight: Any = None) -> Any:
    from sklearn.metrics import accuracy_score

    score = accuracy_score(references, predictions, normalize=normalize, sample_weight=sample_weight)
    return {"accuracy": float(score)}


def _f1(
    references: Array,
    predictions: Array,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
) -> Any:
    from sklearn.metrics import f1_score

    score = f1_score(
        references, predictions, labels=labels, pos_label=pos_label, average=average, sample_weight=sample_weight
    )
    return {"f1": _number(score)}


def _precision_or_recall(
    which: str,
    references: Array,
    predictions: Array,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> Any:
    from sklearn import metrics

    score = getattr(metrics, f"{which}_score")(
        references,
        predictions,
        labels=labels,
        pos_label=pos_label,
        average=average,
        sample_weight=sample_weight,
        zero_division=zero_division,
    )
    return {which: _number(score)}


def _matthews(references: Array, predictions: Array, sample_weight: Any = None, average: str | None = None) -> Any:
    from sklearn.metrics import matthews_corrcoef

    if average not in (None, "macro"):
        raise ConfigError(f"matthews_correlation: expected average=None or 'macro', found {average!r}.")
    if references.ndim == 1:
        score = matthews_corrcoef(references, predictions, sample_weight=sample_weight)
        return {"matthews_correlation": float(score)}
    each = [
        float(matthews_corrcoef(references[:, label], predictions[:, label], sample_weight=sample_weight))
        for label in range(references.shape[1])
    ]
    return {"matthews_correlation": each if average is None else float(np.mean(each))}


def _pearson(references: Array, predictions: Array, return_pvalue: bool = False) -> Any:
    from scipy import stats

    result = stats.pearsonr(references, predictions)
    p_value = {"p-value": float(result.pvalue)} if return_pvalue else {}
    return {"pearsonr": float(result.statistic), **p_value}


def _spearman(references: Array, predictions: Array, return_pvalue: bool = False) -> Any:
    from scipy import stats

    result = stats.spearmanr(references, predictions)
    p_value = {"spearmanr_pvalue": float(result.pvalue)} if return_pvalue else {}
    return {"spearmanr": float(result.statistic), **p_value}


def _mse(
    references: Array,
    predictions: Array,
    sample_weight: Any = None,
    multioutput: Any = "uniform_average",
    squared: bool = True,
) -> Any:
    from sklearn.metrics import mean_squared_error, root_mean_squared_error

    error = mean_squared_error if squared else root_mean_squared_error
    return {"mse": _number(error(references, predictions, sample_weight=sample_weight, multioutput=multioutput))}


def _roc_auc(
    references: Array,
    prediction_scores: Array,
    average: str | None = "macro",
    sample_weight: Any = None,
    max_fpr: float | None = None,
    multi_class: str = "raise",
    labels: Any = None,
) -> Any:
    from sklearn.metrics import roc_auc_score

    score = roc_auc_score(
        references,
        prediction_scores,
        average=average,
        sample_weight=sample_weight,
        max_fpr=max_fpr,
        multi_class=multi_class,
        labels=labels,
    )
    return {"roc_auc": _number(score)}


def _number(score: Any) -> Any:
    return score if isinstance(score, np.ndarray) and score.size > 1 else float(score)


_CLASSES: dict[str, tuple[Callable[..., Any], str]] = {
    "accuracy": (_accuracy, "Share of rows whose predicted class is the reference's."),
    "f1": (_f1, "Harmonic mean of precision and recall."),
    "precision": (
        functools.partial(_precision_or_recall, "precision"),
        "Share of the rows predicted to be of a class that are of it.",
    ),
    "recall": (
        functools.partial(_precision_or_recall, "recall"),
        "Share of the rows of a class that are predicted to be of it.",
    ),
    "matthews_correlation": (_matthews, "Matthews correlation coefficient of predicted and reference classes."),
}
_NUMBERS: dict[str, tuple[Callable[..., Any], str]] = {
    "pearsonr": (_pearson, "Pearson correlation of predicted and reference numbers."),
    "spearmanr": (_spearman, "Spearman rank correlation of predicted and reference numbers."),
    "mse": (_mse, "Mean squared error; its root with squared=False."),
}
_ROC_AUC = "Area under the receiver operating characteristic curve, from scores."
METRIC_NAMES = ("glue", *_CLASSES, *_NUMBERS, "roc_auc")
_GLUE_ALIASES = {"mnli_matched": "mnli", "mnli_mismatched": "mnli", "hans": "mnli"}


def find_definition(name: str, config_name: str | None) -> MetricDefinition:
    """Returns a metric by the names that `evaluate.load` takes.

    Args:
        name: one of `METRIC_NAMES`.
        config_name: GLUE's task; "multilabel" for classes; "multiclass" or "multilabel" for roc_auc; "multilist" for
            mse; None or "default" otherwise.

    Raises:
        ConfigError: there is no such metric or configuration.
    """
    if name == "glue":
        return _glue(config_name)
    config = config_name or "default"
    if name in _CLASSES:
        compute, description = _CLASSES[name]
        kind: Kind = _configured(name, config, {"default": "class", "multilabel": "classes"})
        return MetricDefinition(name, description, compute, {"predictions": kind, "references": kind})
    if name in _NUMBERS:
        compute, description = _NUMBERS[name]
        configs: dict[str, Kind] = (
            {"default": "number", "multilist": "numbers"} if name == "mse" else {"default": "number"}
        )
        kind = _configured(name, config, configs)
        return MetricDefinition(name, description, compute, {"predictions": kind, "references": kind})
    if name == "roc_auc":
        scores: Kind = _configured(
            name, config, {"default": "number", "multiclass": "numbers", "multilabel": "numbers"}
        )
        references: Kind = "classes" if config == "multilabel" else "class"
        return MetricDefinition(name, _ROC_AUC, _roc_auc, {"prediction_scores": scores, "references": references})
    raise ConfigError(
        f"evaluate.load: there is no metric {name!r}; there are {', '.join(METRIC_NAMES)}."
        f"{did_you_mean(name, METRIC_NAMES)}",
        hint="Other metrics of the `evaluate` library: pip install evaluate, and load them with its own `load`.",
    )


def _configured(name: str, config: str, kinds: Mapping[str, Kind]) -> Kind:
    if config not in kinds:
        known = ", ".join(repr(known) for known in kinds)
        raise ConfigError(f"evaluate.load({name!r}): expected the configuration {known}, found {config!r}.")
    return kinds[config]


def _glue(config_name: str | None) -> MetricDefinition:
    known = [*GLUE_TASKS, *_GLUE_ALIASES]
    if config_name is None:
        raise ConfigError(f"evaluate.load('glue') needs a task as second argument: one of {', '.join(known)}.")
    task = GLUE_TASKS.get(_GLUE_ALIASES.get(config_name, config_name))
    if task is None:
        raise ConfigError(
            f"evaluate.load('glue', {config_name!r}): GLUE has no such task; it has {', '.join(known)}."
            f"{did_you_mean(config_name, known)}"
        )
    kind: Kind = "class" if task.label_names else "number"
    return MetricDefinition(
        "glue",
        f"GLUE's {task.name}: {', '.join(task.metrics)}.",
        _glue_metrics(task),
        {"predictions": kind, "references": kind},
        num_labels=len(task.label_names) or None,
    )


def _glue_metrics(task: GlueTask) -> Callable[[Array, Array], dict[str, Any]]:
    def compute(references: Array, predictions: Array) -> dict[str, Any]:
        outcome = Outcome(references, predictions, len(task.label_names))
        values = metric_values(outcome, task.metrics)
        return {name: math.nan if value is None else value for name, value in values.items()}

    return compute
