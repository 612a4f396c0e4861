from __future__ import annotations

import csv
import errno
import fcntl
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from tiny import BLAME, PRAISE
from trained import QUICK, multi_label_rows, pair_rows, regression_rows

from faults.material import write_json_lines
from textune.config import Config, RunConfig, TrainingConfig
from textune.display import Display
from textune.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError, UnavailableError
from textune.evaluating import evaluate
from textune.finetune import train
from textune.options import resolve_options
from textune.run import Run
from textune.training.callbacks import Callback
from textune.training.state import TrainingState


class Listening(Display):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def quickly(tmp_path: Path, tiny_checkpoint: Path) -> Any:
    """`textune.train` with a tiny checkpoint and a run folder of the test's own."""

    def call(data: Any, **options: Any) -> Run:
        return train(str(data), **{**QUICK, "model": str(tiny_checkpoint), "output": str(tmp_path / "run"), **options})

    return call


def test_run_folder(text_run: Run) -> None:
    found = sorted(path.relative_to(text_run.path).as_posix() for path in text_run.path.rglob("*") if path.is_file())
    checkpoint = [name for name in found if name.startswith("checkpoints/")]
    assert {Path(name).name for name in checkpoint} == {
        "manifest.json",
        "metrics.jsonl",
        "model.safetensors",
        "optimizer.safetensors",
        "run.json",
        "state.json",
    }
    assert [name for name in found if name not in checkpoint] == [
        "analysis.json",
        "audit.json",
        "config.yaml",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "model/README.md",
        "model/calibration.json",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "predictions/validation.parquet",
        "summary.json",
    ]


def test_summary(text_run: Run, tiny_csv: Path) -> None:
    summary = json.loads((text_run.path / "summary.json").read_text())
    assert summary == text_run.summary
    assert list(summary) == ["selected", "validation", "training"]
    validation = summary["validation"]
    assert list(validation)[:2] == ["accuracy", "f1"]
    assert list(validation)[-5:] == ["per_class", "calibration", "positive_label", "baseline", "num_rows"]
    assert all(list(validation[name])[:2] == ["value", "interval"] for name in list(validation)[:-5])
    assert list(validation["per_class"]) == ["negative", "positive"]
    assert validation["num_rows"] == 6, "a tenth of 64 rows"
    assert summary["selected"] == {
        "weights": "best",
        "step": 8,
        "epoch": 1.0,
        "split": "validation",
        "metric": "accuracy",
        "failed": "it says 'positive' of every row",
        "note": "accuracy on validation chose the weights, so the figures of validation are optimistic, and there is "
        "no labelled test split to say by how much.",
    }
    training = summary["training"]
    assert (training["steps"], training["epochs"], training["stop_reason"]) == (8, 1.0, None)
    assert training["precision"] == "fp32"
    assert all(training[name] > 0 for name in ("seconds", "seconds_in_all", "samples_per_second", "peak_memory_mib"))
    assert training["seconds_in_all"] > training["seconds"]


def test_metrics_file(text_run: Run) -> None:
    records = text_run.metrics
    logs = [record for record in records if record["kind"] == "training"]
    assert [record["step"] for record in logs] == list(range(1, 9)), "fewer than twenty steps: each is logged"
    (evaluation,) = (record for record in records if record["kind"] == "evaluation")
    assert (evaluation["split"], evaluation["step"], evaluation["best"]) == ("validation", 8, True)
    assert evaluation["accuracy"] == text_run.summary["validation"]["accuracy"]["value"]


def test_data_json(text_run: Run, tiny_csv: Path) -> None:
    data = text_run.data
    assert data["source"] == str(tiny_csv)
    assert data["schema"]["label_names"] == ["negative", "positive"]
    assert len(data["fingerprint"]) == 64
    assert {name: split["rows"] for name, split in data["splits"].items()} == {"train": 58, "validation": 6}
    assert data["max_length"] == 64
    assert data["splits"]["train"]["lengths"]["truncated_rows"] == 0
    assert any("no validation split: 6 of 64 training rows" in note for note in data["notes"])


def test_environment_json(text_run: Run) -> None:
    environment = text_run.environment
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["arithmetic"]["precision"] == "fp32"
    assert environment["arithmetic"]["reason"].startswith("fp32: as asked")


