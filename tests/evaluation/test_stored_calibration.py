from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from textune.errors import CheckpointError, ConfigError, TextuneError
from textune.evaluation.predictions import Decision, LabelSet, decide, to_scores
from textune.evaluation.stored_calibration import FILE, Calibration, choose_decision

BINARY = LabelSet("single_label_classification", ("no", "yes"))
THREE = LabelSet("single_label_classification", ("a", "b", "c"))
SEVERAL = LabelSet("multi_label_classification", ("a", "b"))
NUMBER = LabelSet("regression", ())


def binary_rows() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    return (4 * (np.eye(2)[labels] + generator.normal(size=(300, 2)))).astype(np.float32), labels


def several_rows() -> tuple[Any, Any]:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, (300, 2)).astype(np.float32)
    return (4 * labels - 2 + 3 * generator.normal(size=(300, 2))).astype(np.float32), labels


def store(folder: Path, logits: Any, labels: Any, label_set: LabelSet) -> Calibration:
    calibration = Calibration.fit(logits, labels, label_set, split="validation")
    assert calibration is not None
    (folder / FILE).write_text(json.dumps(calibration.as_json(), allow_nan=False))
    return calibration


def test_stored_and_read_again(tmp_path: Path) -> None:
    stored = store(tmp_path, *binary_rows(), BINARY)
    read = Calibration.read(tmp_path)
    assert (read.temperature, read.split, read.num_rows) == (stored.temperature, "validation", 300)
    assert read.as_json() == stored.as_json()
    assert stored.temperature is not None and stored.temperature > 1.5
    assert stored.after is not None
    assert stored.after["expected_calibration_error"] < stored.before["expected_calibration_error"]


def test_figures_of_another_split(tmp_path: Path) -> None:
    logits, labels = binary_rows()
    stored = store(tmp_path, logits[:200], labels[:200], BINARY)
    figures: dict[str, Any] = {"calibration": {"brier_score": 0.5}}
    stored.add_to(figures, logits[200:], labels[200:], BINARY)
    found = figures["calibration"]
    assert (found["temperature"], found["fitted_on"], found["brier_score"]) == (stored.temperature, "validation", 0.5)
    assert stored.temperature is not None
    scores = to_scores(logits[200:] / stored.temperature, BINARY.problem_type)
    assert found["with_temperature"]["loss"] == pytest.approx(log_loss(labels[200:], scores), rel=1e-5)
    assert found["with_temperature"]["brier_score"] == pytest.approx(brier_score_loss(labels[200:], scores[:, 1]))


def test_figures_without_a_temperature(tmp_path: Path) -> None:
    logits, labels = binary_rows()
    right = decide(logits, BINARY.problem_type) == labels
    stored = store(tmp_path, logits[right], labels[right], BINARY)
    figures: dict[str, Any] = {"calibration": {}}
    stored.add_to(figures, logits, labels, BINARY)
    assert figures["calibration"] == {"temperature": None, "fitted_on": "validation", "with_temperature": None}


