"""The overridable parts of the Trainer that make batches, losses, optimiser and schedule."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import Adafactor, get_scheduler
from transformers.trainer_pt_utils import LabelSmoother, get_parameter_names, nested_detach
from transformers.trainer_utils import RemoveColumnsCollator, has_length

from textune.compat.trainer_batches import require_tensors, require_token_ids, with_labels_as_taken
from textune.compat.trainer_checks import is_text_classifier
from textune.compat.trainer_data import (
    LABEL_COLUMNS,
    EpochSampler,
    SharedSampler,
    column_names,
    is_arrow_dataset,
    require_outputs,
    row_lengths,
    without_placeholder_labels,
)
from textune.compat.trainer_facts import TrainerFacts
from textune.compat.trainer_work import count_items
from textune.errors import ConfigError, DataError
from textune.training.allocator import keep_few_kernels
from textune.training.parallel import Processes
from textune.training.precision import Arithmetic, choose

if TYPE_CHECKING:
    from transformers.trainer_callback import CallbackHandler, TrainerControl, TrainerState

    from textune.compat.arguments import TrainingArguments

_NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


@functools.cache
def measured_choice(precision: str, device: torch.device) -> Arithmetic:
    """The fastest arithmetic, measured once in a process: a second Trainer in it computes the same bits."""
    return choose(precision, device)


class TrainerSteps(TrainerFacts):
    """Batches, losses, optimiser and schedule, each in a method that a subclass may change.

    Attributes:
        pass_weight: share of the current pass in its step's loss; `training_step` multiplies its loss with it.
        current_gradient_accumulation_steps: passes of the current step.
        step_operations: what a script's own `floating_point_ops` says of the current step.
    """

    train_dataset: Any
    eval_dataset: Any
    data_collator: Callable[[list[Any]], Any]
    processing_class: Any
    compute_loss_func: Callable[..., Any] | None
    lr_scheduler: Any
    optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None
    processes: Processes
    scaler: torch.amp.GradScaler | None
    label_names: list[str]
    can_return_loss: bool
    label_smoother: LabelSmoother | None
    state: TrainerState
    control: TrainerControl
    callback_handler: CallbackHandler
    pass_weight = 1.0
    current_gradient_accumulation_steps = 1
    step_operations = 0
    _made_scheduler = False
    _signature_columns: list[str] | None = None

    @functools.cached_property
    def arithmetic(self) -> Arithmetic:
        """How products are computed: measured when it is first needed."""
        keep_few_kernels()
        precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32"
        measured = self.processes.from_main(lambda: measured_choice(precision, self.args.device).as_json())
        chosen = Arithmetic.from_json(measured)
        if self.args.tf32 is None or self.args.device.type != "cuda":
            return chosen
        mode = "tf32" if self.args.tf32 else "fp32"
        return Arithmetic(chosen.precision, mode, f"{mode}: as asked", chosen.measurements)

    # ---- Batches ----

    def get_train_dataloader(self) -> Any:
        """The batches of an epoch.

        Raises:
            ConfigError: there is no train_dataset.
        """
        if self.train_dataset is None:
            raise ConfigError("Trainer.train needs a train_dataset; there is none.")
        return self._dataloader(
            self.train_dataset, self.args.train_batch_size, sampler=self._get_train_sampler(), what="training"
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The batches of an evaluation, in the order of the data; a name takes that of several eval_datasets.

        Raises:
            ConfigError: there is no eval_dataset, or none of this name.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            known = self.eval_dataset if isinstance(self.eval_dataset, dict) else {}
            if dataset not in known:
                raise ConfigError(f"There is no eval_dataset {dataset!r}; there are {', '.join(known) or 'none'}.")
            dataset = known[dataset]
        if dataset is None:
            raise ConfigError("Trainer.evaluate needs an eval_dataset; there is none.")
        return self._dataloader(dataset, self.args.eval_batch_size, sampler=None, what="evaluation")

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """The batches of a prediction, in the order of the data."""
        return self._dataloader(test_dataset, self.args.eval_batch_size, sampler=None, what="test")

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Which row comes when; None for data that can only be read from front to back."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not has_length(dataset) or isinstance(dataset, torch.utils.data.IterableDataset):
            return None
        args = self.args
        lengths = None
        if args.train_sampling_strategy == "group_by_length":
            names = getattr(self.processing_class, "model_input_names", None) or ["input_ids"]
            lengths = row_lengths(dataset, length_column=args.length_column_name, input_name=names[0])
        return EpochSampler(
            len(dataset),
            strategy=args.train_sampling_strategy,
            seed=args.seed if args.data_seed is None else args.data_seed,
            lengths=lengths,
            group=args.train_batch_size * args.gradient_accumulation_steps * self.processes.world_size,
        )

    def _dataloader(self, dataset: Any, batch_size: int, *, sampler: Any, what: str) -> Any:
        args, collator = self.args, self.data_collator
        if what != "training" and is_text_classifier(self.model):
            dataset = without_placeholder_labels(dataset, label_names=self.label_names, what=what)
        if is_arrow_dataset(dataset):
            dataset = self._remove_unused_columns(dataset, what)
        else:
            names = column_names(dataset)
            if args.remove_unused_columns and names is not None:
                self._require_inputs(names, what)
            collator = self._get_collator_with_removed_columns(collator, what)
        iterable = isinstance(dataset, torch.utils.data.IterableDataset)
        if self.processes.world_size > 1 and not iterable:
            whole = torch.utils.data.SequentialSampler(dataset) if sampler is None else sampler
            sampler = SharedSampler(whole, batch_size, self.processes)
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=collator,
            drop_last=args.dataloader_drop_last and not iterable,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and self.args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
        )

    def _set_signature_columns_if_needed(self) -> None:
        """Which columns stay: the arguments of the model's `forward`, and labels. An override may add some."""
        if self._signature_columns is None:
            accepted = inspect.signature(self.model.forward).parameters
            self._signature_columns = list(dict.fromkeys([*accepted, "label", "label_ids", *self.label_names]))

    def _kept_columns(self) -> list[str]:
        self._set_signature_columns_if_needed()
        assert self._signature_columns is not None, "set by now"
        return self._signature_columns

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        """A collator that leaves out what the model does not take, for rows that are no `datasets.Dataset`."""
        if not self.args.remove_unused_columns:
            return data_collator
        return RemoveColumnsCollator(data_collator, self._kept_columns(), description=description)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        """The data set without columns that the model does not take.

        Raises:
            DataError: nothing but labels would be left.
        """
        if not self.args.remove_unused_columns:
            return dataset
        self._require_inputs(dataset.column_names, description)
        accepted = self._kept_columns()
        return dataset.remove_columns([name for name in dataset.column_names if name not in accepted])

    def _require_inputs(self, names: list[str], description: str | None) -> None:
        accepted = self._kept_columns()
        if not set(names) & set(accepted) - {*LABEL_COLUMNS, *self.label_names}:
            raise DataError(
                f"The {description or 'given'} data have the columns {', '.join(names)}; "
                f"{type(self.model).__name__} takes {', '.join(accepted)}.",
                hint="Tokenise the texts first, or keep all columns with remove_unused_columns=False.",
            )

    def _prepare_inputs(self, inputs: Any) -> Any:
        """The batch on the device.

        Raises:
            DataError: the collator gave text or nothing, or a token id below 0.
            CheckpointError: a classifier has no embedding for one of the token ids.
        """
        require_tensors(inputs)
        require_token_ids(inputs, self.model)
        return self._prepare_input(with_labels_as_taken(inputs, self.model))

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            return type(data)({name: self._prepare_input(value) for name, value in data.items()})  # type: ignore[call-arg]
        if isinstance(data, (list, tuple)):
            return type(data)(self._prepare_input(value) for value in data)
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else data

    # ---- Losses ----

    def compute_loss_context_manager(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of a pass: autocast for bf16 and fp16."""
        return self.arithmetic.autocast(self.args.device)

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Adds the gradient of one pass and returns its share of the step's loss.

        A subclass that does not call this one divides its loss itself, by `current_gradient_accumulation_steps` or
        with `pass_weight`. Of several processes' gradients the mean is taken, as under DistributedDataParallel.
        """
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        self._check_labels_for_gpu(model, inputs)
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self._loss(model, inputs, num_items_in_batch)
        loss = loss * self.pass_weight
        self.accelerator.backward(loss)
        detached: torch.Tensor = loss.detach()
        return detached

    def _loss(self, model: Any, inputs: Any, num_items: Any, *, return_outputs: bool = False) -> Any:
        """Calls `compute_loss`, also one of a script that was written for older releases.

        `num_items` is that of this pass alone, so that a loss which divides by it and one which takes the mean are
        the same, and both are weighted with `pass_weight`. transformers hands over the whole step's number and cannot
        know which of them it got: BERT's heads take the mean, and their gradient is then as many times too large as
        there are passes. Only a loss that `loss_is_scaled_for_ga` speaks of gets the whole step's number here.
        """
        options: dict[str, Any] = {"return_outputs": True} if return_outputs else {}
        parameters = inspect.signature(self.compute_loss).parameters
        if "num_items_in_batch" in parameters or any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
            options["num_items_in_batch"] = num_items
        labels = inputs.get("labels") if isinstance(inputs, Mapping) else None  # a loss may take them out
        try:
            return self.compute_loss(model, inputs, **options)
        except IndexError:  # what torch's cross entropy raises for such labels on a CPU, without saying which
            num_labels = getattr(getattr(model, "config", None), "num_labels", None)
            if num_labels and isinstance(labels, torch.Tensor) and not labels.is_floating_point():
                require_outputs(labels, num_labels=num_labels)
            raise

    def _check_labels_for_gpu(self, model: Any, inputs: Any) -> None:
        """Whether a classifier has an output for each label, asked on the CPU: a GPU would not work after that.

        A loss of the script's own may count labels in another way.
        """
        own = getattr(self.compute_loss, "__func__", None) is not TrainerSteps.compute_loss
        if self.args.device.type != "cuda" or own or self.compute_loss_func is not None:
            return
        labels = inputs.get("labels") if isinstance(inputs, Mapping) and is_text_classifier(model) else None
        if isinstance(labels, torch.Tensor) and labels.device.type == "cpu" and not labels.is_floating_point():
            num_labels = model.config.num_labels
            if num_labels > 1:  # whole numbers may be learnt as numbers, too
                require_outputs(labels, num_labels=num_labels)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of one batch: `compute_loss_func`'s, the smoothed one, or the model's own.

        Returns:
            A scalar, or with `return_outputs` a pair of it and the model's outputs.

        Raises:
            DataError: the model gave no loss.
        """
        own = self.compute_loss_func is not None or self.label_smoother is not None
        labels = inputs.pop("labels") if own and "labels" in inputs else None
        outputs = model(**inputs)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
            if self.loss_is_scaled_for_ga and self.args.average_tokens_across_devices and model.training:
                loss = loss * self.processes.world_size  # it was divided by the number of all processes' labels
        elif self.label_smoother is not None and labels is not None:
            loss = self.label_smoother(outputs, labels)
        else:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs[0]
        if loss is None:
            raise DataError(
                f"{type(model).__name__} gave no loss; its batch held {', '.join(inputs)}.",
                hint="Models give a loss where the batch has labels: see label_names, or override compute_loss.",
            )
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """Loss, logits and labels of one batch; each is None where there is none or it is not asked for."""
        self._check_labels_for_gpu(model, inputs)
        inputs = self._prepare_inputs(inputs)
        has_labels = bool(self.label_names) and all(inputs.get(name) is not None for name in self.label_names)
        gives_loss = inputs.get("return_loss", self.can_return_loss)
        with_loss = has_labels or (not self.label_names and bool(gives_loss))
        if ignore_keys is None:
            ignore_keys = getattr(getattr(model, "config", None), "keys_to_ignore_at_inference", None) or []
        labels = None
        if has_labels:
            # Before the loss is computed, which may take them out of the batch.
            found = nested_detach(tuple(inputs[name] for name in self.label_names))
            labels = found[0] if len(found) == 1 else found
        loss = None
        with torch.no_grad(), self.compute_loss_context_manager():
            if with_loss:
                items = torch.tensor(count_items(inputs), device=self.args.device)
                loss, outputs = self._loss(model, inputs, items, return_outputs=True)
                loss = loss.detach().mean()
            else:
                outputs = model(**inputs)
        if prediction_loss_only:
            return loss, None, None
        left_out = [*ignore_keys, "loss"] if with_loss else ignore_keys
        if isinstance(outputs, dict):
            logits = tuple(value for name, value in outputs.items() if name not in left_out)
        elif isinstance(outputs, torch.Tensor):
            logits = (outputs,)
        else:
            logits = tuple(outputs[1:] if with_loss else outputs)
        logits = nested_detach(logits)
        return loss, logits[0] if len(logits) == 1 else logits, labels

    # ---- Optimiser and schedule ----

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Makes both, where they are not given."""
        self.create_optimizer()
        self.create_scheduler(num_training_steps)

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimiser that `optim` names, with weight decay on all but biases and norms."""
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            trained = [(name, item) for name, item in model.named_parameters() if item.requires_grad]
            if not trained:
                raise ConfigError("All parameters of the model are frozen: there is nothing to train.")
            groups = [
                {"params": [item for name, item in trained if name in decayed], "weight_decay": self.args.weight_decay},
                {"params": [item for name, item in trained if name not in decayed], "weight_decay": 0.0},
            ]
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """Class and settings of the optimiser, as transformers has them."""
        rate = {"lr": args.learning_rate}
        match str(args.optim):
            case "sgd":
                return torch.optim.SGD, rate
            case "adagrad":
                return torch.optim.Adagrad, rate
            case "rmsprop":
                return torch.optim.RMSprop, rate
            case "adafactor":
                return Adafactor, {**rate, "scale_parameter": False, "relative_step": False}
        # Without a word about it, torch takes one kernel for many weights on a GPU.
        fused = {"fused": True} if str(args.optim) == "adamw_torch_fused" else {}
        return torch.optim.AdamW, {
            **rate,
            "betas": (args.adam_beta1, args.adam_beta2),
            "eps": args.adam_epsilon,
            **fused,
        }

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Names of the parameters with weight decay."""
        return list(get_parameter_names(model, [torch.nn.LayerNorm], _NO_DECAY))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule that `lr_scheduler_type` names."""
        if self.lr_scheduler is None:
            self.lr_scheduler = get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=self.optimizer if optimizer is None else optimizer,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                num_training_steps=num_training_steps,
                scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
            )
            self._made_scheduler = True
        return self.lr_scheduler
