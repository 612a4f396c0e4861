"""`load_dataset` and the Auto classes: data without network, "starter", everything else as the libraries have it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelFolder

from textune.compat import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, load_dataset
from textune.errors import ConfigError, InputNotFoundError, UnavailableError


@pytest.fixture
def glue_folder(tmp_path: Path) -> Path:
    """A local copy of GLUE with ten rows of MRPC in train and four in validation."""
    folder = tmp_path / "glue" / "mrpc"
    folder.mkdir(parents=True)
    for split, count in (("train", 10), ("validation", 4)):
        rows = [
            {"sentence1": f"a {row}", "sentence2": f"b {row}", "label": row % 2, "idx": row} for row in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder.parent


def test_glue_from_an_argument(glue_folder: Path) -> None:
    from datasets import ClassLabel, DatasetDict

    raw = load_dataset("glue", "mrpc", data_dir=str(glue_folder))
    assert type(raw) is DatasetDict
    assert {split: len(rows) for split, rows in raw.items()} == {"train": 10, "validation": 4}
    assert raw["train"].column_names == ["sentence1", "sentence2", "label", "idx"]
    assert raw["train"].features["label"] == ClassLabel(names=["not_equivalent", "equivalent"])
    assert raw["train"].features["idx"].dtype == "int32"
    assert raw["train"][3] == {"sentence1": "a 3", "sentence2": "b 3", "label": 1, "idx": 3}


@pytest.mark.parametrize("path", ["glue", "nyu-mll/glue"])
def test_glue_from_the_environment(path: str, glue_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUNE_DATA", str(glue_folder))
    assert len(load_dataset(path, "mrpc", cache_dir="ignored", trust_remote_code=True)["train"]) == 10


@pytest.mark.parametrize(
    ("split", "labels"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[:20%]", range(2)),
        ("train[-2:]", range(8, 10)),
        ("train[30%:60%]", range(3, 6)),
        ("train[:2]+validation[2:]", [0, 1, 2, 3]),
    ],
)
def test_one_split_or_a_part_of_it(split: str, labels: Any, glue_folder: Path) -> None:
    from datasets import Dataset

    rows = load_dataset("glue", "mrpc", split=split, data_dir=str(glue_folder))
    assert type(rows) is Dataset
    assert list(rows["idx"]) == list(labels)


def test_other_ways_to_name_a_split(glue_folder: Path) -> None:
    from datasets import ReadInstruction, Split

    folder = str(glue_folder)
    assert len(load_dataset("glue", "mrpc", split=Split.VALIDATION, data_dir=folder)) == 4
    tenth = ReadInstruction("train", to=10, unit="%")
    assert len(load_dataset("glue", "mrpc", split=tenth, data_dir=folder)) == 1
    both = load_dataset("glue", "mrpc", split=["train", "validation"], data_dir=folder)
    assert [len(rows) for rows in both] == [10, 4]


def test_streaming(glue_folder: Path) -> None:
    from datasets import IterableDataset, IterableDatasetDict

    all_rows = load_dataset("glue", "mrpc", streaming=True, data_dir=str(glue_folder))
    rows = load_dataset("glue", "mrpc", split="train", streaming=True, data_dir=str(glue_folder))
    assert (type(all_rows), type(rows)) == (IterableDatasetDict, IterableDataset)
    assert [row["idx"] for row in rows] == list(range(10))
    with pytest.raises(ConfigError, match="there is no split 'test'; there are train, validation"):
        load_dataset("glue", "mrpc", split="test", streaming=True, data_dir=str(glue_folder))


def test_the_sample() -> None:
    raw = load_dataset("sample")
    assert {split: len(rows) for split, rows in raw.items()} == {"train": 400, "validation": 100, "test": 100}
    assert len(load_dataset("sample", split="train[:5%]")) == 20


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # older releases of datasets leave CSV files open
def test_other_builders_are_those_of_datasets(tiny_csv: Path, tmp_path: Path) -> None:
    rows = load_dataset("csv", data_files={"test": str(tiny_csv)}, cache_dir=str(tmp_path), split="test[:5]")
    assert rows.column_names == ["text", "label"]
    assert len(rows) == 5
    (tmp_path / "lines.txt").write_text("one\ntwo\n", encoding="utf-8")
    raw = load_dataset("text", data_files=str(tmp_path / "lines.txt"), cache_dir=str(tmp_path))
    assert list(raw["train"]["text"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("glue",), {}, "expected a task, one of cola, sst2, .*; found none"),
        (("glue", "mprc"), {}, r"found 'mprc'\. Did you mean 'mrpc'\?"),
        (("glue", "mrpc"), {"splt": "train"}, r"there is no option 'splt'"),
        (("glue", "mrpc"), {"split": "tran"}, r"there is no split 'tran'; there are train, validation\. Did you mean"),
        (("glue", "mrpc"), {"split": "train[:1"}, r"there is no split 'train\[:1'"),
    ],
)
def test_what_is_refused(arguments: Any, options: Any, message: str, glue_folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(*arguments, data_dir=str(glue_folder), **options)


def test_a_local_copy_without_the_task(glue_folder: Path) -> None:
    with pytest.raises(InputNotFoundError, match="Expected the folder 'CoLA' or 'cola' for glue/cola"):
        load_dataset("glue", "cola", data_dir=str(glue_folder))


def test_a_revision_is_asked_from_the_hub(glue_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUNE_DATA", str(glue_folder))
    with pytest.raises(UnavailableError, match=r"does not hold 'nyu-mll/glue:mrpc@v1' either"):
        load_dataset("glue", "mrpc", revision="v1")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # older releases of datasets leave CSV files open
def test_the_older_name_of_token(glue_folder: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Scripts from before 2024 say `use_auth_token`, which datasets and transformers no longer know."""
    (tmp_path / "rows.csv").write_text("text,label\na,1\n")
    for value in (None, "secret"):
        assert load_dataset("glue", "mrpc", data_dir=str(glue_folder), use_auth_token=value)["train"].num_rows
        files = str(tmp_path / "rows.csv")
        rows = load_dataset("csv", data_files=files, cache_dir=str(tmp_path), use_auth_token=value)["train"]
        assert rows[0] == {"text": "a", "label": 1}
        for auto in (AutoConfig, AutoTokenizer, AutoModelForSequenceClassification):
            assert auto.from_pretrained(tiny_checkpoint, use_auth_token=value) is not None


