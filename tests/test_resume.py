"""A run that was interrupted and goes on ends with the bits of one that was not."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trained import QUICK

from textune.display import Display
from textune.environment import PACKAGES
from textune.errors import CheckpointError, ConfigError, InputNotFoundError, Interrupted, OutputError, StorageError
from textune.files import json_text
from textune.finetune import train
from textune.job import Job
from textune.lock import LOCK_FILE, run_lock
from textune.report.write import write_report
from textune.resume import WITHOUT_EFFECT, altering_options
from textune.run import Run
from textune.training.callbacks import Callback
from textune.training.checkpoint import FORMAT_VERSION, _digest, _sealed, committed
from textune.training.state import TrainingState

STEPS = 8
Begin = Callable[..., Run]


class InterruptAt(Callback):
    """As a SIGTERM during these steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_step(self, state: TrainingState) -> None:
        if state.step in self.steps:
            state.requests.interrupt = 15


class KillAt(Callback):
    """Ends training without any clean-up of the loop, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: TrainingState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


class Said(Display):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        if not text.startswith("this model has learned nothing"):  # so small a model seldom has
            self.warnings.append(text)


@pytest.fixture
def begin(tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path) -> Begin:
    """Trains for eight steps with dropout and weight decay; evaluates every third step, logs every second."""

    def call(name: str, settings: dict[str, Any] | None = None, **options: Any) -> Run:
        values = {
            "training.duration": f"{STEPS}steps",
            "training.weight_decay": 0.1,
            "training.log_every": "2steps",
            "model.dropout": 0.1,
            "evaluation.every": "3steps",
            "checkpoint.every": "2steps",
            **(settings or {}),
        }
        chosen = {key: value for key, value in QUICK.items() if key != "epochs"}
        defaults = {"model": str(tiny_checkpoint), "output": str(tmp_path / name)}
        return train(str(tiny_csv), settings=values, **{**chosen, **defaults, **options})

    return call


def resume(run: Run | Path, **options: Any) -> Run:
    return train(resume=run, **{"display": Display(), **options})


def interrupted(begin: Begin, folder: Path, step: int, settings: dict[str, Any] | None = None) -> Path:
    """The folder of a run that was interrupted after a step."""
    with pytest.raises(Interrupted):
        begin(folder.name, settings, callbacks=[InterruptAt(step)])
    return folder


def told(run: Run) -> list[dict[str, Any]]:
    """The log without the clock."""
    return [{name: value for name, value in record.items() if name != "samples_per_second"} for record in run.metrics]


def moments(run: Run) -> dict[str, torch.Tensor]:
    step = committed(run.checkpoints_path)[-1]
    assert step == STEPS
    return load_file(run.checkpoints_path / f"step-{step}" / "optimizer.safetensors")


def assert_same_run(found: Run, expected: Run) -> None:
    for read in (moments, lambda run: load_file(run.model_path / "model.safetensors")):
        tensors = read(found)
        for name, tensor in read(expected).items():
            assert torch.equal(tensors[name], tensor), name
    assert told(found) == told(expected)
    assert found.predictions("validation").equals(expected.predictions("validation"))
    for part in ("selected", "validation"):
        assert found.summary[part] == expected.summary[part]


CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"training.precision": "bf16", "training.layer_decay": 0.9},
    "length": {"training.batching": "length", "training.tokens_per_batch": 40, "evaluation.select": "last"},
    "accumulation": {"training.batch_size": 4, "training.gradient_accumulation_steps": 2, "model.freeze": "1"},
    "plain": {"engine.unpadded": False, "engine.used_rows": False, "training.precision": "bf16"},
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_after_every_step(begin: Begin, tmp_path: Path, case: str) -> None:
    """One run is interrupted after each of its steps in turn, the last included, and goes on each time."""
    whole = begin("whole", CASES[case])
    folder = interrupted(begin, tmp_path / "cut", 1, CASES[case])
    for step in range(2, STEPS + 1):
        with pytest.raises(Interrupted, match=f"training stopped after step {step} of {STEPS}"):
            resume(folder, callbacks=[InterruptAt(step)])
    run = resume(folder)
    assert_same_run(run, whole)
    resumed = run.environment["resumed"]
    assert [entry["step"] for entry in resumed] == list(range(1, STEPS + 1))
    assert all(entry["packages"]["torch"] == torch.__version__ and entry["time"] for entry in resumed)


@pytest.mark.parametrize("step", [3, 7])  # saved at 2 and 6, evaluated at 3 and 6
def test_killed_between_two_checkpoints(begin: Begin, tmp_path: Path, step: int) -> None:
    whole = begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("cut", callbacks=[KillAt(step)])
    said = Said()
    assert_same_run(resume(tmp_path / "cut", display=said), whole)
    assert f"{tmp_path / 'cut'} goes on from step {step - 1}" in said.notes


def test_another_seed_or_a_skipped_batch_is_seen(begin: Begin) -> None:
    """The comparison can fail."""
    whole = begin("whole")
    for name, settings in {"seed": {"training.seed": 1}, "decay": {"training.weight_decay": 0.2}}.items():
        with pytest.raises(AssertionError):
            assert_same_run(begin(name, settings), whole)


def test_an_interruption_adds_nothing_to_the_log(begin: Begin, tmp_path: Path) -> None:
    run = Run.open(interrupted(begin, tmp_path / "cut", 3))
    assert [(record["kind"], record["step"]) for record in run.metrics] == [("training", 2)]
    assert committed(run.checkpoints_path) == [2, 3]
    assert json.loads((run.checkpoints_path / "step-3" / "state.json").read_text())["evaluation_due"] is True
    assert not run.is_finished


def test_a_killed_process_may_leave_anything(begin: Begin, tmp_path: Path) -> None:
    whole = begin("whole")
    folder = interrupted(begin, tmp_path / "cut", 5)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "training", "step": 6}) + "\n{half a li")
    for name in (".step-6.tmp-1", ".step-2.tmp-removed-1"):
        (folder / "checkpoints" / name).mkdir()
    (folder / "checkpoints" / "step-5").rename(folder / "checkpoints" / ".step-5.old-1")  # it was being replaced
    (folder / ".model.tmp-1").mkdir()
    (folder / ".summary.json.tmp-1").write_text("{")
    (folder / LOCK_FILE).write_text("{}")
    run = resume(folder)
    assert_same_run(run, whole)
    assert run.environment["resumed"][0]["step"] == 5
    assert not list(folder.rglob(".*"))
    assert not (folder / LOCK_FILE).exists()


def test_killed_before_the_first_checkpoint(begin: Begin, tmp_path: Path) -> None:
    whole = begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("cut", callbacks=[KillAt(1)])
    said = Said()
    assert_same_run(resume(tmp_path / "cut", display=said), whole)
    assert f"{tmp_path / 'cut'} has no checkpoint yet and starts anew" in said.notes


def test_a_finished_run_says_so(begin: Begin) -> None:
    run = begin("run")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    said = Said()
    assert resume(run, display=said, settings={"checkpoint.every": "10min"}).path == run.path
    assert said.notes == [f"{run.path} is finished: there is nothing to go on with"]
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_finished_run_has_other_data_refused(begin: Begin, tiny_csv: Path, tmp_path: Path) -> None:
    run = begin("run")
    before = stored_files(run.path)
    with pytest.raises(InputNotFoundError, match=r"There is no file '.*gone\.csv'"):
        train(str(tmp_path / "gone.csv"), resume=run, display=Display())
    other = tmp_path / "other.csv"
    other.write_text(tiny_csv.read_text().replace("film", "movie", 1) + "more words,good\n")
    with pytest.raises(CheckpointError, match="cannot go on as it began"):
        train(str(other), resume=run, display=Display())
    assert stored_files(run.path) == before
    shutil.copy(tiny_csv, tmp_path / "moved.csv")
    again = train(str(tmp_path / "moved.csv"), resume=run, display=Display())
    assert again.is_finished
    assert (run.model_path / "model.safetensors").read_bytes() == before["model/model.safetensors"]


def stored_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_before_the_report(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("textune.results.write_report", kill)
        begin("run")
    run = Run.open(tmp_path / "run")
    (run.path / ".report.html.tmp-1").write_text("<ht")
    for name in (".model.tmp-1", ".model.old-1"):
        (run.path / name).mkdir()
        (run.path / name / "model.safetensors").touch()
    said = Said()
    with monkeypatch.context() as patch:
        patch.setattr("textune.results.write_report", write_report)
        resume(run, display=said)
    assert "<html" in (run.path / "report.html").read_text()
    assert not list(run.path.glob(".*"))
    assert (run.model_path / "model.safetensors").stat().st_size
    assert said.notes == [
        f"{run.path} is finished: there is nothing to go on with",
        "report.html was missing and has been written",
    ]
    before = (run.path / "report.html").stat().st_mtime_ns
    resume(run)
    assert (run.path / "report.html").stat().st_mtime_ns == before


def test_no_report_is_made_up_for_where_none_is_wanted(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin("run", {"run.report": False})
    monkeypatch.setattr("textune.results.write_report", kill)
    resume(run)


def kill(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_killed_after_the_last_step(begin: Begin) -> None:
    whole = begin("whole")
    cut = begin("cut")
    (cut.path / "summary.json").unlink()
    assert_same_run(resume(cut), whole)


@pytest.mark.parametrize("name", ["step-4", "4"])
def test_from_an_older_checkpoint(begin: Begin, tmp_path: Path, name: str) -> None:
    whole = begin("whole")
    cut = begin("cut", {"checkpoint.keep": 4})
    assert_same_run(resume(cut, from_checkpoint=name), whole)
    assert cut.environment["resumed"][0]["step"] == 4
    with pytest.raises(InputNotFoundError) as caught:
        resume(cut, from_checkpoint="step-5")
    assert "--from: there is no checkpoint 'step-5'" in caught.value.message
    assert "step-6, step-8." in caught.value.message


class Judged(Callback):
    """Gives the evaluation of a step a value of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: dict[int, float]) -> None:
        self.step, evaluate = 0, Job.evaluate
        monkeypatch.setattr(Job, "evaluate", lambda job: {**evaluate(job), "accuracy": values[self.step]})

    def on_step(self, state: TrainingState) -> None:
        self.step = state.step


