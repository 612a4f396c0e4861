"""What validation says about a model's scores, kept in `calibration.json` beside the model.

{"format": 1, "split": "validation", "rows": 408, "temperature": 1.31, "no_temperature": null,
 "before": {"expected_calibration_error": 0.08, "brier_score": 0.12, "loss": 0.41}, "after": {...},
 "curves": {"equivalent": {"thresholds": [...], "precision": [...], "recall": [...]}}}

`temperature` is null where none could be fitted, and `no_temperature` says why; a label's curve is null where all rows
have it or none has. Curves are of scores without temperature, and hold the points that no other beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textune.errors import CheckpointError, ConfigError
from textune.evaluation.calibration import calibration_quality, fit_temperature, why_no_temperature
from textune.evaluation.metrics import LOSS
from textune.evaluation.predictions import Decision, FloatArray, LabelSet, to_scores
from textune.evaluation.scoring import mean_loss
from textune.evaluation.thresholds import Target, ThresholdCurve, choose_threshold, label_curves, unreachable
from textune.files import read_json, write_json
from textune.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

FILE = "calibration.json"
_FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """See the module.

    Attributes:
        before, after: calibration error, Brier score and loss without and with the temperature, on the rows it was
            fitted on.
        curves: by the name of each label that a threshold can be set for.
    """

    split: str
    num_rows: int
    temperature: float | None
    no_temperature: str | None
    before: dict[str, float]
    after: dict[str, float] | None
    curves: dict[str, ThresholdCurve | None]

    @classmethod
    def fit(
        cls, logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet, *, split: str
    ) -> Calibration | None:
        """Fits it to the rows of a split that trained nothing; shapes as for `fit_temperature`. None for regression."""
        kind = label_set.problem_type
        if kind == REGRESSION:
            return None
        temperature = fit_temperature(logits, labels, kind)
        curves = label_curves(to_scores(logits, kind), labels, label_set.names)
        return cls(
            split,
            len(labels),
            temperature,
            None if temperature else why_no_temperature(logits, labels, kind),
            _quality(logits, labels, kind),
            _quality(logits / temperature, labels, kind) if temperature else None,
            {name: None if curve is None else curve.frontier() for name, curve in curves.items()},
        )

    def save(self, model: Path) -> None:
        """Writes calibration.json into a model's folder."""
        write_json(model / FILE, self.as_json())

    def add_to(
        self, figures: dict[str, Any], logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet
    ) -> None:
        """Puts what the temperature gains on the rows of a split, its own or another, into the split's figures."""
        figures["calibration"] |= {
            "temperature": self.temperature,
            "fitted_on": self.split,
            "with_temperature": None
            if self.temperature is None
            else _quality(logits / self.temperature, labels, label_set.problem_type),
        }

    def as_json(self) -> dict[str, Any]:
        """The contents of calibration.json."""
        return {
            "format": _FORMAT,
            "split": self.split,
            "rows": self.num_rows,
            "temperature": self.temperature,
            "no_temperature": self.no_temperature,
            "before": self.before,
            "after": self.after,
            "curves": {name: None if curve is None else curve.as_json() for name, curve in self.curves.items()},
        }

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """Reads what lies beside a model.

        Raises:
            CheckpointError: there is none, or it is damaged or of a later version.
        """
        path = folder / FILE
        if not path.is_file():
            raise CheckpointError(
                f"The model in {str(folder)!r} has no {FILE}, so that no temperature and no thresholds are known.",
                hint="Runs of textune for classification have one. A threshold can be given as a number: "
                "--threshold 0.37.",
            )
        value = read_json(path)
        try:
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']!r}")
            temperature = value["temperature"]
            if temperature is not None and not temperature > 0:
                raise ValueError(f"temperature {temperature!r}")
            curves = {
                name: None if curve is None else ThresholdCurve.from_json(curve)
                for name, curve in value["curves"].items()
            }
            return cls(
                str(value["split"]),
                int(value["rows"]),
                None if temperature is None else float(temperature),
                value["no_temperature"],
                value["before"],
                value["after"],
                curves,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be used: {type(error).__name__}: {error}",
                hint="Train again, or copy the model again.",
            ) from error


def _quality(logits: FloatArray, labels: npt.NDArray[Any], problem_type: str) -> dict[str, float]:
    return calibration_quality(to_scores(logits, problem_type), labels) | {LOSS: mean_loss(logits, labels)}


def choose_decision(
    folder: Path, label_set: LabelSet, *, calibrated: bool = False, threshold: str | None = None
) -> Decision:
    """How the scores of the model in a folder become predictions.

    Args:
        calibrated: divide logits by the temperature that was fitted on validation.
        threshold: `f1`, `precision:X`, `recall:X` (chosen on validation) or a score from 0 to 1; None for the usual.

    Raises:
        ConfigError: the threshold is none of these, no threshold reaches the target, or the labels take none.
        CheckpointError: what is asked for was not stored with the model.
    """
    kind = label_set.problem_type
    if kind == REGRESSION and (calibrated or threshold is not None):
        what = "--calibrated" if calibrated else "--threshold"
        raise ConfigError(f"{what}: this model gives numbers, which are no probabilities.")
    temperature = 1.0
    if calibrated:
        stored = Calibration.read(folder)
        if stored.temperature is None:
            raise CheckpointError(
                f"The model in {str(folder)!r} has no temperature: on its {stored.split} split "
                f"{stored.no_temperature}.",
                hint="Predict without --calibrated, or train with more validation rows.",
            )
        temperature = stored.temperature
    if threshold is None:
        return Decision(kind, temperature)
    target = Target.parse(threshold)
    if kind == SINGLE_LABEL and len(label_set.names) != 2:
        raise ConfigError(
            f"--threshold: expected a model with two labels or several labels per text; this one chooses one of "
            f"{len(label_set.names)} labels, which takes no threshold."
        )
    names = label_set.names if kind == MULTI_LABEL else label_set.names[1:]
    if target.kind == "score":
        return Decision(kind, temperature, np.full(len(names), target.least))
    # Chosen on scores without temperature and compared with such: it changes how sure they are, not their order.
    return Decision(kind, temperature, _stored_thresholds(folder, names, target), threshold_temperature=1.0)


def _stored_thresholds(folder: Path, names: Sequence[str], target: Target) -> FloatArray:
    stored = Calibration.read(folder)
    chosen: list[float] = []
    problems: list[str] = []
    for name in names:
        curve = stored.curves.get(name)
        found = None if curve is None else choose_threshold(curve, target)
        if curve is None:
            problems.append(
                f"--threshold {target}: the label {name!r} has no threshold: all rows of the {stored.split} split have "
                "it, or none has."
            )
        elif found is None:
            problems.append(unreachable(target, curve, label=name))
        else:
            chosen.append(found.value)
    if problems:
        raise ConfigError(problems, hint="Choose a lower target, or give the score itself: --threshold 0.37.")
    return np.array(chosen)
