from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textune.audit.auditing import full_audit
from textune.audit.suspects import cross_validated_errors, features_of, suspected_labels
from textune.data.prepare import PreparedData
from textune.errors import DataError
from textune.models.embeddings import TextEncoder

from .conftest import the


class WordEncoder:
    """Stands in for an encoder: how often a text has each of two words."""

    words = ("good", "bad")

    def encode(self, texts: list[str], *, on_progress: Callable[[int], None] | None = None) -> Any:
        if on_progress is not None:
            on_progress(len(texts))
        return np.array([[text.split().count(word) for word in self.words] for text in texts], np.float32)


def reviews() -> list[dict[str, str]]:
    words = (("good", "up"), ("bad", "down"))
    return [{"text": f"number {at} is {words[at % 2][0]}", "label": words[at % 2][1]} for at in range(80)]


def test_wrong_labels_are_found_in_every_split(prepare: Callable[..., PreparedData], tmp_path: Path) -> None:
    train, validation = reviews(), reviews()[:20]
    for rows, row, label in ((train, 7, "up"), (train, 40, "down"), (validation, 3, "up")):
        rows[row] = {"text": f"{rows[row]['text']} {rows[row]['text']}", "label": label}
    prepared = prepare({"train": train, "validation": validation})
    done = []
    find = partial(suspected_labels, encoder=WordEncoder(), seed=0, on_progress=done.append)  # type: ignore[arg-type]
    audit = full_audit(prepared, tokens={}, folder=Path(tempfile.mkdtemp(dir=tmp_path)), suspects=find)
    found = {finding.split: finding for finding in audit.findings if finding.kind == "suspected_labels"}
    assert sorted(found["train"].rows.tolist()) == [8, 41]
    assert found["validation"].rows.tolist() == [4]
    assert found["validation"].examples[0].detail == "more likely down"
    assert found["train"].message.endswith("a cross-validated model contradicts; it agrees with 97 % of all labels")
    assert sum(done) == 100
    assert "suspected_labels" in audit.checked


def test_pairs_are_compared_by_their_vectors() -> None:
    features = features_of(["good", "bad"], ["good", "good"], WordEncoder())  # type: ignore[arg-type]
    first, second = np.array([[1, 0], [0, 1]]), np.array([[1, 0], [1, 0]])
    assert np.array_equal(features, np.hstack([first, second, abs(first - second), first * second]))


def test_rare_labels_take_no_part() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 30 + [3] * 30 + [1] * 4)
    features = (np.eye(4)[labels] + rng.normal(scale=0.1, size=(64, 4))).astype(np.float32)
    labels[5] = 3
    found = cross_validated_errors(features, labels, seed=0)
    assert found.rows.tolist() == [5]
    assert found.suggested.tolist() == [0]


def test_too_few_rows_of_a_second_label() -> None:
    labels = np.array([0] * 30 + [1] * 4)
    with pytest.raises(DataError, match="at least two labels with 5 rows or more, found 1"):
        cross_validated_errors(np.zeros((34, 2), np.float32), labels, seed=0)


@pytest.mark.starter
def test_the_starter_tells_like_from_unlike(prepare: Callable[..., PreparedData], tmp_path: Path) -> None:
    from textune.models.load import find_checkpoint

    subjects = ("film", "book", "meal", "hotel", "song", "play", "shop", "garden", "lesson", "journey")
    good, bad = "The {} was wonderful, we loved it.", "The {} was terrible, we hated it."
    rows = [
        {"text": pattern.format(subject), "label": label}
        for subject in subjects
        for pattern, label in ((good, "up"), (bad, "down"))
    ]
    rows[7]["label"] = "up"
    find = partial(suspected_labels, encoder=TextEncoder(find_checkpoint("starter")), seed=0)
    found = the(full_audit(prepare({"train": rows}), tokens={}, folder=tmp_path, suspects=find), "suspected_labels")
    assert found.rows.tolist()[0] == 8
