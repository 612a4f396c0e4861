"""A short, seeded version of `python -m faults`: real processes, killed and resumed. And how the harness judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from faults import trials
from faults.__main__ import altered_data, main, summary_of
from faults.breaking import Faults
from faults.trainings import Process, Training, fingerprint, history, last_step, leftovers, resumed_from
from faults.trials import Bench, Trial, go_on

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_that_is_broken_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "faults", "kill", "signals", "damage", "clock", "--runs", "2", "--steps", "24"]
    done = subprocess.run(
        [*command, "--precision", "fp32", "--seed", "3", "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "TEXTUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads(output.read_text())
    assert {kind: len(trials) for kind, trials in results.items() if kind != "about"} == {
        "kill": 2,
        "signals": 2,
        "damage": 3,
        "clock": 2,
    }
    kinds = ("kill", "signals", "damage", "clock")
    assert not [trial for kind in kinds for trial in results[kind] if trial["problems"]]
    assert all(trial["facts"]["inside"] for trial in results["kill"])
    assert all(trial["facts"]["saves"] for trial in results["clock"])
    assert str(tmp_path) not in json.dumps(results["about"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that looks like a finished run."""
    folder = tmp_path / "run"
    for name in ("model", "checkpoints/step-8", "checkpoints/step-16", "predictions"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "predictions" / "test.parquet").write_bytes(b"predictions")
    for name in ("model.safetensors", "optimizer.safetensors"):
        (folder / "checkpoints" / "step-16" / name).write_bytes(b"tensors")
    (folder / "checkpoints" / "step-16" / "state.json").write_text('{"step": 16, "seconds": 1.5}')
    records = [{"kind": "training", "step": step, "loss": 0.5, "samples_per_second": 9.0} for step in (8, 16)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "environment.json").write_text('{"resumed": [{"step": 4}, {"step": 8}]}')
    return folder


def test_what_a_run_is_compared_by(run: Path) -> None:
    before = fingerprint(run)
    state = run / "checkpoints" / "step-16" / "state.json"
    state.write_text(state.read_text().replace("1.5", "2.5"))
    log = run / "metrics.jsonl"
    log.write_text(log.read_text().replace("9.0", "3.0"))
    assert fingerprint(run) == before, "durations do not count"
    changes = {
        "weights": ("model/model.safetensors", b"Weights"),
        "last weights": ("checkpoints/step-16/model.safetensors", b"Tensors"),
        "moments": ("checkpoints/step-16/optimizer.safetensors", b"Tensors"),
        "state": ("checkpoints/step-16/state.json", b'{"step": 15}'),
        "history": ("metrics.jsonl", log.read_bytes().replace(b"0.5", b"0.6", 1)),
        "predictions": ("predictions/test.parquet", b"Predictions"),
    }
    assert changes.keys() == before.keys()
    for what, (name, data) in changes.items():
        kept = (run / name).read_bytes()
        (run / name).write_bytes(data)
        after = fingerprint(run)
        (run / name).write_bytes(kept)
        assert [part for part in before if after[part] != before[part]] == [what]


def test_where_a_run_stands(run: Path) -> None:
    assert (last_step(run), resumed_from(run), leftovers(run)) == (16, 8, [])
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "training", "st')
    assert len(history(run)) == 2
    (run / "checkpoints" / ".step-24.tmp-1").mkdir()
    assert leftovers(run) == ["checkpoints/.step-24.tmp-1"]


@pytest.mark.parametrize(
    ("from_step", "finished", "problems"),
    [
        (None, False, ["went on from step 8, not from 16"]),
        (8, False, []),
        (None, True, []),
    ],
    ids=["not the last checkpoint", "that one", "finished before"],
)
def test_a_resume_goes_on_from_the_last_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch, from_step: int | None, finished: bool, problems: list[str]
) -> None:
    """Training anew, or from an older one, would end with the same bits."""
    log = run.with_name("log.txt")
    log.touch()
    (run / "config.yaml").touch()
    if finished:
        (run / "summary.json").touch()
    monkeypatch.setattr(trials, "resume", lambda *_, **__: Process(0, log, 0.0, code=0))
    monkeypatch.setattr(Bench, "compare", lambda *_: None)
    trial = Trial("a resume")
    go_on(Bench(run.parent, {}, seed=0), trial, Training("tiny", "train.jsonl"), run, from_step=from_step)
    assert trial.problems == problems


