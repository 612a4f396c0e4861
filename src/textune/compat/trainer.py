"""`Trainer`: the constructor, methods and results of `transformers.Trainer` over textune's engine.

Texts for a classifier of transformers are trained on as `textune train` does it; any other model, data set or loss goes
batch by batch through `training_step`. A line of the log says which way was taken and why. Several processes are those
of torchrun; accelerate is not needed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    default_data_collator,
    set_seed,
)
from transformers.trainer_callback import (
    CallbackHandler,
    DefaultFlowCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_pt_utils import log_metrics, metrics_format, save_metrics, save_state
from transformers.trainer_utils import (
    TrainOutput,
    align_special_tokens,
    enable_full_determinism,
    has_length,
    speed_metrics,
)
from transformers.utils import can_return_loss, find_labels

from textune.compat import trainer_checkpoints as checkpoints
from textune.compat.arguments import TrainingArguments
from textune.compat.trainer_callbacks import EventBridge, progress_callback, stopped_by_signals, tracker_callbacks
from textune.compat.trainer_checks import (
    check_callables,
    check_data,
    check_model,
    check_optimizer,
    constructor_problems,
    label_smoother,
)
from textune.compat.trainer_courses import next_course
from textune.compat.trainer_data import own_batches
from textune.compat.trainer_evaluation import TrainerEvaluation
from textune.compat.trainer_facts import ThisProcess
from textune.compat.trainer_models import checkpoint_activations
from textune.compat.trainer_work import choose_work
from textune.errors import ConfigError, OutOfMemoryError, TrainingError, did_you_mean
from textune.files import storage_errors
from textune.training.checkpoint import load_weights
from textune.training.loop import train as run_loop
from textune.training.optimizer import allocate_moments
from textune.training.setup import Setup
from textune.training.state import TrainingState
from textune.training.work import Work

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        total_steps: updates of the weights.
        steps_per_epoch: updates in an epoch.
        batches_per_epoch: passes in an epoch.
        num_epochs: epochs that are begun.
        num_samples: rows in all epochs.
    """

    total_steps: int
    steps_per_epoch: int
    batches_per_epoch: int
    num_epochs: int
    num_samples: float


