"""Checkpoints that are whole or not there: write aside, sync, list every file with its hash, rename.

    checkpoints/step-N/model.safetensors       fp32 weights by parameter name
                       optimizer.safetensors   AdamW's moments: `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`; as its
                                               metadata `textune`, in JSON, what of the state is no tensor
                       state.json              textune.training.state.TrainingState
                       manifest.json           written last: format version, size and SHA-256 of every file, its own

A folder without manifest.json, or whose files differ from it, is not a checkpoint. `CheckpointFolders` may give the
folders another name and more files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.data.wording import counted
from textune.errors import CheckpointError, DataError, InputNotFoundError
from textune.files import clear_unfinished, json_text, read_json, remove_folder, replacing_folder
from textune.training.plain_values import from_plain, to_plain
from textune.training.recovery import require_finite_weights
from textune.training.state import TrainingState

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
OPTIMIZER_FILE = "optimizer.safetensors"
FILES = {"model.safetensors", OPTIMIZER_FILE, "state.json"}


@dataclass(frozen=True)
class CheckpointFolders:
    """How checkpoints are called and what lies in them.

    Attributes:
        prefix: `PREFIX-N` is the folder of step N.
        with_optimizer: whether the optimiser's moments are kept, without which training cannot go on.
        add_files: writes further files into the folder it is given, at the step boundary; None for none.
    """

    prefix: str = "step"
    with_optimizer: bool = True
    add_files: Callable[[Path], None] | None = None

    def folder(self, root: Path, step: int) -> Path:
        return root / f"{self.prefix}-{step}"

    def clear_unfinished(self, root: Path) -> None:
        """Takes away what a killed process left; a run has one writer."""
        clear_unfinished(root, names=f"{self.prefix}-*")


STEP_FOLDERS = CheckpointFolders()


@dataclass(frozen=True)
class Pending:
    """A checkpoint of a past step boundary that is still to be committed.

    Attributes:
        target: the folder it will be.
        temporary: the folder it is written in, with its small files.
        weights: by parameter name, contiguous.
        moments: as OPTIMIZER_FILE holds them; None without.
        metadata: what else it holds.
        finish: takes the temporary folder away, or makes it the target.
    """

    target: Path
    temporary: Path
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor] | None
    metadata: dict[str, str]
    finish: ExitStack

    def commit(self) -> None:
        """Writes, syncs and renames.

        Raises:
            OutputError, StorageError: it cannot be written; older checkpoints are as they were.
        """
        from safetensors.torch import save_file

        with self.finish:
            # transformers reads weights only where this says how they are laid out.
            save_file(self.weights, self.temporary / "model.safetensors", metadata={"format": "pt"})
            if self.moments is not None:
                save_file(self.moments, self.temporary / OPTIMIZER_FILE, metadata=self.metadata)
            files = {file.name: _digest(file) for file in sorted(self.temporary.iterdir())}
            manifest = json_text(_sealed({"format_version": FORMAT_VERSION, "files": files}))
            (self.temporary / "manifest.json").write_text(manifest, encoding="utf-8")


def begin_checkpoint(
    root: Path,
    state: TrainingState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    folders: CheckpointFolders = STEP_FOLDERS,
    copied: bool,
) -> Pending:
    """Takes hold of the state at a step boundary; `Pending.commit` makes `root/PREFIX-N` of it.

    Args:
        copied: whether weights and moments are copied, so that training may go on before they are written.

    Raises:
        TrainingError: something in weights or moments is not finite.
        CheckpointError: the optimiser's state has something that cannot be stored.
        OutputError, StorageError: it cannot be written; older checkpoints are as they were.
    """
    import torch

    require_finite_weights(model, optimizer)
    target = folders.folder(root, state.step)
    folders.clear_unfinished(root)
    with ExitStack() as stack:
        size = checkpoint_bytes(model, optimizer, folders=folders)
        temporary = stack.enter_context(replacing_folder(target, num_bytes=size))
        # Neither the names nor the contents need to be safe before the whole folder is.
        (temporary / "state.json").write_text(json_text(state.as_json()), encoding="utf-8")
        if folders.add_files is not None:
            folders.add_files(temporary)
        fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        weights = {
            name: _held(tensor, copied=copied and name not in fixed) for name, tensor in model_tensors(model).items()
        }
        moments, metadata = None, {}
        if folders.with_optimizer:
            items = _optimizer_state(model, optimizer).items()
            moments = {name: _held(item, copied=copied) for name, item in items if isinstance(item, torch.Tensor)}
            # One entry, for safetensors writes several in any order, and with it the file's hash would change.
            metadata = {"textune": json.dumps(optimizer_values(model, optimizer), allow_nan=False)}
        return Pending(target, temporary, weights, moments, metadata, stack.pop_all())


def checkpoint_bytes(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, folders: CheckpointFolders = STEP_FOLDERS
) -> int:
    """About how large a checkpoint is: its weights, and two moments for each that is trained."""
    weights = sum(tensor.nbytes for tensor in model_tensors(model).values())
    trained = sum(parameter.nbytes for group in optimizer.param_groups for parameter in group["params"])
    return weights + (2 * trained if folders.with_optimizer else 0)


def committed(root: Path, *, folders: CheckpointFolders = STEP_FOLDERS) -> list[int]:
    """The steps that have a committed checkpoint, oldest first. Their contents are not verified here."""
    steps = found(root, folders=folders)
    return [step for step in steps if (folders.folder(root, step) / "manifest.json").is_file()]


def found(root: Path, *, folders: CheckpointFolders = STEP_FOLDERS) -> list[int]:
    """The steps that have a folder, oldest first; one without a manifest is damaged, or another program's."""
    if not root.is_dir():
        return []
    name = re.compile(rf"{re.escape(folders.prefix)}-(0|[1-9][0-9]*)")
    names = (name.fullmatch(folder.name) for folder in root.iterdir() if folder.is_dir())
    return sorted(int(match[1]) for match in names if match)