def test_each_checkpoint_that_stays_can_be_gone_on_from(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the best weights for the older one are no longer the best."""
    judge = Judged(monkeypatch, {2: 0.8, 4: 0.7, 6: 0.9, 8: 0.1})
    settings = {"evaluation.every": "2steps", "evaluation.metric": "accuracy"}
    whole = begin("whole", settings, callbacks=[judge])
    assert whole.summary["selected"]["step"] == 6
    for asked in (None, "step-4"):
        folder = tmp_path / f"from {asked}"
        with pytest.raises(KeyboardInterrupt):
            begin(folder.name, settings, callbacks=[judge, KillAt(7)])
        assert committed(folder / "checkpoints") == [2, 4, 6]
        if asked is None:
            flip(folder / "checkpoints" / "step-6" / "model.safetensors")
        run = resume(folder, from_checkpoint=asked, callbacks=[judge])
        assert run.environment["resumed"][0]["step"] == 4
        assert_same_run(run, whole)


@pytest.mark.parametrize("log_every", ["1step", "2steps"])
def test_early_stopping_counts_on(begin: Begin, tmp_path: Path, log_every: str) -> None:
    settings = {
        "evaluation.every": "1step",
        "evaluation.patience": 2,
        "training.learning_rate": 1e-12,
        "training.log_every": log_every,
    }
    whole = begin("whole", settings)
    assert whole.summary["training"]["stop_reason"] == "no better evaluation in 2"
    assert [record["step"] for record in whole.metrics if record["kind"] == "training"][-1] == 3
    folder = interrupted(begin, tmp_path / "cut", 2, settings)
    run = resume(folder)
    assert told(run) == told(whole)
    (folder / "summary.json").unlink()
    run = resume(folder)  # killed after the last step: it does not train any further
    assert (run.summary["training"]["steps"], run.summary["training"]["stop_reason"]) == (
        whole.summary["training"]["steps"],
        "no better evaluation in 2",
    )


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "missing": Path.unlink,
}
FILES = ("manifest.json", "metrics.jsonl", "model.safetensors", "optimizer.safetensors", "run.json", "state.json")


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path, tiny_checkpoint: Path) -> Path:
    """A run that was interrupted after step 6, with checkpoints of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Interrupted):
        train(
            str(tiny_csv),
            model=str(tiny_checkpoint),
            output=str(folder),
            select="last",
            settings={"checkpoint.every": "2steps"},
            callbacks=[InterruptAt(6)],
            **QUICK,
        )
    assert sorted(file.name for file in (folder / "checkpoints" / "step-6").iterdir()) == list(FILES)
    return folder


