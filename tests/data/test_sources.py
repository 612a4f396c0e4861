from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textune.data import conversion
from textune.data.cache import cache_root, make_folder_once
from textune.data.glue import GLUE_TASKS
from textune.data.rows import to_rows
from textune.data.schema import resolve_schema
from textune.data.sources import load_source
from textune.errors import ConfigError, DataError, InputNotFoundError, OutputError, StorageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not beside the repository")
ROWS = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TEXTUNE_DATA", raising=False)
    return tmp_path / "cache"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows in the format of the name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv":
            text = "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
        case ".tsv":
            text = "\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)])
        case ".json":
            text = json.dumps(rows)
        case ".jsonl":
            text = "\n".join(map(json.dumps, rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
        case ".gz":
            plain = write(path.with_suffix(""), rows)
            path.write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
            return path
    path.write_text(text + "\n", encoding="utf-8")
    return path


def lists(splits: datasets.DatasetDict) -> dict[str, list[dict[str, Any]]]:
    return {split: dataset.to_list() for split, dataset in splits.items()}


def test_the_bundled_sample() -> None:
    source = load_source("sample")

    assert {split: len(rows) for split, rows in source.splits.items()} == {"train": 400, "validation": 100, "test": 100}
    assert set(source.splits["train"].unique("label")) == {"equivalent", "not_equivalent"}
    assert (source.name, source.location, source.task, source.notes) == ("sample", "the bundled sample", None, ())


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.gz"])
def test_one_file_is_the_training_split(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"my reviews.{ending}", ROWS)

    source = load_source(str(path))

    assert lists(source.splits) == {"train": ROWS}
    assert (source.name, source.location) == ("my-reviews", str(path))


@pytest.mark.parametrize("validation", ["validation.csv", "dev.csv", "valid.jsonl", "val.parquet"])
def test_a_folder_with_split_files(tmp_path: Path, validation: str) -> None:
    for name in ("test.jsonl", validation, "train.csv"):
        write(tmp_path / "reviews" / name, ROWS)
    (tmp_path / "reviews" / "README.md").write_text("about")

    source = load_source(str(tmp_path / "reviews"))

    assert list(source.splits) == ["train", "validation", "test"]
    assert all(rows == ROWS for rows in lists(source.splits).values())
    assert source.name == "reviews"


def test_data_files_named_after_no_split_are_told(tmp_path: Path) -> None:
    for name in ("train.csv", "more.csv", "train_old.jsonl", "checked.csv"):
        write(tmp_path / "reviews" / name, ROWS)

    source = load_source(str(tmp_path / "reviews"), validation=str(tmp_path / "reviews" / "checked.csv"))

    assert list(source.splits) == ["train", "validation"]
    (note,) = source.notes
    assert note.endswith("reviews: files that are named after no split are not used: 'more.csv', 'train_old.jsonl'.")


def test_numbered_parts_are_one_split(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path / f"train-0000{part}-of-00002.parquet", [{"text": f"part {part}", "n": part}])

    assert lists(load_source(str(tmp_path)).splits) == {
        "train": [{"text": f"part {part}", "n": part} for part in (0, 1)]
    }


@pytest.mark.parametrize("numbers", ["0 1 2", "1 2 3", "2 0 1"])
def test_parts_are_joined_by_number(tmp_path: Path, numbers: str) -> None:
    for number in numbers.split():
        write(tmp_path / f"train-{number}-of-3.jsonl", [{"text": number}])

    assert [row["text"] for row in load_source(str(tmp_path)).splits["train"]] == sorted(numbers.split())


def test_ten_parts_without_leading_zeros_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(11):
        write(tmp_path / f"train-{number}-of-11.jsonl", [{"text": str(number)}])

    assert [row["text"] for row in load_source(str(tmp_path)).splits["train"]] == [str(number) for number in range(11)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
            "train: 1 of 3 parts missing: train-00001-of-00003.",
        ),
        (["train-00000-of-00002.parquet"], "train: 1 of 2 parts missing: train-00001-of-00002."),
        (["train.csv", "dev-0-of-2.csv"], "validation: 1 of 2 parts missing: dev-1-of-2."),
        (
            ["train-0-of-9999999999.csv"],
            "train-3-of-9999999999, train-4-of-9999999999, train-5-of-9999999999 and 9,999,999,993 more",
        ),
        (
            ["train-00000-of-00001.jsonl", "train-00000-of-00001.parquet"],
            "train: part 0 of 1 is there twice: train-00000-of-00001.jsonl, train-00000-of-00001.parquet.",
        ),
        (
            ["train-00000-of-00002.csv", "train-00000-of-00003.csv", "train-00001-of-00002.csv"],
            "found train-*-of-2 and train-*-of-3.",
        ),
        (["train-0-of-2.csv", "training-1-of-2.csv"], "found train-*-of-2 and training-*-of-2."),
        (["train-0-of-2.csv", "train-1-of-2.csv", "train-2-of-2.csv"], "expected parts 0 to 1 of 2, found train-2"),
        (["train-0-of-1.csv", "train.csv"], "expected one file for the split 'train', found train-0-of-1.csv, train."),
    ],
)
def test_parts_that_are_not_each_there_once(tmp_path: Path, names: list[str], found: str) -> None:
    for name in names:
        write(tmp_path / name, ROWS)

    with pytest.raises(DataError) as caught:
        load_source(str(tmp_path))
    assert found in str(caught.value)


