"""A small version of what `python -m benchmarks.audit` measures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks import audit
from benchmarks.audit import EXACT_KINDS, Large, audit_of, clean_rows, found_places, made_up, measure_file, task_rows


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PLANTED", 10)
    monkeypatch.setattr(audit, "CLEAN_ROWS", 300)


def test_planted_defects_are_found_and_nothing_else(few: None) -> None:
    result = audit.measure_plants("sample", task_rows("sample", None))
    assert set(result["planted"].values()) == {10}
    assert len(result["planted"]) == 12
    assert min(result["recall"].values()) == 1.0
    assert (result["clean_rows"], result["false_alarms"]) == (300, 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mrpc", "cola", "stsb"])
def test_planted_defects_in_corpora(few: None, shared_data: Path, task: str) -> None:
    folder = shared_data if task == "mrpc" else shared_data / "glue_data"
    result = audit.measure_plants(task, task_rows(task, str(folder)))
    del result["recall"]["one edit, however similar"]
    assert result["recall"].pop("another language") >= 0.8, "not every short sentence is certain"
    assert min(result["recall"].values()) == 1.0
    assert result["false_alarms"] == 0


def test_clean_rows_are_clean_by_plain_python() -> None:
    good = [{"text": f"row number {number:b}", "label": "a"} for number in range(20)]
    bad = [{"text": text, "label": "a"} for text in ("Row  NUMBER 0", "<b>", "caf\u00e9", "...", "x" * 500)]
    assert {row["text"] for row in clean_rows([*good, *bad], random.Random(0))} == {row["text"] for row in good[1:]}


def test_what_is_found_is_counted_by_place() -> None:
    rows = [{"text": f"row number {number:b} of all", "label": "ab"[number % 2]} for number in range(20)]
    found = audit_of({"train": [*rows, rows[3]], "validation": [{**rows[4], "text": "\u200b and more"}]})
    assert found_places(found, ["duplicates"]) == {("train", 21)}
    assert found_places(found, EXACT_KINDS) == {("train", 21), ("validation", 1)}


def test_a_large_file(tmp_path: Path) -> None:
    rows = task_rows("sample", None)["train"]
    path = tmp_path / "large.jsonl"
    lines = (json.dumps({"text": text, "label": "ab"[number % 2]}) for number, text in enumerate(made_up(rows, 500)))
    path.write_text("\n".join(lines))
    figures = measure_file(Large(str(path)))
    assert figures["rows"] == 500
    assert figures["near_duplicates"] > 0
    assert figures["full_seconds"] > figures["quick_seconds"] > 0
    assert list(made_up(rows, 60)) == list(made_up(rows, 60))


def test_label_noise() -> None:
    figures = audit._noise_figures([5, 3, 9, 1], {3, 5, 7}, 0.1)
    assert figures["precision_at_k"] == pytest.approx(2 / 3)
    assert figures["recall_at_k"] == pytest.approx(2 / 3)
    assert figures["precision_at_fifth"] == 1.0
    assert figures["recall_of_all_suspects"] == pytest.approx(2 / 3)
    assert "| 5% |" in audit.noise_table([{"data": "x", "noise": {"5%": figures}}])
