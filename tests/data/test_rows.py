from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from textune.data.rows import Rows, texts_of, to_rows
from textune.data.schema import Schema, resolve_schema
from textune.errors import DataError, OutputError

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

SPAM = Schema(
    text="text",
    text_pair=None,
    label="label",
    id=None,
    problem_type="single_label_classification",
    label_names=("ham", "spam"),
    label_separator=None,
    notes=(),
)
PAIRS = replace(SPAM, text_pair="other")
NUMBERS = replace(SPAM, problem_type="regression", label_names=())
TAGS = replace(SPAM, problem_type="multi_label_classification", label_names=("a", "b"), label_separator=";")


def splits(**columns_of_splits: dict[str, list[Any]]) -> DatasetDict:
    return DatasetDict({name: Dataset.from_dict(columns) for name, columns in columns_of_splits.items()})


def good_train() -> dict[str, list[Any]]:
    return {"text": ["win now", "hello"], "label": ["spam", "ham"]}


def message_of(source: DatasetDict, schema: Schema, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        to_rows(source, schema, **options)
    return str(error.value)


@pytest.mark.parametrize("on_disk", [False, True])
def test_typed_columns(tmp_path: Path, on_disk: bool) -> None:
    source = splits(train={**good_train(), "id": ["x", "y"], "date": ["1", "2"]})

    rows = to_rows(source, replace(SPAM, id="id"), folder=tmp_path / "rows" if on_disk else None)

    train = rows.splits["train"]
    assert train.to_list() == [
        {"id": "x", "row": 0, "text": "win now", "labels": 1},
        {"id": "y", "row": 1, "text": "hello", "labels": 0},
    ]
    assert train.features == Features(
        {"id": Value("string"), "row": Value("int64"), "text": Value("string"), "labels": Value("int64")}
    )
    assert (tmp_path / "rows" / "train.arrow").exists() == on_disk
    assert rows.notes == ()
    assert rows.dropped == {}


def test_pairs_and_row_numbers_as_ids() -> None:
    rows = to_rows(splits(train={**good_train(), "other": ["x", "y"]}), PAIRS).splits["train"]

    assert rows.column_names == ["id", "row", "text", "text_pair", "labels"]
    assert rows["id"][:] == [1, 2]
    assert rows["text_pair"][:] == ["x", "y"]


def test_multi_hot_and_numbers() -> None:
    rows = to_rows(splits(train={"text": ["x", "y", "z"], "label": ["b;a", "", "a"]}), TAGS).splits["train"]
    assert rows["labels"][:] == [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert rows.data.schema.field("labels").type == pa.list_(pa.float32())

    rows = to_rows(splits(train={"text": ["x", "y"], "label": ["3.5", "-1"]}), NUMBERS).splits["train"]
    assert rows["labels"][:] == [3.5, -1.0]
    assert rows.data.schema.field("labels").type == pa.float32()


def test_all_faults_of_all_splits_are_told_at_once() -> None:
    source = splits(
        train={"text": ["a", "", "c", None], "other": ["x", "x", " \t", "x"], "label": ["ham", "spam", "", "ham"]},
        validation={"text": ["a", "b", "c"], "other": ["x"] * 3, "label": ["spma", "zzz", "spma"]},
    )

    assert message_of(source, PAIRS) == (
        "Some rows cannot be used (rows are counted from 1, without a header line):\n"
        "train, rows 2, 4: column 'text': the text is empty (null or blank)\n"
        "train, row 3: column 'other': the text is empty (null or blank)\n"
        "train, row 3: column 'label': the label is empty (null, blank, NaN or -1)\n"
        "validation, rows 1, 3: column 'label': 'spma' is not a label of the training data. Did you mean 'spam'?\n"
        "validation, row 2: column 'label': 'zzz' is not a label of the training data.\n"
        "The labels of the training data are 'ham', 'spam'.\n"
        "Correct these rows, or leave them out with --drop-bad-rows."
    )


def test_row_numbers_count_over_batches() -> None:
    labels = ["ham"] * 10_000
    labels[9_998] = "hum"

    message = message_of(splits(train={"text": ["x"] * 10_000, "label": labels}), SPAM)

    assert "train, row 9999: column 'label': 'hum' is not a label" in message


def test_far_too_many_wrong_labels_are_cut_short() -> None:
    source = splits(train={"text": ["x"] * 100, "label": ["ham", *(f"wrong {row}" for row in range(99))]})

    message = message_of(source, SPAM)

    assert message.count("is not a label of the training data") == 10
    assert "and 79 more: column 'label': further labels of this kind" in message


def test_bad_numbers_are_named() -> None:
    source = splits(train={"text": ["x"] * 5, "label": ["1.5", "nan", "inf", "2,5", "1e40"]})

    message = message_of(source, NUMBERS)

    for row, value in ((2, "nan"), (3, "inf"), (4, "2,5"), (5, "1e40")):
        assert f"train, row {row}: column 'label': '{value}' is not a finite number" in message
    assert "'2,5' is not a finite number: it has a decimal comma; write 2.5" in message


def test_stored_infinity_and_nan() -> None:
    message = message_of(splits(train={"text": ["x"] * 3, "label": [1.5, float("inf"), float("nan")]}), NUMBERS)

    assert "train, row 2: column 'label': 'inf' is not a finite number" in message
    assert "train, row 3: column 'label': the label is empty" in message


def test_bad_rows_are_dropped_and_counted_by_reason() -> None:
    source = splits(
        train={"text": ["a", "", "", "d"], "label": ["ham", "spam", "wrong", "spam"]},
        validation={"text": ["a", "b", "c"], "label": ["wrong", None, "ham"]},
    )

    rows = to_rows(source, SPAM, drop_bad_rows=True)

    assert rows.splits["train"]["row"][:] == [0, 3]
    assert rows.splits["train"]["id"][:] == [1, 4]
    assert rows.splits["validation"]["text"][:] == ["c"]
    assert rows.dropped == {"train": {"empty text": 2}, "validation": {"empty label": 1, "unknown label": 1}}
    assert rows.dropped_rows["train"] == {"empty text": [2, 3]}
    assert rows.dropped_rows["validation"] == {"unknown label": [1], "empty label": [2]}
    assert rows.notes == (
        "train: 2 of 4 rows dropped (2 empty text)",
        "validation: 2 of 3 rows dropped (1 empty label, 1 unknown label)",
    )


def test_dropping_everything_is_an_error() -> None:
    source = splits(train=good_train(), test={"text": ["", " "], "label": ["ham", "ham"]})

    message = message_of(source, SPAM, drop_bad_rows=True)

    assert message == (
        "No row is left in split 'test'.\ntest, rows 1, 2: column 'text': the text is empty (null or blank)"
    )


@pytest.mark.parametrize("labels", [[-1, -1], ["-1", "-1"], ["", ""], [None, None], [float("nan")] * 2])
def test_splits_without_labels_are_told(labels: list[Any]) -> None:
    rows = to_rows(splits(train=good_train(), test={"text": ["x", "y"], "label": labels}), SPAM)

    assert rows.splits["test"].column_names == ["id", "row", "text"]
    assert rows.notes == ("test: no labels (column 'label' holds only null, blanks or -1)",)


def test_a_split_without_a_label_column() -> None:
    source = splits(train=good_train(), test={"text": ["x"]})

    assert to_rows(source, SPAM).notes == ("test: no labels (there is no label column)",)
    assert "test: there is no column 'label'. The columns are 'text'." in message_of(
        source, SPAM, require_labels=("train", "test")
    )


def test_labels_can_be_required() -> None:
    source = splits(train=good_train(), validation={"text": ["x"], "label": [""]})

    assert "Split 'validation' has no labels" in message_of(source, SPAM, require_labels=("train", "validation"))


def test_regression_test_splits_of_minus_one_are_unlabelled() -> None:
    source = splits(train={"text": ["x", "y"], "label": [1.5, -1.0]}, test={"text": ["x", "y"], "label": [-1.0, -1.0]})

    rows = to_rows(source, NUMBERS)

    assert rows.splits["train"]["labels"][:] == [1.5, -1.0]
    assert "labels" not in rows.splits["test"].column_names


def test_a_partly_labelled_split_is_an_error() -> None:
    feature = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    train = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, -1, 1]}, features=feature)

    assert "train, row 2: column 'label': the label is empty (null, blank, NaN or -1)" in message_of(
        DatasetDict(train=train), SPAM
    )


