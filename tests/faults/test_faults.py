"""A short, seeded version of `python -m faults`: real processes, killed and resumed. And how the harness judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faults.__main__ import altered_data, main, summary_of
from faults.trainings import Training, fingerprint, history, last_step, leftovers, resumed_from
from faults.trials import Trial

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_that_is_broken_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "faults", "kill", "signals", "damage", "--runs", "2", "--steps", "24"]
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
    }
    assert not [trial for kind in ("kill", "signals", "damage") for trial in results[kind] if trial["problems"]]
    assert all(trial["facts"]["inside"] for trial in results["kill"])
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


def test_an_altered_row_alters_the_data_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"text": "it was good"}\n{"text": "it was bad"}\n')
    altered = Path(altered_data(Training("tiny", str(data)))).read_text()
    assert altered == '{"text": "it was good indeed"}\n{"text": "it was bad"}\n'
    sample = (REPOSITORY / "src" / "textune" / "data" / "sample" / "train.jsonl").read_text().splitlines()
    altered_sample = Path(altered_data(Training("tiny"))).read_text().splitlines()
    assert [before == after for before, after in zip(sample, altered_sample, strict=True)].count(False) == 1


def test_what_is_shown_of_trials() -> None:
    trials = [Trial("a", facts={"lost": 3, "inside": True}), Trial("b", facts={"lost": 8})]
    trials[1].require(False, "broken")
    assert [trial.ok for trial in trials] == [True, False]
    assert summary_of(trials) == "at most 8 steps lost, 1 inside a write"


def test_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["kil"])
    assert "there is no 'kil'" in capsys.readouterr().err


def test_arguments_of_a_training(tmp_path: Path) -> None:
    from textune.cli.train import train

    training = replace(Training("tiny"), settings=("training.batch_size=4",))
    arguments = training.arguments(tmp_path / "run")
    context = train.make_context("train", arguments[1:])
    assert context.params["seed"] == "1"
    assert "training.batch_size=4" in context.params["assignments"]
