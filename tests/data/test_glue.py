from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Features, Value

from textune.data.glue import GLUE_TASKS, as_hub_tables, label_value, official_files, read_official, task_of_folder
from textune.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not beside the repository")

STSB_HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"

# One split of each official file format: file name, lines, and the row that must come of the last line.
FORMATS = {
    ("cola", "train"): ("train.tsv", 'gj04\t1\t\tIt is.\ngj04\t0\t*\tIs "it.', {"sentence": 'Is "it.', "label": 0}),
    ("cola", "test"): ("test.tsv", "index\tsentence\n0\tIt is.\n1\tIs it.", {"sentence": "Is it.", "label": -1}),
    ("sst2", "validation"): ("dev.tsv", "sentence\tlabel\nbad \t0\ngood \t1", {"sentence": "good ", "label": 1}),
    ("mrpc", "train"): (
        "train.tsv",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA\tB\n1\t3\t4\tC\tD",
        {"sentence1": "C", "sentence2": "D", "label": 1},
    ),
    ("mrpc", "test"): (
        "test.tsv",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA\tB\n1\t3\t4\tC\tD",
        {"sentence1": "C", "sentence2": "D", "label": -1},
    ),
    ("stsb", "validation"): (
        "dev.tsv",
        STSB_HEADER + "\n0\tg\tf\ty\t0\tn\tn\tA\tB\t5.000\n1\tg\tf\ty\t1\tn\tn\tC\tD\t3.250",
        {"sentence1": "C", "sentence2": "D", "label": 3.25},
    ),
    ("stsb", "test"): (
        "test.tsv",
        "index\tsentence1\tsentence2\n0\tA\tB\n1\tC\tD",
        {"sentence1": "C", "sentence2": "D", "label": -1.0},
    ),
    ("qqp", "train"): (
        "train.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tA?\tB?\t0\n2\t3\t4\tC?\tD?\t1",
        {"question1": "C?", "question2": "D?", "label": 1},
    ),
    ("mnli", "validation_mismatched"): (
        "dev_mismatched.tsv",
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA\tB\tneutral\tneutral\n1\tC\tD\tneutral\tcontradiction",
        {"premise": "C", "hypothesis": "D", "label": 2},
    ),
    ("mnli", "test_matched"): (
        "test_matched.tsv",
        "index\tsentence1\tsentence2\n0\tA\tB\n1\tC\tD",
        {"premise": "C", "hypothesis": "D", "label": -1},
    ),
    ("qnli", "train"): (
        "train.tsv",
        "index\tquestion\tsentence\tlabel\n0\tA\tB\tentailment\n1\tC\tD\tnot_entailment",
        {"question": "C", "sentence": "D", "label": 1},
    ),
    ("rte", "train"): (
        "train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tC\tD\tnot_entailment",
        {"sentence1": "C", "sentence2": "D", "label": 1},
    ),
    ("wnli", "train"): (
        "train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t0\n1\tC\tD\t1",
        {"sentence1": "C", "sentence2": "D", "label": 1},
    ),
    ("ax", "test"): (
        "diagnostic.tsv",
        "index\tsentence1\tsentence2\n0\tA\tB\n1\tC\tD",
        {"premise": "C", "hypothesis": "D", "label": -1},
    ),
}


def read(folder: Path, task: str, split: str, *, drop_bad_rows: bool = False) -> pa.Table:
    files = official_files(folder, GLUE_TASKS[task])
    tables, _ = read_official(GLUE_TASKS[task], split, files[split], drop_bad_rows=drop_bad_rows)
    return pa.concat_tables(tables)


@pytest.mark.parametrize(("task", "split"), FORMATS)
def test_each_official_format_gives_the_columns_of_the_hub(tmp_path: Path, task: str, split: str) -> None:
    name, lines, expected = FORMATS[task, split]
    (tmp_path / name).write_text(lines + "\n", encoding="utf-8")

    table = read(tmp_path, task, split)

    assert table.num_rows == 2
    assert table.to_pylist()[1] == {**expected, "idx": 1}
    assert table.column_names == [*expected, "idx"]
    assert Features.from_arrow_schema(table.schema) == GLUE_TASKS[task].features()