@pytest.fixture
def copy(half_done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(half_done, tmp_path / "run"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_checkpoint_before_is_used(
    copy: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    DAMAGES[damage](copy / "checkpoints" / "step-6" / name)
    chosen: list[int] = []
    monkeypatch.setattr("textune.finetune.fine_tune", lambda *rest, resumption, **all: chosen.append(resumption.step))
    said = Said()
    resume(copy, display=said)
    assert chosen == [4]
    (warning,) = said.warnings
    assert "step-6" in warning and name in warning
    assert warning.endswith("Going on from step-4, the last one that is whole.")


def test_a_damaged_checkpoint_changes_nothing_in_the_end(begin: Begin, tmp_path: Path) -> None:
    whole = begin("whole")
    folder = interrupted(begin, tmp_path / "cut", 7)
    flip(folder / "checkpoints" / "step-7" / "optimizer.safetensors")
    assert_same_run(resume(folder), whole)


def forge(file: Path, change: Callable[[Any], Any]) -> None:
    """Alters a JSON file of a checkpoint, and the manifest with it."""
    file.write_text(json_text(change(json.loads(file.read_text()))))
    files = json.loads((file.parent / "manifest.json").read_text())["files"]
    manifest = _sealed({"format_version": FORMAT_VERSION, "files": {**files, file.name: _digest(file)}})
    (file.parent / "manifest.json").write_text(json_text(manifest))


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("state.json", without("best_step"), "written by another textune: 'best_step' in its state.json"),
        ("state.json", lambda values: {**values, "best_step": "4"}, "state.json is no training's: 'best_step' is '4'"),
        ("state.json", lambda values: [values], "written by another textune: .* in its state.json"),
        ("run.json", without("untrained_decay"), "step-6': 'untrained_decay' in its run.json is not what a run writes"),
        ("run.json", lambda values: {**values, "untrained_decay": [1.0]}, "step-6': 'untrained_decay' in its run.json"),
    ],
)
@pytest.mark.parametrize("select", ["last", "best"])
def test_what_has_been_forged_is_named(
    copy: Path, name: str, change: Callable[[Any], Any], words: str, select: str
) -> None:
    forge(copy / "checkpoints" / "step-6" / name, change)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=words) as caught:
        resume(copy, settings={"evaluation.select": select}, allow_changes=True)
    assert caught.value.hint
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


