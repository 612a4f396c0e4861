from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub, commit_of, hub_environment

from textune.data.hub import HubName, parse_hub_name

READ = """
import json, os, sys
from textune.data.sources import load_source
from textune.errors import TextuneError
answers = []
for data in sys.argv[1:]:
    try:
        source = load_source(data)
    except TextuneError as error:
        answers.append({"error": type(error).__name__, "message": str(error)})
        continue
    answers.append({
        "splits": {name: rows.to_list() for name, rows in source.splits.items()},
        "features": {name: repr(feature) for name, feature in source.splits["train"].features.items()},
        "name": source.name, "location": source.location, "notes": source.notes, "fingerprint": source.fingerprint,
        "task": source.task and source.task.name,
    })
json.dump(answers, open(os.environ["ANSWERS"], "w"))
"""
MRPC = {
    split: [{"sentence1": f"{split} {n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(rows)]
    for split, rows in {"train": 5, "validation": 3, "test": 2}.items()
}
REVIEWS = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]

CARD_FEATURES = """\
- config_name: CONFIG
  features:
  - name: sentence1
    dtype: string
  - name: sentence2
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': not_equivalent
          '1': equivalent
  - name: idx
    dtype: int32
  splits:
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the hub."""
    root = tmp_path_factory.mktemp("hub")
    glue = root / "datasets" / "nyu-mll" / "glue"
    schema = pa.schema({"sentence1": "string", "sentence2": "string", "label": "int64", "idx": "int32"})
    infos, configs = "", ""
    for config in ("mrpc", "other"):
        infos += CARD_FEATURES.replace("CONFIG", config)
        infos += "".join(
            f"  - name: {s}\n    num_bytes: 1\n    num_examples: {len(rows)}\n" for s, rows in MRPC.items()
        )
        configs += f"- config_name: {config}\n  data_files:\n"
        configs += "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in MRPC)
        (glue / config).mkdir(parents=True)
        for split, rows in MRPC.items():
            table = pa.Table.from_pylist(rows, schema=schema)
            pq.write_table(table, glue / config / f"{split}-00000-of-00001.parquet")
    (glue / "README.md").write_text(f"---\ndataset_info:\n{infos}configs:\n{configs}---\n")
    for name in ("reviews", "gated"):
        folder = root / "datasets" / "somebody" / name
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(REVIEWS), folder / "train.parquet")
        pq.write_table(pa.Table.from_pylist(REVIEWS[:1]), folder / "dev.parquet")
    for name, file, contents in (
        ("script", "script.py", "print('run me')"),
        ("broken", "train.parquet", "not parquet"),
        ("pictures", "picture.xyz", "no data"),
    ):
        (root / "datasets" / "somebody" / name).mkdir()
        (root / "datasets" / "somebody" / name / file).write_text(contents)
    return root


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[FakeHub]:
    with FakeHub(root, gated={"datasets/somebody/gated"}) as hub:
        yield hub


def read(environment: dict[str, str], folder: Path, *data: str) -> list[dict[str, Any]]:
    answers = folder / "answers.json"
    environment = {
        **environment,
        "ANSWERS": str(answers),
        "TEXTUNE_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    environment.pop("TEXTUNE_DATA", None)
    finished = subprocess.run(
        [sys.executable, "-c", READ, *data], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    return list(json.loads(answers.read_text()))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("owner/name", HubName("owner/name")),
        ("owner/na-me.v2:config", HubName("owner/na-me.v2", "config")),
        ("owner/name@v1", HubName("owner/name", None, "v1")),
        ("owner/name:con fig@refs/convert/parquet", HubName("owner/name", "con fig", "refs/convert/parquet")),
        ("name", None),
        ("a/b/c", None),
        ("../name", None),
        ("owner/name:", None),
    ],
)
def test_hub_names(text: str, name: HubName | None) -> None:
    assert parse_hub_name(text) == name
    assert name is None or str(name) == text


