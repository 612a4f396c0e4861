"""A finished classifier in Python: texts in, labels and scores out."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.data.collate import Padding
from textune.data.columns import HALF_A_PAIR
from textune.data.schema import Schema
from textune.data.tokenize import encode_texts, tokenize_split
from textune.data.tokens import TokenRows
from textune.data.unknown import UnknownTokens
from textune.environment import find_device
from textune.errors import CheckpointError, ConfigError, DataError, InputNotFoundError, did_you_mean
from textune.evaluation.forward import fastest_forward
from textune.evaluation.predictions import (
    Decision,
    FloatArray,
    LabelSet,
    first_not_finite,
    name_labels,
    predict_logits,
)
from textune.evaluation.stored_calibration import choose_decision
from textune.files import read_json, reading_errors, user_path
from textune.models.load import Classifier, find_checkpoint, load_trained
from textune.models.tokenizer import max_tokens
from textune.run import Run
from textune.training.precision import choose

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

_WANTED = "Name the folder that `textune train` printed, a folder with a model, or a hub model such as owner/name."
PRECISIONS = ("auto", "fp32", "bf16")
Text = str | tuple[str, str] | Mapping[str, str]


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one text or pair.

    Attributes:
        label: the label's name; a list of names (multi-label); a number (regression).
        scores: the score of each label by its name: probabilities that sum to one (single label) or each by itself
            (multi-label); empty for regression.
    """

    label: Any
    scores: dict[str, float]

    @property
    def score(self) -> float | None:
        """The score of the predicted label; None unless exactly one label is predicted."""
        return self.scores[self.label] if isinstance(self.label, str) else None


