"""Checkpoints that are whole or not there: write aside, sync, list every file with its hash, rename.

    checkpoints/step-N/model.safetensors       fp32 weights by parameter name
                       optimizer.safetensors   AdamW's moments: `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`
                       state.json              textune.training.state.TrainingState
                       manifest.json           written last: format version, size and SHA-256 of every file

A folder without manifest.json, or whose files differ from it, is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.errors import CheckpointError, DataError, InputNotFoundError
from textune.files import read_json, replacing_folder, write_json
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FORMAT_VERSION = 1
FILES = {"model.safetensors", "optimizer.safetensors", "state.json"}
_NAME = re.compile(r"step-(\d+)")


def save_checkpoint(root: Path, state: TrainingState, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Path:
    """Commits the state at a step boundary to `root/step-N` and returns that folder.

    Raises:
        OutputError, StorageError: it cannot be written; older checkpoints are as they were.
    """
    from safetensors.torch import save_file

    target = root / f"step-{state.step}"
    for leftover in root.glob(".tmp-step-*"):  # of a process that was killed; a run has one writer
        shutil.rmtree(leftover, ignore_errors=True)
    with replacing_folder(target) as temporary:
        save_file(model_tensors(model), temporary / "model.safetensors")
        save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", state.as_json())
        files = {file.name: _digest(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / "manifest.json", {"format_version": FORMAT_VERSION, "files": files})
    return target


def committed(root: Path) -> list[int]:
    """The steps that have a committed checkpoint, oldest first. Their contents are not verified here."""
    if not root.is_dir():
        return []
    names = (_NAME.fullmatch(folder.name) for folder in root.iterdir() if (folder / "manifest.json").is_file())
    return sorted(int(match[1]) for match in names if match)


def remove_old(root: Path, *, keep: int, best: int | None) -> None:
    """Removes all checkpoints but the last `keep` and the best."""
    steps = committed(root)
    for step in steps[:-keep]:
        if step != best:
            shutil.rmtree(root / f"step-{step}")


def verify(folder: Path) -> None:
    """Compares every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: a file is missing, cut short or altered; names it. Or the format is that of another textune.
    """
    for name, expected in _listed_files(folder).items():
        file = folder / name
        found = _digest(file) if file.is_file() else None
        if found != expected:
            raise _damaged(folder, f"{name} {'is missing' if found is None else 'has been cut short or altered'}")


def _listed_files(folder: Path) -> dict[str, Any]:
    """The files that the manifest lists, with size and hash."""
    try:
        manifest = read_json(folder / "manifest.json")
    except InputNotFoundError as error:
        raise _damaged(folder, "manifest.json is missing") from error
    except DataError as error:
        raise _damaged(folder, "manifest.json is not JSON") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise CheckpointError(
            f"The checkpoint {str(folder)!r}: expected format version {FORMAT_VERSION}, found {version}.",
            hint="Use the textune that wrote it.",
        )
    files = manifest.get("files") if version is not None else None
    if not isinstance(files, dict) or set(files) != FILES:
        raise _damaged(folder, "manifest.json does not list the files of a checkpoint")
    return files


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint {str(folder)!r} is damaged: {what}.", hint="Use an older checkpoint.")


def load_weights(folder: Path, model: PreTrainedModel) -> None:
    """Copies a verified checkpoint's weights into the model.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another model.
    """
    import torch
    from safetensors.torch import load_file

    verify(folder)
    stored = load_file(folder / "model.safetensors")
    wanted = model_tensors(model)
    odd = [
        name
        for name in sorted(stored.keys() | wanted.keys())
        if name not in stored or name not in wanted or stored[name].shape != wanted[name].shape
    ]
    if odd:
        raise CheckpointError(f"The checkpoint {str(folder)!r} belongs to another model: {odd[0]!r} does not match.")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])


def model_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters, each once even where modules share it, and the buffers that belong to the model's state."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in {**dict(model.named_parameters()), **buffers}.items()}


def _optimizer_tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{key}/{names[parameter]}": tensor
        for parameter, moments in optimizer.state.items()
        for key, tensor in moments.items()
    }


def _digest(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
