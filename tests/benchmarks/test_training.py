from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import tiny_tokenizer

import textune.compat
from benchmarks import contestants, material, scaling, steady, training
from benchmarks.contestants import CONTESTANTS, WITHOUT, Training, command
from benchmarks.steady import Clock, examples_after

needs_accelerate = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="the Trainer needs it")


@needs_accelerate
def test_each_contestant_is_timed(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(training)
    output = tmp_path / "found.json"
    options = f"--shape {tiny_checkpoint} --rounds 1 --steps 3 --warmup-steps 1 --threads 1 --device cpu --batch-size 4"
    training.main([*options.split(), "--check-losses", "3", "--output", str(output)])
    found = json.loads(output.read_text())
    assert [run["who"] for run in found["runs"]] == list(CONTESTANTS)
    assert [run["rows"] for run in found["runs"]] == [12] * 5
    by_name = {run["who"]: run for run in found["runs"]}
    assert by_name["drop-in"]["tokens"] == by_name["trainer"]["tokens"], "the drop-in takes the rows in the same order"
    assert by_name["drop-in"]["notes"] == ["path: text"]
    assert by_name["textune-fp32"]["precision"] == by_name["trainer"]["precision"] == "fp32"
    summary = found["summary"][str(tiny_checkpoint)]
    assert summary["losses"]["largest_relative_difference"] < 1e-5
    assert len(summary["losses"]["trainer"]) == 3
    speeds = {who: run["samples_per_second"] for who, run in by_name.items()}
    assert summary["ratios"]["textune"]["trainer"]["median"] == pytest.approx(speeds["textune"] / speeds["trainer"])
    assert found["about"]["machine"]["arithmetic"]["measurements"]
    printed = capsys.readouterr().out
    assert "largest relative difference" in printed
    assert all(f"| {who} |" in printed for who in CONTESTANTS)


def test_levers_are_compared_with_textune_itself(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    in_this_process(training)
    output = tmp_path / "found.json"
    options = f"--levers --shape {tiny_checkpoint} --rounds 1 --steps 2 --warmup-steps 1 --threads 1 --device cpu"
    training.main([*options.split(), "--batch-size", "4", "--output", str(output)])
    found = json.loads(output.read_text())
    assert [run["who"] for run in found["runs"]] == ["textune", *WITHOUT]
    assert set(found["summary"][str(tiny_checkpoint)]["ratios"]["without-unpadded"]) == {"textune"}
    notes = {run["who"]: " ".join(run["notes"]) for run in found["runs"]}
    assert "without padding" in notes["textune"]
    assert "with padding: engine.unpadded is false" in notes["without-unpadded"]


@needs_accelerate
def test_whole_processes_are_timed(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(training)
    made = tmp_path / "made"
    monkeypatch.setattr(training, "remove", lambda work: work.rename(made / work.name))
    made.mkdir()
    options = (
        f"--whole --epochs 0.02 --shape {tiny_checkpoint} --rounds 1 --threads 1 --device cpu --who textune trainer"
    )
    training.main([*options.split(), "--output", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [set(run) for run in found["runs"]] == [{"shape", "round", "who", "seconds"}] * 2
    assert (made / "1-textune" / "run" / "model" / "model.safetensors").is_file()
    assert (made / "1-trainer" / "model" / "model.safetensors").is_file()


@needs_accelerate
def test_a_test_split_without_labels_is_predicted_by_all(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(training)
    kept: dict[str, list[str]] = {}
    monkeypatch.setattr(
        training, "remove", lambda work: kept.update({work.name: [path.name for path in work.rglob("*.parquet")]})
    )
    read = material.read_splits

    def without_test_labels(task: str | None, local_copy: str | None) -> dict[str, list[dict[str, Any]]]:
        splits = read(task, local_copy)
        return splits | {"test": [{"text": row["text"], "text_pair": row["text_pair"]} for row in splits["test"][:9]]}

    monkeypatch.setattr(material, "read_splits", without_test_labels)
    predicted = []
    for library in (transformers, textune.compat):

        def predict(self: Any, rows: Any, original: Any = library.Trainer.predict) -> Any:
            predicted.append(len(rows))
            return original(self, rows)

        monkeypatch.setattr(library.Trainer, "predict", predict)
    options = f"--whole --epochs 0.02 --shape {tiny_checkpoint} --rounds 1 --threads 1 --device cpu"
    options += " --who textune drop-in trainer"
    training.main([*options.split(), "--output", str(tmp_path / "found.json")])
    assert "test.parquet" in kept["1-textune"]
    assert predicted == [9, 9]


def test_splits_are_read_in_the_order_that_says_which_columns_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order the file system has."""
    material.write_splits(
        tmp_path / "data",
        {"train": [{"text": "a", "label": 1}], "validation": [{"text": "b", "label": 0}], "test": [{"text": "c"}]},
    )
    monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(self.iterdir()))  # test comes first
    given = Training(
        who="trainer", data=str(tmp_path / "data"), checkpoint="", work=str(tmp_path), duration=1.0, threads=1
    )
    rows = contestants.tokenized(given, tiny_tokenizer())
    assert {split: len(own) for split, own in rows.items()} == {"train": 1, "validation": 1, "test": 1}
    assert rows["train"][0]["label"] == 1


def test_growth_is_measured(
    in_this_process: Callable[..., None], tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(scaling)
    output = tmp_path / "found.json"
    options = f"--base {tiny_checkpoint} --rows 40 80 --lengths 8 16 --shapes {tiny_checkpoint} --length 8"
    options += " --steps 2 --warmup-steps 1 --batch-size 2 --threads 1 --device cpu"
    scaling.main([*options.split(), "--output", str(output)])
    found = json.loads(output.read_text())
    assert [run["size"] for run in found["rows"]["runs"]] == [40, 80]
    assert [run["tokens"] for run in found["lengths"]["runs"]] == [2 * 2 * 8, 2 * 2 * 16]
    assert set(found["lengths"]["summary"]["textune"]["growth"]) == {"seconds_per_step", "peak_memory_mib"}
    assert found["shapes"]["summary"]["textune"]["growth"] == {}, "one size does not grow"
    assert "time grows with tokens in a text to the power" in capsys.readouterr().out


def test_growth_of_known_figures() -> None:
    """A second for the start and a millisecond a row: the exponent is below 1, the line is not deceived."""
    sizes = (1000, 4000)
    runs = [{"who": "textune", "size": n, "seconds": 1 + n / 1000, "peak_memory_mib": 500.0} for n in sizes]
    own = scaling.summarize(runs, size="rows", cost="seconds")["summary"]["textune"]
    assert own["growth"]["seconds"] == pytest.approx(np.log(5 / 2) / np.log(4))
    assert own["further"] == pytest.approx({"seconds": 1e-3, "peak_memory_mib": 0.0})


def test_ratios_and_memory_of_known_figures() -> None:
    def run(who: str, seconds: float, memory: float) -> dict[str, Any]:
        measured = {"samples_per_second": 8 / seconds, "tokens_per_second": 80 / seconds, "share_of_rate": 0.5}
        return {"who": who, "seconds": seconds, "rows": 8, "peak_memory_mib": memory, "precision": "fp32", **measured}

    runs = [run("textune", 1.0, 50), run("trainer", 4.0, 100), run("textune", 2.0, 60), run("trainer", 6.0, 100)]
    summary = training.summarize(runs)
    assert summary["ratios"]["textune"]["trainer"].median == pytest.approx(3.5)
    assert summary["ratios"]["trainer"] == {}
    assert summary["memory"]["textune"].median == pytest.approx(0.55)
    lines = training.report(summary).splitlines()
    assert lines[2].startswith("| textune | fp32 | 6.0 (4.0 to 8.0) |")
    assert lines[2].endswith("| 0.55 (0.50 to 0.60) | 3.50 (3.00 to 4.00) |")


def test_the_clock_leaves_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 14.0])
    monkeypatch.setattr(steady.time, "perf_counter", lambda: next(times))
    clock = Clock(warmup_steps=1, steps=2, device=torch.device("cpu"))
    done = [clock.step(number, rows=8 * number, tokens=100 * number) for number in range(4)]
    assert done == [False, False, False, True]
    result = clock.result()
    assert (result["seconds"], result["rows"], result["tokens"]) == (4.0, 16, 200)
    assert (result["samples_per_second"], result["tokens_per_second"]) == (4.0, 50.0)
    assert result["peak_memory_mib"] > 0


def test_the_peak_on_a_gpu_is_counted_from_where_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    monkeypatch.setattr(steady, "wait_for", lambda device: None)
    monkeypatch.setattr(steady, "peak_memory_mib", lambda device: 5.0)
    clock = Clock(warmup_steps=1, steps=1, device=torch.device("cuda"))
    clock.step(0, rows=0, tokens=0)
    assert forgotten == [torch.device("cuda")]
    clock.step(1, rows=8, tokens=100)
    clock.step(2, rows=16, tokens=200)
    assert len(forgotten) == 1, "the largest batch may be one of the warm-up"
    assert clock.result()["peak_memory_mib"] == 5.0


def test_examples_are_counted_over_the_end_of_an_epoch() -> None:
    sizes = [4, 4, 2] * 3
    assert [examples_after(n, num_rows=10, batch_size=4) for n in range(10)] == [0, *np.cumsum(sizes)]


def test_commands(tmp_path: Path) -> None:
    given = {"data": "d", "checkpoint": "c", "work": str(tmp_path), "duration": 3.0, "in_epochs": True, "threads": 2}
    ours = command(Training(who="textune", **given))
    assert ours[:4] == [sys.executable, "-m", "textune", "train"]
    assert "--duration 3epochs" in " ".join(ours)
    assert "--precision auto" in " ".join(ours)
    assert "--set training.threads=2" in " ".join(ours)
    theirs = command(Training(who="trainer", **given))
    assert theirs[:3] == [sys.executable, "-m", "benchmarks.contestants"]
    assert json.loads(theirs[3])["duration"] == 3.0