@pytest.mark.parametrize(("task", "train", "validation"), [("cola", 8551, 1043), ("stsb", 5749, 1500)])
def test_official_files(task: str, train: int, validation: int, shared_data: Path) -> None:
    raw = load_dataset("glue", task, data_dir=str(shared_data / "glue_data"))
    assert (len(raw["train"]), len(raw["validation"])) == (train, validation)


# ---- Checkpoints ----


def test_the_auto_classes_give_what_transformers_gives(tiny_checkpoint: Path) -> None:
    import transformers

    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert type(config) is transformers.BertConfig
    assert type(AutoConfig.for_model("bert")) is transformers.BertConfig
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    assert isinstance(tokenizer, type(transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=3)
    assert type(model) is transformers.BertForSequenceClassification
    assert model.config.num_labels == 3
    assert type(AutoModelForSequenceClassification.from_config(config)) is transformers.BertForSequenceClassification


def test_new_weights_are_said_in_one_line(tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint)
    assert [record.getMessage() for record in caplog.records] == [
        "BertForSequenceClassification: new, to be trained: classifier (66 weights)"
    ]


def test_nothing_is_said_where_all_weights_fit(
    tiny_model_folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_model_folder("bert", label_names=("no", "yes"))
    with caplog.at_level(logging.WARNING):
        model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert caplog.records == []
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert not report["missing_keys"]


def test_the_table_is_shown_where_loading_fails(
    tiny_model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    logger = logging.getLogger("transformers.modeling_utils")
    monkeypatch.setattr(logger, "handle", lambda record: shown.append(record.getMessage()))
    folder = tiny_model_folder("bert", label_names=("no", "yes"))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5)
    assert any("MISMATCH" in text for text in shown)
    assert logger.filters == []


@pytest.mark.starter
def test_the_starter(caplog: pytest.LogCaptureFixture) -> None:
    assert AutoConfig.from_pretrained("starter").hidden_size == 384
    with caplog.at_level(logging.WARNING, logger="textune"):
        model = AutoModelForSequenceClassification.from_pretrained("starter", num_labels=2)
    assert type(model).__name__ == "BertForSequenceClassification"
    assert [record.getMessage() for record in caplog.records] == [
        "BertForSequenceClassification: new, to be trained: classifier (770 weights)"
    ]


@pytest.mark.parametrize("auto", [AutoConfig, AutoTokenizer, AutoModelForSequenceClassification])
def test_code_of_a_checkpoint_is_never_run(auto: Any, tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="textune never runs code that comes with a checkpoint"):
        auto.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    with pytest.raises(ConfigError, match=f"use {auto.__name__}.from_pretrained"):
        auto()


def test_an_architecture_can_be_registered() -> None:
    import transformers

    class OwnConfig(transformers.BertConfig):  # type: ignore[misc]
        model_type = "own-bert"

    class OwnClassifier(transformers.BertForSequenceClassification):  # type: ignore[misc]
        config_class = OwnConfig

    AutoConfig.register("own-bert", OwnConfig)
    AutoModelForSequenceClassification.register(OwnConfig, OwnClassifier)
    config = OwnConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    assert type(AutoModelForSequenceClassification.from_config(config)) is OwnClassifier