def test_a_folder_beside_the_checkpoints_is_left_alone(copy: Path) -> None:
    root = copy / "checkpoints"
    shutil.copytree(root / "step-6", root / "step-007")
    run = resume(copy)
    assert run.is_finished
    assert committed(root) == [6, 8] and (root / "step-007").is_dir()


def test_all_checkpoints_damaged(copy: Path) -> None:
    for step in (4, 6):
        flip(copy / "checkpoints" / f"step-{step}" / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        resume(copy)
    assert "No checkpoint in" in caught.value.message
    for step in (4, 6):
        assert f"step-{step}' is damaged: model.safetensors has been cut short or altered." in caught.value.message
    assert "--output FOLDER" in str(caught.value.hint)


def test_the_best_weights_are_damaged(begin: Begin, tmp_path: Path) -> None:
    settings = {"evaluation.metric": "loss", "training.learning_rate": 2e-2, "checkpoint.keep": 8}
    whole = begin("whole", settings)
    best = whole.summary["selected"]["step"]
    assert best < STEPS
    cut = begin("cut", settings)
    (cut.path / "summary.json").unlink()
    (cut.checkpoints_path / f"step-{best}" / "model.safetensors").unlink()
    said = Said()
    assert_same_run(resume(cut, display=said), whole)  # from the last checkpoint that does without them
    assert all("needs the best weights" in text or f"step-{best}'" in text for text in said.warnings)
    assert cut.environment["resumed"][0]["step"] < best


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 7}, "training.seed: recorded 42, now 7."),
        ({"batch_size": 4, "epochs": 2}, "training.duration: recorded '1epochs', now '2epochs'."),
        ({"settings": {"engine.unpadded": False}}, "engine.unpadded: recorded True, now False."),
    ],
)
def test_options_that_alter_the_result_are_refused(copy: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resume(copy, **options)
    assert words in caught.value.problems
    assert "--allow-changes" in str(caught.value.hint)


def test_changes_may_be_allowed(copy: Path) -> None:
    said = Said()
    run = resume(copy, epochs=2, allow_changes=True, display=said)
    assert run.summary["training"]["steps"] == 16
    assert said.warnings == ["changed: training.duration: recorded '1epochs', now '2epochs'"]
    assert run.config.training.duration == "2epochs"
    assert resume(run, epochs=3, allow_changes=True).summary["training"]["steps"] == 24, "a finished run, too"


def test_the_rows_of_a_step_stay_whatever_is_allowed(copy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resume(copy, batch_size=4, allow_changes=True)
    assert "is counted in steps of 8 rows; now they would be of 4 rows" in str(caught.value)
    settings = {"training.gradient_accumulation_steps": 2}
    run = resume(copy, batch_size=4, settings=settings, allow_changes=True)
    assert (run.summary["training"]["steps"], run.summary["training"]["epochs"]) == (STEPS, 1.0)


def test_another_metric_forgets_what_was_best(begin: Begin, tmp_path: Path) -> None:
    """A loss is no accuracy."""
    folder = interrupted(begin, tmp_path / "cut", 5, {"evaluation.metric": "loss"})
    assert json.loads((folder / "checkpoints" / "step-5" / "state.json").read_text())["best_step"] == 3
    run = resume(folder, settings={"evaluation.metric": "accuracy"}, allow_changes=True)
    evaluations = [record for record in run.metrics if "best" in record]
    assert [record["step"] for record in evaluations] == [3, 6, 8]
    assert evaluations[1]["best"], "the first by accuracy"
    assert run.summary["selected"]["metric"] == "accuracy" and run.summary["selected"]["step"] >= 6


def test_moments_of_other_embeddings_begin_anew(copy: Path) -> None:
    """Though they are as many."""
    forge(copy / "checkpoints" / "step-6" / "run.json", lambda values: {**values, "embedding_rows": "0" * 64})
    said = Said()
    resume(copy, epochs=2, allow_changes=True, display=said)
    assert any("word_embeddings.weight: AdamW's moments begin anew" in text for text in said.warnings)


def test_killed_after_changes_were_allowed(copy: Path, tmp_path: Path, tiny_csv: Path) -> None:
    """A scheduler starts it again with --resume alone."""
    other = tmp_path / "other.csv"
    other.write_text(tiny_csv.read_text().replace("negative", "bad"))
    changes: dict[str, Any] = {"epochs": 2, "data": str(other)}
    with pytest.raises(KeyboardInterrupt):
        resume(copy, **changes, allow_changes=True, callbacks=[KillAt(7)])
    with pytest.raises(KeyboardInterrupt):
        resume(copy, callbacks=[KillAt(7)])
    said = Said()
    run = resume(copy, display=said)
    assert run.summary["training"]["steps"] == 16
    assert set(run.predictions("validation")["prediction"].to_pylist()) <= {"bad", "positive"}
    assert "changed: training.duration: recorded '1epochs', now '2epochs'" in said.warnings
    resumed = run.environment["resumed"]
    assert [entry["step"] for entry in resumed] == [6, 6, 6]
    assert all(entry["changes"] == resumed[0]["changes"] for entry in resumed)


def test_nothing_else_than_what_was_allowed_is_changed(copy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        resume(copy, epochs=2, allow_changes=True, callbacks=[KillAt(7)])
    with pytest.raises(ConfigError) as caught:
        resume(copy, epochs=3)
    assert caught.value.problems == ["training.duration: recorded '1epochs', now '3epochs'."]
    with pytest.raises(ConfigError):
        resume(copy, from_checkpoint="step-4")  # of which nothing was said
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("seed: 42", "seed: 7"))
    with pytest.raises(ConfigError) as caught:
        resume(copy)
    assert caught.value.problems == ["training.seed: recorded 42, now 7."]


def test_options_without_effect_are_taken(begin: Begin, tmp_path: Path) -> None:
    whole = begin("whole")
    folder = interrupted(begin, tmp_path / "cut", 3)
    run = resume(folder, settings={"checkpoint.every": "1step", "checkpoint.keep": 5, "tokens.num_workers": 0})
    assert_same_run(run, whole)
    assert committed(run.checkpoints_path)[-5:] == [4, 5, 6, 7, 8]
    assert (run.config.checkpoint.every, run.config.checkpoint.keep) == ("1step", 5)


def test_every_option_is_known_to_alter_the_result_or_not_to() -> None:
    from textune.config import Config
    from textune.config_reading import option_fields

    assert set(option_fields()) >= WITHOUT_EFFECT
    assert set(altering_options(Config())) == set(option_fields()) - WITHOUT_EFFECT


def test_changed_data_are_refused(copy: Path, tmp_path: Path, tiny_rows: list[dict[str, str]]) -> None:
    other = tmp_path / "other.csv"
    lines = [f"{row['text']},{row['label'].replace('negative', 'bad')}" for row in tiny_rows]
    other.write_text("\n".join(["text,label", *lines]) + "\n")
    with pytest.raises(CheckpointError) as caught:
        resume(copy, data=str(other))
    message = caught.value.message
    assert "cannot go on as it began" in message and "data, fingerprint: recorded '" in message
    assert "data, label_names: recorded ['negative', 'positive'], now ['bad', 'positive']" in message
    said = Said()
    assert resume(copy, data=str(other), allow_changes=True, display=said).is_finished
    assert any(text.startswith("changed: data, label_names") for text in said.warnings)
    audit, data = (json.loads((copy / name).read_text()) for name in ("audit.json", "data.json"))
    assert audit["fingerprint"] == data["fingerprint"], "the audit is that of the data trained on"


@pytest.mark.parametrize("contents", [None, "{", "[]"], ids=["missing", "cut off", "a list"])
def test_a_run_goes_on_without_its_environment_json(half_done: Path, copy: Path, contents: str | None) -> None:
    """What the bits rest on is in the checkpoint."""
    path = copy / "environment.json"
    before = json.loads(path.read_text())
    path.unlink()
    if contents is not None:
        path.write_text(contents)
    said = Said()
    run = resume(copy, display=said)
    assert [text for text in said.warnings if "environment.json is missing or damaged" in text]
    assert run.environment["resumed"][0]["step"] == 6
    assert run.environment["arithmetic"] == before["arithmetic"] and run.environment["engine"] == before["engine"]
    assert_same_run(run, resume(Path(shutil.copytree(half_done, copy.with_name("other")))))


def test_the_time_before_an_interruption_counts(half_done: Path, copy: Path) -> None:
    name = Path("checkpoints", "step-6", "run.json")
    assert json.loads((half_done / name).read_text())["seconds"] > 0
    forge(copy / name, lambda values: {**values, "seconds": 1000.0})
    assert resume(copy).summary["training"]["seconds_in_all"] > 1000


def test_data_and_checkpoint_may_have_moved(
    copy: Path, half_done: Path, tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path
) -> None:
    data = shutil.copy(tiny_csv, tmp_path / "moved.csv")
    model = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    assert resume(copy, data=str(data), model=str(model)).is_finished


def test_another_checkpoint_is_refused(copy: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    tensors = {name: tensor + 1 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"--model, model\.safetensors: recorded '"):
        resume(copy, model=str(other))


def test_other_software_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textune.environment.platform.python_version", lambda: "3.99")
    said = Said()
    run = resume(copy, display=said)
    (warning,) = said.warnings
    assert warning.startswith("python was 3.") and "is now 3.99: the result may differ in the last bits" in warning
    assert run.environment["resumed"][0]["python"] == "3.99" != run.environment["python"]


def test_other_variables_and_instructions_are_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "OTHER")
    said = Said()
    resume(copy, display=said)
    before = json.loads((copy / "checkpoints" / "step-6" / "run.json").read_text())["software"]["instructions"]
    assert said.warnings == [
        f"instructions was {before}, is now OTHER: the result may differ in the last bits",
        "ATEN_CPU_CAPABILITY was not set, is now avx2: the result may differ in the last bits",
    ]


def test_what_an_older_textune_did_not_record_is_no_difference(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    folder = copy / "checkpoints" / "step-6"
    names = ("textune", "python", "processor", "device", *PACKAGES)

    def older(values: dict[str, Any]) -> dict[str, Any]:
        software = {name: values["software"][name] for name in names}
        return {name: value for name, value in {**values, "software": software}.items() if name != "seconds"}

    forge(folder / "run.json", older)
    said = Said()
    assert resume(copy, display=said).is_finished
    assert said.warnings == []


def test_recorded_arithmetic_and_threads_are_used_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured_anew(*arguments: Any) -> Any:
        raise AssertionError("the choice is recorded")

    monkeypatch.setattr("textune.finetune.choose", measured_anew)
    monkeypatch.setattr("textune.finetune.threads", lambda processes=1: 2)
    run = resume(copy)
    (resumed,) = run.environment["resumed"]
    assert resumed["arithmetic"] == run.environment["arithmetic"]
    assert resumed["threads"] == run.environment["threads"] == 1


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="There is no run folder"):
        resume(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"is not a run of textune: it has no config\.yaml"):
        resume(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": "mine.yaml"}, "--config: a run goes on with its own config.yaml."),
        ({"output": "other"}, "--output: a run goes on in its own folder."),
        ({"settings": {"run.overwrite": True}}, "--run.overwrite: a run goes on in its own folder."),
    ],
)
def test_options_that_make_no_sense_with_resume(copy: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resume(copy, **options)
    assert caught.value.problems == [words]


def test_from_needs_resume(begin: Begin) -> None:
    for options in ({"from_checkpoint": "step-1"}, {"allow_changes": True}):
        with pytest.raises(ConfigError, match="they need --resume"):
            begin("run", **options)


def test_one_process_for_one_run(copy: Path, begin: Begin) -> None:
    with run_lock(copy):
        for start in (lambda: resume(copy), lambda: begin("x", output=str(copy), overwrite=True)):
            with pytest.raises(OutputError, match=r"Process \d+ on .+ is training in '.*run'; nothing was touched"):
                start()
    assert resume(copy).is_finished


def test_space_is_looked_at_before_the_first_step(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textune.files.free_bytes", lambda path: 2**17)
    with pytest.raises(StorageError) as caught:
        begin("run")
    assert caught.value.message.startswith(f"{str(tmp_path / 'run')!r} needs about ")
    assert caught.value.message.endswith("for its checkpoints, model and predictions; 0.1 MiB are free on that disk.")
    assert list((tmp_path / "run").iterdir()) == []


def test_space_is_looked_at_before_results_are_taken_away(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = resume(copy)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr("textune.files.free_bytes", lambda path: 0)
        with pytest.raises(StorageError, match=r"for its checkpoints, model and predictions; 0\.0 MiB are free"):
            resume(run, epochs=2, allow_changes=True)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert run.is_finished
    assert run.config.training.duration == "1epochs"


@pytest.mark.parametrize(
    ("number", "exit_code", "words"),
    [(errno.ENOSPC, 74, ["needed", "free on that disk"]), (errno.EROFS, 73, ["Read-only file system"])],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_no_more_in_mid_run(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, exit_code: int, words: list[str]
) -> None:
    from safetensors.torch import save_file

    whole = begin("whole")

    def full(tensors: Any, path: Path, **options: Any) -> None:
        if ".step-4." in str(path):
            raise OSError(number, os.strerror(number), str(path))
        save_file(tensors, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises((StorageError, OutputError)) as caught:
            begin("cut")
    assert caught.value.exit_code == exit_code
    assert all(word in caught.value.message for word in ["step-4'", *words])
    checkpoints = tmp_path / "cut" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir() if path.name.startswith(".")] == []
    assert_same_run(resume(tmp_path / "cut"), whole)