def test_features_are_those_of_the_hub() -> None:
    assert GLUE_TASKS["mrpc"].features() == Features(
        {
            "sentence1": Value("string"),
            "sentence2": Value("string"),
            "label": ClassLabel(names=["not_equivalent", "equivalent"]),
            "idx": Value("int32"),
        }
    )
    assert GLUE_TASKS["stsb"].features()["label"] == Value("float32")
    assert list(GLUE_TASKS) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"]


@needs_shared
@pytest.mark.parametrize("folder", ["CoLA", "STS-B"])
def test_no_row_of_the_real_files_is_lost(folder: str) -> None:
    task = task_of_folder(folder)
    assert task is not None
    files = official_files(SHARED / "glue_data" / folder, task)
    assert list(files) == list(task.splits)
    for split, paths in files.items():
        tables, dropped = read_official(task, split, paths)
        table = pa.concat_tables(tables)
        assert (table.num_rows, dropped) == (task.num_rows[split], {})
        assert table["idx"].to_pylist() == list(range(task.num_rows[split]))
        # Every text of the table stands in the file, and in order: nothing was unquoted or joined.
        lines = [line for line in paths[0].read_bytes().decode().split("\n") if line][-table.num_rows :]
        for line, row in zip(lines, table.to_pylist(), strict=True):
            assert all(row[column] in line.split("\t") for column in task.text_columns)


@needs_shared
def test_microsofts_mrpc_files_give_the_rows_of_the_hub(tmp_path: Path) -> None:
    hub = {
        split: [json.loads(line) for line in (SHARED / "mrpc" / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "validation", "test")
    }
    # Microsoft's training file holds the validation rows in between; the hub's numbering is the place in that file.
    together = [{**row, "id": f"t{row['idx']}", "at": row["idx"]} for row in hub["train"]]
    together += [{**row, "id": f"v{row['idx']}", "at": 9 * row["idx"] + 0.5} for row in hub["validation"]]
    together.sort(key=lambda row: row["at"])
    test = [{**row, "id": f"s{row['idx']}"} for row in hub["test"]]
    for name, rows in (("msr_paraphrase_train.txt", together), ("msr_paraphrase_test.txt", test)):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f"{row['label']}\t{row['id']}\t2\t{row['sentence1']}\t{row['sentence2']}" for row in rows]
        (tmp_path / name).write_bytes("\r\n".join([*lines, ""]).encode())
    (tmp_path / "dev_ids.tsv").write_text("".join(f"{row['id']}\t2\n" for row in together if row["id"][0] == "v"))

    for split, rows in hub.items():
        table = read(tmp_path, "mrpc", split)
        assert table.drop_columns(["idx"]).to_pylist() == [
            {column: row[column] for column in ("sentence1", "sentence2", "label")} for row in rows
        ]
        first_letter = split[0] if split != "test" else "s"
        source = test if split == "test" else together
        assert table["idx"].to_pylist() == [n for n, row in enumerate(source) if row["id"][0] == first_letter]


QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


def test_a_torn_row_of_qqp_is_named_with_the_way_out(tmp_path: Path) -> None:
    torn = '1\t1\t2\tA?\tB?\t0\n2\t3\t4\tWhat is "\n"\tC?\t1\n3\t5\t6\tD?\tE?\t1\n'
    (tmp_path / "train.tsv").write_text(QQP_HEADER + torn)

    with pytest.raises(DataError) as caught:
        read(tmp_path, "qqp", "train")
    message = str(caught.value)
    assert "line 3: expected 6 fields (id, qid1, qid2, question1, question2, is_duplicate), found 4" in message
    assert "line 4: expected 6 fields" in message
    assert "the hub's copy leaves them out. --drop-bad-rows does the same" in message

    # As on the hub, the numbering counts the lines that are left out.
    kept = read(tmp_path, "qqp", "train", drop_bad_rows=True)
    assert kept.select(["question1", "idx"]).to_pylist() == [
        {"question1": "A?", "idx": 0},
        {"question1": "D?", "idx": 3},
    ]


