from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textune.data.readers import read_batches
from textune.errors import ConfigError, DataError, InputNotFoundError, TextuneError, UnavailableError
from textune.limits import MAX_RECORD_BYTES

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAMES = st.lists(st.text("abcxyz_ é", min_size=1).filter(str.strip), min_size=2, max_size=5, unique=True)


SLOW_MACHINES = settings(deadline=None)


def rows_of(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [row for table in read_batches(path, **options) for row in table.to_pylist()]


def written(path: Path, contents: str | bytes) -> Path:
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


def message_of(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


# CSV and TSV


@SLOW_MACHINES
@given(names=NAMES, data=st.data(), delimiter=st.sampled_from(",;\t|"), batch_rows=st.integers(1, 4))
def test_csv_gives_back_what_python_csv_wrote(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject, delimiter: str, batch_rows: int
) -> None:
    rows = data.draw(st.lists(st.lists(TEXT, min_size=len(names), max_size=len(names)), min_size=1, max_size=8))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    path = written(tmp_path_factory.mktemp("csv") / "data.csv", file.getvalue())

    assert rows_of(path, delimiter=delimiter, batch_rows=batch_rows) == [dict(zip(names, r, strict=True)) for r in rows]


def test_csv_values_stay_strings(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", 'text,label\nNA,007\nnull,\n"",1e5\n')

    assert rows_of(path) == [
        {"text": "NA", "label": "007"},
        {"text": "null", "label": ""},
        {"text": "", "label": "1e5"},
    ]


def test_quotes_in_tsv_are_ordinary_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "data.tsv", 'text\tlabel\n"He said\t1\nno "one"\t0\n')

    assert rows_of(path) == [{"text": '"He said', "label": "1"}, {"text": 'no "one"', "label": "0"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    text = f'text{delimiter}label\n"a{delimiter} b, c; d | e"{delimiter}1\n' + f"x, y{delimiter}2\n" * (
        delimiter != ","
    )
    path = written(tmp_path / "data.csv", text)

    assert read_batches(path).column_names == ("text", "label")
    assert rows_of(path)[0]["text"] == f"a{delimiter} b, c; d | e"


def test_one_column_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert rows_of(written(tmp_path / "one.csv", "text\nhello; world\n")) == [{"text": "hello; world"}]
    assert rows_of(written(tmp_path / "long.csv", f'text;label\n"{long}";1\n')) == [{"text": long, "label": "1"}]
    assert csv.field_size_limit() == 131_072


def test_byte_order_mark_windows_line_ends_blank_lines_and_no_last_line_end(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", b'\xef\xbb\xbftext,label\r\n\r\na,1\r\n"b\r\nc",2')

    assert rows_of(path) == [{"text": "a", "label": "1"}, {"text": "b\r\nc", "label": "2"}]


def test_separators_that_are_no_line_ends_stay_in_the_text(tmp_path: Path) -> None:
    path = written(tmp_path / "data.tsv", "text\tlabel\na\u2028b\x85c\x0bd\re\t1\n")

    assert rows_of(path) == [{"text": "a\u2028b\x85c\x0bd\re", "label": "1"}]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"a,1,x", "line 4: expected 2 fields (text, label), found 3"),
        (b"a", "line 4: expected 2 fields (text, label), found 1"),
        (b"a\xffb,1", "line 4: not UTF-8: byte 0xff at column 2"),
        (b"a\0b,1", "line 4: a NUL byte at column 2"),
        (b'"a" b,1', "line 4: ',' expected after '\"'"),
        (b"a\rb,1", "line 4: a carriage return outside quotes"),
    ],
)
def test_a_bad_line_is_named_and_can_be_dropped(tmp_path: Path, line: bytes, found: str) -> None:
    path = written(tmp_path / "data.csv", b'text,label\n"two\nlines",1\n' + line + b"\nb,2\n")

    message = message_of(path)
    assert found in message
    assert "--drop-bad-rows" in message

    reader = read_batches(path, drop_bad_rows=True)
    assert [row["text"] for table in reader for row in table.to_pylist()] == ["two\nlines", "b"]
    assert sum(reader.dropped.values()) == 1


def test_bad_lines_are_gathered_across_batches_and_no_batch_follows_them(tmp_path: Path) -> None:
    lines = ["text,label", *(f"t{n},1" for n in range(100))]
    lines[50] = "short"
    lines[90] = "much,too,long"
    reader = read_batches(written(tmp_path / "data.csv", "\n".join(lines)), batch_rows=10)

    rows = 0
    with pytest.raises(DataError, match=r"(?s)2 lines cannot be read.*line 51.*line 91"):
        for table in reader:
            rows += table.num_rows
    assert rows == 40


def test_at_most_twenty_bad_lines_are_listed(tmp_path: Path) -> None:
    message = message_of(written(tmp_path / "data.csv", "text,label\n" + "bad\n" * 1000))

    assert "20 lines among the first 21 cannot be read" in message
    assert "line 21:" in message
    assert "line 22:" not in message


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", 'text,label\na,1\n"b,2\nc,3\nd,4\n')

    assert "line 3: a quote opened here is never closed" in message_of(path)
    reader = read_batches(path, drop_bad_rows=True)
    assert [row["text"] for table in reader for row in table.to_pylist()] == ["a", "c", "d"]
    assert reader.dropped == {"quote never closed": 1}


def test_a_line_over_eight_mebibytes(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", b"text,label\na,1\n" + b"x" * (MAX_RECORD_BYTES + 9) + b",1\nb,2\n")

    assert "line 3: a line of more than 8 MiB" in message_of(path)
    reader = read_batches(path, drop_bad_rows=True)
    assert [row["text"] for table in reader for row in table.to_pylist()] == ["a", "b"]
    assert reader.dropped == {"line over 8 MiB": 1}


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ("", "found an empty file"),
        ("\n\n", "found an empty file"),
        ("text,label\n", "found a header line (text, label) but no rows"),
        ("text,text\na,b\n", "column name 'text' is there twice"),
        ("text,,label\na,b,c\n", "line 1: column 2 has no name in the header.\nGive it a name"),
        (",,\n,,\n", "line 1: column 1 has no name in the header"),
        ("text,label\ra,1\r", "line 1: a carriage return outside quotes"),
        ("text,label\nbad\n", "expected 2 fields (text, label), found 1"),
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, contents: str, found: str) -> None:
    assert found in message_of(written(tmp_path / "data.csv", contents), delimiter=",")


def test_a_header_that_cannot_be_read_is_never_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", b"te\xffxt,label\na,1\nb,2\n")

    assert "line 1: not UTF-8" in message_of(path)
    assert "expected a header line" in message_of(path, drop_bad_rows=True)


def test_pandas_index_column_gets_a_name(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "data.csv", ",text\n0,a\n")) == [{"column_1": "0", "text": "a"}]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_columns_without_a_name_at_the_end_are_left_out(tmp_path: Path, ending: str) -> None:
    contents = "내용,분류,, \r\n좋아요,긍정,,\r\n싫어요,부정, ,\r\n그저,중립\r\n"
    path = written(tmp_path / f"data{ending}", contents.replace(",", "\t" if ending == ".tsv" else ","))

    assert [list(row.values()) for row in rows_of(path)] == [["좋아요", "긍정"], ["싫어요", "부정"], ["그저", "중립"]]
    assert read_batches(path).column_names == ("내용", "분류")


def test_something_in_a_column_without_a_name_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", "text,label,,\na,1,,\nb,2,,memo\nc,3,,,\nd\ne,5,,\nf,6,,\n")

    message = message_of(path)
    assert "line 3: found 'memo' in column 4, which has no name in the header" in message
    assert "line 4: expected 2 fields (text, label), found 5" in message
    assert "line 5: expected 2 fields (text, label), found 1" in message
    reader = read_batches(path, drop_bad_rows=True)
    assert [row["text"] for table in reader for row in table.to_pylist()] == ["a", "e", "f"]
    assert reader.dropped == {"something in a column without a name": 1, "wrong number of fields": 2}


@pytest.mark.parametrize("start", [b"PK\x03\x04\x14\0", b"\xd0\xcf\x11\xe0\xa1\xb1"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl"])
@pytest.mark.parametrize("drop", [False, True])
def test_a_renamed_workbook_is_known(tmp_path: Path, start: bytes, ending: str, drop: bool) -> None:
    message = message_of(written(tmp_path / f"data{ending}", start + b"\0\n\0" * 9), drop_bad_rows=drop)
    assert "line 1: an Excel workbook or a zip archive" in message or "row 1: an Excel workbook" in message
    assert 'Save the workbook in Excel as "CSV UTF-8".' in message


def test_everything_dropped_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", "text,label\nbad\nworse\n")

    assert "found no rows that can be read; left out: 2 (wrong number of fields)" in message_of(
        path, drop_bad_rows=True
    )


def test_utf_16_is_named(tmp_path: Path) -> None:
    assert "UTF-16" in message_of(written(tmp_path / "data.csv", "text,label\na,1\n".encode("utf-16")))
    assert "UTF-16" in message_of(written(tmp_path / "data.json", '[{"text": "a"}]'.encode("utf-16")))


@pytest.mark.parametrize("delimiter", ["", "ab", '"', "\n"])
def test_delimiters_that_cannot_be(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ConfigError, match="--delimiter: expected one character"):
        read_batches(written(tmp_path / "data.csv", "a,b\n1,2\n"), delimiter=delimiter)


def test_a_tab_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", "a\tb,c\n1\t2\n")
    assert rows_of(path, delimiter="tab") == rows_of(path, delimiter="\\t") == [{"a": "1", "b,c": "2"}]


def test_json_has_no_delimiter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--delimiter is for \.csv and \.tsv"):
        read_batches(written(tmp_path / "data.json", '[{"a": 1}]'), delimiter=",")


# JSON

JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT, st.lists(TEXT)
)


@SLOW_MACHINES
@given(
    rows=st.lists(st.fixed_dictionaries({"text": TEXT, "n": st.integers(-(2**53), 2**53)}), min_size=1, max_size=20),
    batch_rows=st.integers(1, 5),
    indent=st.sampled_from([None, 2]),
    shape=st.sampled_from(["lines", "array", "object"]),
)
def test_json_gives_back_what_python_json_wrote(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    batch_rows: int,
    indent: int | None,
    shape: str,
) -> None:
    folder = tmp_path_factory.mktemp("json")
    if shape == "lines":
        contents = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        assert rows_of(written(folder / "data.jsonl", contents), batch_rows=batch_rows) == rows
    elif shape == "array":
        contents = json.dumps(rows, ensure_ascii=False, indent=indent)
    else:
        contents = json.dumps({"version": 1.5, "tags": ["a", "b"], "data": rows, "about": {}}, indent=indent)
    assert rows_of(written(folder / "data.json", contents), batch_rows=batch_rows) == rows


@SLOW_MACHINES
@given(st.lists(st.dictionaries(st.sampled_from("abc"), JSON_VALUES, min_size=1), min_size=1, max_size=6))
def test_any_json_objects_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = written(tmp_path_factory.mktemp("json") / "data.jsonl", "\n".join(map(json.dumps, rows)))
    try:
        found = rows_of(path)
    except DataError as error:
        assert "column" in str(error) or "no rows" in str(error)
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    assert found == [{name: row.get(name) for name in names} for row in rows]


@SLOW_MACHINES
@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "csv.gz"]), st.booleans())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, contents: bytes, kind: str, drop: bool
) -> None:
    path = written(tmp_path_factory.mktemp("bytes") / f"data.{kind}", contents)
    try:
        rows = rows_of(path, drop_bad_rows=drop)
    except TextuneError as error:
        assert str(path) in str(error)
    else:
        assert rows


