"""The Trainer's output folder: which checkpoints belong together, which stay, and who may write there."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import transformers

from textune.compat import Trainer
from textune.compat.trainer_checkpoints import remove_old_checkpoints
from textune.compat.trainer_courses import Course, is_of_course
from textune.errors import CheckpointError, ConfigError, OutputError
from textune.lock import run_lock
from textune.training import checkpoint as engine_checkpoints

from .trainers import assert_same, classifier, tokenized, trainer, weights


def make(folder: Path, **values: Any) -> Trainer:
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, **values}
    return trainer(folder, **settings)


def stop_at(made: Trainer, step: int) -> Trainer:
    """Trains until it is ended there as by a kill, behind the checkpoint of this step."""

    class Kill(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt

    made.add_callback(Kill())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    return made


def saved(folder: Path) -> list[int]:
    return sorted(int(made.name.rpartition("-")[2]) for made in folder.glob("checkpoint-*"))


def best_at(*scores: float, folder: Path, **values: Any) -> Trainer:
    """A Trainer whose evaluation after each step gives these scores."""
    given = iter(scores)
    values = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "score", **values}
    return make(folder, compute_metrics=lambda prediction: {"score": next(given)}, **values)


def test_a_training_begun_anew_goes_on_from_its_own_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path).train()
    whole = make(tmp_path / "other", learning_rate=1e-2)
    whole.train()
    stop_at(make(tmp_path, learning_rate=1e-2), 2)
    assert saved(tmp_path) == [1, 2, 3, 4, 5, 6], "what was there before stays"
    resumed = make(tmp_path, learning_rate=1e-2)
    with caplog.at_level(logging.INFO):
        assert resumed.train(resume_from_checkpoint=True).global_step == 6
    assert f"Going on from {tmp_path / 'checkpoint-2'}." in caplog.text
    assert_same(weights(resumed.model), weights(whole.model), within=0)


def test_after_going_back_later_checkpoints_are_not_chosen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path).train()
    back = make(tmp_path)
    back.args.save_steps = 2
    back.add_callback(EndsBehind(4))
    back.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with caplog.at_level(logging.INFO):
        make(tmp_path).train(resume_from_checkpoint=True)
    assert f"Going on from {tmp_path / 'checkpoint-4'}." in caplog.text
    # Damage leads back to what the last course came from, past the third step of the one that was left.
    for step in (6, 5, 4):
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        make(tmp_path).train(resume_from_checkpoint=True)
    assert f"Going on from {tmp_path / 'checkpoint-2'}." in caplog.text


class EndsBehind(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        control.should_training_stop |= state.global_step == self.step


def test_other_data_or_another_model_are_refused(tmp_path: Path) -> None:
    rows = tokenized()
    stop_at(make(tmp_path), 2)
    fewer = make(tmp_path, train_dataset=rows.select(range(60)))
    with pytest.raises(ConfigError, match="rows of train_dataset is 60, the checkpoint was made with 64") as caught:
        fewer.train(resume_from_checkpoint=True)
    assert len(caught.value.problems) == 2
    turned = make(tmp_path, train_dataset=rows.select(range(63, -1, -1)))
    with pytest.raises(ConfigError, match="hash of some rows of train_dataset is "):
        turned.train(resume_from_checkpoint=True)
    named = make(tmp_path, model=classifier(label_names=("bad", "good")))
    with pytest.raises(
        ConfigError, match=r"labels of the model is \['bad', 'good'\], .* with \['negative', 'positive'\]"
    ):
        named.train(resume_from_checkpoint=True)
    again = rows.map(lambda row: {"more": 1}, load_from_cache_file=False)
    assert make(tmp_path, train_dataset=again).train(resume_from_checkpoint=True).global_step == 6


def test_a_second_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(OutputError, match=f"Process {os.getpid()} on .* is training in") as caught:
        make(tmp_path).train()
    assert "output_dir" in str(caught.value.hint)
    assert make(tmp_path, max_steps=1).train().global_step == 1
    seen: list[str] = []

    class Look(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            with pytest.raises(OutputError):
                make(tmp_path).train()
            make(tmp_path, save_strategy="no", max_steps=1).train()
            seen.extend(path.name for path in tmp_path.glob("checkpoint-*"))

    made = make(tmp_path, max_steps=1)
    made.add_callback(Look())
    assert made.train().global_step == 1
    assert seen == [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_clocks_that_went_back_remove_nothing_new(tmp_path: Path) -> None:
    stop_at(make(tmp_path, save_total_limit=2), 3)
    for step in (2, 3):
        os.utime(tmp_path / f"checkpoint-{step}", (2**32, 2**32))
    make(tmp_path, save_total_limit=2).train(resume_from_checkpoint=True)
    assert saved(tmp_path) == [5, 6]
    stop_at(make(tmp_path, save_total_limit=2), 2)
    assert saved(tmp_path) == [1, 2], "begun anew, what is left of the training before is the oldest"


def test_what_an_older_checkpoint_needs_stays(tmp_path: Path) -> None:
    made = best_at(
        0.1, 0.5, 0.4, 0.6, 0.7, folder=tmp_path, max_steps=5, load_best_model_at_end=True, save_total_limit=3
    )
    stop_at(made, 4)
    assert saved(tmp_path) == [2, 3, 4]
    made.args.save_total_limit = 2
    remove_old_checkpoints(made)
    assert saved(tmp_path) == [2, 4], "the third needs the second, and there is place for one"


def test_the_best_is_found_where_the_folder_is_now(tmp_path: Path) -> None:
    scores = (0.1, 0.9, 0.3, 0.4)
    old, new = tmp_path / "old", tmp_path / "new"
    values: dict[str, Any] = {"load_best_model_at_end": True, "max_steps": 4}
    best_at(*scores, folder=old, **values).train()
    old.rename(new)
    resumed = best_at(folder=new, **values)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(new / "checkpoint-2")
    best = classifier()
    engine_checkpoints.load_weights(new / "checkpoint-2", best)
    assert_same(weights(resumed.model), weights(best), within=0)


def test_the_best_is_none_of_an_earlier_training(tmp_path: Path) -> None:
    make(tmp_path, save_steps=2, max_steps=2).train()
    values: dict[str, Any] = {"load_best_model_at_end": True, "max_steps": 6, "save_steps": 3}
    made = best_at(0.1, 0.9, 0.3, 0.4, 0.2, 0.5, folder=tmp_path, **values)
    made.train()
    assert (saved(tmp_path), made.state.best_global_step) == ([2, 3, 6], 2)
    assert made.state.best_model_checkpoint is None


def test_the_best_of_another_folder_is_not_mistaken(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    values: dict[str, Any] = {"load_best_model_at_end": True, "max_steps": 4}
    stop_at(best_at(0.9, 0.1, folder=old, **values), 2)
    make(new, max_steps=1).train()
    moved = best_at(0.2, folder=new, **values)
    moved.add_callback(EndsBehind(3))
    moved.train(resume_from_checkpoint=str(old / "checkpoint-2"))
    assert saved(new) == [1, 3]
    resumed = best_at(0.3, folder=new, **values)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(old / "checkpoint-1")


@pytest.mark.parametrize("name", ["score", "own_loss"])
def test_an_evaluation_that_is_no_number_is_never_the_best(tmp_path: Path, name: str) -> None:
    class Forgets(transformers.TrainerCallback):  # type: ignore[misc]
        """As if the state came from a checkpoint of which NaN was the best."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            if state.global_step == 2:
                state.best_metric = math.nan

    given = iter([math.nan, math.nan, 0.5, 0.6, math.nan])
    made = make(
        tmp_path,
        compute_metrics=lambda prediction: {name: next(given)},
        callbacks=[Forgets()],
        metric_for_best_model=name,
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=1,
        max_steps=5,
    )
    made.train()
    step, best = (4, 0.6) if name == "score" else (3, 0.5)
    assert (made.state.best_global_step, made.state.best_metric) == (step, best)
    assert made.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{step}")


