"""What the data audit finds: planted defects, clean rows, a million rows, planted label noise.

    python -m benchmarks.audit [--task sample mrpc cola stsb] [--local-copy FOLDER] [--rows 1000000] [--output FILE]

FOLDER is as for `textune train --local-copy`. Prints tables and writes every figure to --output (JSON).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.material import read_splits
from benchmarks.measuring import Results, answer, ask, machine, parser, progress, table
from textune.audit.audited_rows import SEPARATOR, normalised
from textune.audit.auditing import full_audit, quick_audit
from textune.audit.findings import Audit
from textune.audit.near_duplicates import SHORT_WIDTH, SIMILARITY, jaccard
from textune.config import DataConfig
from textune.data.cache import workspace
from textune.data.glue import GLUE_TASKS
from textune.data.prepare import prepare_inspection

Row = dict[str, Any]

PLANTED = 50
CLEAN_ROWS = 1000
NEAR_KINDS = ("near_duplicates", "swapped_pairs", "duplicates")
"""An edit may make a row that is there already."""
EXACT_KINDS = (
    *("duplicates", "leaked_duplicates", "conflicting_labels", "empty_text", "missing_label", "wrong_label"),
    *("label_spelling", "very_long", "control_characters", "replacement_characters", "mojibake"),
    *("invisible_characters", "bidi_controls", "private_use_characters", "html_remains", "no_words", "other_script"),
    "other_language",
)
ODD = {
    "control_characters": "\x07",
    "replacement_characters": "\ufffd",
    "mojibake": "cafÃ©",
    "invisible_characters": "\u200b",
    "bidi_controls": "\u202e",
    "private_use_characters": "\ue001",
    "html_remains": "<br/>",
}
# Beginnings and endings of sentences; each beginning goes with each ending of its language.
FOREIGN: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("Gestern hat der Nachbar erzählt, dass", "Niemand wusste so recht, warum", "Sie schrieb in ihrem Brief, dass"),
        ("die Brücke bald gesperrt wird.", "es im Sommer keinen Regen gab.", "der alte Bäcker sein Geschäft verkauft."),
    ),
    (
        (
            "Hier soir, la voisine a raconté que",
            "Personne ne savait vraiment pourquoi",
            "Il a écrit dans sa lettre que",
        ),
        (
            "le pont serait bientôt fermé.",
            "la boulangerie avait été vendue.",
            "les enfants étaient partis sans manger.",
        ),
    ),
    (
        ("Ayer la vecina nos contó que", "Nadie sabía muy bien por qué", "Ella escribió en su carta que"),
        (
            "el puente estaría cerrado muy pronto.",
            "no había llovido en todo el verano.",
            "los niños se fueron a la playa.",
        ),
    ),
    (
        ("Gisteren vertelde de buurman dat", "Niemand wist eigenlijk waarom", "Zij schreef in haar brief dat"),
        (
            "de brug binnenkort gesloten wordt.",
            "het deze zomer niet geregend heeft.",
            "de kinderen al naar huis waren.",
        ),
    ),
    (
        ("Wczoraj sąsiad opowiadał, że", "Nikt nie wiedział dokładnie, dlaczego", "W swoim liście napisała, że"),
        ("most zostanie wkrótce zamknięty.", "latem nie było w ogóle deszczu.", "dzieci poszły już do domu."),
    ),
)
NOISE = (0.05, 0.10)
NOISE_SEEDS = (1, 2, 3, 4, 5)


def main() -> None:
    made = parser(__doc__, rounds=None)
    made.add_argument("--task", nargs="+", default=["sample"], choices=["sample", *GLUE_TASKS])
    made.add_argument("--local-copy")
    made.add_argument("--rows", type=int, default=1_000_000, help="rows of the large file; 0 leaves it out")
    made.add_argument("--noise", nargs="*", default=["sample"], choices=["sample", *GLUE_TASKS])
    arguments = made.parse_args()
    results = Results("audit", arguments, machine(threads=arguments.threads))
    data = {name: task_rows(name, arguments.local_copy) for name in {*arguments.task, *arguments.noise}}
    planted = [measure_plants(name, data[name]) for name in arguments.task]
    results.write(planted=planted)
    print(plants_table(planted))
    if arguments.rows:
        large = measure_large(data[arguments.task[0]]["train"], arguments)
        results.write(large=large)
        print("\n" + table(list(large), [[f"{value:,.4g}" for value in large.values()]]))
    noise = [measure_noise(name, data[name]["train"]) for name in arguments.noise]
    results.write(label_noise=noise)
    if noise:
        print("\n" + noise_table(noise))


def task_rows(name: str, local_copy: str | None) -> dict[str, list[Row]]:
    """Rows of `text`, perhaps `text_pair`, and `label` as text, of the training and the validation split."""
    splits = read_splits(None, None) if name == "sample" else read_splits(name, local_copy)
    names = GLUE_TASKS[name].label_names if name in GLUE_TASKS else ("not_equivalent", "equivalent")
    return {
        split: [
            {**row, "label": names[row["label"]] if names else f"{row['label']:g}"}
            for row in splits[split]
        ]
        for split in ("train", "validation")
    }  # fmt: skip


# ---- Planted defects ----


@dataclass(frozen=True)
class Plant:
    """One planted row, and the kinds of finding of which one must name it."""

    name: str
    split: str
    row: Row
    kinds: tuple[str, ...]


def measure_plants(name: str, splits: dict[str, list[Row]]) -> dict[str, Any]:
    """Recall for each kind of defect in a copy of the data, and false alarms in clean rows."""
    progress(f"{name}: planted defects")
    rng = random.Random(0)
    train = list(splits["train"])
    rng.shuffle(train)
    num_planted = min(PLANTED, len(train) // 20)
    donors, kept = train[: 4 * num_planted], train[4 * num_planted :]
    copy = {"train": list(kept), "validation": list(splits["validation"])}
    places: dict[str, list[tuple[str, int, tuple[str, ...]]]] = defaultdict(list)
    for plant in plants(kept, donors, rng, num_planted):
        copy[plant.split].append(plant.row)
        places[plant.name].append((plant.split, len(copy[plant.split]), plant.kinds))
    audit = audit_of(copy)
    recall = {
        name: statistics.mean((split, row) in found_places(audit, kinds) for split, row, kinds in planted)
        for name, planted in places.items()
    }
    clean = clean_rows(splits["train"], rng)
    cut = len(clean) * 4 // 5
    alarms = found_places(audit_of({"train": clean[:cut], "validation": clean[cut:]}), EXACT_KINDS)
    return {
        "data": name,
        "planted": {plant: len(planted) for plant, planted in places.items()},
        "recall": recall,
        "clean_rows": len(clean),
        "false_alarms": len(alarms),
    }


def plants(kept: list[Row], donors: list[Row], rng: random.Random, count: int) -> Iterator[Plant]:
    """The rows to add. Copies are made of `kept`, which is not added to here; whatever else is wrong, of `donors`."""
    texts = [name for name in ("text", "text_pair") if name in kept[0]]
    labels = sorted({row["label"] for row in kept})
    words = len(labels) <= 10
    originals = iter(rng.sample(kept, 5 * count))
    spare = iter(donors)
    for number in range(count):
        row = next(originals)
        other = {name: f" {row[name].upper()}  " if number % 2 else row[name] for name in texts}
        yield Plant("exact duplicate", "train", {**row, **other}, ("duplicates",))
        yield Plant("leak into validation", "validation", dict(next(originals)), ("leaked_duplicates",))
        row = next(originals)
        far = next(label for label in labels if label != row["label"] and (words or distant(label, row["label"])))
        yield Plant("conflicting label", "train", {**row, "label": far}, ("conflicting_labels",))
        row = next(originals)
        near = edited_row(row, rng, number)
        yield Plant("one edit, however similar", "train", near, NEAR_KINDS)
        while True:
            row = rng.choice(kept)
            near = edited_row(row, rng, number)
            if near != row and similarity(near, row) >= SIMILARITY:
                break
        yield Plant("near duplicate", "train", near, NEAR_KINDS)
        row = next(originals)
        if len(texts) == 2:
            swap = {**row, "text": row["text_pair"], "text_pair": row["text"]}
            yield Plant("swapped pair", "train", swap, ("swapped_pairs", "duplicates"))
        yield Plant("empty text", "train", {**next(spare), rng.choice(texts): " \t" * (number % 2)}, ("empty_text",))
        unlabelled = {**next(spare), "label": None if number % 2 else " "}
        yield Plant("missing label", "train", unlabelled, ("missing_label",))
        if words:
            row = next(spare)
            spelled = {**row, "label": f"{row['label'].upper()} "}
            yield Plant("label spelling", "train", spelled, ("label_spelling",))
        else:
            yield Plant("label no number", "train", {**next(spare), "label": "n/a"}, ("wrong_label",))
        yield from damaged(next(spare), kept, rng, number)


def damaged(row: Row, kept: list[Row], rng: random.Random, number: int) -> Iterator[Plant]:
    """A row with an odd character in its middle, one that is glued together of many, and one in another language."""
    kind, odd = list(ODD.items())[number % len(ODD)]
    middle = row["text"].index(" ") if " " in row["text"] else len(row["text"])
    odd_row = {**row, "text": f"{row['text'][:middle]} {odd}{row['text'][middle:]}"}
    yield Plant("odd characters", "train", odd_row, (kind,))
    glued = {**row, "text": " ".join(other["text"] for other in rng.sample(kept, 40))}
    yield Plant("very long", "train", glued, ("very_long",))
    beginnings, endings = FOREIGN[number % len(FOREIGN)]
    texts = [name for name in ("text", "text_pair") if name in row]
    sentences = {name: f"{rng.choice(beginnings)} {rng.choice(endings)}" for name in texts}
    yield Plant("another language", "train", {**row, **sentences}, ("other_language",))


def edited_row(row: Row, rng: random.Random, number: int) -> Row:
    name = rng.choice([name for name in ("text", "text_pair") if name in row])
    return {**row, name: edited(row[name], rng, number)}


def similarity(first: Row, second: Row) -> float:
    """Jaccard similarity as the audit means it."""
    texts = (
        [SEPARATOR.join(sorted(normalised(row[name]) for name in ("text", "text_pair") if name in row))]
        for row in (first, second)
    )
    return float(jaccard(*texts, SHORT_WIDTH)[0])


def distant(first: str, second: str) -> bool:
    """Whether two targets are further apart than a tenth of STS-B's range."""
    return abs(float(first) - float(second)) > 0.5


