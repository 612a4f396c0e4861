"""Every reader of textune: valid files for it, and the call that reads them."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from faults.fuzz import hostile
from faults.fuzz.mutations import COMPRESSORS, Files
from faults.material import rows, save_tiny_model, write_json_lines

TABLE = b'text,label,id\nfine weather,a,1\n"a, b ""c""",b,2\n"two\nlines",a,3\nna\xc3\xafve,b,4\n'
CONFIG = b"""\
data: {source: sample, label_names: [a, b], drop_bad_rows: false}
training:
  learning_rate: 5e-5
  duration: 3epochs
  seed: 1
evaluation: {metric: null, patience: 2}
"""
_PAIRS = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
GLUE = {
    "MRPC/msr_paraphrase_train.txt": f"{_PAIRS}1\t1\t2\tA b .\tA c .\n0\t3\t4\tD .\tE .\n",
    "MRPC/dev_ids.tsv": "#1 ID\t#2 ID\n3\t4\n",
    "MRPC/msr_paraphrase_test.txt": f"{_PAIRS}1\t5\t6\tA .\tB .\n",
}


@dataclass(frozen=True)
class Reader:
    """One way into textune.

    Attributes:
        samples: makes sets of valid files.
        read: reads the files of a folder as textune's own commands do; the generator chooses among options, None means
            the defaults.
        altered: patterns of the files that are made wrong; the others stay as they are.
        hostile: makes a file that is harmful from the start, and its name; None where there is no such thing.
        names: words of which an error's message must hold one, besides the names of the folder and its files.
        share: inputs of this reader, as a part of those of an ordinary one.
    """

    samples: Callable[[], list[Files]]
    read: Callable[[Path, Random | None], object]
    altered: tuple[str, ...] = ("*",)
    hostile: Callable[[Random], tuple[str, bytes]] | None = None
    names: tuple[str, ...] = ()
    share: float = 1.0

    def alters(self, name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.altered)


def files_of(folder: Path) -> Files:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _made(make: Callable[[Path], object]) -> list[Files]:
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        return [files_of(Path(name))]


def _chance(rng: Random | None) -> bool:
    return rng is not None and rng.random() < 0.5


# ---- Configuration and data ----


def _read_config(folder: Path, rng: Random | None) -> object:
    from textune.config_reading import read_config, to_yaml

    return to_yaml(read_config(folder / "config.yaml"))


def _json_lines() -> bytes:
    import json

    return "".join(
        json.dumps({"text": row["text"], "label": row["label"], "id": number}) + "\n"
        for number, row in enumerate(rows(6))
    ).encode()


def _json_documents() -> list[Files]:
    lines = _json_lines().decode().splitlines()
    array = f"[{', '.join(lines)}]"
    texts = (array, f'{{"version": "1", "data": {array}}}', "\n".join(lines))
    return [{"data.json": text.encode()} for text in texts]


def _parquet() -> list[Files]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([{**row, "id": number, "score": [number / 2]} for number, row in enumerate(rows(8))])
    found: list[Files] = []
    for compression, dictionary in (("snappy", True), ("none", False), ("zstd", True)):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression=compression, use_dictionary=dictionary)
        found.append({"data.parquet": sink.getvalue()})
    return found


def _compressed() -> list[Files]:
    return [
        {f"data{kind}{suffix}": COMPRESSORS[suffix][1](data)}
        for suffix in COMPRESSORS
        for kind, data in ((".csv", TABLE), (".jsonl", _json_lines()))
    ]


def _read_table(folder: Path, rng: Random | None) -> object:
    from textune.data.readers import read_batches

    path = next(folder.glob("data.*"), folder / "data.csv")  # it may have been removed
    reader = read_batches(path, drop_bad_rows=_chance(rng))
    return sum(len(table) for table in reader), reader.dropped


def _split_folders() -> list[Files]:
    parquet = _parquet()[0]["data.parquet"]
    return [
        {"train.csv": TABLE, "dev.csv": TABLE, "test.csv": b"text,id\nfine,9\n"},
        {"train.jsonl": _json_lines(), "validation.jsonl": _json_lines()},
        {"train-00000-of-00002.parquet": parquet, "train-00001-of-00002.parquet": parquet},
    ]


