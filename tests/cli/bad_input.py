"""The commands of docs/bad-input.md: what people get wrong, and the files it needs."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Case:
    """A command that must fail.

    Attributes:
        what: the mistake, in words.
        command: what is typed after `textune`, in the folder that `make_files` fills.
        code: the exit code.
        words: parts of the message.
        limit_bytes: no file may grow larger than this: what a full disk looks like to a program.
        varies: the message has words of the operating system or of another library, which change with their versions.
    """

    what: str
    command: str
    code: int
    words: tuple[str, ...]
    limit_bytes: int | None = None
    varies: bool = False


TRAIN = "train --model tiny --output out --data"
MODEL = "train --data good.csv --output out --model"
GOOD = "train --data good.csv --model tiny"

CASES = [
    Case("missing file", f"{TRAIN} god.csv", 66, ("There is no file 'god.csv'", "Did you mean 'good.csv'?")),
    Case("missing folder", f"{TRAIN} none/good.csv", 66, ("there is no folder 'none'",)),
    Case("unknown format", f"{TRAIN} reviews.xls", 65, ("reviews.xls", ".csv, .tsv", "CSV UTF-8")),
    Case("empty file", f"{TRAIN} empty.csv", 65, ("empty.csv", "found an empty file")),
    Case("header only", f"{TRAIN} header.csv", 65, ("found a header line (text, label) but no rows after it",)),
    Case("no such column", f"{TRAIN} good.csv --text txt", 2, ("'txt'", "Did you mean 'text'?")),
    Case("no label column", f"{TRAIN} unlabelled.csv", 2, ("--label",)),
    Case(
        "empty text",
        f"{TRAIN} empty-text.csv",
        65,
        ("rows 2, 4: column 'text': the text is empty", "--drop-bad-rows"),
    ),
    Case("null text", f"{TRAIN} null-text.jsonl", 65, ("row 2: column 'text': the text is empty (null or blank)",)),
    Case("empty label", f"{TRAIN} empty-label.csv", 65, ("row 3: column 'label': the label is empty",)),
    Case("invalid UTF-8", f"{TRAIN} latin1.csv", 65, ("line 4: not UTF-8: byte 0xe9 at column 4",)),
    Case("Korean Excel's CSV", f"{TRAIN} cp949.csv", 65, ("looks like CP949 (Korean Windows)", "--encoding cp949")),
    Case("UTF-16", f"{TRAIN} utf16.csv", 65, ("UTF-16 text; expected UTF-8", "--encoding utf-16")),
    Case("unknown encoding", f"{TRAIN} cp949.csv --encoding korea", 2, ("--encoding", "found 'korea'")),
    Case(
        "ragged CSV line",
        f"{TRAIN} ragged.csv",
        65,
        ("line 3: expected 2 fields (text, label), found 3", "--drop-bad-rows"),
    ),
    Case("quote never closed", f"{TRAIN} quote.csv", 65, ("line 3: a quote opened here is never closed",)),
    Case("NUL bytes", f"{TRAIN} nul.csv", 65, ("line 3: a NUL byte at column",)),
    Case("a line of 10 MB", f"{TRAIN} long.csv", 65, ("line 3: a line of more than 8 MiB",)),
    Case("broken JSON", f"{TRAIN} broken.jsonl", 65, ("line 2: not JSON",)),
    Case("no Parquet in .parquet", f"{TRAIN} wrong.parquet", 65, ("expected a Parquet file",), varies=True),
    Case("one class only", f"{TRAIN} one-class.csv", 65, ("Every training row has the same label 'a'",)),
    Case(
        "label in validation that training lacks",
        f"{TRAIN} good.csv --validation other-labels.csv",
        65,
        ("validation, row 2", "'neutral' is not a label of the training data", "'negative', 'positive'"),
    ),
    Case(
        "NaN and infinite regression targets",
        f"{TRAIN} targets.csv --problem-type regression",
        65,
        ("row 2", "row 3", "is not a finite number"),
    ),
    Case(
        "infinite target in Parquet",
        f"{TRAIN} targets.parquet --problem-type regression",
        65,
        ("row 2", "not a finite number"),
    ),
    Case("hub data set, hub unreachable", f"{TRAIN} someone/reviews", 69, ("someone/reviews", "HF_HUB_OFFLINE")),
    Case("hub model, hub unreachable", f"{MODEL} someone/encoder", 69, ("someone/encoder", "HF_HUB_OFFLINE")),
    Case("no such checkpoint folder", f"{MODEL} ./none", 66, ("there is no folder './none'",)),
    Case("checkpoint is a file", f"{MODEL} good.csv", 65, ("is a file, expected the folder",)),
    Case("checkpoint without config.json", f"{MODEL} no-config", 65, ("there is no config.json in it",)),
    Case("checkpoint without weights", f"{MODEL} no-weights", 65, ("expected weights in *.safetensors, found none",)),
    Case("checkpoint with truncated safetensors", f"{MODEL} truncated", 65, ("is cut short or damaged",), varies=True),
    Case("checkpoint with only a pickle", f"{MODEL} pickled", 65, ("only pytorch_model.bin, a pickle",)),
    Case("checkpoint with remote code", f"{MODEL} remote-code", 65, ("wants to run code of its own", "auto_map")),
    Case("architecture that cannot classify", f"{MODEL} vision", 65, ("'clip_vision_model'",)),
    Case("output folder not empty", f"{GOOD} --output mine", 73, ("'mine' is not empty and is not a run",)),
    Case("output holds a run", f"{GOOD} --output run", 73, ("'run' already holds a run", "--overwrite")),
    Case("output is a file", f"{GOOD} --output good.csv", 73, ("'good.csv' is a file, expected a folder",)),
    Case("output not writable", f"{GOOD} --output /sys/textune", 73, ("/sys",), varies=True),
    Case(
        "disk full",
        f"{GOOD} --output full",
        74,
        ("No space left while writing 'full/checkpoints/step-", "MiB free on that disk"),
        limit_bytes=100_000,
    ),
    Case("wrong value", f"{GOOD} --output out --batch-size 0", 2, ("at least 1, found 0",)),
    Case(
        "several mistakes",
        f"{GOOD} --output out --schedule liner --set training.sed=1",
        2,
        ("--schedule (training.schedule): ", "There is no option 'training.sed'. Did you mean 'training.seed'?"),
    ),
    Case("unknown flag", f"{GOOD} --lerning-rate 1", 2, ("No such option", "--learning-rate")),
    Case("unknown metric", f"{GOOD} --output out --metric f2", 2, ("expected one of accuracy, f1", "found 'f2'")),
    Case(
        "unknown device",
        f"{GOOD} --output out --device gpu",
        2,
        ("'gpu' cannot be used here",),
        varies=True,
    ),
    Case("more tokens than positions", f"{GOOD} --output out --max-length 999", 2, ("expected at most 64",)),
    Case("missing configuration", f"{GOOD} --config none.yaml", 66, ("There is no configuration file 'none.yaml'",)),
    Case("broken configuration", f"{GOOD} --config broken.yaml", 2, ("broken.yaml: expected YAML",)),
    Case(
        "a run folder that is not one",
        "predict mine good.csv -o labelled.csv",
        65,
        ("'mine' is neither a run of textune",),
    ),
    Case("run not finished", "predict unfinished good.csv -o labelled.csv", 66, ("training has not finished",)),
    Case(
        "missing run", "predict ./rum good.csv -o labelled.csv", 66, ("no run or model './rum'", "Did you mean 'run'?")
    ),
    Case("nothing to predict", "predict run god.csv -o labelled.csv", 66, ("Did you mean 'good.csv'?",)),
    Case("predictions would overwrite", "predict run good.csv -o good.csv", 73, ("is there already", "--overwrite")),
    Case("unknown output format", "predict run good.csv -o labelled.xls", 2, ("expected a file name ending in .csv",)),
    Case("input without the text column", "predict run txt.csv -o labelled.csv", 65, ("Did you mean 'txt'?",)),
    Case("empty text in the input", "predict run empty-text.csv -o labelled.csv", 65, ("rows 2, 4: column 'text'",)),
    Case("not a run to evaluate", "evaluate tiny --data good.csv", 65, ("is not a trained classifier",)),
    Case("no labels to evaluate with", "evaluate run --data unlabelled.csv", 65, ("nothing can be scored",)),
    Case("unknown label to evaluate with", "evaluate run --data other-labels.csv", 65, ("row 2", "'neutral'")),
    Case(
        "a threshold that is none",
        "predict run good.csv -o out.csv --threshold high",
        2,
        ("expected f1, precision:X, recall:X or a score, X from 0 to 1; found 'high'",),
    ),
    Case(
        "predictions on other rows",
        "compare run other-rows.csv",
        65,
        ("are about different rows", "6 ids of run are not in other-rows.csv"),
    ),
    Case(
        "ids that stand for several rows", "compare run doubled-ids.csv", 65, ("some of which stand for several: '7'",)
    ),
    Case("predictions without an id", "compare run good.csv", 65, ("expected the columns id, label, and prediction",)),
]


def make_files(folder: Path, *, checkpoint: Path, run: Path) -> None:
    """Fills a folder with what the commands name."""
    rows = [f"the film was good {number},{'positive' if number % 2 else 'negative'}" for number in range(20)]
    texts = {
        "good.csv": ["text,label", *rows],
        "unlabelled.csv": ["text", "a film", "a book"],
        "txt.csv": ["txt", "a film", "a book"],
        "empty.csv": [],
        "header.csv": ["text,label"],
        "empty-text.csv": ["text,label", "good,a", ",b", "bad,a", "  ,b"],
        "empty-label.csv": ["text,label", "good,a", "bad,b", "dull,"],
        "ragged.csv": ["text,label", "good,a", "good, but long,a", "bad,b"],
        "quote.csv": ["text,label", "good,a", '"bad,b', "dull,a"],
        "nul.csv": ["text,label", "good,a", "b\0d,b"],
        "long.csv": ["text,label", "good,a", "x" * 10_000_000 + ",b"],
        "one-class.csv": ["text,label", "good,a", "bad,a"],
        "other-labels.csv": ["text,label", "good,positive", "so so,neutral"],
        "targets.csv": ["text,label", "good,1.5", "bad,nan", "dull,inf", "fine,2.5"],
        "broken.jsonl": ['{"text": "good", "label": "a"}', '{"text": "bad", '],
        "null-text.jsonl": ['{"text": "good", "label": "a"}', '{"text": null, "label": "b"}'],
        "other-rows.csv": ["id,label,prediction", "x,positive,negative", "y,positive,positive"],
        "doubled-ids.csv": ["id,label,prediction", "7,positive,negative", "7,positive,positive"],
        "reviews.xls": ["PK"],
        "wrong.parquet": ["text,label", "good,a"],
        "broken.yaml": ["training: [1"],
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "latin1.csv").write_bytes("text,label\n좋아요,a\ntrès bon,a\n".encode() + "café,b\n".encode("latin-1"))
    (folder / "cp949.csv").write_bytes("문장,감정\n정말 재미있어요,긍정\n아까운 시간이었다,부정\n".encode("cp949"))
    (folder / "utf16.csv").write_bytes("text,label\ngood,a\n".encode("utf-16"))
    pq.write_table(pa.table({"text": ["good", "bad"], "label": [1.5, float("inf")]}), folder / "targets.parquet")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(run, folder / "unfinished", ignore=shutil.ignore_patterns("checkpoints", "model", "summary.json"))
    _make_checkpoints(folder, checkpoint)


def _make_checkpoints(folder: Path, checkpoint: Path) -> None:
    for name in ("tiny", "no-config", "no-weights", "truncated", "pickled", "remote-code", "vision"):
        shutil.copytree(checkpoint, folder / name)
    (folder / "no-config" / "config.json").unlink()
    (folder / "no-weights" / "model.safetensors").unlink()
    (folder / "pickled" / "model.safetensors").rename(folder / "pickled" / "pytorch_model.bin")
    with (folder / "truncated" / "model.safetensors").open("r+b") as file:
        file.truncate(20_000)
    for name, change in {
        "remote-code": {"auto_map": {"AutoModel": "modeling_mine.MyModel"}},
        "vision": {"model_type": "clip_vision_model"},
    }.items():
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))


@contextlib.contextmanager
def file_size_limit(limit_bytes: int | None) -> Iterator[None]:
    """Lets no file grow beyond a size, as a full disk does."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
