"""The Trainer's files: checkpoints that can be gone on from, and the finished model.

OUTPUT_DIR/checkpoint-N/   the files of textune.training.checkpoint, and
              config.json, tokenizer files   so that from_pretrained loads the folder
              trainer_state.json             transformers' TrainerState
              training_args.json             TrainingArguments; transformers pickles them, textune never does
              progress.json                  losses since the last log, state of the schedule, kernel of fp32 products,
                                             scale of fp16's losses, number of processes
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.compat.arguments import TrainingArguments
from textune.errors import CheckpointError, ConfigError, DataError, InputNotFoundError, did_you_mean
from textune.files import read_json, remove_folder, replacing_folder, storage_errors, write_json, write_text
from textune.training.checkpoint import (
    CheckpointFolders,
    committed,
    found,
    load_optimizer,
    load_weights,
    model_tensors,
    optimizer_file,
    optimizer_values,
    verify,
)
from textune.training.plain_values import from_plain, to_plain
from textune.training.state import TrainingState

if TYPE_CHECKING:
    from textune.compat.trainer import Trainer
    from textune.compat.trainer_callbacks import EventBridge

_logger = logging.getLogger(__name__)

PREFIX = "checkpoint"
STATE_FILE = "trainer_state.json"
_ARGUMENTS_FILE = "training_args.json"
_PROGRESS_FILE = "progress.json"
# Another value of one of these puts the place in the data somewhere else.
_OF_THE_PLACE = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "seed",
    "data_seed",
)


def checkpoint_folders(trainer: Trainer, bridge: EventBridge) -> CheckpointFolders:
    """Names and further files of the Trainer's checkpoints."""

    def add_files(folder: Path) -> None:
        note_best_checkpoint(trainer)
        _save_description(trainer, folder)
        trainer.state.stateful_callbacks = _callback_states(trainer)
        trainer.state.save_to_json(str(folder / STATE_FILE))
        if not trainer.args.save_only_model:
            progress = {
                "loss_since_log": bridge.loss_since_log,
                "last_logged_step": bridge.last_logged_step,
                "schedule": schedule_state(trainer.lr_scheduler),
                "fp32_mode": trainer.arithmetic.fp32_mode,
                "scaler": None if trainer.scaler is None else trainer.scaler.state_dict(),
                "processes": trainer.processes.world_size,
            }
            write_json(folder / _PROGRESS_FILE, progress)

    return CheckpointFolders(PREFIX, with_optimizer=not trainer.args.save_only_model, add_files=add_files)


def note_best_checkpoint(trainer: Trainer) -> None:
    """Names the folder of the best evaluation's checkpoint, where there is one or the one being written is it."""
    root, best = Path(str(trainer.args.output_dir)), trainer.state.best_global_step
    if best and (best == trainer.state.global_step or (root / f"{PREFIX}-{best}").is_dir()):
        trainer.state.best_model_checkpoint = str(root / f"{PREFIX}-{best}")


def _save_description(trainer: Trainer, folder: Path) -> None:
    """What belongs to the weights: configuration, tokenizer and arguments."""
    config: Any = getattr(trainer.model, "config", None)
    if hasattr(config, "save_pretrained"):
        config.architectures = [type(trainer.model).__name__]
        config.save_pretrained(folder)
    tokenizer: Any = trainer.processing_class or getattr(trainer.data_collator, "tokenizer", None)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    write_text(folder / _ARGUMENTS_FILE, trainer.args.to_json_string() + "\n")


def _callback_states(trainer: Trainer) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if hasattr(callback, "state") and callable(callback.state):
            states.setdefault(type(callback).__name__, []).append(callback.state())
    return {name: found[0] if len(found) == 1 else found for name, found in states.items()}


def schedule_state(schedule: Any) -> Any:
    """The schedule's state as JSON.

    Raises:
        CheckpointError: there is something in it that cannot be stored.
    """
    return to_plain(schedule.state_dict(), name=f"the state of {type(schedule).__name__}")


