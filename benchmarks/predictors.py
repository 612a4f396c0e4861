"""Who is compared in prediction, and what is measured of each: throughput, latency of one text, and the scores.

`benchmarks.measuring.ask` runs it in a process of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import answer, percentile
from textune.environment import peak_memory_mib
from textune.training.precision import wait_for

Text = tuple[str, ...]
"""A text, or a text and its pair."""
Predict = Callable[[Sequence[Text], int], list[list[float]]]
"""From texts and a batch size to the scores of each label, in the order of the labels' numbers."""


@dataclass(frozen=True)
class Prediction:
    """What to measure.

    Attributes:
        who: a name in `PREDICTORS`.
        data: .jsonl file with `text` and perhaps `text_pair`.
        model: folder with a classifier.
        batch_sizes: throughput is measured with each.
        rows: how many texts at most; None for all.
        latency_calls: how many single texts are asked for one after the other, after a tenth as many for warm-up.
        pairs: ask for single pairs instead, by all contestants: the model was trained on pairs, and textune then
            refuses anything else.
    """

    who: str
    data: str
    model: str
    batch_sizes: Sequence[int]
    threads: int
    device: str = "auto"
    rows: int | None = None
    latency_calls: int = 200
    pairs: bool = False


@dataclass(frozen=True)
class Contestant:
    """One way to predict.

    Attributes:
        load: from model folder and device to what predicts.
        sorts: it sorts by length itself, so that asking for it in order of length makes no difference.
    """

    description: str
    load: Callable[[str, Any], Predict]
    sorts: bool


def load_textune(model: str, device: Any, precision: str = "fp32") -> Predict:
    import textune

    predictor: Any = None
    size = 0  # the predictor's, not the call's

    def predict(texts: Sequence[Text], batch_size: int) -> list[list[float]]:
        nonlocal predictor, size
        if predictor is None or batch_size != size:
            predictor = None  # before there is another: the other contestants hold one model, too
            predictor = textune.Predictor.load(model, batch_size=batch_size, device=str(device), precision=precision)
            size = batch_size
        found = predictor.predict([text if len(text) > 1 else text[0] for text in texts])
        return [list(prediction.scores.values()) for prediction in found]

    return predict


def load_pipeline(model: str, device: Any) -> Predict:
    from transformers import pipeline

    ask = pipeline("text-classification", model=model, device=device, top_k=None)
    numbers = ask.model.config.label2id

    def predict(texts: Sequence[Text], batch_size: int) -> list[list[float]]:
        asked = [dict(zip(("text", "text_pair"), text, strict=False)) for text in texts]
        found = ask(asked, batch_size=batch_size, truncation=True)  # as the others do without being told
        by_number = [sorted(row, key=lambda one: numbers[one["label"]]) for row in found]
        return [[one["score"] for one in row] for row in by_number]

    return predict


def load_cross_encoder(model: str, device: Any) -> Predict:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, device=str(device))

    def predict(texts: Sequence[Text], batch_size: int) -> list[list[float]]:
        found = encoder.predict(list(texts), batch_size=batch_size, apply_softmax=True, show_progress_bar=False)
        return [[float(score) for score in row] for row in found]

    return predict


TEXTUNE, TEXTUNE_BF16, PIPELINE, CROSS_ENCODER = "textune", "textune-bf16", "pipeline", "cross-encoder"
PREDICTORS = {
    TEXTUNE: Contestant("textune.Predictor (fp32)", load_textune, sorts=True),
    TEXTUNE_BF16: Contestant("the same with precision bf16", partial(load_textune, precision="bf16"), sorts=True),
    PIPELINE: Contestant('transformers.pipeline("text-classification")', load_pipeline, sorts=False),
    CROSS_ENCODER: Contestant("sentence-transformers' CrossEncoder (pairs only)", load_cross_encoder, sorts=True),
}


def measure_prediction(task: Prediction) -> dict[str, Any]:
    """Measures one contestant.

    Returns:
        `who`, `samples_per_second` by way, `latency_ms` (None for what takes pairs only and is not asked for pairs),
        `scores` of the texts in their order, and `peak_memory_mib` (before the single texts).
    """
    import torch

    from textune.environment import find_device

    torch.set_num_threads(task.threads)
    device = find_device(task.device)
    contestant = PREDICTORS[task.who]
    predict = contestant.load(task.model, device)
    texts = read_texts(Path(task.data))[: task.rows]
    in_order = sorted(range(len(texts)), key=lambda number: sum(map(len, texts[number])))
    speeds, scores = {}, None
    for batch_size in task.batch_sizes:
        predict(texts[:2], batch_size)  # warms up
        for way, order in (("", range(len(texts))), (", sorted", in_order)):
            if way and contestant.sorts:
                continue
            begin = time.perf_counter()
            found = predict([texts[number] for number in order], batch_size)
            wait_for(device)
            speeds[f"batch {batch_size}{way}"] = len(texts) / (time.perf_counter() - begin)
            scores = scores or found
    peak = peak_memory_mib(device)
    takes_them = task.pairs or task.who != CROSS_ENCODER
    latency = latency_of(predict, texts, calls=task.latency_calls, pairs=task.pairs) if takes_them else None
    return {
        "who": task.who,
        "samples_per_second": speeds,
        "latency_ms": latency,
        "scores": scores,
        "peak_memory_mib": peak,
    }


def latency_of(predict: Predict, texts: Sequence[Text], *, calls: int, pairs: bool) -> dict[str, float]:
    """Milliseconds of a call with one short text (the first of a row) or pair: the shortest, one after the other."""
    short = sorted((text if pairs else text[:1] for text in texts), key=lambda text: (sum(map(len, text)), text))
    asked = [short[number % len(short)] for number in range(calls)]
    for text in asked[: max(1, calls // 10)]:
        predict([text], 1)
    times = []
    for text in asked:
        begin = time.perf_counter()
        predict([text], 1)
        times.append(1000 * (time.perf_counter() - begin))
    return {"p50": percentile(times, 50), "p95": percentile(times, 95)}


def read_texts(path: Path) -> list[Text]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [tuple(row[name] for name in ("text", "text_pair") if name in row) for row in rows]


if __name__ == "__main__":
    answer(Prediction, measure_prediction)
