"""Checkpoints that a thread writes while training goes on."""

from __future__ import annotations

import dataclasses
import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from textune.errors import Interrupted, StorageError, TrainingError
from textune.training.callbacks import Callback
from textune.training.checkpoint import committed, verify
from textune.training.loop import train
from textune.training.setup import Intervals, Setup
from textune.training.state import TrainingState

from .engine import NEVER, Recorder, make_setup, tiny_model, weights


def background(folder: Path, *, steps: int = 10, every: int = 2, **options: Any) -> Setup:
    setup = make_setup(
        folder, model=tiny_model(dropout=0.2), steps=steps, intervals=Intervals(NEVER, NEVER, every), **options
    )
    return dataclasses.replace(setup, background_bytes=0, evaluate=None)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each write takes as long as many steps; gives the threads that wrote."""
    threads: list[str] = []

    def slow(*arguments: Any, **options: Any) -> None:
        threads.append(threading.current_thread().name)
        time.sleep(0.05)
        save_file(*arguments, **options)

    monkeypatch.setattr("safetensors.torch.save_file", slow)
    return threads


def test_holds_what_was_there_at_its_step(tmp_path: Path, slow_disk: list[str]) -> None:
    at_once = dataclasses.replace(background(tmp_path / "at once"), background_bytes=None)
    setups = [background(tmp_path / "behind"), at_once]
    recorders = [Recorder(), Recorder()]
    states = [train(setup, callbacks=[recorder]) for setup, recorder in zip(setups, recorders, strict=True)]
    assert slow_disk.count("textune-checkpoint") == 10 == len(slow_disk) / 2
    for setup in setups:
        assert committed(setup.checkpoints) == [8, 10]
    for step in (8, 10):
        for name in ("model.safetensors", "optimizer.safetensors"):
            found, expected = (load_file(setup.checkpoints / f"step-{step}" / name) for setup in setups)
            assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(torch.equal(value, weights(setups[1].model)[name]) for name, value in weights(setups[0].model).items())
    assert recorders[0].checkpoints == recorders[1].checkpoints == [f"step-{step}" for step in (2, 4, 6, 8, 10)]
    assert states[0].checkpoint_seconds > 0
    assert recorders[0].events != recorders[1].events, "heard of later, when it is committed"
    assert recorders[0].events[-2:] == ["checkpoint", "end"]


def test_callbacks_hear_of_it_in_their_own_thread_when_it_is_whole(tmp_path: Path, slow_disk: list[str]) -> None:
    class Verify(Callback):
        heard = 0

        def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
            assert threading.current_thread() is threading.main_thread()
            verify(folder)
            self.heard += 1

    watch = Verify()
    train(background(tmp_path), callbacks=[watch])
    assert watch.heard == 5


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_where_a_copy_finds_no_memory_it_is_written_at_once(
    tmp_path: Path, slow_disk: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    setup, at_once = background(tmp_path / "behind"), background(tmp_path / "at once")
    train(dataclasses.replace(at_once, background_bytes=None))
    slow_disk.clear()

    def held(tensor: torch.Tensor, *, copied: bool) -> torch.Tensor:
        if copied and tensor.shape == setup.model.classifier.bias.shape:  # type: ignore[union-attr]
            raise error
        return tensor

    monkeypatch.setattr("textune.training.checkpoint._held", held)
    train(setup)
    assert set(slow_disk) == {"MainThread"}
    assert committed(setup.checkpoints) == [8, 10]
    for step in (8, 10):
        verify(setup.checkpoints / f"step-{step}")
        for name in ("model.safetensors", "optimizer.safetensors"):
            found, expected = (load_file(root.checkpoints / f"step-{step}" / name) for root in (setup, at_once))
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_where_no_thread_is_to_be_had_it_is_written_at_once(
    tmp_path: Path, slow_disk: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    setup = background(tmp_path)
    train(setup)
    assert set(slow_disk) == {"MainThread"}
    assert committed(setup.checkpoints) == [8, 10]
    verify(setup.checkpoints / "step-10")


def test_another_error_amid_a_copy_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(tensor: torch.Tensor, *, copied: bool) -> torch.Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("textune.training.checkpoint._held", held)
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        train(background(tmp_path))


def test_an_old_checkpoint_that_cannot_be_deleted_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: str, **options: int) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", path)

    setup = background(tmp_path, steps=8)
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", busy)
        train(setup)
    assert committed(setup.checkpoints) == [6, 8]
    assert len(list(setup.checkpoints.glob(".step-*"))) == 2
    train(background(tmp_path, steps=10))
    assert {folder.name for folder in setup.checkpoints.iterdir()} == {"step-8", "step-10"}


def test_an_error_is_raised_at_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path, **options: Any) -> None:
        if ".step-4." in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, **options)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    setup, recorder = background(tmp_path, steps=1000), Recorder()
    with pytest.raises(StorageError, match=r"No space left while writing '.*step-4' \(0\.\d MiB needed, .* free"):
        train(setup, callbacks=[recorder])
    assert recorder.events.count("step") < 1000
    assert [folder.name for folder in setup.checkpoints.iterdir()] == ["step-2"]
    verify(setup.checkpoints / "step-2")


def test_what_has_begun_is_committed_when_training_fails(tmp_path: Path, slow_disk: list[str]) -> None:
    setup = background(tmp_path, every=3)

    class Spoil(Callback):
        def on_step_begin(self, state: TrainingState) -> None:
            if state.step == 3:
                setup.model.classifier.register_forward_hook(lambda *rest: rest[-1] * torch.nan)  # type: ignore[union-attr]

    with pytest.raises(TrainingError, match="Step 4 gave a loss nan"):
        train(setup, callbacks=[Spoil()])
    assert committed(setup.checkpoints) == [3]
    verify(setup.checkpoints / "step-3")


class StopAtOnce(Callback):
    """As a second Ctrl-C, while the first checkpoint is being written."""

    def on_step(self, state: TrainingState) -> None:
        if state.step == 3:
            raise KeyboardInterrupt


def test_what_has_begun_is_committed_when_training_is_stopped_at_once(tmp_path: Path, slow_disk: list[str]) -> None:
    """The folder's lock is given back behind it, and nobody may be writing there then."""
    setup = background(tmp_path, every=3)
    with pytest.raises(KeyboardInterrupt):
        train(setup, callbacks=[StopAtOnce()])
    assert committed(setup.checkpoints) == []
    setup = background(tmp_path, every=2)
    with pytest.raises(KeyboardInterrupt):
        train(setup, callbacks=[StopAtOnce()])
    assert committed(setup.checkpoints) == [2]


