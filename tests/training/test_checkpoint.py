from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from textune.config import TrainingConfig
from textune.errors import CheckpointError, OutputError, StorageError
from textune.files import json_text
from textune.training.checkpoint import (
    _digest,
    _sealed,
    begin_checkpoint,
    best_step,
    committed,
    found,
    load_optimizer,
    load_weights,
    model_tensors,
    remove_old,
    verify,
)
from textune.training.optimizer import build_optimizer
from textune.training.state import TrainingState

from .engine import tiny_model, weights

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def stepped() -> tuple[BertForSequenceClassification, torch.optim.AdamW]:
    """A model after one update, so that the optimiser has moments."""
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig(learning_rate=1e-3))
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([1])).loss.backward()
    optimizer.step()
    return model, optimizer


def save_checkpoint(root: Path, state: TrainingState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Commits the state at once and returns the folder."""
    pending = begin_checkpoint(root, state, model, optimizer, copied=False)
    pending.commit()
    return pending.target


def save(root: Path, step: int = 1) -> Path:
    return save_checkpoint(root, TrainingState(total_steps=9, step=step, best_value=0.5), *stepped())


def test_holds_weights_moments_and_state(tmp_path: Path) -> None:
    model, optimizer = stepped()
    state = TrainingState(total_steps=9, step=4, epoch=1, best_value=0.25)
    folder = save_checkpoint(tmp_path, state, model, optimizer)
    assert folder == tmp_path / "step-4"
    assert sorted(file.name for file in folder.iterdir()) == FILES
    verify(folder)
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in weights(model).items())
    moments = load_file(folder / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(moments[f"{key}/{name}"], optimizer.state[parameter][key])
    assert TrainingState(**json.loads((folder / "state.json").read_text())) == state
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert sorted(manifest["files"]) == FILES[1:]
    assert manifest["files"]["state.json"]["bytes"] == (folder / "state.json").stat().st_size


def test_load_gives_bit_equal_weights(tmp_path: Path) -> None:
    model, optimizer = stepped()
    folder = save_checkpoint(tmp_path, TrainingState(total_steps=1, step=1), model, optimizer)
    other = tiny_model()
    assert not torch.equal(other.classifier.weight, model.classifier.weight)
    load_weights(folder, other)
    for name, tensor in weights(model).items():
        assert torch.equal(other.get_parameter(name), tensor), name


def interrupted_at(monkeypatch: pytest.MonkeyPatch, call: int, failure: Exception) -> Callable[[], int]:
    """Makes the `call`-th thing that touches the disk fail; returns a function that counts them."""
    calls = 0

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise failure
            return original(*arguments, **options)

        return wrapped

    for owner, name in (
        ("safetensors.torch", "save_file"),
        ("os", "fsync"),
        ("pathlib.Path", "mkdir"),
        ("pathlib.Path", "rename"),
        ("pathlib.Path", "replace"),
        ("pathlib.Path", "write_text"),
    ):
        monkeypatch.setattr(f"{owner}.{name}", failing(getattr(_resolve(owner), name)))
    return lambda: calls


def _resolve(owner: str) -> Any:
    import importlib

    return Path if owner == "pathlib.Path" else importlib.import_module(owner)


def num_writes(root: Path) -> int:
    save(root, step=1)
    with pytest.MonkeyPatch.context() as patch:
        count = interrupted_at(patch, -1, OSError())
        save(root, step=2)
        return count()


def test_interrupted_anywhere_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """A Ctrl-C or a full disk at any point, and a process killed there: what counts is there whole or not at all."""
    total = num_writes(tmp_path / "count")
    assert total >= 12, "mkdir, two tensors files, five fsyncs, two JSON files with their renames, the rename"
    for call in range(1, total + 1):
        root = tmp_path / str(call)
        older = save(root, step=1)
        with pytest.MonkeyPatch.context() as patch:
            # Killed means: not even the clean-up runs.
            patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
            interrupted_at(patch, call, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(StorageError, match="No space left"):
                save(root, step=2)
        verify(older)
        renamed = (root / "step-2").exists()
        assert committed(root) == ([1, 2] if renamed else [1])
        if renamed:  # only syncing the name was left to do
            assert call == total
            verify(root / "step-2")
        # The next save works in spite of what the killed one left, and takes that away.
        save(root, step=3)
        assert committed(root)[-1] == 3
        assert not list(root.glob(".*")), "leftovers"


def test_interruption_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, step=1)
    interrupted_at(monkeypatch, 6, KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, step=2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-1"]


def test_full_disk_inside_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"No space left while writing '.*step-1' \(.* MiB free"):
        save(tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        save(tmp_path / "checkpoints")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flip, "has been cut short or altered"),
    "cut": (cut, "has been cut short or altered"),
    "missing": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = save(tmp_path)
    change, words = DAMAGES[damage]
    change(folder / name)
    with pytest.raises(CheckpointError) as caught:
        load_weights(folder, tiny_model())
    assert caught.value.message == f"The checkpoint {str(folder)!r} is damaged: {name} {words}."
    assert caught.value.hint == "Use an older checkpoint."


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        '{"format_version": 1',
        '{"format_version": 1}',
        '{"format_version": 1, "files": []}',
        '{"format_version": 1, "files": {}}',
        '{"format_version": 1, "files": {"state.json": {}}}',
    ],
)
def test_damaged_manifest(tmp_path: Path, manifest: str) -> None:
    folder = save(tmp_path)
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"step-1' is damaged: "):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret", "'../secret' is no name of a file in it"),
        ("/dev/null", "'/dev/null' is no name of a file in it"),
        ("..", r"'\.\.' is no name of a file in it"),
        ("", "'' is no name of a file in it"),
        ("link", "link is a link"),
        ("n" * 300, "nnn cannot be read: File name too long"),
    ],
)
def test_a_manifest_leads_nowhere_else(tmp_path: Path, name: str, words: str) -> None:
    folder, outside = save(tmp_path), tmp_path / "secret"
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    manifest = _sealed({"format_version": 1, "files": {**files, name: _digest(outside)}})
    (folder / "manifest.json").write_text(json_text(manifest))
    with pytest.raises(CheckpointError, match=f"step-1' is damaged: .*{words}"):
        verify(folder)


def test_missing_manifest(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "manifest.json").unlink()
    assert committed(tmp_path) == []
    with pytest.raises(CheckpointError, match=r"step-1' is damaged: manifest.json is missing"):
        verify(folder)


def test_format_of_a_later_textune(tmp_path: Path) -> None:
    folder = save(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(CheckpointError, match="expected format version 1, found 2"):
        verify(folder)


@pytest.mark.parametrize("change", ["layers", "labels", "vocabulary"])
def test_another_model_is_refused(tmp_path: Path, change: str) -> None:
    folder = save(tmp_path)
    model = tiny_model(num_labels=3 if change == "labels" else 2)
    if change == "layers":
        del model.bert.encoder.layer[1]
    if change == "vocabulary":
        model.resize_token_embeddings(61)
    before = weights(model)
    with pytest.raises(CheckpointError, match=r"belongs to another model: '[\w.]+'"):
        load_weights(folder, model)
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, before[name]), "nothing was copied"


def test_one_number_does_not_spread_over_a_tensor(tmp_path: Path) -> None:
    """A head of one output would otherwise fill every output of a larger head."""
    model = tiny_model(num_labels=1, problem_type="regression")
    folder = save_checkpoint(
        tmp_path, TrainingState(total_steps=1, step=1), model, build_optimizer(model, TrainingConfig())
    )
    with pytest.raises(CheckpointError, match=r"belongs to another model: 'classifier.bias'"):
        load_weights(folder, tiny_model(num_labels=3))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = BertForMaskedLM(config)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embeddings.weight is head.weight
    names = [name for name, tensor in model_tensors(model).items() if tensor.data_ptr() == head.weight.data_ptr()]
    assert len(names) == 1
    folder = save_checkpoint(
        tmp_path, TrainingState(total_steps=1, step=1), model, torch.optim.AdamW(model.parameters())
    )
    other = BertForMaskedLM(config)
    load_weights(folder, other)
    assert other.get_input_embeddings().weight is other.get_output_embeddings().weight
    assert torch.equal(other.get_output_embeddings().weight, head.weight)


def test_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 10, 20, 3):
        save(tmp_path, step)
    remove_old(tmp_path, keep=2, best=2)
    assert committed(tmp_path) == [2, 10, 20]
    remove_old(tmp_path, keep=1, best=None)
    assert committed(tmp_path) == [20]


def evaluated(root: Path, values: list[int], *, keep: int) -> None:
    """Checkpoints of which each has been evaluated, as far as it matters which of them stay."""
    best = 0
    for step, value in enumerate(values):
        best = step if value > values[best] else best
        folder = root / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"best_step": best}))
        (folder / "manifest.json").touch()
        remove_old(root, keep=keep, best=best)


def test_keeps_what_was_best_for_those_that_stay(tmp_path: Path) -> None:
    """In whichever order five evaluations get better or worse, from each that stays training can go on."""
    for number, values in enumerate(itertools.permutations(range(5))):
        root = tmp_path / str(number)
        evaluated(root, list(values), keep=2)
        kept = committed(root)
        assert kept[-2:] == [3, 4] and len(kept) <= 3, "one more than asked for: there is room for no others"
        assert all(best_step(root / f"step-{step}") in kept for step in kept)


def test_the_state_of_an_old_checkpoint_may_be_anything(tmp_path: Path) -> None:
    evaluated(tmp_path, [3, 2, 1], keep=3)
    for text in ("", "[]", "{}", '{"best_step": "1"}', '{"best_step": null}'):
        (tmp_path / "step-1" / "state.json").write_text(text)
        assert best_step(tmp_path / "step-1") is None
    (tmp_path / "step-1" / "state.json").unlink()
    remove_old(tmp_path, keep=2, best=2)
    assert committed(tmp_path) == [0, 1, 2]
    remove_old(tmp_path, keep=1, best=2)
    assert committed(tmp_path) == [0, 2]


def test_committed_ignores_everything_else(tmp_path: Path) -> None:
    assert committed(tmp_path / "none") == []
    save(tmp_path, 5)
    for name in ("step-7", ".step-8.tmp-1", "step-x", "other"):
        (tmp_path / name).mkdir()
    for name in ("step-05", "step-1\u0663"):  # no names that a step has here, though they are numbers
        shutil.copytree(tmp_path / "step-5", tmp_path / name)
    (tmp_path / "step-9").write_text("")
    assert committed(tmp_path) == [5]
    assert found(tmp_path) == [5, 7]


def test_same_step_again_replaces(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    (first / "state.json").write_text("{}")
    verify(save(tmp_path, 1))
    assert committed(tmp_path) == [1]


def test_every_file_is_synced_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(self, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is synced")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    save(tmp_path / "root")
    position = events.index("rename to step-1")
    assert {"model.safetensors", "optimizer.safetensors", "state.json"} < set(events[:position])
    assert events[position - 1].startswith(".step-1.tmp-"), "the folder's own entries, after the manifest"
    assert events[position + 1 :] == ["root"]


class Counting(torch.optim.SGD):
    """Counts its steps in a number, as transformers' older AdamW, and keeps a moment of another shape."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                state["count"] = state.get("count", 0) + 1
                state["row"] = torch.ones(weight.shape[-1:])
        super().step(closure)


def counting(model: Any, **settings: Any) -> Counting:
    return Counting(model.parameters(), **{"lr": 0.1, **settings})


def test_numbers_settings_and_moments_of_another_shape(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = counting(model)
    optimizer.step()
    optimizer.param_groups[0] |= {"weight_decay": 0.5, "betas": (0.9, math.inf)}
    folder = save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, optimizer)
    for settings in (False, True):
        other = counting(model, lr=0.3)
        assert load_optimizer(folder, model, other, settings=settings) == []
        (group,) = other.param_groups
        assert group["lr"] == (0.1 if settings else 0.3)
        assert (group["weight_decay"], group.get("betas")) == ((0.5, (0.9, math.inf)) if settings else (0, None))
        for weight in model.parameters():
            assert other.state[weight]["count"] == 1
            assert torch.equal(other.state[weight]["row"], torch.ones(weight.shape[-1:]))


def test_moments_do_not_lie_in_the_file_any_more(tmp_path: Path) -> None:
    """Over NFS nobody could delete it, and whoever overwrites it would alter them."""
    model, optimizer = stepped()
    file = save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, optimizer) / "optimizer.safetensors"
    other = build_optimizer(model, TrainingConfig(learning_rate=1e-3))
    load_optimizer(file.parent, model, other)
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    for weight in model.parameters():
        for name, moment in optimizer.state[weight].items():
            assert torch.equal(other.state[weight][name], moment), name