def remove_old(root: Path, *, keep: int, best: int | None, folders: CheckpointFolders = STEP_FOLDERS) -> None:
    """Removes all checkpoints but the last `keep`, the best, and what was the best for each of these.

    They are one more than `keep` at most: a best from after the first of the last ones is among them.
    """
    steps = committed(root, folders=folders)
    needed = {best, *(best_step(folders.folder(root, step)) for step in steps[-keep:])}
    for step in steps[:-keep]:
        if step not in needed:
            remove_folder(folders.folder(root, step))


def best_step(folder: Path) -> int | None:
    """The step of the best evaluation up to a checkpoint; None where its state.json names none, or is damaged."""
    try:
        state = read_json(folder / "state.json")
    except (InputNotFoundError, DataError):
        return None
    step = state.get("best_step") if isinstance(state, dict) else None
    return step if isinstance(step, int) else None


def verify(folder: Path) -> None:
    """Compares every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: a file is missing, cut short or altered; names it. Or the format is that of another textune.
    """
    for name, expected in _listed_files(folder).items():
        file = folder / name
        if file.parent != folder or name == "..":
            raise _damaged(folder, f"{name!r} is no name of a file in it")
        try:
            if file.is_symlink():
                raise _damaged(folder, f"{name} is a link")
            found = _digest(file) if file.is_file() else None
        except OSError as error:
            raise _damaged(folder, f"{name:.60} cannot be read: {error.strerror}") from error
        if found != expected:
            raise _damaged(folder, f"{name} {'is missing' if found is None else 'has been cut short or altered'}")


def verify_best(folder: Path, best: Path | None) -> None:
    """Verifies the checkpoint of the best evaluation so far, which going on from a verified one needs.

    Args:
        best: its folder, which may be `folder`; None where there has been no evaluation.

    Raises:
        CheckpointError: it is damaged.
    """
    if best is not None and best != folder:
        try:
            verify(best)
        except CheckpointError as error:
            raise CheckpointError(
                f"{folder.name} needs the best weights so far. {error.message}",
                hint="Use an older checkpoint, or do without the best weights.",
            ) from error


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
    if not isinstance(files, dict) or not set(files) >= FILES - {OPTIMIZER_FILE}:
        raise _damaged(folder, "manifest.json does not list the files of a checkpoint")
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    try:
        whole = json_text(_sealed(content)) == (folder / "manifest.json").read_text(encoding="utf-8")
    except ValueError:  # NaN, or half of a surrogate pair: nothing that textune has written
        whole = False
    if not whole:
        raise _damaged(folder, "manifest.json has been cut short or altered")
    return files


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """With its own hash, so that damage to it is not taken for damage to a file."""
    return {**manifest, "sha256": hashlib.sha256(json_text(manifest).encode()).hexdigest()}


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint {str(folder)!r} is damaged: {what}.", hint="Use an older checkpoint.")


def load_weights(folder: Path, model: torch.nn.Module) -> None:
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


def optimizer_file(folder: Path) -> Path:
    """Where a checkpoint has the optimiser's state.

    Raises:
        CheckpointError: it has none.
    """
    file = folder / OPTIMIZER_FILE
    if not file.is_file():
        raise CheckpointError(
            f"The checkpoint {str(folder)!r} holds the model alone: training cannot go on from it.",
            hint="Load it with from_pretrained and start anew, or use a checkpoint that was saved with the optimiser.",
        )
    return file


