"""A model and tokenised rows -> logits -> labels and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textune.data.tokens import Examples, IntArray, TokenRows
from textune.errors import TextuneError
from textune.evaluation.forward import Forward
from textune.memory import free_memory, halved, is_out_of_memory
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from textune.data.schema import Schema

LIST_SEPARATOR = "|"
"""Between the labels of one row in CSV and TSV."""

FloatArray = npt.NDArray[np.floating[Any]]
# What a score in float32 may be at least, and at least away from one, where it is not rounded to that.
_LEAST_SCORE, _LEAST_COMPLEMENT = 1e-45, 2.0**-25


@dataclass(frozen=True)
class LabelSet:
    """What the model's outputs stand for.

    Attributes:
        problem_type: transformers' name of it.
        names: label names in the order of their ids; empty for regression.
    """

    problem_type: str
    names: tuple[str, ...]

    @classmethod
    def of_schema(cls, schema: Schema) -> LabelSet:
        """What the data's labels are."""
        return cls(schema.problem_type, schema.label_names)

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> LabelSet:
        """Reads it from a classifier's configuration; without a problem type, one output means regression."""
        config: Any = model.config
        default = REGRESSION if config.num_labels == 1 else SINGLE_LABEL
        problem_type = config.problem_type or default
        names = () if problem_type == REGRESSION else tuple(config.id2label[index] for index in sorted(config.id2label))
        return cls(problem_type, names)


def predict_logits(
    forward: Forward,
    tokens: TokenRows,
    *,
    batch_size: int,
    rows: IntArray | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_out_of_memory: Callable[[int], None] | None = None,
) -> FloatArray:
    """Runs a model, which is in evaluation mode, over rows: those of like length together, without gradients.

    Args:
        forward: examples -> logits.
        batch_size: rows that are run together; half as many from the moment on when memory runs out.
        rows: row numbers (0-based) of those that are scored, at least one; None for all.
        on_progress: called with the number of rows done since the last call.
        on_out_of_memory: called with the smaller number of rows that are run together from now on.

    Returns:
        float32 [num_rows, num_outputs], in the order of the rows.

    Raises:
        TextuneError: there is no memory for a single row.
    """
    import torch

    rows = np.arange(len(tokens)) if rows is None else rows
    order = np.argsort(-tokens.lengths[rows], kind="stable")  # longest first: memory runs out at once or never
    logits: FloatArray | None = None
    with torch.inference_mode():
        done = 0
        while done < len(order):
            places = order[done : done + batch_size]
            output = _run_in_memory(forward, tokens.take(rows[places]))
            if output is None:
                batch_size = _smaller_batch(len(places))
                if on_out_of_memory is not None:
                    on_out_of_memory(batch_size)
                continue
            done += len(places)
            if logits is None:
                logits = np.empty((len(order), output.shape[1]), np.float32)
            logits[places] = output
            if on_progress is not None:
                on_progress(len(places))
    assert logits is not None, "there is at least one row"
    return logits


def _run_in_memory(forward: Forward, examples: Examples) -> FloatArray | None:
    """Logits, float32 [num_examples, num_outputs]; None where memory ran out."""
    try:
        logits: FloatArray = forward(examples).float().cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return logits


def _smaller_batch(rows: int) -> int:
    """Half of the rows for which there was no memory."""
    free_memory()
    if rows == 1:
        raise TextuneError(
            "There is no memory to score even one row alone.",
            hint="Shorten the texts (--max-length 128 in training), take a smaller --model, or free memory elsewhere.",
        )
    return halved(rows)


def logits_of_table(table: pa.Table, label_set: LabelSet) -> FloatArray:
    """Logits that give the scores of a table of predictions, float32 [num_rows, num_outputs].

    They are those of the model but for rounding, and where one label per row is given but for a constant in each row.

    Args:
        table: as `predictions_table` makes it, with the usual decision.
    """
    if label_set.problem_type == REGRESSION:
        values: FloatArray = table["prediction"].to_numpy().astype(np.float32)
        return values[:, None]
    columns = [table[f"score_{name}"].to_numpy() for name in label_set.names]
    scores = np.stack(columns, axis=1).astype(np.float64)
    logits = np.log(np.maximum(scores, _LEAST_SCORE))
    if label_set.problem_type == MULTI_LABEL:
        logits -= np.log(np.maximum(1 - scores, _LEAST_COMPLEMENT))
    return logits.astype(np.float32)