def test_matched_and_mismatched_splits(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / f"{name}.csv", ROWS)

    assert list(load_source(str(tmp_path)).splits) == ["train", "validation_matched", "validation_mismatched"]


def test_further_files_add_and_replace_splits(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.csv", ROWS)
    write(tmp_path / "data" / "dev.csv", ROWS)
    other = write(tmp_path / "other.jsonl", ROWS[:1])
    unlabelled = write(tmp_path / "unlabelled.csv", [{"text": "x"}])

    source = load_source(str(tmp_path / "data"), validation=str(other), test=str(unlabelled))

    assert lists(source.splits) == {"train": ROWS, "validation": ROWS[:1], "test": [{"text": "x"}]}
    assert source.notes == (f"validation: {other} is used in place of the data's own.",)


def test_a_second_read_parses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    first = load_source(str(path))
    monkeypatch.setattr(conversion, "read_batches", None)

    second = load_source(str(path))

    assert lists(second.splits) == lists(first.splits)
    assert second.fingerprint == first.fingerprint


def test_equal_contents_have_equal_fingerprints_wherever_they_lie(tmp_path: Path) -> None:
    here, there = write(tmp_path / "a" / "x.csv", ROWS), write(tmp_path / "b" / "y.csv", ROWS)
    other = write(tmp_path / "c" / "x.csv", ROWS[:1])

    assert load_source(str(here)).fingerprint == load_source(str(there)).fingerprint
    assert load_source(str(here)).fingerprint != load_source(str(other)).fingerprint
    assert load_source(str(here)).fingerprint != load_source(str(here), drop_bad_rows=True).fingerprint
    assert len(load_source(str(here)).fingerprint) == 64


@pytest.mark.parametrize("damage", ["truncate", "remove", "garble"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    load_source(str(path))
    (stored,) = cache.rglob("train.arrow")
    match damage:
        case "truncate":
            os.truncate(stored, stored.stat().st_size // 2)
        case "remove":
            stored.unlink()
        case "garble":
            stored.write_bytes(b"x" * stored.stat().st_size)

    assert lists(load_source(str(path)).splits) == {"train": ROWS}


@pytest.mark.parametrize("contents", ['{"train": {"dropped": {}, "bytes": BYTES}}', '{"train": 1}', "[]", "{"])
def test_what_a_cache_says_of_its_contents_is_not_relied_upon(tmp_path: Path, cache: Path, contents: str) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    load_source(str(path))
    (stored,), (arrow,) = cache.rglob("contents.json"), cache.rglob("train.arrow")
    stored.write_text(contents.replace("BYTES", str(arrow.stat().st_size)))

    assert lists(load_source(str(path)).splits) == {"train": ROWS}


def test_blank_lines_in_a_file_of_one_column_are_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("text\n\nhello\n\n\nyou\n\n")
    two.write_text("text,label\n\nhello,a\n")
    for _ in range(2):  # also when they come from the cache
        source = load_source(str(one))
        assert lists(source.splits) == {"train": [{"text": "hello"}, {"text": "you"}]}
        assert source.notes == ("train: 3 blank lines between the rows were skipped; rows are counted without them.",)
    assert load_source(str(two)).notes == ()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    read_batches = conversion.read_batches

    def read_and_append(*arguments: Any, **options: Any) -> Any:
        with path.open("a") as file:
            file.write("more,yes\n")
        return read_batches(*arguments, **options)

    monkeypatch.setattr(conversion, "read_batches", read_and_append)
    with pytest.raises(DataError, match="was changed while it was read"):
        load_source(str(path))


def test_dropped_rows_are_counted_by_split_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\ngood,yes\nonly\nb\xffd,no\nx,y,z\n")

    for _ in range(2):  # the second time from the cache
        source = load_source(str(path), drop_bad_rows=True)
        assert source.dropped == {"train": {"wrong number of fields": 2, "invalid UTF-8": 1}}
        assert source.notes == (
            "train: left out 3 rows that cannot be read: 2 (wrong number of fields), 1 (invalid UTF-8).",
        )
    with pytest.raises(DataError, match=r"a\.csv: 3 lines cannot be read"):
        load_source(str(path))


def test_types_are_the_same_in_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "score": 4}])
    write(tmp_path / "dev.jsonl", [{"text": "b", "score": 3.5}])
    write(tmp_path / "test.jsonl", [{"text": "c", "score": None}])

    source = load_source(str(tmp_path))

    assert {str(rows.features["score"].dtype) for rows in source.splits.values()} == {"float64"}
    assert [rows["score"][0] for rows in source.splits.values()] == [4.0, 3.5, None]


@pytest.mark.parametrize("widens", ["within a file", "between splits"])
def test_integers_that_no_decimal_number_holds(tmp_path: Path, widens: str) -> None:
    integers, fraction = [{"text": "a", "id": 2**53 + 1}] * 4096, [{"text": "b", "id": 0.5}]
    if widens == "within a file":
        write(tmp_path / "train.jsonl", integers + fraction)
    else:
        write(tmp_path / "train.jsonl", integers)
        write(tmp_path / "dev.jsonl", fraction)

    with pytest.raises(DataError, match=r"(?s)train: column 'id': integers too large.*9007199254740993.*as text"):
        load_source(str(tmp_path))


def test_text_and_numbers_stay_what_they_are_in_their_splits(tmp_path: Path) -> None:
    train = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}, {"text": "fine", "label": 1}]
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "dev.parquet", [{"text": "so so", "label": 0.0}])
    write(tmp_path / "test.csv", [{"text": "7", "label": "1"}, {"text": "8", "label": "0"}])

    splits = load_source(str(tmp_path)).splits
    types = {split: str(rows.features["label"].dtype) for split, rows in splits.items()}
    assert types == {"train": "float64", "validation": "float64", "test": "string"}

    rows = to_rows(splits, resolve_schema(splits), require_labels=["train", "validation", "test"]).splits
    assert {split: rows["labels"][:] for split, rows in rows.items()} == {
        "train": [1, 0, 1],
        "validation": [0],
        "test": [1, 0],
    }


