"""The kinds of labels, by transformers' names for them (`problem_type` of a model's configuration)."""

from __future__ import annotations

from typing import Final, Literal

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