def edited(text: str, rng: random.Random, number: int) -> str:
    """A word replaced, left out or added, a slip of the finger, or other punctuation."""
    words = text.split()
    at = rng.randrange(len(words))
    if number % 5 == 0:
        words[at] = rng.choice(["thing", "often", "blue", "seven"])
    elif number % 5 == 1:
        del words[at]
    elif number % 5 == 2:
        words.insert(at, rng.choice(["very", "also", "now", "there"]))
    elif number % 5 == 3:
        place = rng.randrange(len(text))
        return f"{text[:place]}{rng.choice('aeiorstn')}{text[place + 1 :]}"
    else:
        return text.rstrip(" .!?") + " ..."
    return " ".join(words)


def clean_rows(rows: list[Row], rng: random.Random) -> list[Row]:
    """Rows in which plain Python sees nothing wrong: every text once, ASCII, of usual length, with a label."""
    texts = [name for name in ("text", "text_pair") if name in rows[0]]
    keys = [frozenset(" ".join(row[name].lower().split()) for name in texts) for row in rows]
    often = Counter(keys)
    longest = 5 * statistics.median(sum(len(row[name]) for name in texts) for row in rows)
    clean = [
        row
        for row, key in zip(rows, keys, strict=True)
        if often[key] == 1
        and all(row[name].isascii() and row[name].isprintable() and not set(row[name]) & set("<>&") for name in texts)
        and all(any(character.isalnum() for character in row[name]) for name in texts)
        and sum(len(row[name]) for name in texts) < longest
    ]
    return rng.sample(clean, min(CLEAN_ROWS, len(clean)))