def test_positions_are_read_as_such_and_told() -> None:
    rows = to_rows(splits(train=good_train(), test={"text": ["x", "y"], "label": ["1", "0"]}), SPAM)

    assert rows.splits["test"]["labels"][:] == [1, 0]
    assert rows.notes == ("test: labels are positions in the label names (0 = 'ham', 1 = 'spam')",)


def test_class_names_decide_not_class_ids() -> None:
    feature = Features({"text": Value("string"), "label": ClassLabel(names=["spam", "ham"])})
    train = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=feature)

    assert to_rows(DatasetDict(train=train), SPAM).splits["train"]["labels"][:] == [1, 0]


def test_numbers_as_texts_are_converted_and_told() -> None:
    rows = to_rows(splits(train={"text": [1, 25], "label": ["ham", "spam"]}), SPAM)
    assert rows.splits["train"]["text"][:] == ["1", "25"]
    assert rows.notes == ("train: column 'text' holds int64; its values are read as text",)

    rows = to_rows(splits(train={"text": [1.5, 2.0], "label": ["ham", "spam"]}), SPAM)
    assert rows.splits["train"]["text"][:] == ["1.5", "2"]


def test_columns_that_hold_the_wrong_thing() -> None:
    source = splits(train={"text": [["a"], ["b"]], "label": [["ham"], ["spam"]]}, test={"txt": ["x"], "label": ["ham"]})

    assert message_of(source, SPAM) == (
        "train: column 'text' holds list<item: string>, not text.\n"
        "train: column 'label' holds list<item: string>, no labels for single_label_classification.\n"
        "test: there is no column 'text'. Did you mean 'txt'? The columns are 'txt', 'label'.\n"
        "Name the columns with --text, --text-pair and --label."
    )