def _saved_by_datasets(folder: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list(rows(8))
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(str(folder))


def _load_source(folder: Path, rng: Random | None) -> object:
    from textune.data.sources import load_source

    source = load_source(str(folder), drop_bad_rows=_chance(rng))
    return {name: len(split) for name, split in source.splits.items()}


def _load_glue(folder: Path, rng: Random | None) -> object:
    from textune.data.sources import load_source

    return load_source("glue/mrpc", local_copy=str(folder), drop_bad_rows=_chance(rng)).fingerprint


def _labelled() -> list[Files]:
    import json

    lists = [{"text": row["text"], "label": [row["label"], "all"]} for row in rows(12)]
    numbers = [{"text": row["text"], "label": number / 4} for number, row in enumerate(rows(12))]
    texts = ["".join(json.dumps(row) + "\n" for row in found) for found in (rows(12), lists, numbers)]
    return [{"train.jsonl": text.encode(), "validation.jsonl": text.encode()} for text in texts]


def _prepare(folder: Path, rng: Random | None) -> object:
    """Labels, ids and texts: from files to typed rows, as training has them."""
    from textune.config import DataConfig
    from textune.data.prepare import prepare_training

    kinds = (None, None, None, "single_label_classification", "multi_label_classification", "regression")
    kind = None if rng is None else rng.choice(kinds)
    config = DataConfig(source=str(folder), problem_type=kind, drop_bad_rows=_chance(rng))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as work:
        return len(prepare_training(config, seed=1, folder=Path(work)).rows["train"])


# ---- Models ----


def _encoder() -> list[Files]:
    return _made(save_tiny_model)


def _tokenizer_files() -> list[Files]:
    """As tokenizer.json, and as the vocabulary file of an older checkpoint."""
    import json

    [fast] = _encoder()
    vocabulary = json.loads(fast["tokenizer.json"])["model"]["vocab"]
    lines = "\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n"
    old = {
        "config.json": fast["config.json"],
        "model.safetensors": fast["model.safetensors"],
        "vocab.txt": lines.encode(),
        "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer", "model_max_length": 32}',
        "special_tokens_map.json": b'{"pad_token": "[PAD]", "unk_token": "[UNK]"}',
    }
    return [fast, old]


def _load_tokenizer(folder: Path, rng: Random | None) -> object:
    from textune.data.tokenize import encode_texts
    from textune.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return encode_texts((["the film was good", "çé 😀"], None), tokenizer=tokenizer, max_length=16).num_rows


def _load_model(folder: Path, rng: Random | None) -> object:
    from textune.models.load import find_checkpoint, load_classifier

    return load_classifier(
        find_checkpoint(str(folder)), problem_type="single_label_classification", label_names=["a", "b"], seed=1
    ).notes


@functools.cache
def _run() -> list[Files]:
    """A finished run, trained here."""
    from textune.display import Display
    from textune.finetune import train

    with tempfile.TemporaryDirectory() as name:
        model, data = save_tiny_model(Path(name, "tiny")), write_json_lines(Path(name, "train.jsonl"), rows())
        run = train(
            str(data), model=str(model), output=str(Path(name, "run")), epochs=1, precision="fp32", display=Display()
        )
        return [files_of(run.path)]


def _read_run(folder: Path, rng: Random | None) -> object:
    from textune.run import Run

    run = Run.open(folder)
    parts = [lambda: run.config, lambda: run.data, lambda: run.environment, lambda: run.summary, lambda: run.metrics]
    parts += [lambda: run.predictions("validation")]
    if rng is not None:
        rng.shuffle(parts)
    return [part() for part in parts]


def _predict(folder: Path, rng: Random | None) -> object:
    from textune.serving.predictor import Predictor

    return Predictor.load(folder, device="cpu").predict(["the film was good", "bad"])


def _checkpoints() -> list[Files]:
    prefix = "checkpoints/"
    return [{name.removeprefix(prefix): data for name, data in _run()[0].items() if name.startswith(prefix)}]