class Trainer(TrainerEvaluation):
    """Trains, evaluates and predicts, with the signature of `transformers.Trainer` 5.23 and `tokenizer=` besides.

    Raises:
        ConfigError: arguments that contradict each other, are unknown or missing; all of them at once.
        DataError: data sets without labels, or with labels that are no numbers.
        OutputError: `output_dir` cannot be made.
    """

    log_metrics = log_metrics
    metrics_format = metrics_format
    save_metrics = save_metrics
    save_state = save_state

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., Any] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[[Any], dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
        *,
        tokenizer: Any = None,
        **unknown: Any,
    ) -> None:
        known = list(inspect.signature(Trainer.__init__).parameters)[1:-1]
        problems = [f"Trainer has no argument {name!r}.{did_you_mean(name, known)}" for name in unknown]
        if tokenizer is not None and processing_class is not None:
            problems.append("tokenizer and processing_class are the same argument; give one of them.")
        self.args = TrainingArguments("tmp_trainer") if args is None else args
        self.processing_class = tokenizer if processing_class is None else processing_class
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.model_init, self.compute_loss_func, self.compute_metrics = model_init, compute_loss_func, compute_metrics
        self.preprocess_logits_for_metrics = preprocess_logits_for_metrics
        self.optimizer, self.lr_scheduler = optimizers
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        problems += constructor_problems(self, model)
        if problems:
            raise ConfigError(problems)
        transformers.logging.set_verbosity(self.args.get_process_log_level())
        self.processes = self.args.processes
        self._seed()
        self.model = self.call_model_init() if model_init is not None else model
        check_model(self.model)
        self._place_model()
        check_callables(self, data_collator)
        self.data_collator = data_collator or self._default_collator()
        found = find_labels(type(self.model))
        self.label_names = list(found) if self.args.label_names is None else list(self.args.label_names)
        self.can_return_loss = bool(can_return_loss(type(self.model)))
        self.label_smoother = label_smoother(self)
        check_data(self, default_collator=data_collator is None)
        if self.args.should_save:
            output = Path(str(self.args.output_dir))
            with storage_errors(output):
                output.mkdir(parents=True, exist_ok=True)
        self.accelerator = ThisProcess(self.args.device, self.processes)
        self.is_in_train = False
        self._init_callbacks(callbacks)

    def _default_collator(self) -> Any:
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            return DataCollatorWithPadding(self.processing_class)
        return default_data_collator

    def _init_callbacks(self, callbacks: list[Any] | None) -> None:
        self.callback_handler = CallbackHandler(
            [DefaultFlowCallback, *tracker_callbacks(self.args), *(callbacks or [])],
            self.model,
            self.processing_class,
            self.optimizer,
            self.lr_scheduler,
        )
        self.add_callback(progress_callback(self.args))
        self.control, self.state = TrainerControl(), self._new_state()
        self.tell("on_init_end")

    def _seed(self) -> None:
        if self.args.full_determinism:
            enable_full_determinism(self.args.seed)
        else:
            set_seed(self.args.seed)

    def _place_model(self) -> None:
        """To the device; weights in half precision become fp32, since updates would be lost in its rounding."""
        self.model.to(self.args.device)
        config = getattr(self.model, "config", None)
        if config is not None:
            config.use_cache = self.args.use_cache
        halves = {item.dtype for item in self.model.parameters() if item.dtype in (torch.float16, torch.bfloat16)}
        if halves and isinstance(self.model, PreTrainedModel):
            _logger.warning("The model was loaded in %s; it is trained in float32.", " and ".join(map(str, halves)))
            self.model.float()
        if self.args.activation_checkpointing:
            checkpoint_activations(self.model, self.args.activation_checkpointing_kwargs)

    def call_model_init(self, trial: Any = None) -> Any:
        """A new model from `model_init`."""
        assert self.model_init is not None
        parameters = inspect.signature(self.model_init).parameters.values()
        takes_trial = any(item.default is item.empty and item.kind < item.VAR_POSITIONAL for item in parameters)
        model = self.model_init(trial) if takes_trial else self.model_init()
        if model is None:
            raise ConfigError("model_init returned None; expected a model. Is its `return` missing?")
        return model

    # ---- Training ----

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains for `max_steps` or `num_train_epochs`.

        Args:
            resume_from_checkpoint: True for the last whole checkpoint in `output_dir`, or a checkpoint's folder.
            trial: must be None.
            ignore_keys_for_eval: outputs of the model that are no predictions.

        Returns:
            Steps done, mean loss and the metrics of the run: time, speed, loss.

        Raises:
            TrainingError: a loss or a gradient is not finite; the weights are those of the step before.
            OutOfMemoryError: with `auto_find_batch_size`, not even one row at a time finds memory.
            CheckpointError: the checkpoint is damaged or of another model.
            OutputError, StorageError: a checkpoint cannot be written, or another process trains in `output_dir`.
            SystemExit: with `enable_jit_checkpoint`, after a signal and its checkpoint; its code is 128 + the signal's.
        """
        if trial is not None:
            raise self._refusal("train(trial=...)", "There is no search over hyperparameters; loop over train().")
        self.args.check()
        self._renew()
        self.processes.share_weights(self.model)
        loader = own_batches(self.get_train_dataloader(), self.processes)
        length = self._length(loader)
        self.create_optimizer_and_scheduler(length.total_steps)
        check_optimizer(self)
        allocate_moments(self.optimizer)
        self.scaler = self.accelerator.scaler = self.arithmetic.scaler(self.args.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(checkpoints.output_lock(self))
            work = self._choose_work(loader, length, stack)
            bridge = EventBridge(
                self,
                batches_per_epoch=length.batches_per_epoch,
                num_epochs=length.num_epochs,
                ignore_keys=ignore_keys_for_eval,
            )
            state = self._begin(bridge, loader, length, resume_from_checkpoint)
            setup = Setup(
                model=self.model,
                work=work,
                optimizer=self.optimizer,
                schedule=None,
                learning_rate=self.args.learning_rate,
                max_grad_norm=self.args.max_grad_norm,
                seed=self.args.seed,
                intervals=None,
                selection=None,
                evaluate=bridge.evaluate,
                checkpoints=Path(str(self.args.output_dir)),
                keep_checkpoints=None,
                folders=checkpoints.checkpoint_folders(self, bridge),
                processes=self.processes,
                scaler=self.scaler,
                smaller_passes=self.args.auto_find_batch_size,
            )
            first, tokens_before = state.step, state.tokens
            self._initial_num_input_tokens_seen = tokens_before
            stack.enter_context(self._in_training())
            stack.enter_context(self.arithmetic.in_force())
            listens = self.args.enable_jit_checkpoint
            with stopped_by_signals() if listens else contextlib.nullcontext() as signals:
                run_loop(setup, callbacks=[bridge] if signals is None else [bridge, signals], state=state)
            return self._finish(bridge, length, steps=state.step - first, tokens=state.tokens - tokens_before)

    def _renew(self) -> None:
        """What each call of `train` begins anew with."""
        if self.model_init is not None:
            self._seed()
            self.model = self.call_model_init()
            self._place_model()
            self.optimizer = self.lr_scheduler = None
        if self._made_scheduler:
            self.lr_scheduler, self._made_scheduler = None, False
        if isinstance(self.processing_class, PreTrainedTokenizerBase) and isinstance(self.model, PreTrainedModel):
            align_special_tokens(self.model, self.processing_class)
        self.model.zero_grad()

    def _choose_work(self, loader: Any, length: Length, stack: contextlib.ExitStack) -> Work:
        work, reason = choose_work(self, loader, steps_per_epoch=length.steps_per_epoch, stack=stack)
        self.training_path = "text" if reason is None else "general"
        if reason is None:
            _logger.info("Training on the text path: texts and a transformers classifier.")
        else:
            _logger.info("Training on the general path, batch by batch: %s.", reason)
        return work

    @contextlib.contextmanager
    def _in_training(self) -> Iterator[None]:
        self.is_in_train = True
        try:
            yield
        except OutOfMemoryError as error:
            hint = "Let the tokenizer cut texts shorter, set gradient_checkpointing=True, or take a smaller model."
            raise OutOfMemoryError(error.message, hint=hint) from error
        except TrainingError as error:
            hint = "Look at these rows; a lower learning_rate, warmup_steps=0.1 or bf16=False often helps."
            raise TrainingError(error.message, hint=hint) from error
        finally:
            self.is_in_train = False

    def _length(self, loader: Any) -> Length:
        args = self.args
        per_step, size = args.gradient_accumulation_steps, args.train_batch_size * args.world_size
        if not has_length(loader):
            if args.max_steps <= 0:
                raise ConfigError("train_dataset has no length: say with max_steps how many steps to train.")
            rows = args.max_steps * per_step * size
            return Length(args.max_steps, args.max_steps, args.max_steps * per_step, sys.maxsize, rows)
        batches = int(self.processes.largest(len(loader)))
        if batches == 0:
            raise ConfigError("train_dataset gives no batch: it is empty, or dataloader_drop_last left out its rows.")
        steps = math.ceil(batches / per_step)
        if args.max_steps > 0:
            rows = args.max_steps * per_step * size
            return Length(args.max_steps, steps, batches, math.ceil(args.max_steps / steps), rows)
        dataset: Any = getattr(loader, "dataset", None)
        rows = len(dataset) if has_length(dataset) else batches * size
        epochs = args.num_train_epochs
        return Length(math.ceil(epochs * steps), steps, batches, math.ceil(epochs), rows * epochs)

    def _begin(self, bridge: EventBridge, loader: Any, length: Length, asked: str | bool | None) -> TrainingState:
        """The states of engine and Trainer: new, or those of a checkpoint."""
        self.state = self._new_state()
        self.state.train_batch_size = self.args.train_batch_size
        self.state.compute_steps(self.args, length.total_steps)
        self.state.max_steps, self.state.num_train_epochs = length.total_steps, length.num_epochs
        handler = self.callback_handler
        handler.model, handler.optimizer, handler.lr_scheduler = self.model, self.optimizer, self.lr_scheduler
        handler.train_dataloader = loader
        root = Path(str(self.args.output_dir))
        if not asked:
            bridge.course = next_course(root, None)
            return TrainingState(total_steps=length.total_steps)
        folder = checkpoints.find_checkpoint(asked, root, needs_best=self.args.load_best_model_at_end)
        bridge.course = next_course(root, folder)
        _logger.info("Going on from %s.", folder)
        return checkpoints.resume(self, bridge, folder, total_steps=length.total_steps)

    def _finish(self, bridge: EventBridge, length: Length, *, steps: int, tokens: int) -> TrainOutput:
        mean_loss = bridge.total_loss / max(steps, 1)
        metrics = speed_metrics(
            "train",
            bridge.begin,
            num_samples=length.num_samples * steps / max(length.total_steps, 1),
            num_steps=steps,
        )
        if self.args.include_tokens_per_second:
            metrics["train_tokens_per_second"] = round(tokens / (time.time() - bridge.begin), 3)
        metrics |= {"total_flos": self.state.total_flos, "train_loss": mean_loss}
        self.is_in_train = False
        self.log(metrics)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            if self.processes.is_main:
                load_weights(Path(self.state.best_model_checkpoint), self.model)
            self.processes.share_weights(self.model)
        self.tell("on_train_end")
        return TrainOutput(self.state.global_step, mean_loss, metrics)

    def floating_point_ops(self, inputs: Any) -> int:
        """Operations of training on a batch with its padding; 0 where the model is none of transformers'.

        An override is asked about each batch and takes training to the general path.
        """
        main = inputs.get(getattr(self.model, "main_input_name", "input_ids")) if isinstance(inputs, Mapping) else None
        return 0 if main is None else self._operations(main.numel())

    def count_operations(self, tokens: int) -> None:
        """Brings `state.total_flos` up to a step, behind which `tokens` have been seen; padding does not count."""
        if self.has_own("floating_point_ops"):
            self.state.total_flos += self.step_operations
        else:
            self.state.total_flos = self._operations(tokens)

    def _operations(self, tokens: int) -> int:
        """Six for each token and each weight outside of embeddings."""
        return 6 * tokens * self._num_weights if isinstance(self.model, PreTrainedModel) else 0

    @functools.cached_property
    def _num_weights(self) -> int:
        return int(self.model.num_parameters(exclude_embeddings=True))

    # ---- Log, callbacks ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds an entry to `state.log_history` and tells the callbacks."""
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
            if start_time is not None:
                seen_now = self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen
                logs |= speed_metrics("train", start_time, num_tokens=seen_now)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.tell("on_log", logs=logs)

    def tell(self, event: str, **values: Any) -> None:
        """Tells the callbacks of an event and takes over what they make of `control`."""
        self.control = getattr(self.callback_handler, event)(self.args, self.state, self.control, **values)

    def add_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> None:
        """Adds a callback, or one of the class given."""
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> TrainerCallback | None:
        """Takes a callback out and returns it; None where there is none."""
        found: TrainerCallback | None = self.callback_handler.pop_callback(callback)
        return found

    def remove_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> None:
        """Takes a callback out."""
        self.callback_handler.remove_callback(callback)

    def _new_state(self) -> TrainerState:
        return TrainerState(
            is_local_process_zero=self.is_local_process_zero(), is_world_process_zero=self.is_world_process_zero()
        )

    def is_local_process_zero(self) -> bool:
        """Whether this is the first process of its machine."""
        return bool(self.args.local_process_index == 0)

    def is_world_process_zero(self) -> bool:
        """Whether this is the first of all processes, the only one that writes."""
        return self.processes.is_main

    # ---- Files ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes model, tokenizer and arguments to `output_dir`, in Hugging Face layout; the main process does.

        Raises:
            OutputError, StorageError: it cannot be written.
        """
        if self.args.should_save:
            checkpoints.save_model(self, Path(output_dir or str(self.args.output_dir)))

    def create_model_card(self, **values: Any) -> None:
        """Writes transformers' draft of a model card to README.md in `output_dir`.

        Args:
            values: `language`, `license`, `tags`, `model_name`, `finetuned_from`, `tasks`, `dataset`, `dataset_tags`,
                `dataset_args`, for what the Trainer cannot know.

        Raises:
            ConfigError: a value of another name.
            OutputError, StorageError: it cannot be written.
        """
        if self.args.should_save:
            checkpoints.write_card(self, values)

    def remove_old_checkpoints(self) -> None:
        """Removes what `save_total_limit` leaves no place for."""
        if self.args.should_save:
            checkpoints.remove_old_checkpoints(self)

    # ---- What transformers' has and this has not ----

    def has_own(self, name: str) -> bool:
        """Whether a subclass or an assignment, be it to this class, has put something else in the place of a method."""
        return getattr(getattr(self, name), "__func__", None) is not AS_WRITTEN[name]

    def hyperparameter_search(self, *arguments: Any, **options: Any) -> None:
        """Is refused."""
        raise self._refusal("hyperparameter_search", "Loop over TrainingArguments and train().")

    def push_to_hub(self, *arguments: Any, **options: Any) -> None:
        """Is refused."""
        raise self._refusal("push_to_hub", "Upload output_dir when training is done: hf upload OWNER/NAME OUTPUT_DIR.")

    def _refusal(self, name: str, instead: str) -> ConfigError:
        return ConfigError(f"textune's Trainer does not have {name}.", hint=instead)


AS_WRITTEN = {name: value for kind in reversed(Trainer.__mro__) for name, value in vars(kind).items()}
"""What the class has of its own, before a script assigns to it: `Trainer.compute_loss = mine`."""
