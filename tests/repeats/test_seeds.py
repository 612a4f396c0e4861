"""Several seeds of one recipe."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trained import QUICK

from faults.material import write_json_lines
from textune.comparison import compare
from textune.display import Display
from textune.errors import (
    CheckpointError,
    ConfigError,
    InputNotFoundError,
    Interrupted,
    OutOfMemoryError,
    OutputError,
    TrainingError,
)
from textune.finetune import train
from textune.lock import run_lock
from textune.report.write import write_report
from textune.run import Run
from textune.serving.predictor import Predictor
from textune.training.callbacks import Callback
from textune.training.state import TrainingState

SEEDS = [7, 8, 9]
Begin = Callable[..., Run]


class Said(Display):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warning = note


class Ending(Callback):
    """Ends the training with this number, counted from 0, after its second step."""

    def __init__(self, number: int, how: Callable[[TrainingState], None]) -> None:
        self.begun, self.number, self.how = -1, number, how

    def on_train_begin(self, state: TrainingState) -> None:
        self.begun += 1

    def on_step(self, state: TrainingState) -> None:
        if (self.begun, state.step) == (self.number, 2):
            self.how(state)


def interrupt(state: TrainingState) -> None:
    state.requests.interrupt = 15


def kill(state: TrainingState) -> None:
    raise KeyboardInterrupt


def diverge(state: TrainingState) -> None:
    raise TrainingError("Step 2 gave a loss that is not finite.")


def run_short(state: TrainingState) -> None:
    raise OutOfMemoryError("Step 2 found no memory.", hint="Shorten the texts.")


@pytest.fixture(scope="module")
def begin(tiny_csv: Path, tiny_checkpoint: Path) -> Begin:
    def call(output: Path, **options: Any) -> Run:
        values = {**QUICK, "seed": SEEDS[0], "epochs": 6, "learning_rate": 1e-2, "validation_fraction": 0.25, **options}
        return train(values.pop("data", str(tiny_csv)), model=str(tiny_checkpoint), output=str(output), **values)

    return call


@pytest.fixture(scope="module")
def whole(begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three seeds that were never interrupted."""
    return begin(tmp_path_factory.mktemp("runs") / "whole", seeds=3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(found: Run, expected: Run) -> None:
    tensors = weights(found.model_path)
    for name, tensor in weights(expected.model_path).items():
        assert torch.equal(tensors[name], tensor), name
    assert found.predictions("validation").equals(expected.predictions("validation"))
    for part in ("selected", "validation"):
        assert found.summary[part] == expected.summary[part]


def test_each_is_the_run_of_that_seed_alone(whole: Run, begin: Begin, tmp_path: Path) -> None:
    assert [run.path.name for run in whole.runs] == [f"seed-{seed}" for seed in SEEDS]
    alone = begin(tmp_path / "alone", seed=SEEDS[1], settings={"data.split_seed": SEEDS[0]})
    assert_same(whole.runs[1], alone)
    assert whole.runs[1].config.training.seed == SEEDS[1]


def test_all_are_measured_on_the_same_rows(whole: Run) -> None:
    ids = {tuple(run.predictions("validation")["id"].to_pylist()) for run in whole.runs}
    assert len(ids) == 1
    finals = [weights(run.model_path)["classifier.weight"] for run in whole.runs]
    assert not torch.equal(finals[0], finals[1])


def test_figures_are_means(whole: Run) -> None:
    summary = whole.summary
    assert summary["kind"] == "seeds"
    for name in ("accuracy", "f1_macro", "loss"):
        values = [run.summary["validation"][name]["value"] for run in whole.runs]
        entry = summary["validation"][name]
        assert entry["values"] == values
        assert entry["value"] == pytest.approx(np.mean(values))
        assert entry["deviation"] == pytest.approx(np.std(values, ddof=1))
    low, high = summary["validation"]["accuracy"]["interval"]
    assert 0 <= low <= summary["validation"]["accuracy"]["value"] <= high <= 1
    assert [run["seed"] for run in summary["runs"]] == SEEDS
    assert summary["validation"]["num_rows"] == 16


def test_the_best_on_validation_is_kept_and_used(whole: Run) -> None:
    summary = whole.summary
    of_run = {run["name"]: run["validation"]["accuracy"] for run in summary["runs"]}
    kept = summary["selected"]["run"]
    assert of_run[kept] == max(of_run.values())
    assert f"{kept} was chosen of 3 seeds by accuracy on validation" in summary["selected"]["note"]
    run = next(run for run in whole.runs if run.path.name == kept)
    assert (whole.model_path / "model.safetensors").read_bytes() == (run.model_path / "model.safetensors").read_bytes()
    card = (whole.model_path / "README.md").read_text()
    assert "## One of several seeds" in card
    assert "accuracy on validation: mean" in card
    texts = ["the film was good .", "the film was very bad"]
    assert Predictor.load(whole).predict(texts) == Predictor.load(run).predict(texts)


def test_the_folder_can_be_compared_and_reported(whole: Run, tmp_path: Path) -> None:
    comparison = compare(whole.path, whole.runs[0].path)
    assert comparison.figures["accuracy"][0].value == pytest.approx(whole.summary["validation"]["accuracy"]["value"])
    page, problems = write_report([whole.path], output=tmp_path / "page.html")
    assert problems == []
    text = page.read_text()
    assert "whole: 3 seeds" in text
    assert whole.summary["selected"]["note"] in text
    assert all(run.path.name in text for run in whole.runs)


def test_two_folders_of_seeds_are_compared_in_a_report_as_two_recipes(whole: Run, tmp_path: Path) -> None:
    other = Path(shutil.copytree(whole.path, tmp_path / "other"))
    page, problems = write_report([whole.path, other], output=tmp_path / "page.html")
    assert problems == []
    text = page.read_text()
    assert "whole and other have the same accuracy" in text
    assert "seed-7 and" not in text and "better than" not in text and "note: one training" not in text
    assert all(str(run.path) in text for run in (*whole.runs, *Run(other).runs))
    (other / "seed-9" / "summary.json").unlink()
    page, problems = write_report([whole.path, other], output=page, overwrite=True)
    assert len(problems) == 1 and problems[0].startswith("This run has not finished")
    assert f"note: {other}: left out, not finished: seed-9" in page.read_text()


def test_a_report_says_what_is_missing_of_the_whole(whole: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.path, tmp_path / "runs"))
    (folder / "summary.json").unlink()
    page, problems = write_report([folder])
    assert problems == ["This run has not finished: it has no summary.json. What there is so far is shown."]
    assert f"runs: {problems[0]}" in page.read_text()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_interrupted_within_a_run(whole: Run, begin: Begin, tmp_path: Path, number: int) -> None:
    with pytest.raises(Interrupted) as caught:
        begin(tmp_path / "cut", seeds=3, callbacks=[Ending(number, interrupt)])
    assert caught.value.hint == f"`textune train --resume {tmp_path / 'cut'}` goes on from there."
    assert caught.value.exit_code == 143
    assert len(Run.open(tmp_path / "cut").runs) == number + 1
    assert not Run.open(tmp_path / "cut").is_finished
    found = train(resume=tmp_path / "cut", display=Display())
    for run, expected in zip(found.runs, whole.runs, strict=True):
        assert_same(run, expected)
    for part in ("validation", "runs", "selected"):
        assert found.summary[part] == whole.summary[part]


