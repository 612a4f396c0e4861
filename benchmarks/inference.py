"""textune's Predictor beside transformers.pipeline and sentence-transformers' CrossEncoder, in alternation.

    python -m benchmarks.inference                                the starter on the bundled sample's test pairs
    python -m benchmarks.inference --task mrpc --local-copy FOLDER --model runs/mrpc/model

Prints texts per second by batch size, in the given order and in order of length, the latency of one short text (one
pair if the model is of a run on pairs), and the largest difference of the scores; writes everything to --output (JSON).
Each is a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.material import STARTER, TASKS, Material
from benchmarks.measuring import (
    Results,
    Spread,
    ask,
    in_turns,
    largest_difference,
    machine_line,
    parser,
    progress,
    ratios,
    table,
)
from benchmarks.predictors import CROSS_ENCODER, PIPELINE, PREDICTORS, TEXTUNE, TEXTUNE_BF16, Prediction
from textune.data.glue import GLUE_TASKS

OWN = (TEXTUNE, TEXTUNE_BF16)
POINTS = ("p50", "p95")


def main(options: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    who = "; ".join(f"{name}: {contestant.description}" for name, contestant in PREDICTORS.items())
    made.add_argument("--who", nargs="+", choices=list(PREDICTORS), help=f"default: those that are installed. {who}")
    made.add_argument("--model", default=STARTER, help="folder with a classifier; or a shape (random head)")
    made.add_argument("--task", choices=TASKS, help="GLUE task; the bundled sample when not given")
    made.add_argument("--local-copy", help="folder with the task, as for `textune train --local-copy`")
    made.add_argument("--long", action="store_true", help="long, uneven texts, made by joining the data's sentences")
    made.add_argument("--split", choices=["validation", "test"], default="test")
    made.add_argument("--rows", type=int, help="only so many")
    made.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    made.add_argument("--latency-calls", type=int, default=200)
    made.add_argument("--device", choices=["auto", "cpu"], default="auto")
    arguments = made.parse_args(options)
    arguments.who = arguments.who or installed(task=arguments.task, long=arguments.long)
    runs: list[dict[str, Any]] = []
    scores: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        same = {name: getattr(arguments, name) for name in ("threads", "device", "task", "local_copy", "long")}
        material = Material(folder=folder, checkpoint=arguments.model, classifier=True, **same)
        cache = Path(folder, "cache")
        prepared = ask("benchmarks.material", material, threads=arguments.threads, cache=cache)
        data = Path(prepared["data"], f"{arguments.split}.jsonl")
        if not data.is_file():
            there = ", ".join(sorted(path.stem for path in data.parent.iterdir()))
            made.error(f"--split {arguments.split}: the data have no such split, only {there}")
        results = Results(f"inference-{arguments.task or 'sample'}", arguments, prepared["machine"])
        for turn, name in in_turns(arguments.rounds, arguments.who):
            task = Prediction(
                who=name,
                data=str(data),
                model=prepared["checkpoint"],
                batch_sizes=arguments.batch_sizes,
                threads=arguments.threads,
                device=arguments.device,
                rows=arguments.rows,
                latency_calls=arguments.latency_calls,
                pairs=trained_on_pairs(Path(prepared["checkpoint"])),
            )
            found = ask("benchmarks.predictors", task, threads=arguments.threads, cache=cache)
            scores[name] = found.pop("scores")
            runs.append({"round": turn, **found})
            progress(f"round {turn}, {name}: {max(found['samples_per_second'].values()):.1f} texts/s at best")
            results.write(runs=runs)
    summary = summarize(runs, scores)
    results.write(summary=summary)
    print(report(summary))
    print(f"\n{machine_line(prepared['machine'])}\nwritten to {results.path}")


def installed(*, task: str | None, long: bool) -> list[str]:
    """Who can take part: the CrossEncoder if it is installed, and if there are pairs, which alone it takes."""
    pairs = not long and (task is None or len(GLUE_TASKS[task].text_columns) == 2)
    there = importlib.util.find_spec("sentence_transformers") is not None and pairs
    return [name for name in PREDICTORS if name != CROSS_ENCODER or there]


def trained_on_pairs(model: Path) -> bool:
    """Whether this is the model in the folder of a run on pairs."""
    data = model.parent / "data.json"
    if model.name != "model" or not data.is_file():
        return False
    return json.loads(data.read_text(encoding="utf-8"))["schema"]["text_pair"] is not None


def summarize(runs: Sequence[dict[str, Any]], scores: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Spreads of each way, and textune's best against the others' best, round by round, as "ours / theirs"."""
    by_name = {who: [found for found in runs if found["who"] == who] for who in scores}

    def speeds(who: str, way: str) -> list[float]:
        return [found["samples_per_second"][way] for found in by_name[who]]

    def latencies(who: str, point: str) -> list[float]:
        return [found["latency_ms"][point] for found in by_name[who]]

    ways = {who: list(own[0]["samples_per_second"]) for who, own in by_name.items()}
    best = {who: max(ways[who], key=lambda way: Spread.of(speeds(who, way)).median) for who in by_name}
    timed = [who for who, own in by_name.items() if own[0]["latency_ms"]]
    against = [(own, other) for own in OWN if own in by_name for other in by_name if other not in OWN]
    return {
        "samples_per_second": {who: {way: Spread.of(speeds(who, way)) for way in ways[who]} for who in by_name},
        "best": best,
        "best_ratio": {
            f"{own} / {other}": ratios(speeds(own, best[own]), speeds(other, best[other])) for own, other in against
        },
        "latency_ms": {who: {point: Spread.of(latencies(who, point)) for point in POINTS} for who in timed},
        "latency_ratio": {
            f"{other} / {own}": {point: ratios(latencies(other, point), latencies(own, point)) for point in POINTS}
            for own, other in against
            if other in timed
        },
        "peak_memory_mib": {who: Spread.of([found["peak_memory_mib"] for found in by_name[who]]) for who in by_name},
        "score_difference": {
            who: largest_difference(scores[who], scores[PIPELINE])
            for who in scores
            if who != PIPELINE and PIPELINE in scores
        },
    }


def report(summary: dict[str, Any]) -> str:
    """Two tables: throughput, and latency."""
    rows = [
        [who, f"**{way}**" if way == summary["best"][who] else way, speed.text()]
        for who, ways in summary["samples_per_second"].items()
        for way, speed in ways.items()
    ]
    lines = [table(["who", "way (best bold)", "texts/s"], rows), ""]
    latency = [[who, found["p50"].text(2), found["p95"].text(2)] for who, found in summary["latency_ms"].items()]
    lines += [table(["who", "one short text or pair, p50 ms", "p95 ms"], latency), ""]
    for sides, ratio in summary["best_ratio"].items():
        lines.append(f"texts per second, {sides}, the best way of each: {ratio.text(2)} x")
    for sides, points in summary["latency_ratio"].items():
        lines.append(f"latency, {sides}: p50 {points['p50'].text(2)} x, p95 {points['p95'].text(2)} x")
    for who, difference in summary["score_difference"].items():
        lines.append(f"scores of {who} and pipeline: largest difference {difference:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