def test_moments_of_another_training_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    folder = save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, counting(model))
    halves = [{"params": list(model.bert.parameters())}, {"params": list(model.classifier.parameters())}]
    with pytest.raises(CheckpointError, match=r"another training: expected 2 groups of parameters, found 1 group\."):
        load_optimizer(folder, model, torch.optim.SGD(halves, lr=0.1), settings=True)
    with pytest.raises(CheckpointError, match=r"another training: it trains 'bert\."):
        load_optimizer(folder, model, torch.optim.SGD(model.classifier.parameters(), lr=0.1))


def test_state_that_cannot_be_stored(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = counting(model)
    optimizer.state[model.classifier.bias]["history"] = [torch.zeros(2)]
    with pytest.raises(
        CheckpointError, match=r"cannot hold the optimiser's state: .*history/classifier.bias: .* Tensor"
    ):
        save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, optimizer)
    assert not list(tmp_path.iterdir())
    optimizer = counting(model)
    optimizer.state["all"]["count"] = 3
    with pytest.raises(CheckpointError, match="cannot hold the optimiser's state: 'all' is no parameter"):
        save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, optimizer)


def test_a_checkpoint_without_settings_is_still_read(tmp_path: Path) -> None:
    """As those were before settings were stored."""
    model, optimizer = stepped()
    folder = save_checkpoint(tmp_path, TrainingState(total_steps=2, step=1), model, optimizer)
    tensors = load_file(folder / "optimizer.safetensors")
    save_file(tensors, folder / "optimizer.safetensors")
    other = build_optimizer(model, TrainingConfig(learning_rate=2e-3))
    load_optimizer(folder, model, other, settings=True)
    assert other.param_groups[0]["lr"] == 2e-3
    assert torch.equal(other.state[model.classifier.weight]["exp_avg"], tensors["exp_avg/classifier.weight"])
    save_file({name: torch.zeros(3) for name in tensors}, folder / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match="belongs to another training: it trains"):
        load_optimizer(folder, model, other)
