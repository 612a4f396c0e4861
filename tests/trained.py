"""Runs of a tiny model on tiny data, shared by the tests that need a finished one: one that changes it takes a copy.

A plugin of pytest, so that each of them is trained once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import BLAME, PRAISE, SUBJECTS

from faults.material import write_json_lines
from textune.display import Display
from textune.finetune import train
from textune.run import Run

# What every training here has in common: small, the same everywhere, silent.
QUICK: dict[str, Any] = {"epochs": 1, "precision": "fp32", "learning_rate": 3e-3, "display": Display()}


def pair_rows() -> list[dict[str, Any]]:
    """48 pairs: the same thing said of the same subject, or the opposite."""
    rows = []
    for number in range(48):
        subject, word = SUBJECTS[number % 8], PRAISE[number % 4]
        same = number % 3 != 0
        other = PRAISE[(number + 1) % 4] if same else BLAME[number % 4]
        rows.append(
            {
                "idx": 100 + number,
                "sentence1": f"the {subject} was {word}",
                "sentence2": f"a {subject} is very {other} .",
                "label": "same" if same else "different",
            }
        )
    return rows


def multi_label_rows() -> list[dict[str, Any]]:
    """48 rows whose labels are the kinds of thing they speak of; some have none."""
    kinds = {"film": "art", "book": "art", "meal": "food", "shop": "food"}
    rows = []
    for number in range(48):
        first, second = SUBJECTS[number % 8], SUBJECTS[(number // 2) % 8]
        labels = sorted({kinds[word] for word in (first, second) if word in kinds})
        rows.append({"text": f"the {first} and a {second}", "labels": labels})
    return rows


def regression_rows() -> list[dict[str, Any]]:
    """48 rows with a score: half a point for each word of praise, and a little for the subject."""
    rows = []
    for number in range(48):
        praise = number % 4
        words = " ".join([*PRAISE[:praise], *BLAME[: 3 - praise]])
        score = praise / 2 + (number % 8) / 100
        rows.append({"text": f"the {SUBJECTS[number % 8]} was {words}", "score": score})
    return rows


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """In force for all tests: how fast this machine multiplies matters to none of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textune.training.precision.PROBE_SECONDS", 1e-3)
        patch.setattr("textune.training.precision.PROBE_SIZE", 64)
        # tests/report makes the reports that tests look at.
        patch.setattr("textune.results.write_report", lambda runs: None)
        yield


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, tiny_csv: Path) -> Run:
    """Single texts, two labels."""
    output = tmp_path_factory.mktemp("runs") / "text"
    return train(str(tiny_csv), model=str(tiny_checkpoint), output=str(output), **QUICK)


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Run:
    """Pairs with ids of their own, two labels."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_json_lines(folder / "pairs.jsonl", pair_rows())
    return train(str(data), model=str(tiny_checkpoint), output=str(folder / "pairs"), **QUICK)


@pytest.fixture(scope="session")
def multi_label_run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Run:
    """Lists of labels."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_json_lines(folder / "topics.jsonl", multi_label_rows())
    return train(str(data), model=str(tiny_checkpoint), output=str(folder / "topics"), **QUICK)


@pytest.fixture(scope="session")
def regression_run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Run:
    """A number as the label."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_json_lines(folder / "scores.jsonl", regression_rows())
    return train(str(data), model=str(tiny_checkpoint), output=str(folder / "scores"), **QUICK)


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative paths, such as the default output, lie in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