def load_optimizer(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    partly: bool = False,
    renewed: torch.Tensor | None = None,
    settings: bool = False,
) -> list[str]:
    """Copies a verified checkpoint's moments into the optimiser.

    Args:
        partly: leave out the moments of parameters that are not trained here, or have other shapes.
        renewed: leave out those of this parameter too, whose rows are others of the same shape; None for none.
        settings: take those of the checkpoint as well (learning rate, weight decay, ...), which stay as they are
            otherwise, and where it was written before settings were stored.

    Returns:
        The names of the parameters whose moments were left out.

    Raises:
        CheckpointError: there are none in the checkpoint, or those of other parameters, shapes or groups.
    """
    file = optimizer_file(folder)
    now = optimizer.state_dict()
    names = _parameter_names(model, optimizer)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {names[parameter]: number for number, parameter in enumerate(trained)}
    found, shapes, groups = _stored_optimizer(file)
    odd = [
        name
        for name, wanted in shapes.items()
        if name not in index
        or trained[index[name]] is renewed
        or any(list(shape) != list(trained[index[name]].shape) for shape in wanted)
    ]
    if odd and not partly:
        raise CheckpointError(f"The checkpoint {str(folder)!r} belongs to another training: it trains {odd[0]!r}.")
    if settings and groups is not None:
        if len(groups) != len(now["param_groups"]):
            raise CheckpointError(
                f"The checkpoint {str(folder)!r} belongs to another training: expected "
                f"{counted(len(now['param_groups']), 'group')} of parameters, found {counted(len(groups), 'group')}.",
            )
        now["param_groups"] = [{**own, **stored} for own, stored in zip(now["param_groups"], groups, strict=True)]
    state = {index[name]: moments for name, moments in found.items() if name not in odd}
    optimizer.load_state_dict({"state": {**now["state"], **state}, "param_groups": now["param_groups"]})
    return odd


def _stored_optimizer(
    file: Path,
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Any]], list[dict[str, Any]] | None]:
    """The state by parameter name, shapes that each trained parameter must have, and the settings of the groups."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        # Copies: what safetensors gives lies in the file, which is to be deleted one day, and `to` leaves it there.
        items: dict[str, Any] = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
        stored = (opened.metadata() or {}).get("textune")
    values = None if stored is None else from_plain(json.loads(stored))
    found: dict[str, dict[str, Any]] = {}
    for key, value in {**items, **(values["state"] if values else {})}.items():
        moment, _, name = key.partition("/")
        found.setdefault(name, {})[moment] = value
    if values is not None:
        return found, {name: [shape] for name, shape in values["shapes"].items()}, values["groups"]
    # Written before anything but AdamW's moments was: each has the shape of its parameter, or is a number.
    return (
        found,
        {name: [item.shape for item in moments.values() if item.ndim] for name, moments in found.items()},
        None,
    )


def model_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, each once even where modules share it, and the buffers that belong to the model's state."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in {**dict(model.named_parameters()), **buffers}.items()}


def _held(tensor: torch.Tensor, *, copied: bool) -> torch.Tensor:
    """A contiguous tensor on the CPU, which stays as it is if it is a copy."""
    import torch

    if not copied:
        return tensor.cpu().contiguous()
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def optimizer_values(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint keeps of the optimiser besides tensors, as JSON: numbers of its state, the settings of its
    groups, and the shapes of what it trains.

    Raises:
        CheckpointError: there is something that cannot be stored.
    """
    import torch

    names = _parameter_names(model, optimizer)
    state = _optimizer_state(model, optimizer)
    groups = optimizer.param_groups
    values: dict[str, Any] = {
        "state": {name: item for name, item in state.items() if not isinstance(item, torch.Tensor)},
        "groups": [
            {name: item for name, item in group.items() if name not in ("params", "param_names")} for group in groups
        ],
        "shapes": {names[parameter]: list(parameter.shape) for group in groups for parameter in group["params"]},
    }
    return {part: to_plain(value, name=f"the optimiser's {part}") for part, value in values.items()}


def _optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as `MOMENT/NAME`."""
    names = _parameter_names(model, optimizer)
    if foreign := [parameter for parameter in optimizer.state if parameter not in names]:
        raise CheckpointError(
            f"A checkpoint cannot hold the optimiser's state: {foreign[0]!r:.60} is no parameter of the model.",
            hint="Use save_only_model=True or save_strategy='no', which keep no state to go on from.",
        )
    return {
        f"{key}/{names[parameter]}": item
        for parameter, moments in optimizer.state.items()
        for key, item in moments.items()
    }


def _parameter_names(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, str]:
    """Names of what is trained: those the optimiser knows, which may train a part of a table, else the model's."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        names |= dict(zip(group["params"], group.get("param_names", ()), strict=False))
    return names


def _digest(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
