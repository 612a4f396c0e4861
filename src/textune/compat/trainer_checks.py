"""What can be wrong with the arguments of `Trainer`, found before anything is computed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import has_length

from textune.compat.arguments import TrainingArguments
from textune.compat.trainer_data import NotTextError, label_values, read_labels, require_labels, stand_for_none
from textune.errors import ConfigError, DataError
from textune.problem_types import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from textune.compat.trainer import Trainer

_logger = logging.getLogger(__name__)

# Methods of the Trainer of transformers 4, which that of 5 has no more.
_OF_TRANSFORMERS_4 = {
    "_gather_and_numpify",
    "_nested_gather",
    "_rotate_checkpoints",
    "_sorted_checkpoints",
    "prediction_loop",
}

# There for copies of transformers' methods, which call it; nothing else does.
_FOR_COPIES = {"_prepare_context_parallel_inputs"}


def constructor_problems(trainer: Trainer, model: Any) -> list[str]:
    """One sentence for each thing that is missing or contradicts another."""
    args: Any = trainer.args
    if not isinstance(args, TrainingArguments):
        found = f"{type(args).__module__}.{type(args).__name__}"
        return [f"args: expected textune's TrainingArguments, found {found}; import it from textune.compat."]
    args.check()
    problems = []
    if model is None and trainer.model_init is None:
        problems.append("Trainer needs a model, or a function model_init that makes one.")
    if model is not None and trainer.model_init is not None:
        problems.append("model and model_init are both given; give one of them.")
    if trainer.model_init is not None and (trainer.optimizer is not None or trainer.lr_scheduler is not None):
        problems.append("model_init and optimizers cannot go together: override create_optimizer instead.")
    if trainer.optimizer_cls_and_kwargs is not None and trainer.optimizer is not None:
        problems.append("optimizers and optimizer_cls_and_kwargs are both given; give one of them.")
    problems += [
        f"{type(trainer).__name__} overrides {name}, which textune's Trainer does not call."
        for name in never_called(type(trainer))
    ]
    return problems + _data_problems(trainer)


def never_called(kind: type[Trainer]) -> list[str]:
    """Methods of transformers' Trainer that a subclass overrides and that textune's Trainer does not call."""
    from textune.compat.trainer import AS_WRITTEN

    own = [
        name
        for name in dir(kind)
        if name not in AS_WRITTEN or (name in _FOR_COPIES and getattr(kind, name) is not AS_WRITTEN[name])
    ]
    if not own:  # the import takes most of a second
        return []
    from transformers.trainer import Trainer as Theirs

    return [name for name in own if name in _OF_TRANSFORMERS_4 or callable(getattr(Theirs, name, None))]


def _data_problems(trainer: Trainer) -> list[str]:
    args: Any = trainer.args
    problems = []
    own_data = trainer.has_own("evaluate") or trainer.has_own("get_eval_dataloader")
    if args.eval_strategy != "no" and trainer.eval_dataset is None and not own_data:
        problems.append(f"eval_strategy={args.eval_strategy.value!r} needs an eval_dataset; there is none.")
    if trainer.train_dataset is not None and not has_length(trainer.train_dataset) and args.max_steps <= 0:
        problems.append("train_dataset has no length: say with max_steps how many steps to train.")
    metric = args.metric_for_best_model
    wants_other = metric is not None and not metric.endswith("loss")
    own_metrics = trainer.has_own("evaluate") or trainer.has_own("evaluation_loop")
    if wants_other and args.eval_strategy != "no" and trainer.compute_metrics is None and not own_metrics:
        problems.append(f"metric_for_best_model={metric!r} needs compute_metrics, which gives it; there is none.")
    return problems


def check_model(model: Any) -> None:
    """Whether it can be trained.

    Raises:
        ConfigError: it is no module, has no head, or is one of peft's.
    """
    name = type(model).__name__
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"model: expected a torch module, found {name}.")
    if name in MODEL_MAPPING_NAMES.values() and type(model).__module__.startswith("transformers."):
        raise ConfigError(
            f"{name} computes hidden states and no loss: it has no head.",
            hint="Load it with AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2).",
        )
    if hasattr(model, "peft_config"):
        raise ConfigError(f"{name}: not yet: textune's Trainer takes no models of peft.")


def check_optimizer(trainer: Trainer) -> None:
    """Whether optimiser and schedule can be used as the other arguments want it.

    Raises:
        ConfigError: a schedule follows a metric that is not named, or checkpoints could not hold the moments.
    """
    args = trainer.args
    follows = isinstance(trainer.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if follows and (args.metric_for_best_model is None or args.eval_strategy == "no"):
        raise ConfigError("ReduceLROnPlateau follows a metric: name it with metric_for_best_model, and evaluate.")
    if args.save_strategy == "no" or args.save_only_model:
        return
    own = set(trainer.model.parameters())
    if any(item not in own for group in trainer.optimizer.param_groups for item in group["params"]):
        raise ConfigError(
            "The optimiser has parameters that are none of the model's: a checkpoint would not hold them.",
            hint="Make them a part of the model, or use save_strategy='no' or save_only_model=True.",
        )


def label_smoother(trainer: Trainer) -> LabelSmoother | None:
    """The smoothed loss; None where there is nothing to smooth.

    Raises:
        ConfigError: the model predicts numbers.
    """
    factor = trainer.args.label_smoothing_factor
    if not factor:
        return None
    if trainer.compute_loss_func is not None and not trainer.has_own("compute_loss"):
        _logger.warning("label_smoothing_factor is not used: compute_loss_func gives the loss.")
        return None
    config = getattr(trainer.model, "config", None)
    problem_type = getattr(config, "problem_type", None)
    if problem_type == REGRESSION or getattr(config, "num_labels", 2) == 1:
        raise ConfigError("label_smoothing_factor is for one label of several; this model predicts numbers.")
    if problem_type == MULTI_LABEL:
        _logger.warning("label_smoothing_factor is not used: it is for one label of several, not for several at once.")
        return None
    return LabelSmoother(epsilon=factor)


def check_callables(trainer: Trainer, data_collator: Any) -> None:
    """Whether functions are functions.

    Raises:
        ConfigError: one of them is not.
    """
    given: dict[str, Callable[..., Any] | None] = {
        "data_collator": data_collator,
        "compute_metrics": trainer.compute_metrics,
        "compute_loss_func": trainer.compute_loss_func,
        "preprocess_logits_for_metrics": trainer.preprocess_logits_for_metrics,
    }
    problems = [
        f"{name}: expected a function, found {type(value).__name__}."
        for name, value in given.items()
        if value is not None and not callable(value)
    ]
    if problems:
        raise ConfigError(problems, hint="The order of arguments is that of transformers 5: name them to be sure.")


def check_data(trainer: Trainer, *, default_collator: bool) -> None:
    """Whether the rows have labels, where nothing of the script's own could make them: those to train on, and those
    that metrics will be computed on while training; and whether a classifier has outputs for them.

    Raises:
        DataError: they have none, texts as labels, or such as the model has no output for.
    """
    own = any(trainer.has_own(name) for name in ("compute_loss", "training_step", "get_train_dataloader"))
    plain = default_collator or type(trainer.data_collator) is DataCollatorWithPadding
    needs = bool(trainer.label_names) and not trainer.can_return_loss
    if own or not plain or not needs or trainer.compute_loss_func is not None:
        return
    if trainer.train_dataset is not None:
        require_labels(trainer.train_dataset, label_names=trainer.label_names, what="train_dataset")
        _check_label_values(trainer, trainer.train_dataset, what="train_dataset")
    own = any(trainer.has_own(name) for name in ("evaluate", "evaluation_loop", "get_eval_dataloader"))
    if trainer.args.eval_strategy == "no" or own:
        return
    several = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {None: trainer.eval_dataset}
    for name, dataset in several.items():
        what = "eval_dataset" if name is None else f"eval_dataset {name!r}"
        if trainer.compute_metrics is not None:
            require_labels(dataset, label_names=trainer.label_names, what=what)
        _check_label_values(trainer, dataset, what=what)


def _check_label_values(trainer: Trainer, dataset: Any, *, what: str) -> None:
    found = label_values(dataset, label_names=trainer.label_names) if is_text_classifier(trainer.model) else None
    if found is None:
        return
    if what != "train_dataset" and stand_for_none(found[1]):
        if trainer.compute_metrics is not None:
            raise DataError(
                f"{what}: {found[0]!r} is -1 or empty in all rows, which stands for no label; compute_metrics needs "
                "them.",
                hint="Evaluate on a split with labels: in GLUE, 'validation'.",
            )
        return
    config = trainer.model.config
    with contextlib.suppress(NotTextError):
        read_labels(found[1], num_labels=config.num_labels, problem_type=config.problem_type, what=what)


def is_text_classifier(model: Any) -> bool:
    """Whether it is one of transformers' own, not changed by a subclass."""
    name, built_in = type(model).__name__, type(model).__module__.startswith("transformers.models.")
    return isinstance(model, PreTrainedModel) and built_in and name.endswith("ForSequenceClassification")
