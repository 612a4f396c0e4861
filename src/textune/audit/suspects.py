"""Suspected label errors the cheap way: a frozen encoder's vectors, a logistic regression in folds, confident learning.

It is an approximation: a fine-tuned model knows more. But it takes seconds instead of as many trainings as folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.audit.audited_rows import MAX_EXAMPLES, AuditedRows
from textune.audit.findings import Finding
from textune.audit.wording import percent
from textune.errors import DataError
from textune.evaluation.label_errors import LabelErrors, label_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textune.models.embeddings import TextEncoder

NUM_FOLDS = 5
REGULARISATION = 1e-3
"""The logistic regression's C; see docs/decisions/0014-data-audit.md."""


def suspected_labels(
    rows: AuditedRows, encoder: TextEncoder, *, seed: int, on_progress: Callable[[int], None] | None = None
) -> Iterator[Finding]:
    """Finds rows of single-label data whose label is probably wrong; the most suspicious first.

    All labelled splits are taken together, so that each row is judged by all others.

    Args:
        seed: of the folds.
        on_progress: told of the rows whose texts have become vectors.

    Raises:
        DataError: fewer than two labels have as many rows as there are folds.
    """
    labelled = {name: split for name, split in rows.splits.items() if "labels" in split.column_names}
    features = [
        features_of(
            split["text"][:],
            split["text_pair"][:] if "text_pair" in split.column_names else None,
            encoder,
            on_progress=on_progress,
        )
        for split in labelled.values()
    ]
    places = np.flatnonzero(~np.isnan(rows.labels))
    found = cross_validated_errors(np.concatenate(features), rows.labels[places].astype(np.int64), seed=seed)
    suspects, names = places[found.rows], rows.schema.label_names
    agreement = percent(float((found.margins > 0).mean()))
    for split in labelled:
        span = rows.span(split)
        here = np.flatnonzero((suspects >= span.start) & (suspects < span.stop))
        if len(here):
            details = [f"more likely {names[found.suggested[index]]}" for index in here[:MAX_EXAMPLES].tolist()]
            what = f"have a label that a cross-validated model contradicts; it agrees with {agreement} of all labels"
            yield rows.finding("suspected_labels", split, suspects[here], what, details=details)


def features_of(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    encoder: TextEncoder,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Vectors of texts, float32 [texts, hidden]; of pairs [u, v, |u - v|, u * v] (Conneau et al., InferSent, 2017)."""
    first = encoder.encode(texts, on_progress=on_progress)
    if pairs is None:
        return first
    second = encoder.encode(pairs)
    return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)


def cross_validated_errors(
    features: NDArray[np.float32], labels: NDArray[np.integer[Any]], *, seed: int
) -> LabelErrors:
    """Confident learning on the out-of-fold probabilities of a logistic regression.

    Rows of labels with fewer rows than folds take no part: a fold would know nothing of them.

    Args:
        features: [rows, features].
        labels: class ids, [rows].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = np.bincount(labels)
    usable = np.flatnonzero(counts[labels] >= NUM_FOLDS)
    classes, ids = np.unique(labels[usable], return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"--label-errors: expected at least two labels with {NUM_FOLDS} rows or more, found {len(classes)}.",
            hint="Leave out --label-errors.",
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=1000))
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed % 2**32)
    probabilities = cross_val_predict(model, features[usable], ids, cv=folds, method="predict_proba")
    found = label_errors(ids, probabilities)
    return dataclasses.replace(found, rows=usable[found.rows], suggested=classes[found.suggested])