class Predictor:
    """A classifier ready to be asked. Make one with `Predictor.load`.

    One may be asked from several threads: calls take turns, each with all cores.

    Attributes:
        label_set: what its outputs stand for.
        schema: the columns of the data it was trained on; None for a checkpoint that textune did not train.
        arithmetic: what scores are computed in, and why.
        decision: how the model's outputs become scores and labels.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        schema: Schema | None,
        device: torch.device,
        batch_size: int = 32,
        precision: str = "fp32",
        decision: Decision | None = None,
    ) -> None:
        self._classifier = classifier
        # Tokenizer and model keep what belongs to the call that is running.
        self._turn = threading.Lock()
        self._batch_size = batch_size
        self._max_length = max_tokens(classifier.model.config, classifier.tokenizer, asked=None)
        classifier.model.eval()
        # fp32 products run by whichever kernel is fastest at that accuracy.
        self.arithmetic = choose(precision, device)
        if self.arithmetic.precision == "bf16":
            _round_weights(classifier.model)
        if device.type == "cpu":
            from textune.models.packed_linear import pack_linear_layers

            pack_linear_layers(classifier.model)
        padding = Padding.of(classifier.tokenizer)
        # Nobody else runs this model: it stays prepared, also while Python shuts down.
        prepared = ExitStack()
        self._forward = prepared.enter_context(fastest_forward(classifier.model, padding=padding, device=device))
        weakref.finalize(self, prepared.close)
        self.label_set = LabelSet.of_model(classifier.model)
        self.decision = decision or Decision(self.label_set.problem_type)
        self.schema = schema

    @classmethod
    def load(
        cls,
        source: Run | str | os.PathLike[str],
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "fp32",
        calibrated: bool = False,
        threshold: str | float | None = None,
    ) -> Predictor:
        """Loads a run's model, or any checkpoint with a classification head.

        Args:
            source: a `Run`, a run folder, a model folder or a hub model.
            batch_size: texts scored at once.
            device: `auto`, `cpu`, `cuda`, ...
            precision: what scores are computed in: `fp32`, `bf16`, or `auto`: bf16 where it is clearly faster here. In
                bf16 scores move by up to some hundredths, and a prediction near the threshold may be another.
            calibrated: divide the model's outputs by the temperature that was fitted on validation, so that a score
                says how often such a prediction is right. Labels stay the same.
            threshold: from which score on the positive one of two labels, or each of several per text, is given: a
                number, or what was chosen on validation for `f1`, `precision:0.9` or `recall:0.95`. None for the
                label with the highest score, or one half.

        Raises:
            ConfigError: no such device or precision, a batch size below 1, or a threshold that cannot be had.
            InputNotFoundError, UnavailableError: there is no such run or model, or the run has not finished.
            CheckpointError: the checkpoint has no trained head, or no temperature or thresholds are stored with it.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}.")
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: expected {', '.join(PRECISIONS)}, found {precision!r}.")
        folder, schema = _find(source)
        found = find_device(device)
        classifier = load_trained(folder)
        classifier.model.to(found)
        decision = choose_decision(
            folder,
            LabelSet.of_model(classifier.model),
            calibrated=calibrated,
            threshold=None if threshold is None else str(threshold),
        )
        return cls(
            classifier, schema=schema, device=found, batch_size=batch_size, precision=precision, decision=decision
        )

    def predict(self, texts: Iterable[Text]) -> list[Prediction]:
        """Predicts texts, or pairs given as (text, text_pair) or {"text": ..., "text_pair": ...}.

        Returns:
            One prediction per text, in the same order.

        Raises:
            DataError: a text is not one or is empty, texts and pairs are mixed, or the model was trained on the other
                kind.
            CheckpointError: the model's weights give scores that are not finite.
        """
        if isinstance(texts, str):
            raise DataError("Expected a list of texts, found one text.", hint='Put it in a list: predict(["..."]).')
        texts = list(texts)
        if not texts:
            return []
        firsts, seconds = _split_pairs(texts)
        if self.schema is not None:
            _check_kind(pairs_expected=self.schema.text_pair is not None, pairs_found=seconds is not None)
        logits = self.logits(firsts, seconds)
        scores = self.decision.scores(logits)
        labels = name_labels(self.decision.predictions(logits), self.label_set)
        return [
            Prediction(label, {name: float(value) for name, value in zip(self.label_set.names, row, strict=False)})
            for label, row in zip(labels, scores, strict=True)
        ]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> FloatArray:
        """Runs the model over texts or pairs held in memory: float32 [num_texts, num_outputs]."""
        return self.logits_of_tokens(self.encode(texts, pairs))

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> TokenRows:
        """Tokenises texts or pairs as the model reads them."""
        with self._turn:
            return TokenRows(
                encode_texts((texts, pairs), tokenizer=self._classifier.tokenizer, max_length=self._max_length)
            )

    def unknown_tokens(self, tokens: TokenRows) -> UnknownTokens:
        """What the model's tokenizer did not know in texts that `encode` tokenised."""
        return UnknownTokens.of(tokens, self._classifier.tokenizer)

    def logits_of(self, rows: Dataset, *, on_progress: Callable[[int], None] | None = None) -> FloatArray:
        """Runs the model over typed rows (`textune.data.rows`): float32 [num_rows, num_outputs]."""
        with self._turn:
            tokens = tokenize_split(rows, self._classifier.tokenizer, max_length=self._max_length)
        return self.logits_of_tokens(tokens, on_progress=on_progress)

    def logits_of_tokens(self, tokens: TokenRows, *, on_progress: Callable[[int], None] | None = None) -> FloatArray:
        """Runs the model over rows that are tokenised already: float32 [num_rows, num_outputs]."""
        with self._turn, self.arithmetic.in_force():
            logits = predict_logits(
                self._forward,
                tokens,
                batch_size=self._batch_size,
                on_progress=on_progress,
            )
        wrong = first_not_finite(logits)
        if wrong is not None:
            raise CheckpointError(
                f"The model gave scores that are not finite numbers, first for text {wrong + 1}: damaged weights?",
                hint="Train it again, with a lower --learning-rate if its training did not go well.",
            )
        return logits


