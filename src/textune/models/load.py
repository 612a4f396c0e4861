"""A checkpoint's name -> a classifier with fp32 weights and a tokenizer; and back to a folder.

Only safetensors are read and only architectures of transformers itself are built: nothing from a checkpoint is
executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.config import flag_of
from textune.errors import CheckpointError, ConfigError, InputNotFoundError
from textune.files import read_json, reading_errors, replacing_folder, user_path
from textune.limits import MAX_LABELS, MAX_LAYERS
from textune.models.quiet import first_line, quiet_transformers
from textune.models.starter import starter_folder
from textune.models.tokenizer import forget_saved_truncation, load_tokenizer, use_padding_token
from textune.models.weights import check_safetensors, count_weights, require_safetensors
from textune.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STARTER = "starter"
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*bpe.codes")
"""What a checkpoint is loaded from, as shell patterns; never its code or its pickles."""


@dataclass(frozen=True)
class Classifier:
    """A model and the tokenizer that belongs to it, with what should be said about how it was loaded."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...]


def find_checkpoint(name: str, *, revision: str | None = None) -> Path:
    """Returns the local folder of a checkpoint, downloading it first if it is a hub model.

    Args:
        name: `starter`, an existing folder, or a hub model such as `bert-base-uncased` or `owner/name`.
        revision: branch, tag or commit of a hub model.

    Raises:
        ConfigError: a revision of something else than a hub model.
        UnavailableError: the hub cannot be reached, or the starter is not installed.
        InputNotFoundError: neither a folder nor a hub model, or a folder that may not be read.
        CheckpointError: the folder holds no usable checkpoint: see `check_folder`.
    """
    path = user_path(name)
    with reading_errors(path):
        is_folder, exists = path.is_dir(), path.exists()
    if revision is not None and (name == STARTER or is_folder):
        raise ConfigError(
            f"{flag_of('model.revision')}: expected none, because {name!r} is "
            f"{'the packaged checkpoint' if name == STARTER else 'a folder'} and no hub model; found {revision!r}.",
            hint="Leave model.revision out, or set it to null.",
        )
    if name == STARTER:
        folder = starter_folder()
    elif is_folder:
        folder = path
    elif exists:
        raise CheckpointError(f"--model: {name!r} is a file, expected the folder that holds a checkpoint.")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputNotFoundError(
            f"--model: there is no folder {name!r}.",
            hint="Expected `starter`, a folder with a checkpoint, or a hub model such as bert-base-uncased.",
        )
    else:
        from textune.models.hub import download

        folder = download(name, revision=revision, patterns=CHECKPOINT_FILES)
    with reading_errors(folder):
        check_folder(folder, name=name)
    return folder


def check_folder(folder: Path, *, name: str) -> dict[str, Any]:
    """Checks that a folder holds a checkpoint that can be loaded safely, and returns its config.json.

    Raises:
        CheckpointError: no or unreadable config.json, remote code, an architecture that cannot classify, no weights,
            only pickled weights, or weights that are cut short or corrupt.
    """
    if not (folder / "config.json").is_file():
        hint = "Name the folder that holds config.json, model.safetensors and the tokenizer's files."
        if (folder / "model" / "config.json").is_file():
            hint = f"It looks like a run of textune: its model is in {str(folder / 'model')!r}."
        raise CheckpointError(f"--model: {name!r} holds no checkpoint: there is no config.json in it.", hint=hint)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise CheckpointError(f"--model: {name!r}: expected an object in config.json, found a {type(config).__name__}.")
    if "auto_map" in config:
        raise CheckpointError(
            f"--model: {name!r} wants to run code of its own (`auto_map` in config.json); textune never does that.",
            hint="Choose a checkpoint whose architecture transformers has built in. If this one's has been added to "
            "transformers since, copy the folder and remove `auto_map` from the copy's config.json.",
        )
    _check_architecture(config, name=name)
    _check_counts(config, name=name)
    for file in require_safetensors((entry.name for entry in folder.iterdir()), name=name):
        check_safetensors(folder / file, name=name)
    return config


def _check_architecture(config: dict[str, Any], *, name: str) -> None:
    from transformers import CONFIG_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"--model: {name!r}: expected a `model_type` that transformers knows in config.json, found {model_type!r}.",
            hint="A newer transformers may know it: pip install --upgrade transformers.",
        )
    if CONFIG_MAPPING[model_type] not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise CheckpointError(
            f"--model: {name!r}: transformers has no sequence classification model for {model_type!r}.",
            hint="Choose an encoder such as BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, DeBERTa or ModernBERT.",
        )