def test_config_yaml_is_resolved_and_trains_again(text_run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    config = text_run.config
    assert (config.tokens.max_length, config.training.duration, config.training.seed) == (64, "1epochs", 42)
    assert config.model.checkpoint == str(tiny_checkpoint)
    again = train(config=text_run.path / "config.yaml", output=str(tmp_path / "again"), display=QUICK["display"])
    assert again.predictions("validation").equals(text_run.predictions("validation"))
    assert again.summary["validation"] == text_run.summary["validation"]


def test_predictions_file(text_run: Run) -> None:
    table = text_run.predictions("validation")
    assert table.column_names == ["id", "label", "prediction", "score_negative", "score_positive"]
    accuracy = np.mean([row["label"] == row["prediction"] for row in table.to_pylist()])
    assert accuracy == pytest.approx(text_run.summary["validation"]["accuracy"]["value"])


def pipeline(folder: Path, inputs: list[Any], **options: Any) -> list[dict[str, float]]:
    from transformers import pipeline as make

    classify = make("text-classification", model=str(folder), device="cpu")
    return [{item["label"]: item["score"] for item in row} for row in classify(inputs, top_k=None, **options)]


def assert_pipeline_agrees(run: Run, rows: list[dict[str, Any]], **options: Any) -> None:
    """What predictions/validation.parquet holds is what transformers' pipeline says of the same rows."""
    for row, expected in zip(
        run.predictions("validation").to_pylist(), pipeline(run.model_path, rows, **options), strict=True
    ):
        assert {name: row[f"score_{name}"] for name in expected} == pytest.approx(expected, abs=1e-5)


def validation_texts(run: Run, data: Path) -> list[str]:
    """The texts of the rows that were set aside from a CSV file, in the order of the predictions."""
    with data.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [rows[number - 1]["text"] for number in run.predictions("validation").column("id").to_pylist()]


def test_pipeline_gives_the_same_scores_for_texts(text_run: Run, tiny_csv: Path) -> None:
    assert_pipeline_agrees(text_run, validation_texts(text_run, tiny_csv))


def test_pipeline_gives_the_same_scores_for_pairs(pair_run: Run) -> None:
    rows = {row["idx"]: row for row in pair_rows()}
    ids = pair_run.predictions("validation").column("id").to_pylist()
    inputs = [{"text": rows[idx]["sentence1"], "text_pair": rows[idx]["sentence2"]} for idx in ids]
    assert_pipeline_agrees(pair_run, inputs)
    assert list(pair_run.summary["validation"])[:2] == ["accuracy", "f1"]


def test_multi_label(multi_label_run: Run) -> None:
    summary = multi_label_run.summary["validation"]
    assert list(summary)[:4] == ["f1_micro", "accuracy", "f1_macro", "f1_weighted"]
    rows = multi_label_rows()
    table = multi_label_run.predictions("validation")
    chosen = [rows[number - 1] for number in table.column("id").to_pylist()]
    assert table.column("label").to_pylist() == [row["labels"] for row in chosen]
    texts = [row["text"] for row in chosen]
    assert_pipeline_agrees(multi_label_run, texts, function_to_apply="sigmoid")
    config = json.loads((multi_label_run.model_path / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "art", "1": "food"}


def test_regression(regression_run: Run) -> None:
    summary = regression_run.summary["validation"]
    assert list(summary) == ["pearson", "spearmanr", "rmse", "loss", "baseline", "num_rows"]
    assert summary["rmse"]["value"] == pytest.approx(math.sqrt(summary["loss"]["value"]), rel=1e-6)
    rows = regression_rows()
    for row in regression_run.predictions("validation").to_pylist():
        assert row["label"] == pytest.approx(rows[row["id"] - 1]["score"], abs=1e-6)
        (expected,) = pipeline(regression_run.model_path, [rows[row["id"] - 1]["text"]], function_to_apply="none")
        assert row["prediction"] == pytest.approx(expected["LABEL_0"], abs=1e-5)


def test_csv_and_json_lines_of_the_same_rows_give_the_same_run(
    text_run: Run, quickly: Any, tmp_path: Path, tiny_rows: list[dict[str, str]]
) -> None:
    run = quickly(write_json_lines(tmp_path / "reviews.jsonl", tiny_rows))
    assert run.predictions("validation").equals(text_run.predictions("validation"))
    assert run.summary["validation"] == text_run.summary["validation"]


def test_it_learns(quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, epochs=8, learning_rate=1e-2, validation_fraction=0.25)
    assert run.summary["validation"]["accuracy"]["value"] > 0.9
    logs = [record for record in run.metrics if record["kind"] == "training"]
    assert logs[-1]["loss"] < logs[0]["loss"] / 2


def split_files(folder: Path, rows: list[dict[str, Any]], **sizes: int) -> Path:
    """A folder with one file for each split."""
    folder.mkdir()
    start = 0
    for name, size in sizes.items():
        write_json_lines(folder / f"{name}.jsonl", rows[start : start + size])
        start += size
    return folder


def test_splits_of_the_data(quickly: Any, tmp_path: Path, tiny_rows: list[dict[str, str]]) -> None:
    """The form of MRPC's summary."""
    run = quickly(split_files(tmp_path / "data", tiny_rows, train=40, validation=12, test=12))
    summary = run.summary
    assert set(summary) == {"selected", "validation", "test", "training"}
    for split in ("validation", "test"):
        assert {"accuracy", "f1"} < set(summary[split])
        assert 0 <= summary[split]["accuracy"]["value"] <= 1
        assert summary[split]["num_rows"] == 12
    assert sorted(path.name for path in run.predictions_path.iterdir()) == ["test.parquet", "validation.parquet"]


def test_unlabelled_test_split_gets_predictions_only(
    quickly: Any, tmp_path: Path, tiny_rows: list[dict[str, Any]]
) -> None:
    data = split_files(tmp_path / "data", tiny_rows, train=40, validation=12)
    write_json_lines(data / "test.jsonl", [{"text": row["text"]} for row in tiny_rows[52:]])
    run = quickly(data)
    assert "test" not in run.summary
    table = run.predictions("test")
    assert table.column_names == ["id", "prediction", "score_negative", "score_positive"]
    assert len(table) == 12
    assert run.data["splits"]["test"]["labelled"] is False


class Values(Callback):
    """Remembers the evaluations."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def on_evaluate(self, state: TrainingState, record: dict[str, Any]) -> None:
        self.records.append(dict(record))


def test_best_weights_are_the_result(quickly: Any, tiny_csv: Path) -> None:
    """A learning rate at which the evaluations go up and down."""
    watch = Values()
    run = quickly(tiny_csv, epochs=4, learning_rate=2e-2, metric="loss", callbacks=[watch])
    losses = [record["loss"] for record in watch.records]
    best = int(np.argmin(losses))
    assert run.summary["selected"]["step"] == watch.records[best]["step"]
    assert run.summary["validation"]["loss"]["value"] == pytest.approx(losses[best], rel=1e-6)
    assert [record["best"] for record in watch.records] == [
        loss < min([math.inf, *losses[:number]]) for number, loss in enumerate(losses)
    ]


def test_last_weights_are_the_result_where_asked(quickly: Any, tiny_csv: Path) -> None:
    watch = Values()
    run = quickly(tiny_csv, epochs=4, learning_rate=2e-2, metric="loss", select="last", callbacks=[watch])
    assert run.summary["selected"] | {"epoch": 0} == {
        "weights": "last",
        "step": 32,
        "epoch": 0,
        "split": "validation",
        "metric": "loss",
        "failed": None,
        "note": None,
    }
    assert run.summary["validation"]["loss"]["value"] == pytest.approx(watch.records[-1]["loss"], rel=1e-6)


def test_metric_choice(quickly: Any, tiny_csv: Path) -> None:
    assert quickly(tiny_csv, metric="f1_macro").summary["selected"]["metric"] == "f1_macro"


def test_unknown_metric_is_refused_before_the_folder_is_made(quickly: Any, tiny_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found 'f1_marco'. Did you mean 'f1_macro'\?"):
        quickly(tiny_csv, metric="f1_marco")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_learned_nothing_says_so(quickly: Any, tiny_csv: Path) -> None:
    listening = Listening()
    run = quickly(tiny_csv, learning_rate=1e-12, display=listening)
    assert f"this model has learned nothing: {run.summary['selected']['failed']}." in listening.said[-1]
    assert "**This model has learned nothing**: " in (run.model_path / "README.md").read_text(encoding="utf-8")
    assert quickly(tiny_csv, epochs=8, learning_rate=1e-2, overwrite=True).summary["selected"]["failed"] is None


def test_early_stopping(quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, epochs=20, learning_rate=1e-12, patience=2, evaluate_every="1epoch")
    training = run.summary["training"]
    assert (training["epochs"], training["stop_reason"]) == (3.0, "no better evaluation in 2")


def stored(run: Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.model_path / "model.safetensors")


def test_class_weights_change_training_but_not_the_reported_loss(quickly: Any, tiny_csv: Path, tmp_path: Path) -> None:
    plain = quickly(tiny_csv)
    weighted = quickly(tiny_csv, class_weights="1,50", epochs=3, output=str(tmp_path / "weighted"))
    assert set(weighted.predictions("validation").column("prediction").to_pylist()) == {"positive"}
    assert not torch.equal(stored(plain)["classifier.weight"], stored(weighted)["classifier.weight"])
    table = weighted.predictions("validation").to_pylist()
    expected = -np.mean([math.log(row[f"score_{row['label']}"]) for row in table])
    assert weighted.summary["validation"]["loss"]["value"] == pytest.approx(expected, rel=1e-4)


def test_balanced_weights_of_balanced_data_change_nothing(text_run: Run, quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, class_weights="balanced")
    assert run.summary["validation"]["loss"]["value"] == pytest.approx(
        text_run.summary["validation"]["loss"]["value"], rel=1e-4
    )


def test_frozen_encoder_keeps_its_weights(quickly: Any, tiny_csv: Path, tiny_checkpoint: Path) -> None:
    from safetensors.torch import load_file

    run = quickly(tiny_csv, settings={"model.freeze": "encoder"})
    before = load_file(tiny_checkpoint / "model.safetensors")
    after = stored(run)
    for name, tensor in before.items():
        assert torch.equal(after[f"bert.{name}"], tensor) == (not name.startswith("pooler.")), name


def test_label_smoothing_changes_training(text_run: Run, quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, settings={"training.label_smoothing": 0.3})
    assert run.metrics[0]["loss"] != text_run.metrics[0]["loss"]


def test_accumulation_and_batch_size_give_the_same_weights(quickly: Any, tiny_csv: Path, tmp_path: Path) -> None:
    found = []
    for size, accumulation in ((16, 1), (4, 4)):
        run = quickly(
            tiny_csv,
            batch_size=size,
            accumulation=accumulation,
            learning_rate=5e-5,
            settings={"model.dropout": 0.0},
            output=str(tmp_path / str(size)),
        )
        found.append(run.predictions("validation"))
    for name in ("score_negative", "score_positive"):
        np.testing.assert_allclose(found[0].column(name), found[1].column(name), atol=1e-6)


def test_same_seed_gives_the_same_run_and_another_seed_another(
    text_run: Run, quickly: Any, tiny_csv: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)  # what happened before does not matter
    again = quickly(tiny_csv)
    assert all(torch.equal(tensor, stored(text_run)[name]) for name, tensor in stored(again).items())
    other = quickly(tiny_csv, seed=1, output=str(tmp_path / "other"))
    assert not torch.equal(stored(other)["classifier.weight"], stored(again)["classifier.weight"])


def test_training_leaves_torch_as_it_was(quickly: Any, tiny_csv: Path) -> None:
    torch.set_float32_matmul_precision("highest")
    quickly(tiny_csv)
    assert torch.get_float32_matmul_precision() == "highest"


def test_bf16_trains_fp32_weights_that_are_scored_in_fp32(quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, precision="bf16", epochs=8, learning_rate=1e-2, validation_fraction=0.25)
    assert run.summary["training"]["precision"] == "bf16"
    assert run.summary["validation"]["accuracy"]["value"] > 0.9
    assert {tensor.dtype for tensor in stored(run).values()} == {torch.float32}
    assert_pipeline_agrees(run, validation_texts(run, tiny_csv))


def test_a_tracker_gets_the_figures_of_metrics_jsonl(quickly: Any, tiny_csv: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = quickly(tiny_csv, tracker="tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    logged = [record["loss"] for record in run.metrics if record["kind"] == "training"]
    assert [item.value for item in events.Scalars("train/loss")] == pytest.approx(logged, rel=1e-6)
    (final,) = events.Scalars("final/validation/accuracy")
    assert final.value == pytest.approx(run.summary["validation"]["accuracy"]["value"])
    assert quickly(tiny_csv, overwrite=True).path == run.path  # what trackers left is the run's own


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is installed and cannot be started."""

    def fail(*arguments: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr("textune.finetune.require_installed", lambda names: None)
    monkeypatch.setattr("textune.report.trackers.require_installed", lambda names: None)
    monkeypatch.setattr("textune.report.trackers._OPEN", {"mlflow": fail})


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("several", [{}, {"seeds": 2}], ids=["one run", "two seeds"])
def test_a_tracker_that_cannot_be_started_leaves_the_folder_free(
    quickly: Any, tiny_csv: Path, tmp_path: Path, several: dict[str, int]
) -> None:
    output = str(tmp_path / "new")
    with pytest.raises(UnavailableError, match="mlflow cannot be started: OSError: no server"):
        quickly(tiny_csv, output=output, tracker="mlflow", **several)
    assert not list(Path(output).iterdir())
    assert quickly(tiny_csv, output=output, **several).is_finished


@pytest.mark.usefixtures("no_server")
def test_a_run_goes_on_without_a_tracker_that_cannot_be_started(quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv)
    (run.path / "summary.json").unlink()
    with pytest.raises(UnavailableError, match="mlflow cannot be started") as caught:
        train(resume=run, tracker="mlflow", display=Display())
    assert str(caught.value.hint).endswith("to resume, say --set run.trackers=null.")
    assert list(run.checkpoints_path.iterdir())
    assert train(resume=run, settings={"run.trackers": None}, display=Display()).is_finished


@pytest.mark.parametrize(("fraction", "rows"), [(0.1, 6), (0.4, 26)])
def test_few_validation_rows_are_said(quickly: Any, tiny_csv: Path, fraction: float, rows: int) -> None:
    listening = Listening()
    run = quickly(tiny_csv, epochs=0.1, validation_fraction=fraction, display=listening)
    assert run.summary["validation"]["num_rows"] == rows
    told = "validation has 6 rows: its figures say little, and which weights are best is decided by them"
    assert any(text.startswith(told) and "--cv 5" in text for text in listening.said) == (rows < 20)


def test_truncation_is_said_and_recorded(quickly: Any, tiny_csv: Path) -> None:
    run = quickly(tiny_csv, max_length=6)
    lengths = run.data["splits"]["train"]["lengths"]
    assert (lengths["longest"], lengths["truncated_rows"] > 0) == (6, True)
    config = json.loads((run.model_path / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 6


def test_scores_that_are_not_finite_end_training(
    quickly: Any, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update can spoil the weights after its own loss was still finite."""

    def spoiled(model: Any, tokens: Any, **options: Any) -> Any:
        logits = np.zeros((len(tokens), 2), np.float32)
        logits[3, 1] = np.nan
        return logits

    monkeypatch.setattr("textune.job.predict_logits", spoiled)
    with pytest.raises(
        TrainingError, match="scores for the row with id 37 of validation are not finite numbers"
    ) as caught:
        quickly(tiny_csv)
    assert "--learning-rate" in str(caught.value.hint)
    assert not (tmp_path / "run" / "summary.json").exists()


class StopAt(Callback):
    """Asks for the end when a step is logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, state: TrainingState, record: dict[str, Any]) -> None:
        if state.step == self.step:
            state.stop_reason = "asked to"


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_stop_between_evaluations(quickly: Any, tiny_csv: Path, select: str) -> None:
    """The figures are those of the weights that are saved, not of the evaluation before."""
    run = quickly(tiny_csv, evaluate_every="2steps", select=select, callbacks=[StopAt(5)])
    assert run.summary["training"]["steps"] == 5
    assert run.summary["training"]["stop_reason"] == "asked to"
    assert_pipeline_agrees(run, validation_texts(run, tiny_csv))


def test_default_output_takes_the_next_free_number(
    in_empty_folder: Path, tiny_csv: Path, tiny_checkpoint: Path
) -> None:
    for number in (1, 2):
        run = train(str(tiny_csv), model=str(tiny_checkpoint), **{**QUICK, "epochs": 0.1})
        assert run.path == Path("runs", f"reviews-{tiny_checkpoint.name}-{number}")


def test_overwrite(quickly: Any, tiny_csv: Path, tmp_path: Path) -> None:
    quickly(tiny_csv)
    (tmp_path / "run" / "mine.txt").write_text("note")
    with pytest.raises(OutputError, match=r"'mine.txt', which is no part of one; nothing was touched"):
        quickly(tiny_csv, overwrite=True)
    (tmp_path / "run" / "mine.txt").unlink()
    with pytest.raises(OutputError, match="already holds a run; nothing was touched"):
        quickly(tiny_csv)
    assert quickly(tiny_csv, overwrite=True, seed=5).config.training.seed == 5


def test_a_file_system_without_locks_is_said(quickly: Any, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    display = Listening()
    run = quickly(tiny_csv, display=display)
    (said,) = [text for text in display.said if "locks" in text]
    assert said.startswith(f"{run.path}: its file system has no locks")
    display.said.clear()
    train(resume=run, display=display)
    assert said in display.said


def test_older_run_stays_when_the_new_one_cannot_begin(quickly: Any, tiny_csv: Path, tmp_path: Path) -> None:
    run = quickly(tiny_csv)
    summary = run.summary
    (tmp_path / "bad.csv").write_text("text,label\ngood,a\n,b\n")
    for mistake in ({"data": tmp_path / "bad.csv"}, {"metric": "nonsense"}, {"class_weights": "1,2,3"}):
        options = {"data": tiny_csv, "overwrite": True, **mistake}
        with pytest.raises((ConfigError, DataError)):
            quickly(options.pop("data"), **options)
        assert run.summary == summary


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rat": 1}, "There is no option 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"lr": 1}, "There is no option 'lr'. Did you mean 'learning_rate'?"),
        ({"learning_rate": "fast", "batch_size": 0}, "--learning-rate (training.learning_rate): expected a number"),
        ({"epochs": "many"}, "--epochs: expected a number above 0 and at most 10^15, found 'many'."),
        ({"epochs": 0}, "--epochs: expected a number above 0 and at most 10^15, found 0."),
        ({"epochs": "nan"}, "--epochs: expected a number above 0 and at most 10^15, found 'nan'."),
        ({"epochs": 10**20}, "--epochs: expected a number above 0 and at most 10^15, found 100000000000000000000."),
        ({"epochs": 1, "duration": "10steps"}, "--epochs and --duration: both say how long to train; give one."),
        ({"settings": {"training.sed": 1}}, "There is no option 'training.sed'. Did you mean 'training.seed'?"),
    ],
)
def test_wrong_options(quickly: Any, tiny_csv: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quickly(tiny_csv, **options)
    assert words in caught.value.message
    named = "--batch-size (training.batch_size): expected a whole number at least 1"
    assert "batch_size" not in options or named in str(caught.value)


def test_rows_in_memory_are_refused_in_few_words(quickly: Any, text_run: Run, tmp_path: Path) -> None:
    """A run remembers where its rows are, so that it can be resumed; the message says how to put them somewhere."""
    rows = [{"text": "good", "label": "yes"}] * 5000
    for call in (
        lambda: train(rows),  # type: ignore[arg-type]
        lambda: train(Dataset.from_list(rows)),  # type: ignore[arg-type]
        lambda: evaluate(text_run, rows),  # type: ignore[arg-type]
    ):
        with pytest.raises(
            ConfigError, match="data: expected the name of a file, a folder or a data set, found a"
        ) as caught:
            call()
        assert len(str(caught.value)) < 400
        assert "save_to_disk" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("epochs", "duration"),
    [
        (3, "3epochs"),
        ("2.50", "2.5epochs"),
        (0.1, "0.1epochs"),
        (100000.5, "100000.5epochs"),
        ("1234567", "1234567epochs"),
        (1e-5, "0.00001epochs"),
        (np.float64(1200), "1200epochs"),
    ],
)
def test_epochs_are_taken_as_they_are(epochs: Any, duration: str) -> None:
    assert resolve_options(None, {"epochs": epochs}, {}).training.duration == duration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "f2"}, "--metric: expected one of accuracy, f1"),
        ({"class_weights": "1,2,3"}, r"--class-weights \(training.class_weights\): expected 2 numbers, one per label"),
        ({"patience": 2, "validation_fraction": 0}, "--patience needs validation rows"),
        (
            {"problem_type": "multi_label_classification", "settings": {"training.label_smoothing": 0.1}},
            "training.label_smoothing works with single labels",
        ),
    ],
)
def test_what_the_data_do_not_allow_is_said_before_the_model_is_loaded(
    quickly: Any, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.delattr("textune.finetune.load")
    with pytest.raises(ConfigError, match=words):
        quickly(tiny_csv, **options)


def test_what_the_machine_does_not_allow_is_said_before_the_data_are_read(
    quickly: Any, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("textune.finetune.prepare_training")
    with pytest.raises(ConfigError, match=r"--precision \(training.precision\): fp16 needs a CUDA device, found cpu"):
        quickly(tiny_csv, precision="fp16", settings={"training.device": "cpu"})


def test_config_object_and_options_together(tiny_csv: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = Config(
        training=TrainingConfig(seed=9, duration="2steps", precision="fp32"),
        run=RunConfig(output=str(tmp_path / "run")),
    )
    run = train(str(tiny_csv), config=config, model=str(tiny_checkpoint), batch_size=4, display=QUICK["display"])
    assert (run.config.training.seed, run.config.training.batch_size) == (9, 4)
    assert run.summary["training"]["steps"] == 2


def test_options_win_over_the_file(tiny_csv: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump({"training": {"seed": 3, "duration": "1steps"}, "run": {"output": str(tmp_path / "run")}})
    )
    run = train(
        str(tiny_csv), config=file, model=str(tiny_checkpoint), seed=4, precision="fp32", display=QUICK["display"]
    )
    assert (run.config.training.seed, run.config.training.duration) == (4, "1steps")


def test_evaluate_gives_the_scores_of_training(quickly: Any, tmp_path: Path, tiny_rows: list[dict[str, str]]) -> None:
    data = split_files(tmp_path / "data", tiny_rows, train=40, validation=12, test=12)
    run = quickly(data)
    for way in (run, run.path, str(run.model_path)):
        scores = evaluate(way, str(data), display=QUICK["display"])
        assert list(scores) == ["train", "validation", "test"]
        for split in ("validation", "test"):
            found = scores[split].metrics
            expected = {name: run.summary[split][name]["value"] for name in found}
            assert found == pytest.approx(expected, abs=1e-6)


def test_evaluate_says_which_rows_were_trained_on(
    text_run: Run, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, other = tmp_path / "copy.csv", tmp_path / "other.csv"
    copy.write_bytes(tiny_csv.read_bytes())
    other.write_text("".join(tiny_csv.read_text().splitlines(keepends=True)[:9]))
    monkeypatch.chdir(tiny_csv.parent)
    for data, is_same in ((tiny_csv, True), (tiny_csv.name, True), (copy, True), (other, False)):
        listening = Listening()
        evaluate(text_run, str(data), display=listening)
        assert [text.startswith(f"{data} is what this run was trained on") for text in listening.said] == [
            True
        ] * is_same


def test_evaluate_other_columns(text_run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    rows = [
        f"the film was {word};{name}" for name, words in (("positive", PRAISE), ("negative", BLAME)) for word in words
    ]
    other.write_text("\n".join(["review;stars", *rows]) + "\n")
    scores = evaluate(
        text_run, str(other), text="review", label="stars", delimiter=";", batch_size=3, display=QUICK["display"]
    )
    assert scores["data"].num_rows == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"txt": "a"}, "There is no option 'txt'. Did you mean 'text'?"),
        ({"learning_rate": 1}, "There is no option 'learning_rate'."),
        ({"model": "starter"}, "There is no option 'model'."),
    ],
)
def test_evaluate_refuses_what_it_does_not_use(
    text_run: Run, tiny_csv: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(text_run, str(tiny_csv), display=QUICK["display"], **options)
    assert caught.value.message.startswith(words)


def test_evaluate_needs_a_run(tiny_model_folder: Any, tiny_csv: Path) -> None:
    folder = tiny_model_folder("bert", label_names=["negative", "positive"])
    with pytest.raises(CheckpointError, match="is not a run of textune"):
        evaluate(folder, str(tiny_csv), display=QUICK["display"])


def test_evaluate_names_labels_that_training_did_not_know(text_run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nthe film was good,positive\nbad,negativ\n")
    with pytest.raises(DataError, match=r"row 2: column 'label': 'negativ' is not a label.*Did you mean 'negative'"):
        evaluate(text_run, str(other), display=QUICK["display"])


def test_card_is_valid_and_holds_the_figures(text_run: Run) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(text_run.model_path / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-classification"
    results = {(item.dataset_split, item.metric_type): item.metric_value for item in card.data.eval_results}
    assert results["validation", "accuracy"] == text_run.summary["validation"]["accuracy"]["value"]
    value = 100 * text_run.summary["validation"]["accuracy"]["value"]
    assert f"| accuracy % | {value:.1f} [" in card.text
    assert "`negative`, `positive`" in card.text