def test_what_is_on_the_hub_is_read_and_found_again_without_it(hub: FakeHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    commit = commit_of(hub.folder("datasets", "nyu-mll/glue"))
    names = ("glue/mrpc", "somebody/reviews", f"nyu-mll/glue:mrpc@{commit}")

    glue, reviews, pinned = read(hub.environment(home), tmp_path, *names)

    assert glue["splits"] == pinned["splits"] == MRPC
    assert glue["features"]["label"] == "ClassLabel(names=['not_equivalent', 'equivalent'])"
    assert (glue["name"], glue["task"], glue["notes"]) == ("mrpc", "mrpc", [])
    assert glue["location"] == f"nyu-mll/glue, configuration mrpc on the hub, commit {commit}"
    assert (pinned["name"], pinned["task"]) == ("glue-mrpc", None)
    assert reviews["splits"] == {"train": REVIEWS, "validation": REVIEWS[:1]}

    # Off by the switch, or not to be reached: the same data, and a note.
    with FakeHub(hub.root) as gone:
        pass
    away = hub_environment(gone.endpoint, home)
    for environment, reason in (
        ({**away, "HF_HUB_OFFLINE": "1"}, "The hub is switched off (HF_HUB_OFFLINE)."),
        (away, f"Cannot reach the hub at {gone.endpoint}"),
    ):
        again = read(
            environment, tmp_path, "glue/mrpc", "somebody/reviews", "nyu-mll/glue:mrpc@v9", "nyu-mll/glue:sst2"
        )
        assert [answer.get("fingerprint") for answer in again[:2]] == [glue["fingerprint"], reviews["fingerprint"]]
        assert again[0]["notes"][0].startswith(reason)
        assert "The copy in the cache is used: nyu-mll/glue" in again[0]["notes"][0]
        assert again[2]["error"] == again[3]["error"] == "UnavailableError"
        assert f"at commit {commit}; only the hub knows whether that is 'v9'" in again[2]["message"]
        assert f"name the commit: --data nyu-mll/glue:mrpc@{commit}." in again[2]["message"]
        assert "does not hold 'nyu-mll/glue:sst2' either" in again[3]["message"]


def test_an_earlier_commit_is_found_again_without_the_hub(tmp_path: Path) -> None:
    folder, home = tmp_path / "hub" / "datasets" / "somebody" / "changing", tmp_path / "home"
    folder.mkdir(parents=True)
    commits = []
    with FakeHub(tmp_path / "hub") as hub:
        for row in REVIEWS:
            pq.write_table(pa.Table.from_pylist([row]), folder / "train.parquet")
            commits.append(commit_of(folder))
            read(hub.environment(home), tmp_path, "somebody/changing")

    names = ["somebody/changing", *(f"somebody/changing@{commit}" for commit in (*commits, "0" * 40))]
    off = {**hub_environment(hub.endpoint, home), "HF_HUB_OFFLINE": "1"}
    *answers, missing = read(off, tmp_path, *names)
    assert [answer["splits"]["train"] for answer in answers] == [[REVIEWS[row]] for row in (1, 0, 1)]
    assert f"does not hold '{names[-1]}' either" in missing["message"]


@pytest.mark.parametrize(
    ("data", "error", "found"),
    [
        ("somebody/nothing", "InputNotFoundError", "no data set 'somebody/nothing' on http://127.0.0.1"),
        ("somebody/reviews@v9", "InputNotFoundError", "has no revision 'v9'"),
        ("somebody/gated", "UnavailableError", "is gated: its owners ask for consent"),
        ("nyu-mll/glue", "ConfigError", "has several configurations: mrpc, other"),
        ("nyu-mll/glue:mprc", "ConfigError", "has no configuration 'mprc'; it has mrpc, other. Did you mean 'mrpc'?"),
        ("somebody/script", "DataError", "loaded by a program of its own (script.py); textune runs no code"),
        ("somebody/broken", "DataError", "'somebody/broken' cannot be read"),
        ("somebody/pictures", "DataError", "'somebody/pictures' cannot be read"),
        ("some--body/na..me", "ConfigError", "not a name the hub can have"),
    ],
)
def test_each_failure_has_its_sentence(failures: dict[str, dict[str, str]], data: str, error: str, found: str) -> None:
    assert failures[data]["error"] == error
    assert found in failures[data]["message"]


@pytest.fixture(scope="module")
def failures(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """All failing names, asked in one process."""
    (marker,) = (mark for mark in test_each_failure_has_its_sentence.pytestmark if mark.name == "parametrize")
    names = [case[0] for case in marker.args[1]]
    folder = tmp_path_factory.mktemp("failures")
    return dict(zip(names, read(hub.environment(folder / "home"), folder, *names), strict=True))


def test_a_hub_that_is_away_is_told_at_once(hub: FakeHub, tmp_path: Path) -> None:
    with FakeHub(hub.root) as gone:
        pass
    started = time.monotonic()
    (answer,) = read(hub_environment(gone.endpoint, tmp_path / "home"), tmp_path, "glue/mrpc")

    assert answer["error"] == "UnavailableError"
    assert f"Cannot reach the hub at {gone.endpoint} for 'nyu-mll/glue'" in answer["message"]
    assert "does not hold 'nyu-mll/glue:mrpc' either" in answer["message"]
    assert "HF_ENDPOINT" in answer["message"]
    assert "TEXTUNE_DATA" in answer["message"]
    assert time.monotonic() - started < 20


def test_a_hub_that_is_overloaded_is_told_at_once(root: Path, tmp_path: Path) -> None:
    with FakeHub(root, status=503) as hub:
        (answer,) = read(hub.environment(tmp_path / "home"), tmp_path, "somebody/reviews")

        assert answer["error"] == "UnavailableError"
        assert f"The hub at {hub.endpoint} answered 503 for 'somebody/reviews'" in answer["message"]
        assert sum("somebody/reviews" in request for request in hub.requests) == 1


def test_the_fake_hub_serves_models_and_ranges(tmp_path: Path) -> None:
    model = tmp_path / "hub" / "models" / "somebody" / "tiny"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "sub" / "weights.safetensors").write_bytes(bytes(range(100)))
    code = (
        "import sys, pathlib, huggingface_hub as hub\n"
        "folder = pathlib.Path(hub.snapshot_download('somebody/tiny'))\n"
        "assert (folder / 'sub/weights.safetensors').read_bytes() == bytes(range(100))\n"
        "assert hub.hf_hub_download('somebody/tiny', 'config.json') == str(folder / 'config.json')\n"
        "with hub.HfFileSystem().open('somebody/tiny/sub/weights.safetensors', block_size=10) as file:\n"
        "    file.seek(50)\n"
        "    assert file.read(5) == bytes(range(50, 55))\n"
    )
    with FakeHub(tmp_path / "hub") as hub:
        finished = subprocess.run(
            [sys.executable, "-c", code],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert finished.returncode == 0, finished.stderr