def audit_of(splits: dict[str, list[Row]]) -> Audit:
    """The full audit of rows that are written to files first, without truncation."""
    with tempfile.TemporaryDirectory() as data:
        for split, rows in splits.items():
            lines = (json.dumps(row) + "\n" for row in rows)
            Path(data, f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        kind = None if len({row["label"] for row in splits["train"]}) <= 10 else "regression"
        return audit_file(DataConfig(source=data, problem_type=kind))  # type: ignore[arg-type]


def audit_file(config: DataConfig) -> Audit:
    with workspace() as folder:
        prepared = prepare_inspection(dataclasses.replace(config, drop_bad_rows=True), folder=folder)
        return full_audit(prepared, tokens={}, folder=folder)


def found_places(audit: Audit, kinds: Sequence[str]) -> set[tuple[str, int]]:
    """(split, row) of all findings of these kinds."""
    return {
        (finding.split, row) for finding in audit.findings if finding.kind in kinds for row in finding.rows.tolist()
    }


def plants_table(planted: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for result in planted for name in result["recall"]))
    rows = [
        [name, *(f"{result['recall'][name]:.0%}" if name in result["recall"] else "" for result in planted)]
        for name in names
    ]
    rows.append(["false alarms", *(f"{result['false_alarms']} in {result['clean_rows']:,}" for result in planted)])
    return table(["planted", *(result["data"] for result in planted)], rows)


# ---- A large file ----


@dataclass(frozen=True)
class Large:
    """A file to audit in a process of its own."""

    path: str


