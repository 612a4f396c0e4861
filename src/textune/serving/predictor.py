"""A finished classifier in Python: texts in, labels and scores out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.data.collate import Padding
from textune.data.schema import Schema
from textune.data.tokenize import encode_texts, tokenize_split
from textune.data.tokens import TokenRows
from textune.environment import cores, find_device
from textune.errors import CheckpointError, DataError
from textune.evaluation.predictions import FloatArray, LabelSet, decide, name_labels, predict_logits, to_scores
from textune.files import read_json
from textune.models.load import Classifier, find_checkpoint, load_trained, max_tokens
from textune.run import Run
from textune.training.precision import choose

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

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

    Attributes:
        label_set: what its outputs stand for.
        schema: the columns of the data it was trained on; None for a checkpoint that textune did not train.
    """

    def __init__(
        self, classifier: Classifier, *, schema: Schema | None, device: torch.device, batch_size: int = 32
    ) -> None:
        self._classifier = classifier
        self._device = device
        self._batch_size = batch_size
        self._max_length = max_tokens(classifier.model.config, classifier.tokenizer, asked=None)
        self._padding = Padding.of(classifier.tokenizer)
        # Scores are computed in fp32, by whichever kernel is fastest at that accuracy.
        self._arithmetic = choose("fp32", device)
        self.label_set = LabelSet.of_model(classifier.model)
        self.schema = schema

    @classmethod
    def load(cls, source: Run | str | os.PathLike[str], *, batch_size: int = 32, device: str = "auto") -> Predictor:
        """Loads a run's model, or any checkpoint with a classification head.

        Args:
            source: a `Run`, a run folder, a model folder or a hub model.
            batch_size: texts scored at once.
            device: `auto`, `cpu`, `cuda`, ...

        Raises:
            InputNotFoundError, UnavailableError: there is no such run or model.
            CheckpointError: the run has not finished, or the checkpoint has no trained head.
        """
        import torch

        folder, schema = _find(source)
        found = find_device(device)
        torch.set_num_threads(cores())
        classifier = load_trained(folder)
        classifier.model.to(found)
        return cls(classifier, schema=schema, device=found, batch_size=batch_size)

    def predict(self, texts: Sequence[Text]) -> list[Prediction]:
        """Predicts texts, or pairs given as (text, text_pair) or {"text": ..., "text_pair": ...}.

        Returns:
            One prediction per text, in the same order.

        Raises:
            DataError: a text is not one, or texts and pairs are mixed.
        """
        if isinstance(texts, str):
            raise DataError("Expected a list of texts, found one text.", hint='Put it in a list: predict(["..."]).')
        if not texts:
            return []
        firsts, seconds = _split_pairs(texts, pairs_expected=self.schema is not None and bool(self.schema.text_pair))
        logits = self.logits(firsts, seconds)
        scores = to_scores(logits, self.label_set.problem_type)
        labels = name_labels(decide(logits, self.label_set.problem_type), self.label_set)
        return [
            Prediction(label, {name: float(value) for name, value in zip(self.label_set.names, row, strict=False)})
            for label, row in zip(labels, scores, strict=True)
        ]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> FloatArray:
        """Runs the model over texts or pairs held in memory: float32 [num_texts, num_outputs]."""
        table = encode_texts((texts, pairs), tokenizer=self._classifier.tokenizer, max_length=self._max_length)
        return self._run(TokenRows(table))

    def logits_of(self, rows: Dataset, *, on_progress: Callable[[int], None] | None = None) -> FloatArray:
        """Runs the model over typed rows (`textune.data.rows`): float32 [num_rows, num_outputs]."""
        tokens = tokenize_split(rows, self._classifier.tokenizer, max_length=self._max_length)
        return self._run(tokens, on_progress=on_progress)

    def _run(self, tokens: TokenRows, *, on_progress: Callable[[int], None] | None = None) -> FloatArray:
        with self._arithmetic.in_force():
            return predict_logits(
                self._classifier.model,
                tokens,
                padding=self._padding,
                batch_size=self._batch_size,
                device=self._device,
                on_progress=on_progress,
            )


def _find(source: Run | str | os.PathLike[str]) -> tuple[Path, Schema | None]:
    """The model's folder, and the schema where a run or its model folder tells it."""
    path = source.path if isinstance(source, Run) else Path(source)
    if (path / "config.yaml").is_file() or (isinstance(source, Run)):
        run = Run.open(path)
        if not (run.model_path / "config.json").is_file():
            raise CheckpointError(
                f"The run {str(path)!r} has no model yet: its training has not finished.",
                hint="Wait for it, or train again with --overwrite.",
            )
        return find_checkpoint(str(run.model_path)), Schema.from_json(run.data["schema"])
    folder = find_checkpoint(str(source))
    data = folder.parent / "data.json"
    if folder.name == "model" and data.is_file():
        return folder, Schema.from_json(read_json(data)["schema"])
    return folder, None


def _split_pairs(texts: Sequence[Text], *, pairs_expected: bool) -> tuple[list[str], list[str] | None]:
    firsts: list[str] = []
    seconds: list[str] = []
    for number, text in enumerate(texts, start=1):
        if isinstance(text, Mapping):
            parts: tuple[Any, ...] = tuple(text[name] for name in ("text", "text_pair") if name in text)
        else:
            parts = (text,) if isinstance(text, str) else tuple(text)
        if len(parts) not in {1, 2} or not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"Text {number}: expected a text or a pair of texts, found {text!r:.80}.",
                hint='Pairs are written ("first", "second") or {"text": ..., "text_pair": ...}.',
            )
        firsts.append(parts[0])
        seconds += parts[1:]
    if len(seconds) not in {0, len(firsts)}:
        raise DataError(f"Expected all pairs or all single texts, found {len(seconds)} pairs of {len(firsts)}.")
    if pairs_expected != bool(seconds) and pairs_expected:
        raise DataError(
            "This model was trained on pairs of texts, found single texts.", hint='Give ("first", "second").'
        )
    return firsts, seconds or None
