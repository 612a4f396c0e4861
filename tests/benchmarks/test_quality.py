from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import quality
from textune.cli.main import cli

SPLITS = ("validation_matched", "validation_mismatched")


@pytest.fixture
def mnli(tmp_path: Path) -> Path:
    """A folder with twelve rows of MNLI a split in the official layout; those of test have no labels."""
    folder = tmp_path / "data" / "MNLI"
    folder.mkdir(parents=True)
    labels = ("neutral", "entailment", "contradiction")
    for split in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        labelled = not split.startswith("test")
        lines = [["index", "sentence1", "sentence2", *(["gold_label"] if labelled else [])]]
        for number in range(12):
            row = [str(number), f"the film of {split} was {number}", "a very dull book"]
            lines.append([*row, *([labels[number % 3]] if labelled else [])])
        (folder / f"{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    return folder.parent


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, dict[str, str]]]:
    """Runs are made up; what was asked for is listed: who, seed and environment."""
    made: list[tuple[str, int, dict[str, str]]] = []

    def program(who: str) -> Callable[..., dict[str, Any]]:
        def run(arguments: Any, seed: int, folder: Path, surroundings: Mapping[str, str]) -> dict[str, Any]:
            made.append((who, seed, dict(surroundings)))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ("summary.json" if who == quality.TEXTUNE else "test.jsonl")).write_text("")
            return run_of(who, seed, quality.precision_of(arguments))

        return run

    monkeypatch.setattr(quality, "machine", lambda threads: {"processor": "a chip", "threads": threads})
    monkeypatch.setattr(quality, "PROGRAMS", {who: program(who) for who in (quality.TEXTUNE, quality.TRAINER)})
    return made


def run_of(who: str, seed: int, precision: str = "bf16") -> dict[str, Any]:
    scores = {"accuracy": 0.5 + seed / 100, "f1": 0.75}
    return {
        "who": who,
        "seed": seed,
        "precision": precision,
        "validation": scores,
        "test": scores,
        "training_seconds": 1.0,
    }


def pairs_of(asked: Sequence[tuple[str, int, dict[str, str]]]) -> list[tuple[str, int]]:
    return [(who, seed) for who, seed, _ in asked]


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="the Trainer needs it")
def test_both_are_run_on_all_splits_with_labels_and_their_predictions_compared(
    in_this_process: Callable[..., None],
    tmp_path: Path,
    mnli: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(quality)
    for module in ("load", "starter"):
        monkeypatch.setattr(f"textune.models.{module}.starter_folder", lambda: tiny_checkpoint)
    output = tmp_path / "new" / "found.json"
    options = (
        f"--task mnli --local-copy {mnli} --seeds 1 --fp32 --threads 1 --output {output} --keep {tmp_path / 'runs'}"
    )
    quality.main(options.split())
    found = json.loads(output.read_text())
    assert [run["who"] for run in found["runs"]] == ["textune", "transformers.Trainer"]
    for run in found["runs"]:
        assert {split: set(run[split]) for split in SPLITS} == {split: {"accuracy"} for split in SPLITS}
        assert run["precision"] == "fp32"
        assert not any(split.startswith("test") for split in run)
    assert found["about"]["options"] == {
        "threads": 1,
        "task": "mnli",
        "seeds": [1],
        "fp32": True,
        "who": ["textune", "transformers.Trainer"],
    }
    assert found["about"]["machine"]["processor"] == "a chip"
    printed = capsys.readouterr().out
    assert "| who | seed | validation_matched accuracy | validation_mismatched accuracy |" in printed
    command = next(line for line in printed.splitlines() if line.startswith("textune compare"))
    compared = CliRunner().invoke(cli, command.split()[1:])
    assert compared.exit_code == 0, compared.output


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_file_from_before_options_were_written_down_goes_on(
    asked: list[Any], tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "found.json"
    about = {"data": "mrpc", "date": "2026-11-23", "torch": "2.13.0+cpu", "machine": "2 cores", "unfinished": "seed 7"}
    before = {"about": about, "runs": [run_of(who, 42, precision) for who in (quality.TEXTUNE, quality.TRAINER)]}
    output.write_text(json.dumps(before))
    options = ["--task", "mrpc", "--output", str(output), "--seeds", "42", "7"]
    quality.main([*options, *(["--fp32"] if precision == "fp32" else [])])
    assert pairs_of(asked) == [(quality.TEXTUNE, 7), (quality.TRAINER, 7)]
    after = json.loads(output.read_text())
    assert after["about"] == about
    assert after["runs"][:2] == before["runs"]
    assert "| textune | mean ± sd of 2 | **74.5** ± 24.7 |" in capsys.readouterr().out


def test_runs_that_are_there_are_not_repeated(asked: list[Any], tmp_path: Path) -> None:
    options = ["--task", "mrpc", "--output", str(tmp_path / "found.json"), "--threads", "2"]
    quality.main([*options, "--seeds", "1"])
    quality.main([*options, "--seeds", "1", "2"])
    assert pairs_of(asked) == [(who, seed) for seed in (1, 2) for who in (quality.TEXTUNE, quality.TRAINER)]


def test_both_run_with_the_same_threads_and_one_gpu_at_most(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    options = ["--task", "mrpc", "--output", str(tmp_path / "found.json"), "--seeds", "1"]
    quality.main([*options, "--threads", "3"])
    for _, _, environment in asked:
        assert (environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]) == ("3", "0")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("--threads 3", "threads 2, precision bf16; asked for are runs with task mrpc, threads 3"),
        ("--threads 2 --fp32", "precision bf16; asked for are runs with task mrpc, threads 2, precision fp32"),
        ("--threads 2 --task rte", "runs with task mrpc, threads 2"),
    ],
)
def test_runs_of_other_options_are_not_put_into_the_same_file(
    asked: list[Any], tmp_path: Path, other: str, said: str
) -> None:
    options = ["--task", "mrpc", "--output", str(tmp_path / "found.json"), "--seeds", "1"]
    quality.main([*options, "--threads", "2"])
    before = (tmp_path / "found.json").read_text()
    with pytest.raises(SystemExit, match=said):
        quality.main([*options, *other.split()])
    assert (tmp_path / "found.json").read_text() == before


def test_what_shall_be_kept_and_was_not_is_run_again(asked: list[Any], tmp_path: Path) -> None:
    options = ["--task", "mrpc", "--output", str(tmp_path / "found.json"), "--seeds", "1", "2"]
    quality.main(options)
    quality.main([*options, "--keep", str(tmp_path / "runs"), "--who", quality.TEXTUNE])
    assert pairs_of(asked[4:]) == [(quality.TEXTUNE, 1), (quality.TEXTUNE, 2)]
    quality.main([*options, "--keep", str(tmp_path / "runs")])
    assert pairs_of(asked[6:]) == [(quality.TRAINER, 1), (quality.TRAINER, 2)]
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert len({(run["who"], run["seed"]) for run in runs}) == len(runs) == 4, "each is there once"


def test_what_was_begun_today_goes_on(asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "results")
    for _ in range(2):
        quality.main(["--task", "mrpc", "--seeds", "1", "--threads", "1"])
    assert len(asked) == 2
    assert [path.name for path in (tmp_path / "results").iterdir()] == [f"{date.today()}-quality-mrpc-bf16.json"]
