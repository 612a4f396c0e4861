"""What the contestants work on: checkpoints of several shapes, data as JSON lines, and facts about the machine.

`benchmarks.measuring.ask` runs it in a process of its own, so that the one that measures stays small.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import answer
from textune.data.glue import GLUE_TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS = [name for name, task in GLUE_TASKS.items() if task.label_names and "train" in task.splits]
MAX_TOKENS = 512
# Half of the long texts have fewer tokens than this, one in six more than 2.2 times as many.
LONG_MEDIAN_TOKENS, LONG_SIGMA = 128, 0.8


@dataclass(frozen=True)
class Shape:
    """A BERT with random weights."""

    layers: int
    hidden: int
    heads: int
    intermediate: int


STARTER = "starter"
SHAPES = {
    "bert-tiny": Shape(2, 128, 2, 512),
    "bert-small": Shape(4, 512, 8, 2048),
    "bert-base": Shape(12, 768, 12, 3072),
    "bert-large": Shape(24, 1024, 16, 4096),
}


@dataclass(frozen=True)
class Material:
    """What to make, and where.

    Attributes:
        folder: gets `checkpoint/` (unless it is the starter or a folder that exists) and `data/SPLIT.jsonl`.
        checkpoint: `starter`, a name in `SHAPES`, or a folder.
        threads: of torch, for the machine's rates.
        device: `auto`, `cpu`, `cuda`, ...
        task: a GLUE task; None for the bundled sample.
        local_copy: as for `textune train --local-copy`.
        long: make long, uneven texts of the data's.
        tokens: instead of all that, texts of exactly so many tokens, `rows` of them.
        classifier: give the checkpoint a head (with random weights), for prediction.
    """

    folder: str
    checkpoint: str
    threads: int
    device: str = "auto"
    task: str | None = None
    local_copy: str | None = None
    long: bool = False
    tokens: int | None = None
    rows: int = 0
    classifier: bool = False


def prepare(material: Material) -> dict[str, Any]:
    """Makes it; returns `checkpoint` and `data` (folders), `layer_parameters`, `lengths` and `machine`."""
    import torch
    from transformers import AutoTokenizer

    from textune.environment import describe, find_device
    from textune.training.precision import choose

    torch.set_num_threads(material.threads)
    device = find_device(material.device)
    folder = Path(material.folder)
    splits = None if material.tokens else read_splits(material.task, material.local_copy)
    labels = {row["label"] for row in splits["train"]} if splits else {0, 1}
    checkpoint = make_checkpoint(material.checkpoint, folder / "checkpoint", labels=len(labels) * material.classifier)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if splits is None:
        texts = texts_of_length(material.tokens or 0, material.rows, tokenizer)
        splits = {"train": [{"text": text, "label": number % 2} for number, text in enumerate(texts)]}
        splits["validation"] = splits["train"][:2]
    elif material.long:
        splits = {name: long_rows(rows, tokenizer) for name, rows in splits.items()}
    write_splits(folder / "data", splits)
    lengths = [len(ids) for ids in _encode(tokenizer, splits["train"])]
    return {
        "checkpoint": str(checkpoint),
        "data": str(folder / "data"),
        "layer_parameters": layer_parameters(checkpoint),
        "lengths": {"rows": len(lengths), "median": statistics.median(lengths), "longest": max(lengths)},
        "machine": describe(device, choose("auto", device)),
    }


def make_checkpoint(name: str, folder: Path, *, labels: int = 0) -> Path:
    """The starter's folder, one that exists, or a new one with random weights and the starter's vocabulary.

    Args:
        labels: a classifier with so many labels is saved; 0 for an encoder without a head.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig

    from textune.models.starter import starter_folder

    if name != STARTER and name not in SHAPES:
        return Path(name)
    source = starter_folder()
    if name == STARTER and not labels:
        return source
    kind = AutoModelForSequenceClassification if labels else AutoModel
    own = {"num_labels": labels} if labels else {}
    torch.manual_seed(0)
    if name == STARTER:
        model = kind.from_pretrained(source, dtype=torch.float32, **own)
    else:
        shape = SHAPES[name]
        config = BertConfig(
            vocab_size=AutoConfig.from_pretrained(source).vocab_size,
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate,
            **own,
        )
        model = kind.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def layer_parameters(checkpoint: Path) -> int:
    """Weights of the encoder's layers: without embeddings, pooler and head. Nothing is loaded."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        encoder = AutoModel.from_config(AutoConfig.from_pretrained(checkpoint))
    return sum(
        parameter.numel()
        for name, parameter in encoder.named_parameters()
        if not name.startswith(("embeddings", "pooler"))
    )


# ---- Data ----


def read_splits(task: str | None, local_copy: str | None) -> dict[str, list[dict[str, Any]]]:
    """Rows of `text`, perhaps `text_pair`, and `label` (an integer) where the split has labels."""
    from textune.data.sources import SAMPLE_LABELS, load_source

    source = load_source("sample" if task is None else f"glue/{task}", local_copy=local_copy)
    columns = ("sentence1", "sentence2") if task is None else GLUE_TASKS[task].text_columns
    found = {}
    for split, rows in source.splits.items():
        texts = zip(*(rows[column] for column in columns), strict=True)
        labels = [SAMPLE_LABELS.index(label) if isinstance(label, str) else label for label in rows["label"]]
        made = [dict(zip(("text", "text_pair"), row, strict=False)) for row in texts]
        labelled = min(labels) >= 0
        found[split] = [row | {"label": label} for row, label in zip(made, labels, strict=True)] if labelled else made
    # Of MNLI's two validation and two test splits the matched ones are taken.
    return {split.removesuffix("_matched"): rows for split, rows in found.items()}


def write_splits(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """train.jsonl, validation.jsonl and, where there is one, test.jsonl."""
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        if split in splits:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in splits[split])
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def long_rows(rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """As many rows, each of several of the given texts in a row; always the same.

    The number of tokens, with the special ones, is drawn from a log-normal distribution and is at most `MAX_TOKENS`.
    """
    texts = [row[column] for row in rows for column in ("text", "text_pair") if column in row]
    # Without the special tokens, of which a text of its own has two.
    lengths = [len(ids) - 2 for ids in _encode(tokenizer, [{"text": text} for text in texts])]
    draw = random.Random(0)
    made, next_text = [], 0
    for row in rows:
        wanted = min(draw.lognormvariate(0, LONG_SIGMA) * LONG_MEDIAN_TOKENS, MAX_TOKENS)
        parts, tokens = [texts[next_text]], lengths[next_text] + 2
        next_text = (next_text + 1) % len(texts)
        while tokens + lengths[next_text] <= wanted:
            parts.append(texts[next_text])
            tokens += lengths[next_text]
            next_text = (next_text + 1) % len(texts)
        made.append({"text": " ".join(parts), **{name: row[name] for name in ("label",) if name in row}})
    return made


def texts_of_length(tokens: int, rows: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts of exactly so many tokens with the special ones, of words that are one token each; always the same."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    draw = random.Random(0)
    special = len(tokenizer("")["input_ids"])
    return [" ".join(draw.choices(words, k=tokens - special)) for _ in range(rows)]


def _encode(tokenizer: Any, rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    columns = [[row[column] for row in rows] for column in ("text", "text_pair") if column in rows[0]]
    ids: list[list[int]] = tokenizer(*columns, truncation=True)["input_ids"]
    return ids


if __name__ == "__main__":
    answer(Material, prepare)
