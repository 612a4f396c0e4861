from __future__ import annotations

import json
from pathlib import Path

from textune.run import Run

from .conftest import Textune


def test_train_prints_scores_and_where_everything_lies(
    textune: Textune, train_flags: list[str], tmp_path: Path
) -> None:
    done = textune("train", *train_flags, "--output", tmp_path / "run")
    assert done.code == 0
    run = Run.open(tmp_path / "run")
    assert f"{100 * run.summary['validation']['accuracy']['value']:.1f} [" in done.out
    assert f"run       {tmp_path / 'run'}" in done.out
    for words in ("tokenising train: 58 rows", "step 1/8", "evaluation at step 8", "arithmetic: fp32"):
        assert words in done.err
    assert "step 1/8" not in done.out, "progress goes to standard error"


def test_quiet(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    done = textune("train", *train_flags, "--output", tmp_path / "run", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_json(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    done = textune("train", *train_flags, "-o", tmp_path / "run", "--quiet", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found == {"run": str(tmp_path / "run"), **Run.open(tmp_path / "run").summary}


def test_config_file_flags_and_settings(textune: Textune, train_flags: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("training:\n  seed: 3\n  batch_size: 16\n  weight_decay: 0.1\n")
    done = textune(
        *("train", *train_flags, "--config", file, "--batch-size", "4", "--set", "training.weight_decay=0.2"),
        *("--set", "training.adam_beta2=0.98", "--quiet", "-o", tmp_path / "run"),
    )
    assert (done.code, done.err) == (0, "")
    training = Run.open(tmp_path / "run").config.training
    assert (training.seed, training.batch_size, training.weight_decay, training.adam_beta2) == (3, 4, 0.2, 0.98)


def test_all_mistakes_at_once(textune: Textune, tmp_path: Path) -> None:
    done = textune(
        *("train", "--batch-size", "0", "--schedule", "liner", "--warmup", "soon", "--set", "training.sede=1"),
        *("-o", tmp_path / "run"),
    )
    assert done.code == 2
    for words in (
        "--batch-size (training.batch_size): expected a whole number at least 1, found 0",
        "--schedule (training.schedule): expected 'linear' or 'cosine' or 'constant', found 'liner'",
        "--warmup (training.warmup): expected a number with its unit",
        "There is no option 'training.sede'. Did you mean 'training.seed'?",
    ):
        assert words in done.err
    assert not (tmp_path / "run").exists()


def test_label_names_and_delimiter_are_flags(textune: Textune, tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text;label\n" + "".join(f"the film {number};{number % 2}\n" for number in range(20)))
    done = textune(
        *("train", "--data", data, "--model", tiny_checkpoint, "--epochs", "0.1", "--precision", "fp32", "--quiet"),
        *("--delimiter", ";", "--label-names", "no,yes", "-o", tmp_path / "run"),
    )
    assert (done.code, done.err) == (0, "")
    assert Run.open(tmp_path / "run").data["schema"]["label_names"] == ["no", "yes"]