def test_a_write_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that goes on in the same process has nothing to fear from it when it wakes up."""
    network, hung = threading.Event(), []

    def hang(tensors: Any, path: Path, **options: Any) -> None:
        if not hung:
            hung.append(threading.current_thread())
            network.wait(60)
        save_file(tensors, path, **options)

    monkeypatch.setattr("safetensors.torch.save_file", hang)
    monkeypatch.setattr("textune.training.saving.PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt):
        train(background(tmp_path), callbacks=[StopAtOnce()])
    assert hung[0].is_alive()
    again = dataclasses.replace(background(tmp_path, every=3), background_bytes=None)
    train(again)
    network.set()
    hung[0].join()
    assert committed(again.checkpoints) == [9, 10]
    for step in (9, 10):
        verify(again.checkpoints / f"step-{step}")
    assert [folder for folder in again.checkpoints.iterdir() if folder.name.startswith(".")] == []


def test_an_interruption_waits_for_its_own(tmp_path: Path, slow_disk: list[str]) -> None:
    class Interrupt(Callback):
        def on_step(self, state: TrainingState) -> None:
            state.requests.interrupt = 10 if state.step == 5 else 0

    setup = background(tmp_path)
    with pytest.raises(Interrupted, match="SIGUSR1: training stopped after step 5 of 10") as caught:
        train(setup, callbacks=[Interrupt()])
    assert caught.value.exit_code == 138
    assert committed(setup.checkpoints) == [4, 5]


def test_the_clock_may_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump of the system's clock does not count, and the result is that without checkpoints."""
    now = [100.0]
    monkeypatch.setattr("textune.training.saving.time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: 0.0)

    class Tick(Callback):
        def on_step(self, state: TrainingState) -> None:
            now[0] += 10

    setup = background(tmp_path / "clock", every=NEVER)
    intervals = Intervals(NEVER, NEVER, None, checkpoint_seconds=25)
    setup = dataclasses.replace(setup, intervals=intervals, keep_checkpoints=None)
    train(setup, callbacks=[Tick()])
    assert committed(setup.checkpoints) == [3, 6, 9, 10]
    plain = background(tmp_path / "plain", every=NEVER)
    train(plain)
    assert all(torch.equal(value, weights(plain.model)[name]) for name, value in weights(setup.model).items())


def test_an_evaluation_is_stopped_and_comes_first_later(tmp_path: Path) -> None:
    def evaluate() -> dict[str, Any]:
        raise Interrupted("SIGTERM", signal_number=15)

    setup = make_setup(tmp_path, steps=4, intervals=Intervals(1, 2, NEVER), evaluate=evaluate)
    state, recorder = TrainingState(total_steps=4), Recorder()
    with pytest.raises(Interrupted, match="SIGTERM: training stopped after step 2 of 4"):
        train(setup, state=state)
    assert state.evaluation_due
    assert committed(setup.checkpoints) == [2]
    train(dataclasses.replace(setup, evaluate=lambda: {"accuracy": 0.5}), state=state, callbacks=[recorder])
    assert recorder.events[:4] == ["begin", "evaluate", "checkpoint", "step"]
    assert [record["step"] for record in recorder.evaluations] == [2, 4]