def test_a_csv_file_beside_class_labels_names_them(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.save_to_disk(tmp_path / "saved")
    test = write(tmp_path / "test.csv", [{"text": "c", "label": "yes"}])

    splits = load_source(str(tmp_path / "saved"), test=str(test)).splits
    assert to_rows(splits, resolve_schema(splits), require_labels=["test"]).splits["test"]["labels"][:] == [1]


def test_files_of_one_split_are_written_alike(tmp_path: Path) -> None:
    write(tmp_path / "train-0-of-2.jsonl", [{"text": "a", "label": 1}])
    write(tmp_path / "train-1-of-2.csv", [{"text": "a", "label": "1"}])

    with pytest.raises(DataError, match="train: a later row has string in column 'label'; expected int64"):
        load_source(str(tmp_path))


def test_types_that_widen_within_a_file(tmp_path: Path) -> None:
    rows = [{"text": "a", "score": n} for n in range(5000)] + [{"text": "b", "score": 0.5, "extra": ["x"]}]
    source = load_source(str(write(tmp_path / "a.jsonl", rows)))

    assert source.splits["train"]["score"] == [float(n) for n in range(5000)] + [0.5]
    assert source.splits["train"][0]["extra"] is None
    assert source.splits["train"][5000] == rows[-1]


@pytest.mark.parametrize(
    "claim",
    [
        "{",
        "[1]",
        {"label": {"_type": "Nonsense"}},
        {"other": {"_type": "Value", "dtype": "int8"}},
        {"text": {"_type": "Image"}},
    ],
)
def test_features_that_a_file_wrongly_claims_are_left_out(tmp_path: Path, claim: Any) -> None:
    metadata = claim if isinstance(claim, str) else json.dumps({"info": {"features": claim}})
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")

    source = load_source(str(tmp_path / "a.parquet"))
    assert lists(source.splits) == {"train": ROWS}
    assert {feature.dtype for feature in source.splits["train"].features.values()} == {"string"}


def test_types_that_datasets_does_not_know(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([[("key", 1)]], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: a column has a type that cannot be used \(a: map<string"):
        load_source(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("split", "row", "found"),
    [
        ("dev", {"txt": "a", "label": "x"}, r"validation lacks 'text' and has 'txt' besides.*Did you mean 'txt'"),
        ("dev", {"text": "a"}, "validation lacks 'label'"),
        ("test", {"text": "a", "label": "x", "id": "1"}, "test has 'id' besides"),
    ],
)
def test_splits_that_do_not_go_together(tmp_path: Path, split: str, row: dict[str, Any], found: str) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / f"{split}.jsonl", [row])

    with pytest.raises(DataError, match=f"(?s){found}"):
        load_source(str(tmp_path))


def test_two_files_for_one_split(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.csv", "validation.jsonl"):
        write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=r"one file for the split 'validation', found dev\.csv, validation\.jsonl"):
        load_source(str(tmp_path))


def test_the_delimiter_needs_a_file_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;label\na,b;c\n")
    assert load_source(str(path), delimiter=";").splits["train"][0] == {"text": "a,b", "label": "c"}

    for data in (str(write(tmp_path / "a.jsonl", ROWS)), "sample"):
        with pytest.raises(ConfigError, match="--delimiter is for"):
            load_source(data, delimiter=";")


# GLUE


@needs_shared
@pytest.mark.parametrize("folder", ["CoLA", "STS-B"])
def test_official_glue_folders(folder: str) -> None:
    source = load_source(str(SHARED / "glue_data" / folder))

    task = source.task
    assert task is not None
    assert {split: len(rows) for split, rows in source.splits.items()} == task.num_rows
    assert source.splits["train"].features == task.features()
    assert source.notes == ()


@needs_shared
@pytest.mark.parametrize("by", ["argument", "environment", "folder itself"])
def test_glue_from_a_local_copy(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    root = str(SHARED / "glue_data")
    if by == "environment":
        monkeypatch.setenv("TEXTUNE_DATA", root)
    copies = {"argument": root, "environment": None, "folder itself": f"{root}/CoLA"}

    source = load_source("glue/cola", local_copy=copies[by])

    assert (source.name, len(source.splits["train"])) == ("cola", 8551)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_local_copy_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if by == "environment":
        monkeypatch.setenv("TEXTUNE_DATA", "~/glue_data")
    write(tmp_path / "glue_data" / "rte" / "train.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}])
    source = load_source("glue/rte", local_copy="~/glue_data" if by == "argument" else None)
    assert len(source.splits["train"]) == 1


@needs_shared
def test_a_folder_with_the_columns_of_a_task_is_that_task() -> None:
    source = load_source(str(SHARED / "mrpc"))

    assert source.task is GLUE_TASKS["mrpc"]
    assert source.splits["train"].features == source.task.features()
    assert {split: len(rows) for split, rows in source.splits.items()} == source.task.num_rows
    assert "columns of glue/mrpc" in source.notes[0]


def test_a_folder_that_only_bears_the_name_of_a_task_is_a_plain_folder(tmp_path: Path) -> None:
    write(tmp_path / "RTE" / "train.csv", ROWS)

    source = load_source(str(tmp_path / "RTE"))
    assert (source.task, source.name, lists(source.splits)) == (None, "RTE", {"train": ROWS})


def test_glue_files_with_other_numbers_of_rows_than_the_hub_are_told(tmp_path: Path) -> None:
    write(tmp_path / "SST-2" / "train.tsv", [{"sentence": "good", "label": 1}])

    assert load_source("glue/sst2", local_copy=str(tmp_path)).notes == (
        "train: 1 rows; glue/sst2 on the hub has 67,349.",
    )


def test_a_local_clone_of_the_hub(tmp_path: Path) -> None:
    row = {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 7}
    write(tmp_path / "glue" / "mrpc" / "train-00000-of-00001.parquet", [row])

    source = load_source("glue/mrpc", local_copy=str(tmp_path / "glue"))
    assert lists(source.splits) == {"train": [row]}
    assert source.splits["train"].features == GLUE_TASKS["mrpc"].features()


def test_a_local_copy_that_is_asked_for_goes_before_a_folder_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here/glue", "there"):
        row = {"sentence1": place, "sentence2": "b", "label": 1, "idx": 0}
        write(tmp_path / place / "mrpc" / "train.jsonl", [row])
    monkeypatch.chdir(tmp_path / "here")

    def first_text(local_copy: str | None) -> str:
        return str(load_source("glue/mrpc", local_copy=local_copy).splits["train"][0]["sentence1"])

    assert first_text(str(tmp_path / "there")) == "there"
    monkeypatch.setenv("TEXTUNE_DATA", str(tmp_path / "there"))
    assert first_text(None) == "here/glue"


def test_a_task_in_the_columns_of_the_hub_as_csv(tmp_path: Path) -> None:
    columns = "sentence1,sentence2,label,idx\n"
    for name, labels in (("train", "1 0.0 equivalent"), ("dev", "1"), ("test", "-1 -1.0")):
        rows = "".join(f"a,b,{label},{number}\n" for number, label in enumerate(labels.split()))
        path = tmp_path / "mrpc" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(columns + rows + ("a,b,,9\n" if name == "test" else ""))

    splits = load_source(str(tmp_path / "mrpc")).splits
    assert {split: rows["label"][:] for split, rows in splits.items()} == {
        "train": [1, 0, 1],
        "validation": [1],
        "test": [-1, -1, -1],
    }
    assert splits["train"].features == GLUE_TASKS["mrpc"].features()


def test_unknown_labels_of_a_task_can_be_dropped(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": label, "idx": 5} for label in (1, 7, 0)]
    write(tmp_path / "mrpc" / "train.jsonl", rows)

    with pytest.raises(DataError, match=r"(?s)row 2: expected one of the labels.*found 7.*--drop-bad-rows"):
        load_source(str(tmp_path / "mrpc"))
    source = load_source(str(tmp_path / "mrpc"), drop_bad_rows=True)
    assert lists(source.splits) == {"train": [rows[0], rows[2]]}
    assert source.dropped == {"train": {"unknown label": 1}}


def test_glue_tasks_and_copies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GLUE has no task 'mprc'.*Did you mean 'mrpc'\?"):
        load_source("glue/mprc")
    with pytest.raises(InputNotFoundError, match="Expected the folder 'MRPC' or 'mrpc'"):
        load_source("glue/mrpc", local_copy=str(tmp_path))
    with pytest.raises(ConfigError, match="local copy of GLUE"):
        load_source("sample", local_copy=str(tmp_path))


# Folders saved by `datasets`


def test_folders_saved_by_datasets(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "dev": rows.select([1])}).save_to_disk(tmp_path / "two")

    one, two = load_source(str(tmp_path / "one")), load_source(str(tmp_path / "two"))

    assert lists(one.splits) == {"train": rows.to_list()}
    assert lists(two.splits) == {"train": rows.to_list(), "validation": [{"text": "b", "label": 0}]}
    assert two.splits["train"].features == features
    assert two.notes == ("The split 'dev' is used as 'validation'.",)
    assert one.fingerprint != two.fingerprint

    # A selection of rows that is stored otherwise but reads the same has the same fingerprint.
    rows.select([1, 0]).select([1, 0]).save_to_disk(tmp_path / "again")
    assert load_source(str(tmp_path / "again")).fingerprint == one.fingerprint

    further = load_source(str(tmp_path / "one"), test=str(write(tmp_path / "test.csv", [{"text": "c"}])))
    assert lists(further.splits)["test"] == [{"text": "c"}]


def test_a_damaged_folder_of_datasets(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="expected a folder saved by `datasets`"):
        load_source(str(tmp_path / "one"))


# What is not there


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("smaple", "There is no data 'smaple'. Did you mean 'sample'?"),
        ("mrpc", "Did you mean 'glue/mrpc'?"),
        ("", "There is no data ''"),
        ("revews.csv", "There is no file 'revews.csv'. Did you mean 'reviews.csv'?"),
        ("folder/reviews.csv", "there is no folder 'folder'"),
        ("./nothing", "There is no file"),
        ("a\0b", "There is no data"),
    ],
)
def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, found: str) -> None:
    write(tmp_path / "reviews.csv", ROWS)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputNotFoundError) as caught:
        load_source(data)
    assert found in str(caught.value)


def test_folders_without_splits_say_what_they_hold(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", ROWS)
    with pytest.raises(InputNotFoundError, match=r"(?s)it holds reviews\.csv.*--data .*reviews\.csv"):
        load_source(str(tmp_path))
    write(tmp_path / "outer" / "inner" / "train.csv", ROWS)
    with pytest.raises(InputNotFoundError, match=r"(?s)it holds inner\..*--data .*inner"):
        load_source(str(tmp_path / "outer"))


# The cache


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root("data") == tmp_path / "cache" / "data"
    monkeypatch.delenv("TEXTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root("data") == Path("/xdg/textune/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root("data") == Path.home() / ".cache" / "textune" / "data"


def test_a_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    calls = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("contents")

    target = tmp_path / "deep" / "target"
    assert make_folder_once(target, fill) == make_folder_once(target, fill) == target
    assert (target / "file").read_text() == "contents"
    assert len(calls) == 1
    assert list(target.parent.iterdir()) == [target]


def test_another_process_that_was_first_wins(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fill(folder: Path) -> None:
        target.mkdir()
        (target / "file").write_text("theirs")
        (folder / "file").write_text("ours")

    make_folder_once(target, fill)
    assert (target / "file").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left"):
        make_folder_once(tmp_path / "target", fill)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    monkeypatch.setenv("TEXTUNE_CACHE", str(path))

    with pytest.raises(OutputError, match="Set TEXTUNE_CACHE to a folder that can be written"):
        load_source(str(path))


def test_abandoned_temporary_folders_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".target.tmp-old", tmp_path / ".target.tmp-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))

    make_folder_once(tmp_path / "target", lambda folder: None)
    assert not old.exists()
    assert young.exists()
    shutil.rmtree(young)
