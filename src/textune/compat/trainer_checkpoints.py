"""The Trainer's files: checkpoints that can be gone on from, and the finished model.

OUTPUT_DIR/checkpoint-N/   the files of textune.training.checkpoint, and
              config.json, tokenizer files   so that from_pretrained loads the folder
              trainer_state.json             transformers' TrainerState
              training_args.json             TrainingArguments; transformers pickles them, textune never does
              progress.json                  losses since the last log, state of the schedule, kernel of fp32 products,
                                             scale of fp16's losses, number of processes, versions, what data and
                                             model are known by; and its course (see trainer_courses)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import has_length

from textune.compat.trainer_courses import (
    FOLDERS,
    PREFIX,
    PROGRESS_FILE,
    Course,
    course_of,
    is_of_course,
    last_course,
    superfluous,
)
from textune.compat.trainer_data import LABEL_COLUMNS, is_arrow_dataset
from textune.environment import describe, software_changes, software_of
from textune.errors import CheckpointError, ConfigError, DataError, InputNotFoundError, OutputError, did_you_mean
from textune.files import read_json, remove_folder, replacing_folder, storage_errors, write_json, write_text
from textune.lock import run_lock
from textune.training.checkpoint import (
    CheckpointFolders,
    load_optimizer,
    load_weights,
    model_tensors,
    optimizer_file,
    optimizer_values,
    verify,
    verify_best,
)
from textune.training.plain_values import from_plain, to_plain
from textune.training.state import TrainingState

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerState

    from textune.compat.trainer import Trainer
    from textune.compat.trainer_callbacks import EventBridge

_logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
_ARGUMENTS_FILE = "training_args.json"
# Another value of one of these puts the place in the data somewhere else.
_OF_THE_PLACE = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "seed",
    "data_seed",
)
# The optimiser and its schedule go on with those of the checkpoint.
_OF_THE_OPTIMIZER = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")


def checkpoint_folders(trainer: Trainer, bridge: EventBridge) -> CheckpointFolders:
    """Names and further files of the Trainer's checkpoints."""
    known_by, software = _known_by(trainer), _software(trainer)

    def add_files(folder: Path) -> None:
        note_best_checkpoint(trainer, bridge.course)
        _save_description(trainer, folder)
        trainer.state.stateful_callbacks = _callback_states(trainer)
        trainer.state.save_to_json(str(folder / STATE_FILE))
        best = trainer.state.best_model_checkpoint
        progress: dict[str, Any] = {
            "course": bridge.course.number,
            "began": bridge.course.began,
            "best": None if best is None else Path(best).name,
        }
        if not trainer.args.save_only_model:
            progress |= {
                "loss_since_log": bridge.loss_since_log,
                "last_logged_step": bridge.last_logged_step,
                "schedule": schedule_state(trainer.lr_scheduler),
                "fp32_mode": trainer.arithmetic.fp32_mode,
                "scaler": None if trainer.scaler is None else trainer.scaler.state_dict(),
                "processes": trainer.processes.world_size,
                "known_by": known_by,
                "software": software,
            }
        write_json(folder / PROGRESS_FILE, progress)

    return CheckpointFolders(PREFIX, with_optimizer=not trainer.args.save_only_model, add_files=add_files)


@contextlib.contextmanager
def output_lock(trainer: Trainer) -> Iterator[None]:
    """Keeps other processes from training in `output_dir` inside the block, where anything will be saved there.

    Raises:
        OutputError: one does.
    """
    args = trainer.args
    if not (args.should_save and (args.save_strategy != "no" or args.enable_jit_checkpoint)):
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            locked = stack.enter_context(run_lock(Path(str(args.output_dir))))
        except OutputError as error:
            hint = "Wait for it or end it, or choose another output_dir; with save_strategy='no' several may train."
            raise OutputError(error.message, hint=hint) from None
        if not locked:
            _logger.warning("%s has no locks: nothing keeps a second process out of it.", args.output_dir)
        yield