def _check_counts(config: dict[str, Any], *, name: str) -> None:
    for key in ("num_hidden_layers", "num_attention_heads"):
        value = config.get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"--model: {name!r}: expected a whole number from 1 on as {key!r} in config.json, found {value!r}.",
                hint="Copy or download the checkpoint again.",
            )
    for key, value in config.items():
        limit = MAX_LAYERS if "layers" in key else MAX_LABELS if key == "num_labels" else None
        if limit is not None and isinstance(value, int | float) and value > limit:
            raise CheckpointError(
                f"--model: {name!r}: expected at most {limit:,} as {key!r} in config.json, found more.",
                hint="Copy or download the checkpoint again.",
            )


def load_classifier(
    folder: Path,
    *,
    problem_type: str,
    label_names: Sequence[str],
    seed: int,
    dropout: float | None = None,
) -> Classifier:
    """Loads a checkpoint as a classifier with the task's labels; its head is new unless the checkpoint has one.

    Args:
        folder: a checked checkpoint folder: `find_checkpoint`.
        problem_type: transformers' name of it.
        label_names: in the order of their ids; empty for regression, which has one output.
        seed: the run's seed; new weights are drawn from its "head" stream.
        dropout: replaces every dropout probability of the checkpoint.

    Returns:
        The classifier: fp32 weights whatever type is stored, in training mode off.

    Raises:
        CheckpointError: the weights do not fit the architecture.
    """
    import torch

    tokenizer = load_tokenizer(folder)
    config = load_config(folder)
    stored_names = _stored_label_names(config)
    config.problem_type = problem_type
    config.num_labels = len(label_names) or 1
    if label_names:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    if dropout is not None:
        _set_dropout(config, dropout)
    require_fitting_size(folder, config)
    # The global generator is left as it was: the head's stream is its own.
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds every accelerator as well.
        torch.default_generator.manual_seed(derive_seed(seed, "head"))
        model, report = _load_model(folder, config)
    mismatched = {item[0] for item in report["mismatched_keys"]}
    new = set(report["missing_keys"]) | mismatched
    _check_encoder_is_whole(model, new, folder=folder)
    notes = [describe_loading(model, new, dropped=set(report["unexpected_keys"]))]
    if not new and stored_names and label_names:
        notes += _adopt_head(model, stored_names, list(label_names))
    notes += use_padding_token(tokenizer, model.config)
    return Classifier(model.eval(), tokenizer, tuple(notes))


def load_trained(folder: Path) -> Classifier:
    """Loads a classifier as it was saved, head and label names included.

    Raises:
        CheckpointError: it has no trained head, or its weights do not fit.
    """
    config = load_config(folder)
    require_fitting_size(folder, config)
    model, report = _load_model(folder, config)
    new = set(report["missing_keys"]) | {item[0] for item in report["mismatched_keys"]}
    if new:
        raise CheckpointError(
            f"The checkpoint in {str(folder)!r} is not a trained classifier: it lacks {_module_names(new)}.",
            hint="Train it first: textune train --model ...",
        )
    tokenizer = load_tokenizer(folder)
    return Classifier(model.eval(), tokenizer, tuple(use_padding_token(tokenizer, model.config)))


def save_classifier(classifier: Classifier, folder: Path, *, max_length: int) -> None:
    """Writes model and tokenizer in Hugging Face layout; the folder appears whole or not at all.

    Args:
        classifier: what to save.
        folder: is replaced if it exists.
        max_length: becomes the tokenizer's `model_max_length`, so that other programs cut where training did.

    Raises:
        OutputError, StorageError: it cannot be written.
    """
    with replacing_folder(folder) as temporary, quiet_transformers():
        classifier.model.save_pretrained(temporary)
        classifier.tokenizer.model_max_length = max_length
        forget_saved_truncation(classifier.tokenizer)
        classifier.tokenizer.save_pretrained(temporary)