def _round_weights(model: PreTrainedModel) -> None:
    """Rounds the parameters to bf16. Buffers stay: rotary frequencies would lose the far positions."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _find(source: Run | str | os.PathLike[str]) -> tuple[Path, Schema | None]:
    """The model's folder, and the schema where a run or its model folder tells it."""
    path = source.path if isinstance(source, Run) else user_path(source)
    with reading_errors(path):
        is_run = isinstance(source, Run) or (path / "config.yaml").is_file()
    if is_run:
        run = Run.open(path)
        with reading_errors(path):
            has_model = (run.model_path / "config.json").is_file()
        if not has_model:
            raise InputNotFoundError(
                f"The run {str(path)!r} has no model yet: its training has not finished.",
                hint=run.hint_of_finishing,
            )
        return find_checkpoint(str(run.model_path)), _schema(run.path / "data.json")
    with reading_errors(path):
        _check_named(path, str(source))
    folder = find_checkpoint(str(source))
    data = folder.parent / "data.json"
    with reading_errors(data):
        is_of_a_run = folder.name == "model" and data.is_file()
    return folder, _schema(data) if is_of_a_run else None


def _check_named(path: Path, name: str) -> None:
    """Says what is wrong with a folder that is no model, or with a name that is neither a folder nor of the hub."""
    if path.exists():
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"{name!r} is neither a run of textune (config.yaml) nor a model (config.json).", hint=_WANTED
            )
        return
    of_the_hub = re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name) is not None
    if not of_the_hub or ("/" in name and path.parent.is_dir()):
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputNotFoundError(f"There is no run or model {name!r}.{did_you_mean(path.name, siblings)}", hint=_WANTED)


def _schema(path: Path) -> Schema:
    data = read_json(path)
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, dict):
        raise CheckpointError(f"{path}: expected the columns of training under `schema`; there are none.")
    try:
        return Schema.from_json(schema)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}") from error


def _split_pairs(texts: Sequence[Text]) -> tuple[list[str], list[str] | None]:
    firsts: list[str] = []
    seconds: list[str] = []
    for number, text in enumerate(texts, start=1):
        parts = _parts(text)
        if not parts or not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"Text {number}: expected a text or a pair of texts, found {text!r:.80}.",
                hint='Pairs are written ("first", "second") or {"text": ..., "text_pair": ...}.',
            )
        for name, part in zip(("text", "second text"), parts, strict=False):
            _check_text(part, f"Text {number}", name)
        firsts.append(parts[0])
        seconds += parts[1:]
    if len(seconds) not in {0, len(firsts)}:
        pairs = f"{len(seconds)} pair{'s' if len(seconds) > 1 else ''}"
        raise DataError(f"Expected all pairs or all single texts, found {pairs} among {len(firsts)}.")
    return firsts, seconds or None


def _check_text(text: str, where: str, name: str) -> None:
    """Refuses what the readers of files refuse."""
    if not text.strip():
        raise DataError(f"{where}: the {name} is empty.", hint="Leave out what has no text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {HALF_A_PAIR}.", hint="Read it with the encoding it was written in, or put a sign in its place."
        ) from None


def _parts(text: Any) -> tuple[Any, ...]:
    """The one or two things a text is written with; none where it is written in another way."""
    if isinstance(text, str):
        return (text,)
    if isinstance(text, Mapping):
        names = ("text", "text_pair")[: len(text)]
        return tuple(text[name] for name in names) if text.keys() == set(names) else ()
    return tuple(text) if isinstance(text, (tuple, list)) and len(text) in {1, 2} else ()


def _check_kind(*, pairs_expected: bool, pairs_found: bool) -> None:
    if pairs_expected and not pairs_found:
        raise DataError(
            "This model was trained on pairs of texts, found single texts.", hint='Give ("first", "second").'
        )
    if pairs_found and not pairs_expected:
        raise DataError("This model was trained on single texts, found pairs.", hint="Give one text for each.")