def test_killed_within_a_run_and_between_runs(whole: Run, begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "cut", seeds=3, callbacks=[Ending(1, kill)])
    between = tmp_path / "between"
    shutil.copytree(tmp_path / "cut", between)
    shutil.rmtree(between / "seed-8")
    for folder in (tmp_path / "cut", between):
        found = train(resume=folder, display=Display())
        for run, expected in zip(found.runs, whole.runs, strict=True):
            assert_same(run, expected)


def test_what_is_finished_stays(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "runs")
    said = Said()
    train(resume=tmp_path / "runs", display=said)
    assert said.said == [f"{tmp_path / 'runs'} is finished: there is nothing to go on with"]
    said = Said()
    found = train(resume=tmp_path / "runs", seeds=4, display=said)
    assert [run.path.name for run in found.runs] == ["seed-7", "seed-8", "seed-9", "seed-10"]
    assert len(found.summary["validation"]["accuracy"]["values"]) == 4
    assert found.config.run.seeds == 4
    assert sum("is finished" in text for text in said.said) == 3
    for run, expected in zip(found.runs, whole.runs, strict=False):
        assert_same(run, expected)


def test_a_finished_whole_gets_what_a_kill_left_undone(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    (folder / ".model.tmp-1-2").mkdir()
    (folder / ".model.old-1-2").mkdir()
    (folder / ".mine.tmp-1").touch()
    monkeypatch.setattr("textune.results.write_report", lambda runs: (runs[0] / "report.html").touch())
    train(resume=folder, settings={"run.report": False}, display=Display())
    assert not (folder / "report.html").exists()
    train(resume=folder, display=Display())
    assert (folder / "report.html").exists()
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] == [".mine.tmp-1"]