def require_storable(trainer: Trainer) -> None:
    """Looks early whether the checkpoints of a training can hold what is needed to go on from them.

    Raises:
        CheckpointError: optimiser or schedule have something that cannot be stored.
    """
    if trainer.args.save_strategy != "no" and not trainer.args.save_only_model:
        optimizer_values(trainer.model, trainer.optimizer)
        schedule_state(trainer.lr_scheduler)


def remove_old_checkpoints(root: Path, *, limit: int | None, best: int | None) -> None:
    """Keeps the best and the last, `limit` together; with 1 the last and the best, as transformers does."""
    folders = CheckpointFolders(PREFIX)
    steps = committed(root, folders=folders)
    # The last is the one that was written last: higher numbers may have been left by an earlier training.
    steps.sort(key=lambda step: folders.folder(root, step).stat().st_mtime_ns)
    if not limit or len(steps) <= limit:
        return
    kept = {steps[-1]} | ({best} if best in steps else set())
    for step in reversed(steps):
        if len(kept) < limit:
            kept.add(step)
    for step in steps:
        if step not in kept:
            remove_folder(folders.folder(root, step))


def save_model(trainer: Trainer, folder: Path) -> None:
    """Writes the model in Hugging Face layout; files in the folder with other names stay.

    Raises:
        OutputError, StorageError: it cannot be written.
    """
    from safetensors.torch import save_file

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = folder / "model-being-saved"
    with replacing_folder(made) as temporary:
        if hasattr(trainer.model, "save_pretrained"):
            trainer.model.save_pretrained(temporary)
        else:
            tensors = {name: tensor.contiguous() for name, tensor in model_tensors(trainer.model).items()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        _save_description(trainer, temporary)
    with storage_errors(folder):
        for file in sorted(made.iterdir()):
            os.replace(file, folder / file.name)  # noqa: PTH105 - a rename within the folder
        made.rmdir()


def write_card(trainer: Trainer, values: dict[str, Any]) -> None:
    """Writes transformers' draft of a model card to README.md in `output_dir`.

    Raises:
        ConfigError: it takes no value of such a name.
        OutputError, StorageError: it cannot be written.
    """
    import inspect

    from transformers.modelcard import TrainingSummary

    known = list(inspect.signature(TrainingSummary.from_trainer).parameters)[1:]
    if unknown := [name for name in values if name not in known]:
        raise ConfigError(f"create_model_card has no argument {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    path = Path(str(trainer.args.output_dir)) / "README.md"
    with storage_errors(path):
        write_text(path, TrainingSummary.from_trainer(trainer, **values).to_model_card())


def find_checkpoint(asked: str | bool, root: Path) -> Path:
    """The checkpoint to go on from: the one named, or the last whole one.

    Raises:
        CheckpointError: it is damaged, or there is none.
        InputNotFoundError: there is no such folder.
    """
    if not isinstance(asked, bool):
        folder = Path(asked)
        if not folder.is_dir():
            raise InputNotFoundError(f"resume_from_checkpoint: there is no folder {str(folder)!r}.")
        _verify(folder)
        return folder
    folders = CheckpointFolders(PREFIX)
    for step in reversed(found(root, folders=folders)):
        folder = folders.folder(root, step)
        try:
            _verify(folder)
        except CheckpointError as error:
            _logger.warning("%s Trying the one before.", error.message)
        else:
            return folder
    raise CheckpointError(
        f"resume_from_checkpoint=True: there is no whole checkpoint in {str(root)!r}.",
        hint="Checkpoints are made by save_strategy='steps' (every save_steps) or 'epoch'. Leave it out to start anew.",
    )


def _verify(folder: Path) -> None:
    if (folder / "trainer_state.json").is_file() and not (folder / "manifest.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} has no manifest.json: it was written by transformers, or not to its end.",
            hint="Load its model with from_pretrained and start training anew.",
        )
    verify(folder)


def resume(
    trainer: Trainer, bridge: EventBridge, folder: Path, *, total_steps: int, steps_per_epoch: int
) -> TrainingState:
    """Puts everything where the checkpoint stands: weights, moments, schedule, step, place in the data, history.

    Raises:
        CheckpointError: it holds the model alone, or belongs to another model.
        ConfigError: an argument has changed that the place in the data depends on.
    """
    from transformers.trainer_callback import TrainerState

    _require_same_place(trainer.args, folder)
    optimizer_file(folder)
    load_weights(folder, trainer.model)
    progress = read_json(folder / _PROGRESS_FILE)
    then, now = progress.get("processes", 1), trainer.processes.world_size
    if then != now:
        raise ConfigError(
            f"The checkpoint was made by {then} processes; here are {now}, whose steps hold other rows.",
            hint=f"Go on with torchrun --nproc-per-node {then}, or start anew with the checkpoint's model.",
        )
    if trainer.scaler is not None and progress.get("scaler"):
        trainer.scaler.load_state_dict(progress["scaler"])
    if progress["schedule"] is None:
        raise CheckpointError(
            f"{str(folder)!r}: an earlier textune could not store the state of a "
            f"{type(trainer.lr_scheduler).__name__}.",
            hint="Use lr_scheduler_type, or start anew with the checkpoint's model.",
        )
    trainer.lr_scheduler.load_state_dict(from_plain(progress["schedule"]))
    # A checkpoint's own learning rates come over these; those of earlier textunes have none.
    rates = trainer.lr_scheduler.get_last_lr()
    for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    load_optimizer(folder, trainer.model, trainer.optimizer, settings=True)
    bridge.loss_since_log, bridge.last_logged_step = progress["loss_since_log"], progress["last_logged_step"]
    measured = {item.name for item in trainer.arithmetic.measurements}
    if progress["fp32_mode"] in measured:  # the same bits, whatever a new measurement finds to be faster
        trainer.arithmetic = dataclasses.replace(trainer.arithmetic, fp32_mode=progress["fp32_mode"])
    kept = trainer.state
    trainer.state = TrainerState.load_from_json(str(folder / STATE_FILE))
    for name in (
        "max_steps",
        "num_train_epochs",
        "logging_steps",
        "eval_steps",
        "save_steps",
        "is_local_process_zero",
        "is_world_process_zero",
    ):
        setattr(trainer.state, name, getattr(kept, name))
    if trainer.args.restore_callback_states_from_checkpoint:
        _restore_callbacks(trainer)
    state = TrainingState.from_json(read_json(folder / "state.json"))
    state.total_steps, state.stop_reason = total_steps, None
    if state.step_in_epoch >= steps_per_epoch:
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
    return state


def _require_same_place(args: TrainingArguments, folder: Path) -> None:
    try:
        then = read_json(folder / _ARGUMENTS_FILE)
    except (InputNotFoundError, DataError) as error:
        raise CheckpointError(f"{str(folder)!r} has no readable {_ARGUMENTS_FILE}.") from error
    now = args.to_dict()
    changed = [
        f"{name} is {now[name]!r}, the checkpoint was made with {then.get(name)!r}."
        for name in _OF_THE_PLACE
        if now[name] != then.get(name)
    ]
    if changed:
        raise ConfigError(changed, hint="Go on with the same values, or start anew with the checkpoint's model.")


def _restore_callbacks(trainer: Trainer) -> None:
    """Gives callbacks that keep a state the one of the checkpoint."""
    by_class: dict[str, list[Any]] = {}
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        by_class.setdefault(type(callback).__name__, []).append(callback)
    for name, stored in trainer.state.stateful_callbacks.items():
        found = by_class.get(name, [])
        if not found:
            _logger.warning("The checkpoint has the state of a %s, which is none of this Trainer's callbacks.", name)
        for callback, values in zip(found, stored if isinstance(stored, list) else [stored], strict=False):
            for attribute, value in {**values.get("args", {}), **values.get("attributes", {})}.items():
                setattr(callback, attribute, value)
    trainer.control.should_training_stop = False