def first_not_finite(logits: FloatArray) -> int | None:
    """The first row (0-based) in which the model gave something else than finite numbers; None where all is well."""
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    return int(rows[0]) if len(rows) else None


def to_scores(logits: FloatArray, problem_type: str) -> FloatArray:
    """Turns logits into scores, both [num_rows, num_outputs]: softmax, sigmoid per label, or the value itself."""
    from scipy.special import expit, softmax

    if problem_type == REGRESSION:
        return logits
    scores: FloatArray = expit(logits) if problem_type == MULTI_LABEL else softmax(logits, axis=-1)
    return scores


def decide(logits: FloatArray, problem_type: str) -> npt.NDArray[Any]:
    """Turns logits into predictions in the form of labels.

    Returns:
        int64 [num_rows] class ids; float32 [num_rows, num_labels] of 0 and 1 (score at least one half);
        or float32 [num_rows] values.
    """
    if problem_type == REGRESSION:
        return logits[:, 0]
    if problem_type == MULTI_LABEL:
        return (logits >= 0).astype(np.float32)
    return np.asarray(logits.argmax(axis=-1))


@dataclass(frozen=True)
class Decision:
    """How logits become scores and predictions.

    Attributes:
        problem_type: transformers' name of it.
        temperature: what logits are divided by first (`textune.evaluation.calibration`).
        thresholds: the least score of a label that is given: one for the positive of two labels, [1], or one for each
            of several per row, [num_labels]. None for the highest score, or one half.
        threshold_temperature: of the scores that they are compared with; None for `temperature`.
    """

    problem_type: str
    temperature: float = 1.0
    thresholds: FloatArray | None = None
    threshold_temperature: float | None = None

    def scores(self, logits: FloatArray) -> FloatArray:
        """As `to_scores`."""
        return self._at(self.temperature, logits)

    def predictions(self, logits: FloatArray) -> npt.NDArray[Any]:
        """As `decide`."""
        if self.thresholds is None:
            return decide(logits, self.problem_type)
        chosen_at = self.threshold_temperature
        scores = self._at(self.temperature if chosen_at is None else chosen_at, logits)
        if self.problem_type == MULTI_LABEL:
            return np.asarray(scores >= self.thresholds, np.float32)
        return np.asarray(scores[:, 1] >= self.thresholds[0], np.int64)

    def _at(self, temperature: float, logits: FloatArray) -> FloatArray:
        return to_scores(logits if temperature == 1 else logits / temperature, self.problem_type)


def name_labels(labels: npt.NDArray[Any], label_set: LabelSet) -> list[Any]:
    """Labels or predictions as names, lists of names, or numbers: what a person or a file is given."""
    if label_set.problem_type == REGRESSION:
        return [float(value) for value in labels]
    if label_set.problem_type == MULTI_LABEL:
        return [[name for name, on in zip(label_set.names, row, strict=True) if on] for row in labels]
    return [label_set.names[index] for index in labels]


def predictions_table(
    logits: FloatArray,
    label_set: LabelSet,
    *,
    ids: Sequence[Any] | pa.Array | pa.ChunkedArray,
    labels: npt.NDArray[Any] | None = None,
    decision: Decision | None = None,
) -> pa.Table:
    """The predictions as a table.

    Args:
        decision: how logits become scores and predictions; None for the usual way.

    Returns:
        `id`; `label` where labels are given; `prediction`; and for each label `score_NAME`, float32 (none for
        regression, whose prediction is the score).
    """
    decision = decision or Decision(label_set.problem_type)
    # Said, not inferred: a batch in which every row has no label at all would else have lists of nothing.
    kinds = {REGRESSION: pa.float64(), MULTI_LABEL: pa.list_(pa.string())}
    kind = kinds.get(label_set.problem_type, pa.string())
    columns: dict[str, Any] = {"id": ids}
    if labels is not None:
        columns["label"] = pa.array(name_labels(labels, label_set), kind)
    columns["prediction"] = pa.array(name_labels(decision.predictions(logits), label_set), kind)
    scores = decision.scores(logits)
    columns |= {f"score_{name}": scores[:, index] for index, name in enumerate(label_set.names)}
    return pa.table(columns)