def test_ids_are_of_one_type_in_all_splits() -> None:
    schema = replace(SPAM, id="id")

    rows = to_rows(splits(train={**good_train(), "id": [7, None]}), schema)
    assert rows.splits["train"]["id"][:] == [7, 2]

    rows = to_rows(splits(train={**good_train(), "id": [7, 8]}, test={**good_train(), "id": ["a", ""]}), schema)
    assert rows.splits["train"]["id"][:] == ["7", "8"]
    assert rows.splits["test"]["id"][:] == ["a", "2"]

    rows = to_rows(splits(train={**good_train(), "id": [7, 8]}, test=good_train()), schema)
    assert rows.splits["train"]["id"][:] == [1, 2]
    assert rows.notes == ("rows are known by their numbers: split 'test' has no id column 'id'",)


def test_selected_rows_are_read_in_their_order() -> None:
    train = Dataset.from_dict({"text": ["a", "b", "c"], "label": ["ham", "spam", "ham"]}).select([2, 1])

    rows = to_rows(DatasetDict(train=train), SPAM).splits["train"]

    assert rows["text"][:] == ["c", "b"]
    assert rows["row"][:] == [0, 1]


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to_rows(splits(train={"text": ["x"] * 20_000, "label": ["ham"] * 20_000}), SPAM, folder=tmp_path)

    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="Cannot write"):
        to_rows(splits(train=good_train()), SPAM, folder=tmp_path / "file")


def test_texts_for_prediction() -> None:
    assert texts_of({"text": ["a", "b"]}, SPAM) == (["a", "b"], None)
    assert texts_of(pa.table({"other": ["x"], "text": [3], "more": [1]}), PAIRS) == (["3"], ["x"])


def test_faults_in_texts_for_prediction() -> None:
    def message(batch: dict[str, list[Any]], schema: Schema = SPAM) -> str:
        with pytest.raises(DataError) as error:
            texts_of(batch, schema, first_row=101)
        return str(error.value)

    assert "rows 102, 103: column 'text': the text is empty (null or blank)" in message({"text": ["a", None, " "]})
    assert "row 102: column 'text' holds int, not text." in message({"text": ["a", 3]})
    assert "Column 'text' holds list<item: string>, not text." in message({"text": [["a"]]})
    assert message({"texts": ["a"]}, PAIRS) == (
        "there is no column 'text'. Did you mean 'texts'? The columns are 'texts'.\n"
        "there is no column 'other'. The columns are 'texts'.\n"
        "Expected columns of the names used in training; --text and --text-pair name others."
    )


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared data is not here")
def test_mrpc_keeps_every_row() -> None:
    def read(name: str) -> Dataset:
        lines = (SHARED_DATA / "mrpc" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return Dataset.from_list([json.loads(line) for line in lines])

    source = DatasetDict({name: read(name) for name in ("train", "validation", "test")})

    rows: Rows = to_rows(source, resolve_schema(source, label_names=["not_equivalent", "equivalent"]))

    assert {name: len(split) for name, split in rows.splits.items()} == {"train": 3668, "validation": 408, "test": 1725}
    for name, split in rows.splits.items():
        assert split["labels"][:] == source[name]["label"][:]
        assert split["text_pair"][:] == source[name]["sentence2"][:]
        assert split["id"][:] == source[name]["idx"][:]