def test_a_finished_whole_needs_no_data(whole: Run, tmp_path: Path) -> None:
    folder, gone = tmp_path / "runs", str(tmp_path / "gone.csv")
    shutil.copytree(whole.path, folder)
    config = Run(folder).config
    Run(folder).write_config(dataclasses.replace(config, data=dataclasses.replace(config.data, source=gone)))
    said = Said()
    train(resume=folder, display=said)
    assert said.said == [f"{folder} is finished: there is nothing to go on with"]


def test_a_finished_whole_has_other_data_refused(whole: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    with pytest.raises(InputNotFoundError, match=r"There is no file '.*gone\.csv'"):
        train(str(tmp_path / "gone.csv"), resume=folder, display=Display())
    assert Run(folder).is_finished


def test_of_a_finished_whole_with_its_data_elsewhere_no_run_begins_anew(
    whole: Run, tiny_csv: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    shutil.copy(tiny_csv, tmp_path / "moved.csv")
    said = Said()
    found = train(str(tmp_path / "moved.csv"), resume=folder, display=said)
    assert sum("is finished" in text for text in said.said) == len(whole.runs)
    for run, expected in zip(found.runs, whole.runs, strict=True):
        assert_same(run, expected)


@pytest.fixture
def corrected(tiny_csv: Path, tmp_path: Path) -> Path:
    """The data with another word in one text."""
    path = tmp_path / "corrected.csv"
    path.write_text(tiny_csv.read_text().replace("good", "great", 1))
    return path


def test_data_that_changed_between_seeds_are_refused(whole: Run, corrected: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    for without in ("nothing", "checkpoints"):
        for run in Run(folder).runs:
            shutil.rmtree(run.path / without, ignore_errors=True)
        with pytest.raises(CheckpointError, match=r"seed-7.* data, fingerprint: recorded '.*', now '") as caught:
            train(str(corrected), resume=folder, seeds=4, display=Display())
        assert "--allow-changes" in str(caught.value.hint)
        assert (folder / "summary.json").read_bytes() == (whole.path / "summary.json").read_bytes()
        assert Run(folder).config == whole.config
    longer = tmp_path / "longer.csv"
    longer.write_text(corrected.read_text() + "".join(f"one more {row},positive\n" for row in range(4)))
    with pytest.raises(CheckpointError, match="seed-7' predicted other rows of validation than there are now"):
        train(str(longer), resume=folder, seeds=4, allow_changes=True, display=Display())
    assert Run(folder).is_finished
    said = Said()
    found = train(str(corrected), resume=folder, seeds=4, allow_changes=True, display=said)
    assert len(found.summary["validation"]["accuracy"]["values"]) == 4
    assert sum("changed: data, fingerprint" in text for text in said.said) == 1


def test_labels_that_were_corrected_between_seeds_are_refused(
    begin: Begin, tiny_csv: Path, tiny_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    test = write_json_lines(tmp_path / "test.jsonl", tiny_rows[:20])
    before = begin(folder, seeds=2, epochs=1, test=str(test)).summary
    write_json_lines(test, [{**tiny_rows[0], "label": "negative"}, *tiny_rows[1:20]])
    expected = (
        r"seed-7' was measured with other labels than there are now: 1 of 20 rows of test have another one, first"
    )
    for _ in range(2):
        with pytest.raises(CheckpointError, match=expected):
            train(resume=folder, seeds=3, allow_changes=True, display=Display())
    assert Run(folder).summary == before
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(tiny_csv.read_text().replace(",positive", ",praise"))
    write_json_lines(test, [{**row, "label": row["label"].replace("positive", "praise")} for row in tiny_rows[:20]])
    with pytest.raises(CheckpointError, match="seed-7' was trained for other labels than the data have now"):
        train(str(renamed), resume=folder, seeds=3, allow_changes=True, display=Display())
    assert [run.path.name for run in Run(folder).runs] == ["seed-7", "seed-8"]


def test_a_model_that_changed_between_seeds_is_refused(whole: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "runs", tmp_path / "model"
    shutil.copytree(whole.path, folder)
    shutil.copytree(tiny_checkpoint, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(CheckpointError, match=r"seed-7.* --model, config\.json: recorded"):
        train(model=str(other), resume=folder, seeds=4, display=Display())
    assert Run(folder).is_finished
    assert train(model=str(other), resume=folder, seeds=4, allow_changes=True, display=Display()).is_finished


def test_data_that_change_while_seeds_are_trained(
    begin: Begin, tiny_csv: Path, corrected: Path, tmp_path: Path
) -> None:
    data = tmp_path / "reviews.csv"
    shutil.copyfile(tiny_csv, data)
    correct = Ending(0, lambda state: data.write_text(corrected.read_text()) and None)
    with pytest.raises(CheckpointError, match=r"seed-7.* data, fingerprint: recorded"):
        begin(tmp_path / "runs", data=str(data), seeds=2, epochs=1, callbacks=[correct])
    assert [run.path.name for run in Run(tmp_path / "runs").runs] == ["seed-7"]


def test_what_has_no_checkpoint_yet_may_begin_with_other_data(begin: Begin, corrected: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "runs", seeds=2, epochs=1, callbacks=[Ending(0, kill)])
    assert train(str(corrected), resume=tmp_path / "runs", display=Display()).is_finished


def test_a_later_seed_has_the_threads_of_the_first(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole.path, tmp_path / "runs")
    monkeypatch.setattr("textune.finetune.threads", lambda processes=1: 2)
    found = train(resume=tmp_path / "runs", seeds=4, display=Display())
    assert [run.environment["threads"] for run in found.runs] == [1, 1, 1, 1]


def test_a_seed_that_diverges_is_marked_and_the_others_go_on(begin: Begin, tmp_path: Path) -> None:
    said = Said()
    found = begin(tmp_path / "runs", seeds=3, epochs=1, callbacks=[Ending(1, diverge)], display=said)
    runs = found.summary["runs"]
    assert runs[1] == {"name": "seed-8", "seed": 8, "failed": "Step 2 gave a loss that is not finite."}
    assert len(found.summary["validation"]["accuracy"]["values"]) == 2
    assert "seed-8 has failed: Step 2 gave a loss that is not finite." in said.said
    assert found.summary["validation"]["accuracy"]["num_runs"] == 2
    assert found.summary["selected"]["note"].endswith(" Of 3 seeds 1 diverged (seed-8): the means are those of 2.")


def test_one_seed_that_is_left_has_no_interval_of_the_mean(begin: Begin, tmp_path: Path) -> None:
    found = begin(tmp_path / "runs", seeds=2, epochs=1, callbacks=[Ending(1, diverge)])
    entry = found.summary["validation"]["accuracy"]
    assert (entry["num_runs"], entry["interval"], entry["deviation"]) == (1, None, None)
    assert entry["value"] == found.runs[0].summary["validation"]["accuracy"]["value"]
    assert found.summary["selected"]["note"].endswith("diverged (seed-8): the figures are those of the only one left.")


def test_a_seed_that_diverged_is_trained_again_alone(whole: Run, begin: Begin, tmp_path: Path) -> None:
    begin(tmp_path / "runs", seeds=3, callbacks=[Ending(1, diverge)])
    said = Said()
    assert train(resume=tmp_path / "runs", display=said).summary["runs"][1]["failed"] is not None
    assert f"`textune train --resume {tmp_path / 'runs' / 'seed-8'} --skip-bad-steps 5" in said.said[-1]
    train(resume=tmp_path / "runs" / "seed-8", display=Display())
    found = train(resume=tmp_path / "runs", display=Display())
    for part in ("validation", "runs", "selected"):
        assert found.summary[part] == whole.summary[part]


def test_a_seed_without_memory_ends_all_and_is_trained_later(whole: Run, begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        begin(tmp_path / "runs", seeds=3, callbacks=[Ending(1, run_short)])
    assert caught.value.message == "Step 2 found no memory."
    assert str(caught.value.hint).startswith("Shorten the texts. ")
    assert f"textune train --resume {tmp_path / 'runs'}" in str(caught.value.hint)
    assert not Run.open(tmp_path / "runs").is_finished
    found = train(resume=tmp_path / "runs", display=Display())
    for part in ("validation", "runs", "selected"):
        assert found.summary[part] == whole.summary[part]


def test_all_diverge(begin: Begin, tmp_path: Path) -> None:
    class Diverging(Callback):
        def on_step(self, state: TrainingState) -> None:
            raise TrainingError("It diverges.")

    with pytest.raises(TrainingError, match="It diverges"):
        begin(tmp_path / "runs", seeds=2, callbacks=[Diverging()])
    assert not Run.open(tmp_path / "runs").is_finished


def test_one_that_has_learned_nothing_is_not_kept(begin: Begin, tmp_path: Path) -> None:
    found = begin(tmp_path / "runs", seeds=2, epochs=1, learning_rate=1e-9, precision="fp32")
    for run, entry in zip(found.runs, found.summary["runs"], strict=True):
        predictions = set(run.predictions("validation")["prediction"].to_pylist())
        accuracy = run.summary["validation"]["accuracy"]["value"]
        assert (entry["failed"] is not None) == (len(predictions) == 1 or accuracy <= 0.5)
    marked = [entry for entry in found.summary["runs"] if entry["failed"]]
    assert marked, "weights that have not moved say the same of every row, or no better than that"


def test_test_rows_are_quoted_where_there_are_some(
    begin: Begin, tiny_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    test = write_json_lines(tmp_path / "test.jsonl", tiny_rows[:20])
    found = begin(tmp_path / "runs", seeds=2, epochs=1, test=str(test))
    assert "the mean over seeds on test" in found.summary["selected"]["note"]
    values = [run.summary["test"]["accuracy"]["value"] for run in found.runs]
    assert found.summary["test"]["accuracy"]["value"] == pytest.approx(np.mean(values))
    assert "accuracy on test: mean" in (found.model_path / "README.md").read_text()


def test_without_validation_rows_the_first_is_kept(begin: Begin, tmp_path: Path) -> None:
    found = begin(tmp_path / "runs", seeds=2, epochs=1, validation_fraction=0)
    assert found.summary["selected"]["run"] == "seed-7"
    assert "no validation rows to choose by" in found.summary["selected"]["note"]
    assert found.runs[0].summary["selected"]["weights"] == "last"
    assert found.runs[0].data["splits"]["train"]["rows"] == 64


def test_a_mistake_at_the_beginning_leaves_nothing_in_the_way(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--metric"):
        begin(tmp_path / "runs", seeds=2, metric="f2")
    assert begin(tmp_path / "runs", seeds=2, epochs=1).is_finished


def test_what_cannot_go_on(whole: Run, begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="already holds a run"):
        begin(whole.path, seeds=3)
    with pytest.raises(ConfigError, match=r"training\.seed: recorded 7, now 1"):
        train(resume=whole.path, seed=1)
    with pytest.raises(ConfigError, match="has 3 already, found 2"):
        train(resume=whole.path, seeds=2)
    with pytest.raises(ConfigError, match="holds several runs"):
        train(resume=whole.path, from_checkpoint="step-1")
    with pytest.raises(ConfigError, match="is one run and cannot become several"):
        train(resume=whole.runs[0].path, seeds=2)
    with pytest.raises(ConfigError, match="choose one"):
        begin(tmp_path / "both", seeds=2, cv=2)
    assert not (tmp_path / "both").exists()
    before = json.loads((whole.path / "summary.json").read_text())
    assert whole.summary == before


def test_overwriting_takes_all_runs_and_nothing_else(whole: Run, begin: Begin, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(whole.path, folder)
    with run_lock(folder / "seed-8"), pytest.raises(OutputError, match="is training in"):
        begin(folder, overwrite=True)
    (folder / "seed-8" / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"'mine\.txt', which is no part of one"):
        begin(folder, overwrite=True)
    assert (folder / "seed-7" / "summary.json").exists()
    (folder / "seed-8" / "mine.txt").unlink()
    assert begin(folder, overwrite=True, epochs=1).runs == []
