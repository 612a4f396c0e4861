from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textune.data.readers import read_batches
from textune.errors import ConfigError, DataError, InputNotFoundError, OutputError, TextuneError
from textune.run import Run
from textune.serving import files
from textune.serving.files import check_target, predict_file
from textune.serving.predictor import Predictor

ROWS = [
    {"id": "b7", "text": "the film was good", "note": "x, y"},
    {"id": "a1", "text": "he said 'bad'", "note": 'a "b"'},
    {"id": "c3", "text": "two\nlines", "note": "007"},
    {"id": "a0", "text": "a dull song .", "note": "NA"},
]
SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


@pytest.fixture(scope="module")
def predictor(text_run: Run) -> Predictor:
    return Predictor.load(text_run)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes rows with the libraries that people use, not with textune."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = [names, *([str(row[name]).replace("\n", " ") for name in names] for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Reads rows with textune's own reader."""
    return [row for table in read_batches(path) for row in table.to_pylist()]


def texts(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_every_format_into_every_format(predictor: Predictor, tmp_path: Path, source: str, target: str) -> None:
    given_rows = ROWS if source != ".tsv" else [{**row, "text": row["text"].replace("\n", " ")} for row in ROWS]
    report = predict_file(predictor, write(tmp_path / f"in{source}", ROWS), tmp_path / f"out{target}")
    assert (report.rows, report.dropped, report.notes) == (4, {}, ())
    found = read(tmp_path / f"out{target}")
    assert list(found[0]) == ["id", "text", "note", "prediction", "score_negative", "score_positive"]
    assert [row["id"] for row in found] == ["b7", "a1", "c3", "a0"]
    assert [row["note"] for row in found] == [row["note"] for row in ROWS]
    if target != ".tsv":
        assert texts(found) == texts(given_rows)
    for row, expected in zip(found, predictor.predict(texts(given_rows)), strict=True):
        assert row["prediction"] == expected.label
        for name, score in expected.scores.items():
            assert float(row[f"score_{name}"]) == pytest.approx(score, abs=1e-6)


def test_row_numbers_are_ids_where_there_is_no_id_column(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": row["text"]} for row in ROWS])
    predict_file(predictor, source, tmp_path / "out.jsonl")
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [1, 2, 3, 4]


def test_ids_of_the_column_used_in_training(pair_run: Run, tmp_path: Path) -> None:
    rows = [{"idx": 9 - n, "sentence1": "the film was good", "sentence2": "a film"} for n in range(3)]
    source = write(tmp_path / "in.jsonl", rows)
    predictor = Predictor.load(pair_run)
    predict_file(predictor, source, tmp_path / "all.jsonl")
    assert list(read(tmp_path / "all.jsonl")[0])[:3] == ["idx", "sentence1", "sentence2"]
    predict_file(predictor, source, tmp_path / "only.jsonl", input_columns=False)
    assert [list(row) for row in read(tmp_path / "only.jsonl")] == [
        ["id", "prediction", "score_different", "score_same"]
    ] * 3
    assert [row["id"] for row in read(tmp_path / "only.jsonl")] == [9, 8, 7]


def test_batches_are_joined_without_a_seam(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 3)
    rows = [{"text": f"the film was {'good ' * (n % 5)} {n}"} for n in range(10)]
    source = write(tmp_path / "in.csv", rows)
    seen: list[int] = []
    for suffix in SUFFIXES:
        seen.clear()
        report = predict_file(predictor, source, tmp_path / f"out{suffix}", on_progress=seen.append)
        found = read(tmp_path / f"out{suffix}")
        assert report.rows == 10
        assert seen == [3, 3, 3, 1]
        assert [int(row["id"]) for row in found] == list(range(1, 11))
        assert [row["prediction"] for row in found] == [item.label for item in predictor.predict(texts(rows))]


def test_bad_rows_are_dropped_and_counted(predictor: Predictor, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,note\ngood,1\n ,2\nbad,3\ngood,4,5\ndull,6\n")
    with pytest.raises(DataError, match="line 5: expected 2 fields"):
        predict_file(predictor, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    report = predict_file(predictor, source, tmp_path / "out.csv", drop_bad_rows=True)
    assert report.rows == 3
    assert report.dropped == {"wrong number of fields": 1, "empty text": 1}
    assert [row["note"] for row in read(tmp_path / "out.csv")] == ["1", "3", "6"]


def test_words_that_the_model_does_not_know_are_told(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    rows = [{"text": text} for text in ("the film was good", "좋아요", "a 영화 , very good", "a dull song .")]
    report = predict_file(predictor, write(tmp_path / "in.csv", rows), tmp_path / "out.csv")
    (note,) = report.notes
    assert note == (
        "warning: words that the tokenizer does not know in 2 of 4 rows: 14 % of all tokens are unknown, "
        "and 1 row has nothing else"
    )
    report = predict_file(predictor, write(tmp_path / "in.csv", rows[:1]), tmp_path / "known.csv")
    assert report.notes == ()


def test_blank_lines_are_told(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n\nthe film was good\n")
    report = predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    assert report.notes == ("1 blank line between the rows was skipped; rows are counted without them",)


def test_blank_text_is_named_by_its_row(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in ["a", "b", "c", " "]])
    with pytest.raises(DataError, match=r"row 4: column 'text': the text is empty"):
        predict_file(predictor, source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"], "nothing of the first batch is left"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_row_left(predictor: Predictor, tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": " "}, {"text": None}])
    with pytest.raises(DataError, match=r"found no row that can be predicted; left out: 2 \(empty text\)"):
        predict_file(predictor, source, tmp_path / f"out{suffix}", drop_bad_rows=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_after_a_failure_half_way(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 1)
    source = write(tmp_path / "in.csv", [{"text": "good"}] * 3)
    target = tmp_path / f"out{suffix}"
    target.write_text("older")

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, target, overwrite=True, on_progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", target.name]
    assert target.read_text() == "older"


def test_existing_output_is_kept_unless_told(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    target = tmp_path / "out.csv"
    target.write_text("mine")
    with pytest.raises(OutputError) as caught:
        predict_file(predictor, source, target)
    assert caught.value.message.endswith("is there already; nothing was touched.")
    assert target.read_text() == "mine"
    predict_file(predictor, source, target, overwrite=True)
    assert len(read(target)) == 4


def test_input_can_be_replaced_by_its_own_predictions(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    predict_file(predictor, source, source, overwrite=True)
    found = read(source)
    assert texts(found) == texts(ROWS)
    report = predict_file(predictor, source, source, overwrite=True)
    assert report.notes == (
        "input columns replaced by results of the same name: prediction, score_negative, score_positive",
    )
    assert read(source) == found


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("out.txt", ConfigError, "expected a file name ending in .csv, .tsv, .jsonl, .parquet, found"),
        ("out", ConfigError, "expected a file name ending in"),
        ("folder.csv", OutputError, "is a folder, expected a file"),
        ("missing/out.csv", OutputError, "there is no folder"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, name: str, error: type[TextuneError], words: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=words):
        check_target(tmp_path / name, overwrite=True)


def test_a_target_in_a_folder_that_may_not_be_entered(closed_folder: Path) -> None:
    with pytest.raises(OutputError, match=r"Cannot write '.*out\.csv': Permission denied"):
        check_target(closed_folder / "out.csv", overwrite=True)


def test_source_without_the_text_column(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"txt": "good", "note": "1"}])
    with pytest.raises(DataError, match=r"'text'.*Did you mean 'txt'"):
        predict_file(predictor, source, tmp_path / "out.csv")
    assert predict_file(predictor, source, tmp_path / "out.csv", text="txt").rows == 1


def test_missing_source(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        predict_file(predictor, tmp_path / "none.csv", tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def test_a_model_without_columns_needs_their_name(tiny_model_folder: Any, tmp_path: Path) -> None:
    predictor = Predictor.load(tiny_model_folder("bert", label_names=["x", "y"]))
    source = write(tmp_path / "in.csv", ROWS)
    with pytest.raises(ConfigError) as caught:
        predict_file(predictor, source, tmp_path / "out.csv")
    assert caught.value.hint == "Name them with --text."
    predict_file(predictor, source, tmp_path / "out.csv", text="text")
    assert {"score_x", "score_y"} < set(read(tmp_path / "out.csv")[0])


def test_several_labels_in_one_cell(multi_label_run: Run, tmp_path: Path) -> None:
    predictor = Predictor.load(multi_label_run)
    source = write(tmp_path / "in.csv", [{"text": text} for text in ["film and meal", "garden", "the shop"]])
    expected = [item.label for item in predictor.predict(["film and meal", "garden", "the shop"])]
    predict_file(predictor, source, tmp_path / "out.csv")
    assert [row["prediction"] for row in read(tmp_path / "out.csv")] == ["|".join(labels) for labels in expected]
    for suffix in (".jsonl", ".parquet"):
        predict_file(predictor, source, tmp_path / f"out{suffix}")
        assert [row["prediction"] for row in read(tmp_path / f"out{suffix}")] == expected


def test_batches_without_any_label_fit_those_with(
    multi_label_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 1)
    predictor = Predictor.load(multi_label_run)
    source = write(tmp_path / "in.csv", [{"text": "film"}, {"text": "meal"}])
    for limits in ([-9.0, 9.0], [9.0, -9.0]):  # none first, then all; and the other way round
        values = iter(limits)
        monkeypatch.setattr(
            predictor, "logits_of_tokens", lambda tokens, values=values: np.full((1, 2), next(values), np.float32)
        )
        predict_file(predictor, source, tmp_path / "out.parquet", overwrite=True)
        labels = [row["prediction"] for row in read(tmp_path / "out.parquet")]
        assert sorted(map(len, labels)) == [0, 2]


def test_regression_has_a_number_and_no_scores(regression_run: Run, tmp_path: Path) -> None:
    predictor = Predictor.load(regression_run)
    source = write(tmp_path / "in.csv", ROWS)
    predict_file(predictor, source, tmp_path / "out.jsonl", input_columns=False)
    found = read(tmp_path / "out.jsonl")
    assert [list(row) for row in found] == [["id", "prediction"]] * 4
    assert [row["prediction"] for row in found] == [item.label for item in predictor.predict(texts(ROWS))]


def test_numbers_of_the_input_keep_all_their_digits(predictor: Predictor, tmp_path: Path) -> None:
    values = [math.pi, 1e300, 123456789.123456789, 12345678901234567]
    source = write(tmp_path / "in.jsonl", [{"text": "good", "x": value} for value in values[:3]])
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        predict_file(predictor, source, tmp_path / f"out{suffix}")
        assert [float(row["x"]) for row in read(tmp_path / f"out{suffix}")] == values[:3]
    source = write(tmp_path / "int.jsonl", [{"text": "good", "x": values[3]}])
    predict_file(predictor, source, tmp_path / "int.csv")
    assert read(tmp_path / "int.csv")[0]["x"] == str(values[3])


def test_nan_of_the_input_is_written_as_valid_json(predictor: Predictor, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["good"], "x": [math.nan], "y": [[math.inf, 1.0]]}), source)
    predict_file(predictor, source, tmp_path / "out.jsonl")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=refuse)
    assert (row["x"], row["y"]) == (None, [None, 1.0])


def test_columns_that_come_and_go_in_json(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 1)
    source = write(tmp_path / "in.jsonl", [{"text": "good", "a": 1}, {"text": "bad"}, {"text": "dull", "a": 3}])
    predict_file(predictor, source, tmp_path / "out.csv")
    assert [row["a"] for row in read(tmp_path / "out.csv")] == ["1", "", "3"]


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
def test_columns_that_come_too_late_for_the_header_are_told(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    rows = [{"text": "good"}, {"text": "bad"}, {"text": "dull", "source": "x"}, {"text": "good", "year": 7}]
    source = write(tmp_path / "in.jsonl", rows)
    report = predict_file(predictor, source, tmp_path / f"out{suffix}")
    found = read(tmp_path / f"out{suffix}")
    assert len(found) == 4
    if suffix == ".jsonl":
        assert (report.notes, found[2]["source"], found[3]["year"]) == ((), "x", 7)
    else:
        (note,) = report.notes
        assert note == (
            "warning: columns left out, because they first appear after row 2 of the output, when its header is "
            "written: 'source', 'year'; .jsonl keeps them"
        )


def test_a_column_that_comes_too_late_is_refused_by_parquet(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 1)
    source = write(tmp_path / "in.jsonl", [{"text": "good"}, {"text": "bad", "a": "x"}])
    with pytest.raises(DataError, match="the input has columns that its first rows lack: 'a'") as caught:
        predict_file(predictor, source, tmp_path / "out.parquet")
    assert "Write .jsonl instead" in str(caught.value.hint)


def test_a_type_that_changes_on_the_way_is_refused_by_parquet(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 1)
    source = write(tmp_path / "in.jsonl", [{"text": "good", "a": None}, {"text": "bad", "a": "x"}])
    with pytest.raises(DataError, match="the input changes their type: ") as caught:
        predict_file(predictor, source, tmp_path / "out.parquet")
    assert "Write .jsonl instead" in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_for_excel_a_file_begins_with_its_mark(predictor: Predictor, tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "좋은 영화"}])
    plain, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    predict_file(predictor, source, plain)
    predict_file(predictor, source, marked, for_excel=True)
    assert marked.read_bytes() == b"\xef\xbb\xbf" + plain.read_bytes()
    assert read(marked) == read(plain), "textune itself reads both"


def test_excel_opens_only_some_formats(predictor: Predictor, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "good"}])
    with pytest.raises(
        ConfigError, match=r"--excel: expected an --output that ends in \.csv or \.tsv, found '.*\.jsonl'"
    ):
        predict_file(predictor, source, tmp_path / "out.jsonl", for_excel=True)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]),
)
def test_any_text_survives_the_round_trip(
    predictor: Predictor, tmp_path: Path, values: list[tuple[str, str]], suffix: str
) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / f"out{suffix}"
    rows = [{"text": f"good {text}", "note": note} for text, note in values]
    pq.write_table(pa.Table.from_pylist(rows), source)
    predict_file(predictor, source, target, overwrite=True)
    assert [{"text": row["text"], "note": row["note"]} for row in read(target)] == rows


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(note=TEXT)
def test_tsv_has_blanks_for_tabs_and_line_ends(predictor: Predictor, tmp_path: Path, note: str) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.tsv"
    pq.write_table(pa.table({"text": ["good"], "note": [note]}), source)
    predict_file(predictor, source, target, overwrite=True)
    (row,) = read(target)
    assert row["note"] == note.replace("\t", " ").replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