@pytest.mark.parametrize(
    ("saved", "problems"),
    [
        ([5, 12, 16, 19, 20], []),
        ([12, 19, 24], ["nothing was saved by the clock"]),
        ([5, 12, 13, 14, 15, 16, 19, 24], ["4 saves in 0.25 s, one each 0.08 s"]),
    ],
    ids=["some", "none", "too many"],
)
def test_saves_by_the_clock_come_when_they_are_due(tmp_path: Path, saved: list[int], problems: list[str]) -> None:
    """Interrupted after step 12; saved are also an evaluation, after step 19, and the end."""
    for step in {*saved, 24}:
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    end = tmp_path / "checkpoints" / "step-24" / "manifest.json"
    for file, seconds in ((tmp_path / "config.yaml", 1000.0), (end, 1000.25)):
        file.touch()
        os.utime(file, (seconds, seconds))
    trial = Trial("the clock jumps")
    training = Training("tiny", "train.jsonl", steps=24)
    trials._require_saves_by_clock(trial, training, tmp_path, stopped=12, seconds=0.08)
    assert trial.problems == problems


def test_after_an_interruption_the_clock_jumps_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int | None] = []
    log = tmp_path / "log.txt"
    log.touch()

    def begin(training: Training, run: Path, faults: Faults) -> Process:
        seeds.append(faults.clock)
        assert "checkpoint.every=0.08s" in training.settings
        return Process(0, log, 0.0, code=143)

    def resumed(bench: Bench, trial: Trial, *_: object, faults: Faults) -> None:
        seeds.append(faults.clock)
        trial.problems.append("goes no further")

    monkeypatch.setattr(trials, "begin", begin)
    monkeypatch.setattr(trials, "go_on", resumed)
    bench = Bench(tmp_path, {"fp32": Training("tiny", "train.jsonl")}, seed=0)
    assert len(list(trials.clock(bench, 3))) == 3
    drawn = [Random(seed).random() for seed in seeds]
    assert len(set(drawn)) == 6


@pytest.mark.parametrize(("runs", "expected"), [(2, 2), (0, 3), (100, 3)])
def test_no_more_cases_are_drawn_than_there_are(runs: int, expected: int) -> None:
    assert len(set(trials._some("abc", runs, Random(0)))) == expected


def test_an_altered_row_alters_the_data_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"text": "it was good"}\n{"text": "it was bad"}\n')
    altered = Path(altered_data(Training("tiny", str(data)), folder=tmp_path))
    assert altered.read_text() == '{"text": "it was good indeed"}\n{"text": "it was bad"}\n'
    assert altered.parent == tmp_path


def test_what_is_shown_of_trials() -> None:
    trials = [Trial("a", facts={"lost": 3, "inside": True}), Trial("b", facts={"lost": 8})]
    trials[1].require(False, "broken")
    assert [trial.ok for trial in trials] == [True, False]
    assert summary_of(trials) == "at most 8 steps lost, 1 inside a write"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("kil", "there is no 'kil'"),
        ("fuzz --reader foo", "--reader: there is no 'foo'; there are config, csv, "),
        ("longrun --steps 10", "longrun compares memory over 3,000 steps at least, found 10"),
        ("kill --steps 23", "--steps: expected 24 or more, for three checkpoints, found 23"),
        ("--model starter --steps 8", "--steps: expected 9 or more"),
        ("kill --runs 0", "--runs: expected 1 or more, found 0"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(
    capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        main(options.split())
    assert message in capsys.readouterr().err


def test_arguments_of_a_training(tmp_path: Path) -> None:
    from textune.cli.train import train

    training = replace(Training("tiny", "train.jsonl"), settings=("training.batch_size=4",))
    arguments = training.arguments(tmp_path / "run")
    context = train.make_context("train", arguments[1:])
    assert context.params["seed"] == "1"
    assert "training.batch_size=4" in context.params["assignments"]