def test_a_large_array_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"text": "é" * 500, "label": n} for n in range(5000)]
    path = written(tmp_path / "data.json", json.dumps(rows, ensure_ascii=False))

    tables = list(read_batches(path, batch_rows=1000))

    assert [table.num_rows for table in tables] == [1000] * 5
    assert [row for table in tables for row in table.to_pylist()] == rows


def test_types_widen_and_columns_join_from_batch_to_batch(tmp_path: Path) -> None:
    lines = ['{"a": null}', '{"a": 1}', '{"a": 2.5, "b": ["x"]}', "", '{"b": []}']
    path = written(tmp_path / "data.jsonl", "\n".join(lines))

    types = [
        dict(zip(table.column_names, table.schema.types, strict=True)) for table in read_batches(path, batch_rows=1)
    ]

    strings = pa.list_(pa.string())
    assert types == [
        {"a": pa.null()},
        {"a": pa.int64()},
        {"a": pa.float64(), "b": strings},
        {"a": pa.float64(), "b": strings},
    ]


@pytest.mark.parametrize("batch_rows", [1, 100])
@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("1", '"x"', "found text ('x') in line 3 after a number"),
        ('"x"', "1", "found a number (1) in line 3 after text"),
        ("true", "1", "found a number (1) in line 3 after true or false"),
        ("1.5", "true", "found true or false (True) in line 3 after a number"),
        ('["x"]', '"x"', "found text ('x') in line 3 after a list"),
        ("1", "1" + "0" * 30, "line 3: cannot hold 1000"),
    ],
)
def test_mixed_columns_name_the_first_row_that_differs(
    tmp_path: Path, first: str, second: str, found: str, batch_rows: int
) -> None:
    path = written(tmp_path / "data.jsonl", f'{{"label": {first}}}\n{{"label": null}}\n{{"label": {second}}}\n')

    message = message_of(path, batch_rows=batch_rows)
    assert "column 'label'" in message
    if batch_rows == 100 or "cannot hold" in found:
        assert found in message
    else:
        assert found.split(" after ")[0] in message


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{'a': 1}", "line 2: not JSON: Expecting property name"),
        ("[1]", "line 2: expected an object with the columns as keys, found a list"),
        ("{}", "line 2: expected an object with the columns as keys, found an empty one"),
        ('{"a": 1, "a": 2}', "line 2: not JSON: the key 'a' is there twice"),
        ('{"a": ' + "[" * 100_000, "line 2: not JSON: nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "line 2: not JSON: Exceeds the limit"),
        ('{"b": "\\ud83d"}', "line 2: half a surrogate pair"),
    ],
)
def test_a_bad_json_line_is_named_and_can_be_dropped(tmp_path: Path, line: str, found: str) -> None:
    path = written(tmp_path / "data.jsonl", f'{{"a": 1}}\n{line}\n{{"a": 3}}\n')

    assert found in message_of(path)
    reader = read_batches(path, drop_bad_rows=True)
    assert [row["a"] for table in reader for row in table.to_pylist()] == [1, 3]
    assert sum(reader.dropped.values()) == 1


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ("", "found an empty file"),
        ("[]", "found no rows"),
        ("[1]", "row 1: expected an object with the columns as keys, found a number"),
        ('"text"', "expected a JSON array of objects, found '\"'"),
        ('[{"a": 1},\n{"a" 2}]', "row 2: not JSON: Expecting ':' delimiter (line 2)"),
        ('[{"a": 1}\n{"a": 2}]', "row 1: expected ',', found '{' (line 2)"),
        ('[{"a": 1}', "expected ',', found the end of the file"),
        ('[{"a": 1}] x', "expected the end of the file, found 'x'"),
        ('{\n"a": {"0": 1}\n}', "found an object without one"),
        ('{\n"train": [{"a": 1}],\n"test": [{"a": 1}]}', "found two lists of objects, 'train' and 'test'"),
        ("[" * 100_000, "nested too deeply"),
        (b'[{"a": "\xff"}]', "not UTF-8: byte 0xff at position 9"),
    ],
)
def test_json_documents_that_cannot_be_read(tmp_path: Path, contents: str | bytes, found: str) -> None:
    assert found in message_of(written(tmp_path / "data.json", contents))


