"""What fuzzing found, one test each."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faults.material import save_tiny_model
from textune.config_reading import parse_assignment, read_config
from textune.data.readers import read_batches
from textune.data.sources import load_source
from textune.data.tokenize import encode_texts
from textune.errors import CheckpointError, ConfigError, DataError, TextuneError, did_you_mean, panics_as_errors
from textune.limits import MAX_COLUMNS, MAX_DEPTH, MAX_RECORD_BYTES
from textune.models.load import load_trained
from textune.parquet import read_parquet
from textune.run import Run
from textune.training.checkpoint import verify


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(TextuneError) as caught:
        for _ in read_batches(path, **options):
            pass
    return str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_rows_nested_too_deeply(tmp_path: Path, opening: str) -> None:
    def row(depth: int) -> str:
        closing = "]" if opening == "[" else "}"
        return '{"text": ' + opening * depth + "1" + closing * depth + "}\n"

    path = tmp_path / "data.jsonl"
    path.write_text(row(MAX_DEPTH))
    assert sum(len(table) for table in read_batches(path)) == 1
    path.write_text('{"text": null}\n' + row(MAX_DEPTH + 1))
    assert f"line 2: lists and objects more than {MAX_DEPTH} deep" in refusal(path)
    reader = read_batches(path, drop_bad_rows=True)
    assert (sum(len(table) for table in reader), reader.dropped) == (1, {"nested too deeply": 1})


def test_too_many_columns(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(MAX_COLUMNS + 1)]
    wide, lines, csv = tmp_path / "wide.json", tmp_path / "lines.jsonl", tmp_path / "data.csv"
    wide.write_text(json.dumps([dict.fromkeys(names, 1)]))
    lines.write_text("".join(json.dumps({name: 1}) + "\n" for name in names))
    csv.write_text(",".join(names) + "\n")
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "data.parquet")
    for path in (wide, lines, csv, tmp_path / "data.parquet"):
        assert f"{path.name}: expected at most 4,096 columns, found " in refusal(path)


def test_parquet_that_stores_a_text_once_for_many_rows_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"text": column, "lists": [["a"]] * 400, "label": ["a"] * 400}), path)
    sizes = [table.nbytes for table in read_batches(path)]
    assert path.stat().st_size < 2**20
    assert max(sizes) <= 9 * 2**20
    assert sum(sizes) > 400 * 2**20
    assert next(read_batches(path)).schema.field("text").type == pa.string()


def test_parquet_with_one_huge_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"text": ["a", "x" * (MAX_RECORD_BYTES + 1), "b"]}), path)
    assert "data.parquet: expected rows of at most 8 MiB; row 2 has 8 MiB" in refusal(path)
    pq.write_table(pa.table({"text": [["x" * 10] * 2**20] * 2}), path, use_dictionary=False)
    assert "expected rows of at most 8 MiB; the rows of its row group 1 have about" in refusal(path)


def test_parquet_nested_too_deeply(tmp_path: Path) -> None:
    kind = pa.int64()
    for _ in range(MAX_DEPTH + 1):
        kind = pa.struct([("a", kind)])
    pq.write_table(pa.table({"x": pa.nulls(1, kind)}), tmp_path / "data.parquet")
    assert f"column 'x' has lists or structs more than {MAX_DEPTH} deep" in refusal(tmp_path / "data.parquet")


@pytest.mark.parametrize("value", ["!!int ''", "!!bool x", "!!float x", "!!timestamp x", "!x y", "!!map x"])
def test_tags_in_a_configuration(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"training: {{seed: {value}}}")
    with pytest.raises(ConfigError, match=r"config\.yaml: expected YAML.*YAML tags .* are not allowed"):
        read_config(path)
    assert parse_assignment(f"training.seed={value}") == ("training.seed", value)


def test_a_configuration_of_numbers_beyond_all_bounds(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training: {learning_rate: " + ":".join(["59.5"] * 300) + "}")
    with pytest.raises(ConfigError, match=r"config\.yaml|training\.learning_rate"):
        read_config(path)


def test_a_configuration_full_of_mistakes_is_answered_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training:\n" + "".join(f"  key{number}: 1\n" for number in range(5000)))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1] == "And 4,950 mistakes more."


def test_nothing_is_near_a_name_of_a_megabyte() -> None:
    assert did_you_mean("text" * 250_000, ["text"]) == ""


def test_mrpc_without_the_ids_that_its_splits_need(tmp_path: Path) -> None:
    folder = tmp_path / "MRPC"
    folder.mkdir()
    (folder / "msr_paraphrase_train.txt").write_text("Quality\t#1 String\t#2 String\n1\ta\tb\n")
    (folder / "dev_ids.tsv").write_text("3\t4\n")
    with pytest.raises(DataError, match=r"msr_paraphrase_train\.txt: expected the columns '#1 ID' and '#2 ID'"):
        load_source("glue/mrpc", local_copy=str(tmp_path))


class Tokenizer:
    name_or_path = "models/mine"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *arguments: object, **options: object) -> None:
        raise self._error


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [TypeError("no [UNK]"), OverflowError("no [UNK]"), PanicException("no [UNK]")])
def test_a_tokenizer_that_fails_on_a_text(error: BaseException) -> None:
    with pytest.raises(CheckpointError, match=r"The tokenizer in 'models/mine' cannot encode the texts: no \[UNK\]"):
        encode_texts((["a"], None), tokenizer=Tokenizer(error), max_length=8)  # type: ignore[arg-type]


def test_only_panics_become_errors() -> None:
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"id2label": {"0": {"a": 1}, "1": "b"}}, "`id2label` holds names that are no texts"),
        ("tokenizer_config.json", {"model_max_length": [32]}, "`model_max_length` is no number: [32]"),
    ],
)
def test_models_with_values_of_another_kind(tmp_path: Path, file: str, change: dict[str, object], words: str) -> None:
    folder = save_tiny_model(tmp_path / "tiny", label_names=("a", "b"))
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError) as caught:
        load_trained(folder)
    assert words in caught.value.message
    assert str(folder) in caught.value.message


@pytest.mark.parametrize("name", ['"NaN": NaN', '"\\ud800": 1', '"\\u0000": {"bytes": 1}'])
def test_a_manifest_with_what_textune_never_writes(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.json").write_text(
        '{"format_version": 1, "files": {"model.safetensors": 1, "state.json": 1, ' + name + '}, "sha256": ""}'
    )
    with pytest.raises(CheckpointError, match=r"manifest\.json has been cut short or altered"):
        verify(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "predictions").mkdir()
    return Run.open(tmp_path)


@pytest.mark.parametrize("line", [b"\xff", b"[" * 100_000, b"1", b"9" * 5000])
def test_a_line_of_the_log_that_is_no_record(run: Run, line: bytes) -> None:
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"JSON.* in line 2 of .*metrics\.jsonl"):
        _ = run.metrics


def test_predictions_that_are_none(run: Run) -> None:
    path = run.predictions_path / "test.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"test\.parquet: expected a Parquet file"):
        run.predictions("test")
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), path)
    with pytest.raises(DataError, match=r"test\.parquet: found no rows"):
        run.predictions("test")
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"label": column}), path)
    with pytest.raises(DataError, match=r"test\.parquet: expands to over 20 times its size"):
        run.predictions("test")
    pq.write_table(pa.table({"id": [1, 2], "label": ["a", "b"]}), path)
    assert run.predictions("test").to_pydict() == {"id": [1, 2], "label": ["a", "b"]}


def test_tables_of_any_types_come_back_as_they_were(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, "c"],
            "map": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
            "struct": [{"a": "x", "b": ["y"]}, None, {"a": None, "b": []}],
        }
    )
    path = tmp_path / "data.parquet"
    pq.write_table(table, path)
    assert pa.concat_tables(read_parquet(path, batch_rows=2)).equals(table)