def load_config(folder: Path) -> Any:
    """Reads a checked checkpoint folder's configuration.

    Raises:
        CheckpointError: it cannot be used.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not all(isinstance(name, str) for name in config.id2label.values()):
            raise TypeError("`id2label` holds names that are no texts")
        return config
    except Exception as error:  # whatever a wrong value makes the configuration's own code raise
        raise CheckpointError(
            f"config.json in {str(folder)!r} cannot be used: {first_line(error)}",
            hint="Copy or download the checkpoint again.",
        ) from error


def require_fitting_size(folder: Path, config: Any) -> None:
    """Looks whether the weights can be those of the encoder that config.json describes.

    transformers makes room for what config.json says, however much that is, before it looks at the weights.

    Raises:
        CheckpointError: it would have more than twice as many, and a million, or cannot be built.
    """
    import torch
    from transformers import AutoModel

    try:
        with quiet_transformers(), torch.device("meta"):
            described = AutoModel.from_config(config, trust_remote_code=False).num_parameters()
        stored = count_weights(folder)
    except Exception as error:  # whatever a wrong value makes the architecture's own code raise
        raise cannot_be_loaded(folder, error) from error
    if described > 2 * stored + 1_000_000:
        raise CheckpointError(
            f"The checkpoint in {str(folder)!r} holds {stored:,} weights; its config.json describes an encoder of "
            f"{described:,}.",
            hint="Its config.json and its weights probably belong to different models.",
        )


def cannot_be_loaded(folder: Path, error: Exception) -> CheckpointError:
    """The error of a checkpoint with which transformers cannot cope."""
    return CheckpointError(
        f"The checkpoint in {str(folder)!r} cannot be loaded: {first_line(error)}",
        hint="Expected a complete checkpoint in Hugging Face layout.",
    )


def _load_model(folder: Path, config: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Builds the classifier with fp32 weights and transformers' report of which fitted."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_transformers():
            loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise cannot_be_loaded(folder, error) from error
    return loaded  # type: ignore[no-any-return]


def _check_encoder_is_whole(model: PreTrainedModel, new: set[str], *, folder: Path) -> None:
    """A new head is normal; a new encoder means that the weights are those of something else.

    A pooler may be new: checkpoints made for masked language modelling have none.
    """
    prefix = f"{model.base_model_prefix}."
    encoder = [name for name in new if name.startswith(prefix) and "pooler" not in name]
    if encoder:
        total = sum(1 for name, _ in model.named_parameters() if name.startswith(prefix))
        raise CheckpointError(
            f"The checkpoint in {str(folder)!r} lacks {len(encoder)} of the {total} weights of its encoder, "
            f"for example {min(encoder)!r}.",
            hint="Its config.json and its weights probably belong to different models.",
        )


def describe_loading(model: PreTrainedModel, new: set[str], *, dropped: set[str]) -> str:
    """One line: which weights are new and which of the checkpoint's were not used."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts = []
    if new:
        count = sum(sizes.get(name, 0) for name in new)
        parts.append(f"new, to be trained: {_module_names(new)} ({count:,} weights)")
    else:
        parts.append("all weights, the head's too, come from the checkpoint")
    if dropped:
        parts.append(f"dropped from the checkpoint: {_module_names(dropped)}")
    return "; ".join(parts)


def _module_names(parameters: set[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[0] or name for name in parameters}))


def _stored_label_names(config: Any) -> list[str] | None:
    """The checkpoint's own label names in id order; None where it only has the placeholders LABEL_0, LABEL_1, ..."""
    names = [config.id2label[index] for index in sorted(config.id2label)]
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _adopt_head(model: PreTrainedModel, stored: list[str], wanted: list[str]) -> list[str]:
    """Puts the rows of a trained head in the order of the data's labels, so that each keeps its meaning."""
    import torch

    if stored == wanted:
        return []
    if sorted(stored) != sorted(wanted):
        return [f"the checkpoint's head was trained for other labels ({', '.join(stored)}); training goes on from it"]
    order = torch.tensor([stored.index(name) for name in wanted])
    # The last one: a head may have a hidden layer, by chance with as many units as there are labels.
    encoder = f"{model.base_model_prefix}."
    head = [module for name, module in model.named_modules() if not name.startswith(encoder)]
    output = [item for item in head if isinstance(item, torch.nn.Linear) and item.out_features == len(wanted)][-1]
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.copy_(parameter[order])
    return ["the checkpoint's head has the same labels in another order; its rows were put in the order of the data"]


def _set_dropout(config: Any, probability: float) -> None:
    """Every architecture has its own names for its dropouts; all of them contain the word."""
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, name, probability)