def measure_large(rows: list[Row], arguments: argparse.Namespace) -> dict[str, float]:
    """Time and peak memory for made-up sentences, one in fifty an edited copy of the one before."""
    progress(f"{arguments.rows:,} rows")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.jsonl")
        with path.open("w", encoding="utf-8") as file:
            for number, text in enumerate(made_up(rows, arguments.rows)):
                file.write(json.dumps({"text": text, "label": "ab"[number % 2]}) + "\n")
        return ask("benchmarks.audit", Large(str(path)), threads=arguments.threads, cache=folder)


def made_up(rows: list[Row], count: int) -> Iterator[str]:
    """Sentences of 10 to 30 words in which every three words stand so in the data, always the same."""
    rng = random.Random(0)
    followers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        words = " ".join(row[name] for name in ("text", "text_pair") if name in row).split()
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            followers[first, second].append(third)
    starts = list(followers)
    before = ""
    for number in range(count):
        if number % 50 == 49:
            yield edited(before, rng, number // 50)
            continue
        words = list(rng.choice(starts))
        length = rng.randint(10, 30)
        while len(words) < length:
            following = followers.get((words[-2], words[-1]))
            words += [rng.choice(following)] if following else rng.choice(starts)
        before = " ".join(words)
        yield before


def measure_file(task: Large) -> dict[str, Any]:
    """Seconds of reading and of both audits, by the clock and of the processor, and the process' peak memory."""
    import torch

    from textune.environment import peak_memory_mib

    config = DataConfig(source=task.path, drop_bad_rows=True)
    with workspace() as folder:
        started = time.perf_counter()
        prepared = prepare_inspection(config, folder=folder)
        reading = time.perf_counter() - started
        started_quick = time.process_time()
        quick = quick_audit(prepared, tokens={}, tokenizer=None)
        started_full = time.process_time()
        full = full_audit(prepared, tokens={}, folder=folder)
        ended = time.process_time()
    near = sum(finding.count for finding in full.findings if finding.kind == "near_duplicates")
    return {
        "rows": full.num_rows,
        "reading_seconds": reading,
        "quick_seconds": quick.seconds,
        "quick_processor_seconds": started_full - started_quick,
        "full_seconds": full.seconds,
        "full_processor_seconds": ended - started_full,
        "full_processor_microseconds_per_row": (ended - started_full) / full.num_rows * 1e6,
        "peak_memory_mib": peak_memory_mib(torch.device("cpu")),
        "near_duplicates": near,
    }


# ---- Label noise ----


def measure_noise(name: str, rows: list[Row]) -> dict[str, Any]:
    """Precision and recall of the suspects when a share of the labels is replaced by another, over several seeds."""
    import numpy as np

    from textune.audit.suspects import cross_validated_errors, features_of
    from textune.models.embeddings import TextEncoder
    from textune.models.load import find_checkpoint

    progress(f"{name}: label noise")
    encoder = TextEncoder(find_checkpoint("starter"))
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    features = features_of([row["text"] for row in rows], pairs, encoder)
    classes, labels = np.unique([row["label"] for row in rows], return_inverse=True)
    figures: dict[str, dict[str, float]] = {}
    for share in NOISE:
        per_seed = []
        for seed in NOISE_SEEDS:
            rng = np.random.default_rng(seed)
            wrong = rng.choice(len(rows), round(share * len(rows)), replace=False)
            noisy = labels.copy()
            noisy[wrong] = (noisy[wrong] + rng.integers(1, len(classes), len(wrong))) % len(classes)
            found = cross_validated_errors(features, noisy, seed=seed)
            per_seed.append(_noise_figures(found.rows.tolist(), set(wrong.tolist()), found.estimated_share))
        figures[f"{share:.0%}"] = {key: statistics.mean(run[key] for run in per_seed) for key in per_seed[0]}
    return {"data": name, "rows": len(rows), "seeds": len(NOISE_SEEDS), "noise": figures}


def _noise_figures(suspects: list[int], wrong: set[int], estimated: float) -> dict[str, float]:
    at_k = suspects[: len(wrong)]
    hits, first = len(wrong & set(at_k)), suspects[: max(1, len(wrong) // 5)]
    return {
        "precision_at_fifth": len(wrong & set(first)) / len(first),
        "precision_at_k": hits / len(at_k),
        "recall_at_k": hits / len(wrong),
        "recall_of_all_suspects": len(wrong & set(suspects)) / len(wrong),
        "suspects": len(suspects),
        "estimated_share": estimated,
    }


def noise_table(noise: list[dict[str, Any]]) -> str:
    columns = list(noise[0]["noise"]["5%"])
    rows = [
        [result["data"], share, *(f"{figures[name]:.3g}" for name in columns)]
        for result in noise
        for share, figures in result["noise"].items()
    ]
    return table(["data", "noise", *columns], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        answer(Large, measure_file)
    else:
        main()