@pytest.mark.parametrize("label", ["2", "", "maybe", "-2"])
def test_an_unknown_label_is_named(tmp_path: Path, label: str) -> None:
    (tmp_path / "train.tsv").write_text(f"{QQP_HEADER}1\t1\t2\tA?\tB?\t{label}\n")

    with pytest.raises(
        DataError, match=r"line 2: expected one of the labels not_duplicate \(0\), duplicate \(1\), found"
    ):
        read(tmp_path, "qqp", "train")


@pytest.mark.parametrize(
    ("name", "task"),
    [("CoLA", "cola"), ("cola", "cola"), ("SST-2", "sst2"), ("sts-b", "stsb"), ("diagnostic", "ax"), ("AX", "ax")],
)
def test_folders_are_known_by_either_name(name: str, task: str) -> None:
    assert task_of_folder(name) is GLUE_TASKS[task]


def test_other_folders_and_files_are_not_taken_for_official_ones(tmp_path: Path) -> None:
    assert task_of_folder("reviews") is None
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t1\n")
    assert all(official_files(tmp_path, task) == {} for task in GLUE_TASKS.values())


def read_generic(tables: list[pa.Table], path: Path, *, drop_bad_rows: bool = False) -> tuple[pa.Table, dict[str, int]]:
    hub_tables, dropped = as_hub_tables(tables, GLUE_TASKS["mrpc"], path=path, drop_bad_rows=drop_bad_rows)
    return pa.concat_tables(hub_tables), dropped


def test_generic_tables_get_the_types_of_the_hub(tmp_path: Path) -> None:
    tables = [pa.table({"sentence2": ["b"], "sentence1": ["a"], "label": ["equivalent"]})] * 2

    found, _ = read_generic(tables, tmp_path)

    assert found.to_pylist() == [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": idx} for idx in (0, 1)]
    unlabelled = [table.drop_columns(["label"]) for table in tables]
    assert read_generic(unlabelled, tmp_path)[0]["label"].to_pylist() == [-1, -1]


def test_generic_tables_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the column 'sentence1'; found text, label"):
        read_generic([pa.table({"text": ["a"], "label": [1]})], tmp_path)
    with pytest.raises(DataError, match="row 2: expected one of the labels"):
        table = pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 7]})
        read_generic([table], tmp_path)


@pytest.mark.parametrize(
    "labels", [["-1", "", " ", "-1.0", None, "1.0"], [-1.0, math.nan, math.nan, -1.0, None, 1.0]], ids=["text", "float"]
)
def test_generic_labels_of_other_types_than_the_hubs(tmp_path: Path, labels: list[object]) -> None:
    table = pa.table({"sentence1": ["a"] * 6, "sentence2": ["b"] * 6, "label": labels})

    assert read_generic([table], tmp_path)[0]["label"].to_pylist() == [-1, -1, -1, -1, -1, 1]


def test_generic_rows_with_unknown_labels_are_left_out_on_request(tmp_path: Path) -> None:
    columns = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"]}
    tables = [pa.table({**columns, "label": labels}) for labels in (["1", "x", "0"], ["2", "2.5", "no"])]

    found, dropped = read_generic(tables, tmp_path, drop_bad_rows=True)

    # As in the official files, the numbering counts the rows that are left out.
    assert found.select(["sentence1", "label", "idx"]).to_pylist() == [
        {"sentence1": "a", "label": 1, "idx": 0},
        {"sentence1": "c", "label": 0, "idx": 2},
    ]
    assert dropped == {"unknown label": 4}


@pytest.mark.parametrize(
    ("label", "task", "value"),
    [(None, "mrpc", -1), (-1, "mrpc", -1), ("1", "mrpc", 1), (1, "mrpc", 1), ("3.8", "stsb", 3.8), (-1.0, "stsb", -1)],
)
def test_label_values(label: object, task: str, value: float) -> None:
    assert label_value(label, GLUE_TASKS[task]) == value