def _read_checkpoint(folder: Path, rng: Random | None) -> object:
    from textune.training.checkpoint import STEP_FOLDERS, committed, verify

    for step in committed(folder):
        verify(STEP_FOLDERS.folder(folder, step))
    return None


@contextlib.contextmanager
def quick_probes():  # type: ignore[no-untyped-def]
    """How fast the machine multiplies matters to no reader."""
    from textune.training import precision

    saved = precision.PROBE_SECONDS, precision.PROBE_SIZE
    precision.PROBE_SECONDS, precision.PROBE_SIZE = 1e-4, 32
    try:
        yield
    finally:
        precision.PROBE_SECONDS, precision.PROBE_SIZE = saved


# What a message says in place of a file: several files are one split, several mistakes of a file one list of options.
_DATA_WORDS = ("split", "train", "validation", "test", "column")
_OPTION_WORDS = (
    "no option",
    *(f"{name}." for name in ("data", "tokens", "model", "training", "engine", "evaluation", "checkpoint", "run")),
)

READERS: dict[str, Reader] = {
    "config": Reader(
        lambda: [{"config.yaml": CONFIG}],
        _read_config,
        hostile=lambda rng: ("config.yaml", hostile.yaml_text(rng)),
        names=_OPTION_WORDS,
    ),
    "csv": Reader(
        lambda: [{"data.csv": TABLE}, {"data.csv": TABLE.replace(b",", b";")}],
        _read_table,
        hostile=lambda rng: ("data.csv", hostile.delimited(rng)),
    ),
    "tsv": Reader(
        lambda: [{"data.tsv": b'text\tlabel\tid\nfine "weather"\ta\t1\nna\xc3\xafve, b\tb\t2\n'}],
        _read_table,
        hostile=lambda rng: ("data.tsv", hostile.delimited(rng, delimiter="\t")),
    ),
    "json": Reader(_json_documents, _read_table, hostile=lambda rng: ("data.json", hostile.json_text(rng))),
    "json lines": Reader(
        lambda: [{"data.jsonl": _json_lines()}],
        _read_table,
        hostile=lambda rng: ("data.jsonl", hostile.json_text(rng)),
    ),
    "compressed": Reader(
        _compressed,
        _read_table,
        hostile=lambda rng: (
            f"data.csv{(suffix := rng.choice(sorted(COMPRESSORS)))}",
            hostile.compressed(rng, suffix=suffix),
        ),
    ),
    "parquet": Reader(_parquet, _read_table, hostile=lambda rng: ("data.parquet", hostile.parquet(rng))),
    "folder": Reader(
        _split_folders,
        _load_source,
        hostile=lambda rng: ("train.parquet", hostile.parquet(rng)),
        names=_DATA_WORDS,
    ),
    "saved by datasets": Reader(lambda: _made(_saved_by_datasets), _load_source, names=_DATA_WORDS),
    "glue": Reader(lambda: [{name: text.encode() for name, text in GLUE.items()}], _load_glue, names=_DATA_WORDS),
    "labels": Reader(
        _labelled,
        _prepare,
        hostile=lambda rng: ("train.jsonl", hostile.json_text(rng)),
        names=_DATA_WORDS,
        share=0.5,
    ),
    "tokenizer": Reader(
        _tokenizer_files,
        _load_tokenizer,
        altered=("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"),
    ),
    "model config": Reader(_encoder, _load_model, altered=("config.json",)),
    "safetensors": Reader(
        _encoder,
        _load_model,
        altered=("model.safetensors",),
        hostile=lambda rng: ("model.safetensors", hostile.safetensors(rng)),
    ),
    "run": Reader(
        _run,
        _read_run,
        altered=("config.yaml", "data.json", "environment.json", "metrics.jsonl", "summary.json", "predictions/*"),
        hostile=lambda rng: ("predictions/validation.parquet", hostile.parquet(rng)),
        names=_OPTION_WORDS,
    ),
    "trained model": Reader(
        _run,
        _predict,
        altered=("data.json", "model/config.json", "model/tokenizer*", "model/model.safetensors"),
        names=("The model gave scores",),
        share=0.5,
    ),
    "checkpoint": Reader(_checkpoints, _read_checkpoint),
}