def test_calibrated_scores_keep_the_labels(tmp_path: Path) -> None:
    logits, labels = binary_rows()
    temperature = store(tmp_path, logits, labels, BINARY).temperature
    decision = choose_decision(tmp_path, BINARY, calibrated=True)
    assert temperature is not None
    np.testing.assert_allclose(decision.scores(logits), to_scores(logits / temperature, BINARY.problem_type), rtol=1e-6)
    np.testing.assert_array_equal(decision.predictions(logits), decide(logits, BINARY.problem_type))


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("threshold", ["f1", "precision:0.9", "recall:0.95"])
def test_stored_thresholds_reach_their_target(tmp_path: Path, threshold: str, calibrated: bool) -> None:
    logits, labels = binary_rows()
    store(tmp_path, logits, labels, BINARY)
    decision = choose_decision(tmp_path, BINARY, calibrated=calibrated, threshold=threshold)
    predicted = decision.predictions(logits)
    right = (predicted * labels).sum()
    if threshold.startswith("precision"):
        assert right / predicted.sum() >= 0.9
    elif threshold.startswith("recall"):
        assert right / labels.sum() >= 0.95
    else:
        usual = decide(logits, BINARY.problem_type)
        assert 2 * right / (predicted.sum() + labels.sum()) >= 2 * (usual * labels).sum() / (usual.sum() + labels.sum())
    plain = choose_decision(tmp_path, BINARY, threshold=threshold).predictions(logits)
    np.testing.assert_array_equal(predicted, plain)  # calibrated or not, the same rows are chosen


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_row_on_the_threshold_is_on_its_right_side(tmp_path: Path, calibrated: bool) -> None:
    """The lowest threshold is a score itself: nothing may be lost on the way to and from its logit."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 2, 60)
        logits = (2 * (np.eye(2)[labels] + generator.normal(size=(60, 2)))).astype(np.float32)
        positive = logits[:, 1] - logits[:, 0]
        labels[positive.argmin()] = 1  # so that only the lowest threshold finds all
        store(tmp_path, logits, labels, BINARY)
        decision = choose_decision(tmp_path, BINARY, calibrated=calibrated, threshold="recall:1.0")
        assert decision.predictions(logits)[labels == 1].all(), seed


def test_a_score_is_that_of_the_scores_that_are_shown(tmp_path: Path) -> None:
    logits, labels = binary_rows()
    store(tmp_path, logits, labels, BINARY)
    decision = choose_decision(tmp_path, BINARY, calibrated=True, threshold="0.8")
    np.testing.assert_array_equal(decision.predictions(logits), decision.scores(logits)[:, 1] >= 0.8)


def test_each_of_several_labels_has_its_threshold(tmp_path: Path) -> None:
    logits, labels = several_rows()
    store(tmp_path, logits, labels, SEVERAL)
    decision = choose_decision(tmp_path, SEVERAL, threshold="recall:0.99")
    assert decision.thresholds is not None and decision.thresholds[0] != decision.thresholds[1]
    predicted = decision.predictions(logits)
    assert ((predicted * labels).sum(axis=0) / labels.sum(axis=0) >= 0.99).all()
    assert predicted.dtype == np.float32


def test_a_score_needs_nothing_stored(tmp_path: Path) -> None:
    decision = choose_decision(tmp_path, BINARY, threshold="0.9")
    logits = np.float32([[0, 1], [0, 3], [1, 0]])
    assert list(decision.predictions(logits)) == [0, 1, 0]
    assert choose_decision(tmp_path, SEVERAL, threshold="0.9").predictions(logits).tolist() == [[0, 0], [0, 1], [0, 0]]


def test_the_usual_way_needs_nothing(tmp_path: Path) -> None:
    assert choose_decision(tmp_path, THREE) == Decision(THREE.problem_type)
    assert Calibration.fit(np.zeros((3, 1), np.float32), np.zeros(3), NUMBER, split="validation") is None


@pytest.mark.parametrize(
    ("label_set", "options", "error", "words"),
    [
        (BINARY, {"calibrated": True}, CheckpointError, "has no calibration.json"),
        (BINARY, {"threshold": "f1"}, CheckpointError, "has no calibration.json"),
        (THREE, {"threshold": "0.5"}, ConfigError, "chooses one of 3 labels, which takes no threshold"),
        (NUMBER, {"threshold": "0.5"}, ConfigError, "--threshold: this model gives numbers"),
        (NUMBER, {"calibrated": True}, ConfigError, "--calibrated: this model gives numbers"),
        (BINARY, {"threshold": "most"}, ConfigError, "found 'most'"),
    ],
)
def test_what_cannot_be_had(
    tmp_path: Path, label_set: LabelSet, options: dict[str, Any], error: type[TextuneError], words: str
) -> None:
    with pytest.raises(error) as caught:
        choose_decision(tmp_path, label_set, **options)
    assert words in caught.value.message


def test_validation_of_one_class(tmp_path: Path) -> None:
    logits, _ = binary_rows()
    store(tmp_path, logits, np.ones(300, np.int64), BINARY)
    with pytest.raises(CheckpointError, match="on its validation split all rows have the same label"):
        choose_decision(tmp_path, BINARY, calibrated=True)
    with pytest.raises(ConfigError, match="'yes' has no threshold: all rows of the validation split have it, or none"):
        choose_decision(tmp_path, BINARY, threshold="f1")


def test_unreachable_targets_name_every_label(tmp_path: Path) -> None:
    logits, labels = several_rows()
    logits[0], labels[0] = 99, 0  # the highest score is wrong for both
    store(tmp_path, logits, labels, SEVERAL)
    with pytest.raises(ConfigError) as caught:
        choose_decision(tmp_path, SEVERAL, threshold="precision:1")
    assert [f"no threshold gives {name!r} a precision of 1" in caught.value.message for name in "ab"] == [True, True]
    assert "Choose a lower target" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"temperature": -1}, "temperature -1"),
        ({"temperature": "warm"}, "TypeError"),
        ({"curves": None}, "AttributeError"),
        ({"curves": {"yes": {"thresholds": [1]}}}, "KeyError: 'precision'"),
    ],
)
def test_damaged_files(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    store(tmp_path, *binary_rows(), BINARY)
    value = json.loads((tmp_path / FILE).read_text()) | change
    (tmp_path / FILE).write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="cannot be used") as caught:
        Calibration.read(tmp_path)
    assert words in caught.value.message
    assert FILE in caught.value.message


def test_a_list_is_no_calibration(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(CheckpointError, match="cannot be used"):
        Calibration.read(tmp_path)