def test_rows_of_an_array_that_are_no_objects_can_be_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", '[{"a": 1}, 7, null, {"a": 2}]')

    assert rows_of(path, drop_bad_rows=True) == [{"a": 1}, {"a": 2}]


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", '{"a": 1}\n{"a": 2}\n')
    assert rows_of(path) == [{"a": 1}, {"a": 2}]

    broken = written(tmp_path / "broken.json", 'broken\n{"a": 1}\n{"a": 2}\n')
    assert "line 1: not JSON" in message_of(broken)
    assert rows_of(broken, drop_bad_rows=True) == [{"a": 1}, {"a": 2}]


# Parquet, compression, files


def test_parquet_keeps_types_and_the_features_of_datasets(tmp_path: Path) -> None:
    from datasets import ClassLabel, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 1, 0]}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "data.parquet")

    tables = list(read_batches(tmp_path / "data.parquet", batch_rows=2))

    assert [t.num_rows for t in tables] == [2, 1]
    assert Features.from_arrow_schema(tables[0].schema) == features


def test_parquet_encodings_become_plain_strings(tmp_path: Path) -> None:
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"text": column}), tmp_path / "data.parquet")

    table = next(read_batches(tmp_path / "data.parquet"))
    assert (table.schema.types, table["text"].to_pylist()) == ([pa.string()], ["a", "b", "a"])


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), whole)
    contents = whole.read_bytes()
    assert "expected a Parquet file" in message_of(written(tmp_path / "cut.parquet", contents[: len(contents) // 2]))
    assert "expected a Parquet file" in message_of(written(tmp_path / "csv.parquet", "text,label\na,1\n"))

    invalid = pa.array([b"\xff"]).view(pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": invalid}), tmp_path / "utf8.parquet")
    assert "UTF8" in message_of(tmp_path / "utf8.parquet")

    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    assert "found no rows" in message_of(tmp_path / "empty.parquet")


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize(
    ("name", "contents"),
    [("data.csv", "a,b\n1,x\n"), ("data.json", '[{"a": "1", "b": "x"}]'), ("data.tsv", "a\tb\n1\tx\n")],
)
def test_compressed_files(tmp_path: Path, ending: str, compress: Any, name: str, contents: str) -> None:
    path = written(tmp_path / f"{name}.{ending}", compress(contents.encode()))
    assert rows_of(path) == [{"a": "1", "b": "x"}]

    packed = compress(b"a,b\n" + b"1,x\n" * 100_000)
    for damage in (packed[:-20], b"not compressed at all", b"\0" * 50):
        damaged = written(tmp_path / f"damaged.csv.{ending}", damage)
        assert f"expected {ending}-compressed data" in message_of(damaged)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python can read .zst")
def test_zst_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"(?s)Python 3\.14.*zstd -d data\.csv\.zst"):
        read_batches(written(tmp_path / "data.csv.zst", b"x"))


def test_a_compressed_file_that_expands_a_thousandfold_is_refused_early(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv.gz", gzip.compress(b"a,b\n" + b" " * 2**25))

    assert "line 2: a line of more than 8 MiB" in message_of(path)


def test_missing_files_and_near_names(tmp_path: Path) -> None:
    written(tmp_path / "reviews.csv", "a,b\n1,2\n")

    with pytest.raises(InputNotFoundError, match=r"There is no file .*'reviews\.csv'"):
        read_batches(tmp_path / "revews.csv")
    with pytest.raises(InputNotFoundError, match="there is no folder"):
        read_batches(tmp_path / "nowhere" / "reviews.csv")
    with pytest.raises(InputNotFoundError, match="Expected a file, found a folder"):
        read_batches(tmp_path)
    with pytest.raises(InputNotFoundError, match="Cannot open"):
        read_batches("a" * 5000 + ".csv")
    with pytest.raises(InputNotFoundError, match="found a device"):
        read_batches("/dev/null")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("data", "Rename the file"),
        ("data.gz", "Rename the file"),
        ("data.csv.zip", "Rename the file"),
        ("data.XLSX", 'in Excel as "CSV UTF-8"'),
        ("data.xls", 'in Excel as "CSV UTF-8"'),
    ],
)
def test_unknown_endings_list_the_known(tmp_path: Path, name: str, advice: str) -> None:
    message = message_of(written(tmp_path / name, "x"))
    assert "ends in .csv, .tsv, .txt (tab-separated), .json" in message
    assert advice in message


KOREAN = "문장,감정\n이 영화 정말 재미있어요,긍정\n시간이 아까웠습니다,부정\n"


@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".jsonl", ".json"])
def test_a_file_in_another_encoding(tmp_path: Path, encoding: str, ending: str) -> None:
    expected = [{"문장": "이 영화 정말 재미있어요", "감정": "긍정"}, {"문장": "시간이 아까웠습니다", "감정": "부정"}]
    text = KOREAN
    if "json" in ending:
        lines = [json.dumps(row, ensure_ascii=False) for row in expected]
        text = "\n".join(lines) if ending == ".jsonl" else f"[{','.join(lines)}]"
    path = tmp_path / f"data{ending}"
    with gzip.open(path, "wb") if ending.endswith(".gz") else path.open("wb") as file:
        file.write(text.encode(encoding))
    assert rows_of(path, encoding=encoding) == expected


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("text", [KOREAN, KOREAN.replace("문장,감정", "text,label")], ids=["header", "rows"])
def test_another_encoding_is_named_once_and_rows_are_not_dropped(tmp_path: Path, text: str, drop: bool) -> None:
    message = message_of(written(tmp_path / "data.csv", (text * 50).encode("cp949")), drop_bad_rows=drop)
    line = 2 if text.isascii() or text.startswith("text") else 1
    assert f"data.csv: line {line} is not UTF-8; the text looks like CP949 (Korean Windows)." in message
    assert message.endswith("Read it with --encoding cp949, or save the file as UTF-8 (in Excel: CSV UTF-8).")