def _known_by(trainer: Trainer) -> dict[str, Any]:
    """By what another data set or model is known, cheaply and without being wrong about the same one."""
    facts: dict[str, Any] = {}
    data: Any = trainer.train_dataset
    if has_length(data):
        facts["number of rows of train_dataset"] = len(data)
        names = [name for name in ("input_ids", *LABEL_COLUMNS) if is_arrow_dataset(data) and name in data.column_names]
        if names and len(data):
            some = sorted({number * (len(data) - 1) // 15 for number in range(16)})
            table = data.with_format("arrow").select_columns(names)[some]
            text = json.dumps(table.to_pylist(), default=str)
            facts["hash of some rows of train_dataset"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    config: Any = getattr(trainer.model, "config", None)
    if isinstance(getattr(config, "model_type", None), str):
        facts["type of the model"] = config.model_type
    labels = getattr(config, "id2label", None)
    if isinstance(labels, Mapping):
        facts["labels of the model"] = [str(labels[number]) for number in sorted(labels)]
    return facts


def _software(trainer: Trainer) -> dict[str, Any]:
    """What last bits rest on."""
    environment = describe(trainer.args.device, trainer.arithmetic)
    return {**software_of(environment), "threads": environment["threads"]}


def note_best_checkpoint(trainer: Trainer, course: Course) -> None:
    """Names the folder of the best evaluation's checkpoint, where there is one or the one being written is it.

    An earlier training may have left one of the same step, so it must be the course's own.
    """
    state, best = trainer.state, trainer.state.best_global_step
    if not best:
        return
    folder = FOLDERS.folder(Path(str(trainer.args.output_dir)), best)
    is_noted = state.best_model_checkpoint is not None and Path(state.best_model_checkpoint).name == folder.name
    if best == state.global_step or (not is_noted and is_of_course(folder, course)):
        state.best_model_checkpoint = str(folder)


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
    states = {
        name: [callback.state() for callback in callbacks if callable(getattr(callback, "state", None))]
        for name, callbacks in _callbacks(trainer).items()
    }
    return {name: found[0] if len(found) == 1 else found for name, found in states.items() if found}


def _callbacks(trainer: Trainer) -> dict[str, list[Any]]:
    """What may keep a state, callbacks and control, by the names of their classes."""
    by_class: dict[str, list[Any]] = {}
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        by_class.setdefault(type(callback).__name__, []).append(callback)
    return by_class


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


def remove_old_checkpoints(trainer: Trainer) -> None:
    """Keeps the best and the last, `save_total_limit` together; with 1 the last and the best, as transformers does."""
    root, state, limit = Path(str(trainer.args.output_dir)), trainer.state, trainer.args.save_total_limit
    if not limit:
        return
    best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint).name
    needs_best = trainer.args.load_best_model_at_end
    for step in superfluous(root, last=state.global_step, best=best, limit=limit, needs_best=needs_best):
        remove_folder(FOLDERS.folder(root, step))


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


def find_checkpoint(asked: str | bool, root: Path, *, needs_best: bool) -> Path:
    """The checkpoint to go on from: the one named, or the last whole one of the training that wrote there last.

    Args:
        needs_best: whether the best checkpoint so far has to be whole too.

    Raises:
        CheckpointError: it is damaged, or there is none.
        InputNotFoundError: there is no such folder.
    """
    if not isinstance(asked, bool):
        folder = Path(asked)
        if not folder.is_dir():
            raise InputNotFoundError(f"resume_from_checkpoint: there is no folder {str(folder)!r}.")
        _verify(folder, needs_best=needs_best)
        return folder
    for step in last_course(root):
        folder = FOLDERS.folder(root, step)
        try:
            _verify(folder, needs_best=needs_best)
        except CheckpointError as error:
            _logger.warning("%s Trying the one before.", error.message)
        else:
            return folder
    raise CheckpointError(
        f"resume_from_checkpoint=True: there is no whole checkpoint in {str(root)!r}.",
        hint="Checkpoints are made by save_strategy='steps' (every save_steps) or 'epoch'. Leave it out to start anew.",
    )


def _verify(folder: Path, *, needs_best: bool) -> None:
    if (folder / "trainer_state.json").is_file() and not (folder / "manifest.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} has no manifest.json: it was written by transformers, or not to its end.",
            hint="Load its model with from_pretrained and start training anew.",
        )
    verify(folder)
    verify_best(folder, _best_folder(folder, _read_state(folder)) if needs_best else None)


def _read_state(folder: Path) -> TrainerState:
    """transformers' part of a checkpoint.

    Raises:
        CheckpointError: it has none, or that of another transformers.
    """
    from transformers.trainer_callback import TrainerState

    try:
        return TrainerState.load_from_json(str(folder / STATE_FILE))
    except FileNotFoundError as error:
        raise CheckpointError(f"{str(folder)!r} has no {STATE_FILE}: it is no checkpoint of a Trainer.") from error
    except TypeError as error:
        raise CheckpointError(
            f"{STATE_FILE} in {str(folder)!r} was written with another transformers: {error}.",
            hint="Go on with the transformers that wrote it, or start anew with the checkpoint's model.",
        ) from error


def _best_folder(folder: Path, state: TrainerState) -> Path | None:
    """Where the best checkpoint lies that another one knows of: beside it, for both may have moved, or where it was."""
    if state.best_model_checkpoint is None:
        return None
    stored = Path(state.best_model_checkpoint)
    if stored.name == f"{PREFIX}-{state.global_step}":
        return folder
    beside = folder.with_name(stored.name)
    is_there = is_of_course(beside, course_of(folder)) or (beside.is_dir() and not stored.is_dir())
    return beside if is_there else stored


def resume(trainer: Trainer, bridge: EventBridge, folder: Path, *, total_steps: int) -> TrainingState:
    """Puts everything where the checkpoint stands: weights, moments, schedule, step, place in the data, history.

    Raises:
        CheckpointError: it holds the model alone, or belongs to another model.
        ConfigError: data, model or an argument have changed that the place in the data depends on.
    """
    optimizer_file(folder)
    _require_same_place(trainer, folder)
    load_weights(folder, trainer.model)
    progress = read_json(folder / PROGRESS_FILE)
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
    trainer.state = _read_state(folder)
    best = _best_folder(folder, trainer.state)
    trainer.state.best_model_checkpoint = None if best is None else str(best)
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
    else:
        _warn_of_lost_states(trainer)
    state = TrainingState.from_json(read_json(folder / "state.json"))
    state.total_steps, state.stop_reason = total_steps, None
    if state.epoch_over and state.epoch_end_told:
        bridge.end_behind_last_epoch(state)
    return state


def _require_same_place(trainer: Trainer, folder: Path) -> None:
    """Refuses what alters rows, their order or the optimiser's moments; warns of what stays as the checkpoint has it,
    and of what may alter last bits."""
    try:
        then = read_json(folder / _ARGUMENTS_FILE)
    except (InputNotFoundError, DataError) as error:
        raise CheckpointError(f"{str(folder)!r} has no readable {_ARGUMENTS_FILE}.") from error
    now, progress = trainer.args.to_dict(), read_json(folder / PROGRESS_FILE)
    names = [*_OF_THE_PLACE, *(["length_column_name"] if now["train_sampling_strategy"] == "group_by_length" else [])]
    pairs = {name: (now[name], then.get(name)) for name in names}
    facts, recorded = _known_by(trainer), progress.get("known_by", {})
    pairs |= {name: (fact, recorded[name]) for name, fact in facts.items() if name in recorded}
    # A script's own optimiser has its own settings.
    is_by_arguments = type(trainer.optimizer) is trainer.get_optimizer_cls_and_kwargs(trainer.args)[0]
    if is_by_arguments and _algorithm(now["optim"]) != _algorithm(then.get("optim")):
        pairs["optim"] = (now["optim"], then.get("optim"))
    changed = [
        f"{name} is {here!r}, the checkpoint was made with {there!r}."
        for name, (here, there) in pairs.items()
        if here != there
    ]
    if changed:
        raise ConfigError(changed, hint="Go on with the same values, or start anew with the checkpoint's model.")
    for name in _OF_THE_OPTIMIZER if is_by_arguments else ():
        if name in then and then[name] != now[name]:
            _logger.warning(
                "%s is %r; the checkpoint's %r is used: to change it, start anew with the checkpoint's model.",
                name,
                now[name],
                then[name],
            )
    for change in software_changes(progress.get("software", {}), _software(trainer)):
        _logger.warning("%s", change)


def _algorithm(optim: str | None) -> str | None:
    """All implementations of AdamW have the same moments."""
    return "adamw" if str(optim).startswith("adamw") else optim


def _restore_callbacks(trainer: Trainer) -> None:
    """Gives callbacks that keep a state the one of the checkpoint."""
    known = _callbacks(trainer)
    for name in trainer.state.stateful_callbacks:
        if name not in known:
            _logger.warning("The checkpoint has the state of a %s, which is none of this Trainer's callbacks.", name)
    for callback, values in _stored_states(trainer):
        for attribute, value in {**values.get("args", {}), **values.get("attributes", {})}.items():
            setattr(callback, attribute, value)
    trainer.control.should_training_stop = False


def _warn_of_lost_states(trainer: Trainer) -> None:
    """Names the callbacks that begin anew, without which training does not go on as an undisturbed one would."""
    for callback, values in _stored_states(trainer):
        lost = [
            f"{name}={value!r}"
            for name, value in values.get("attributes", {}).items()
            # As JSON, in which the stored value has been: a tuple is a list, NaN is NaN.
            if json.dumps(getattr(callback, name, None), default=str) != json.dumps(value)
        ]
        if lost:
            _logger.warning(
                "%s begins anew, without what the checkpoint has of it (%s): to go on as an undisturbed training "
                "would, set restore_callback_states_from_checkpoint=True.",
                type(callback).__name__,
                ", ".join(lost),
            )


def _stored_states(trainer: Trainer) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The callbacks that the checkpoint has a state of, each with this state."""
    by_class = _callbacks(trainer)
    for name, stored in trainer.state.stateful_callbacks.items():
        yield from zip(by_class.get(name, []), stored if isinstance(stored, list) else [stored], strict=False)
