"""A short, seeded version of `python -m faults fuzz`, and properties of the readers over any content."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import faults.fuzz.campaign
from faults.fuzz.campaign import Tally, fuzz, inputs_of
from faults.fuzz.mutations import Files, mutate
from faults.fuzz.readers import READERS, Reader, quick_probes
from faults.fuzz.worker import make_input, read_input

INPUTS = 20
SLOW = {"tokenizer", "model config", "safetensors", "trained model"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module", autouse=True)
def probes() -> Iterator[None]:
    with quick_probes():
        yield


def failure_of(reader: Reader, files: Files, folder: Path, rng: Random | None = None) -> str:
    folder.mkdir()
    return read_input(reader, files, folder, rng).failure


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_altered_is_read(name: str, tmp_path: Path) -> None:
    for number, sample in enumerate(READERS[name].samples()):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read_input(READERS[name], sample, folder, None).kind == "value"


@pytest.mark.parametrize("name", READERS)
def test_what_is_altered_ends_in_a_value_or_an_error_of_textune(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    samples = reader.samples()
    failures = {}
    for number in range(INPUTS // 2 if name in SLOW else INPUTS):
        rng = Random(f"short-{name}-{number}")
        failures[number] = failure_of(reader, make_input(reader, samples, rng), tmp_path / str(number), rng)
    assert not any(failures.values()), failures


ANY_FILE = {
    "csv": "data.csv",
    "tsv": "data.tsv",
    "json": "data.json",
    "json lines": "data.jsonl",
    "parquet": "data.parquet",
    "config": "config.yaml",
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(ANY_FILE)), st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode())
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any") / "input"
    assert failure_of(READERS[name], {ANY_FILE[name]: data}, folder) == ""


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(json_values, max_size=4), st.sampled_from(["data.jsonl", "data.json", "data.jsonl.gz"]))
def test_any_json(tmp_path_factory: pytest.TempPathFactory, values: list[Any], name: str) -> None:
    text = json.dumps(values) if name == "data.json" else "".join(json.dumps(value) + "\n" for value in values)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    folder = tmp_path_factory.mktemp("any") / "input"
    assert failure_of(READERS["json"], {name: data}, folder) == ""


@settings(max_examples=60)
@given(json_values)
def test_any_configuration(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """JSON without surrogates is YAML."""
    folder = tmp_path_factory.mktemp("any") / "input"
    assert failure_of(READERS["config"], {"config.yaml": json.dumps(value).encode()}, folder) == ""


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.binary(max_size=32))
def test_any_safetensors_header(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], rest: bytes) -> None:
    from textune.errors import CheckpointError
    from textune.models.weights import check_safetensors

    text = json.dumps(header).encode()
    file = tmp_path_factory.mktemp("any") / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + rest)
    try:
        check_safetensors(file, name="model")
    except CheckpointError as error:
        assert file.name in str(error)


# ---- The harness itself ----


def test_an_input_is_a_function_of_its_seed() -> None:
    samples = READERS["csv"].samples()
    made = [make_input(READERS["csv"], samples, Random(f"1-csv-{number}")) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_only_the_named_files_are_altered() -> None:
    files = {"a.json": b'{"a": 1}', "b.json": b'{"a": 1}'}
    for number in range(200):
        assert mutate(files, Random(number), altered=lambda name: name == "a.json")["b.json"] == files["b.json"]


def _raising(error: BaseException) -> Reader:
    def read(folder: Path, rng: Random | None) -> object:
        raise error

    return Reader(lambda: [{"a.csv": b"x"}], read)


def test_what_counts_as_a_failure(tmp_path: Path) -> None:
    from textune.errors import DataError

    files = {"a.csv": b"x"}
    assert failure_of(_raising(KeyError("x")), files, tmp_path / "1") == "KeyError in "
    assert failure_of(_raising(DataError("nothing")), files, tmp_path / "2").startswith("DataError that names no file")
    assert failure_of(_raising(DataError("a.csv is bad")), files, tmp_path / "3") == ""

    def take_memory(folder: Path, rng: Random | None) -> object:
        return len(b"x" * (300 * 2**20))

    greedy = Reader(lambda: [files], take_memory)
    assert failure_of(greedy, files, tmp_path / "4") == "took more memory than twice its size and 200 MiB"


def test_inputs_are_shared_out() -> None:
    counts = inputs_of(list(READERS), 1000)
    assert sum(counts.values()) == 1000
    assert min(counts.values()) > 0


def test_a_process_reads_and_is_counted(tmp_path: Path) -> None:
    seen: list[int] = []
    tally = fuzz("csv", inputs=30, seed=3, keep=tmp_path, on_progress=seen.append)
    assert seen == list(range(1, 31))
    assert tally.kinds.total() == 30
    written = json.loads(json.dumps(tally.as_json()))
    assert (written["inputs"], written["kinds"]) == (30, dict(tally.kinds))
    assert not tally.failures


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time at all, the first input that is waited for hangs, and the next process goes on behind it."""
    monkeypatch.setattr(faults.fuzz.campaign, "_HANG_SECONDS", -1.0)
    monkeypatch.setattr(faults.fuzz.campaign, "_WATCH_SECONDS", 0.0)
    for seed in range(10):  # a process may have read all of its inputs before anyone looks
        tally = fuzz("compressed", inputs=3, seed=seed, keep=None, on_progress=lambda done: None)
        assert tally.kinds.total() == 3
        if tally.failures["hangs"]:
            return
    pytest.fail("nothing was found to hang")


def test_failures_are_counted_by_what_is_wrong() -> None:
    tally = Tally()
    for number in (4, 7):
        tally.add(number, kind="failure", failure="KeyError in x", seconds=number, bytes=0)
    assert (tally.failures, tally.first, tally.seconds) == ({"KeyError in x": 2}, {"KeyError in x": 4}, 7)