def test_another_encoding_is_named_in_an_array_on_one_long_line(tmp_path: Path) -> None:
    rows = [{"text": f"이 영화 정말 재미있어요 {number}", "label": "긍정"} for number in range(2000)]
    path = tmp_path / "data.json"
    path.write_bytes(json.dumps(rows, ensure_ascii=False).encode("cp949"))
    assert path.stat().st_size > 2**16
    assert "the text looks like CP949 (Korean Windows)" in message_of(path)


def test_few_lines_in_another_encoding_can_be_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", b"text,label\n" + b"good,a\n" * 9 + "café,b\n".encode("latin-1"))
    assert "looks like Windows-1252" in message_of(path)
    reader = read_batches(path, drop_bad_rows=True)
    assert sum(map(len, reader)) == 9
    assert reader.dropped == {"invalid UTF-8": 1}


def test_what_is_not_of_the_encoding_named_is_a_bad_row(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", KOREAN.encode("cp949") + b"ab\xff\xffc,d\n")
    assert "line 4: not cp949 at column 3" in message_of(path, encoding="cp949")


def test_dropping_is_not_advised_where_most_lines_are_bad(tmp_path: Path) -> None:
    assert "--drop-bad-rows" not in message_of(written(tmp_path / "data.csv", "a,b\n" + "1,2,3\n" * 30))
    assert "--drop-bad-rows" in message_of(written(tmp_path / "few.csv", "a,b\n" + "1,2\n" * 30 + "1,2,3\n" * 20))


def test_the_encoding_needs_a_text_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "data.parquet")
    with pytest.raises(ConfigError, match="--encoding is for text files"):
        read_batches(tmp_path / "data.parquet", encoding="cp949")


def test_a_text_file_with_tabs_is_tsv(tmp_path: Path) -> None:
    path = written(tmp_path / "ratings.txt", 'id\tdocument\tlabel\n1\t굳 "ㅋ"\t1\n')
    assert rows_of(path) == [{"id": "1", "document": '굳 "ㅋ"', "label": "1"}]