def test_evaluations_that_are_no_numbers_stop_early(tmp_path: Path) -> None:
    made = best_at(math.nan, math.nan, math.nan, folder=tmp_path)
    made.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=2))
    assert made.train().global_step == 3


def test_the_best_is_saved_without_a_metric_named(tmp_path: Path) -> None:
    made = make(tmp_path, save_strategy="best", eval_strategy="steps", eval_steps=3)
    made.train()
    assert saved(tmp_path)[-1:] == [made.state.best_global_step]


def test_which_checkpoints_are_of_a_course(tmp_path: Path) -> None:
    for step, course, began in ((1, 1, 0), (2, 1, 0), (4, 1, 0), (3, 2, 2)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "progress.json").write_text(json.dumps({"course": course, "began": began}))
    (tmp_path / "checkpoint-5").mkdir()  # another program's
    expected = {Course(1): {1, 2, 4}, Course(2, 2): {1, 2, 3}, Course(3, 3): {1, 2, 3}, Course(3): set()}
    for course, steps in expected.items():
        assert {step for step in range(7) if is_of_course(tmp_path / f"checkpoint-{step}", course)} == steps


def test_a_damaged_best_is_said_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values: dict[str, Any] = {"load_best_model_at_end": True, "max_steps": 4, "folder": tmp_path}
    stop_at(best_at(0.1, 0.9, 0.3, **values), 3)
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint-3 needs the best weights so far.*checkpoint-2"):
        best_at(0.4, **values).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    with caplog.at_level(logging.INFO):
        best_at(0.9, 0.3, 0.4, **values).train(resume_from_checkpoint=True)
    assert f"Going on from {tmp_path / 'checkpoint-1'}." in caplog.text


def change(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Other values in a checkpoint's file, and no manifest that would say so."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_other_versions_are_warned_of_and_newer_states_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(make(tmp_path), 2)
    folder = tmp_path / "checkpoint-2"
    monkeypatch.setattr("textune.compat.trainer_checkpoints.verify", lambda folder: None)
    monkeypatch.setattr(engine_checkpoints, "verify", lambda folder: None)
    progress = json.loads((folder / "progress.json").read_text())
    change(folder, "progress.json", {"software": {**progress["software"], "torch": "1.0", "threads": 77}})
    make(tmp_path).train(resume_from_checkpoint=str(folder))
    assert "torch was 1.0, is now 2." in caplog.text
    assert "threads was 77, is now 1: the result may differ in the last bits" in caplog.text
    change(folder, "trainer_state.json", {"of_tomorrow": 1})
    with pytest.raises(CheckpointError, match=r"trainer_state\.json .*another transformers.*'of_tomorrow'"):
        make(tmp_path).train(resume_from_checkpoint=str(folder))
