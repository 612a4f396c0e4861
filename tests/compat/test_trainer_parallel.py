"""The Trainer in two processes, started with torchrun: weights, rows, evaluation, files and resume as in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import launch

from textune.errors import ConfigError

from .several_trainers import ROWS, OwnCollator, Stream, on_points, points, texts
from .trainers import losses, weights

pytestmark = pytest.mark.slow
BOTH = ("text", "general")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """What two processes found: the folder, their reports, their weights and scores."""
    folder = tmp_path_factory.mktemp("two")
    launch(Path(__file__).parent / "several_trainers.py", folder, folder=folder)
    reports = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return folder, reports, [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def assert_as_in_one(two: Any, name: str, one: Any) -> None:
    _, reports, arrays = two
    for report in reports:
        np.testing.assert_allclose(report[name]["losses"], losses(one), rtol=1e-5)
    for key, value in weights(one.model).items():
        assert np.array_equal(arrays[0][f"{name}/{key}"], arrays[1][f"{name}/{key}"]), key
        assert float(np.abs(arrays[0][f"{name}/{key}"] - value).max()) <= 1e-6, key


@pytest.mark.parametrize("name", BOTH)
def test_texts(two: Any, tmp_path: Path, name: str) -> None:
    _, reports, arrays = two
    one = texts(tmp_path, batch_size=8, **({"data_collator": OwnCollator()} if name == "general" else {}))
    one.train()
    assert one.training_path == reports[0][name]["path"] == name
    assert_as_in_one(two, name, one)
    expected = one.predict(one.eval_dataset)
    for rank in range(2):
        assert arrays[rank][f"{name}-logits"].shape == (ROWS, 2)
        np.testing.assert_allclose(arrays[rank][f"{name}-logits"], expected.predictions, atol=1e-6)
        assert np.array_equal(arrays[rank][f"{name}-labels"], expected.label_ids)
        for metric in ("test_loss", "test_accuracy"):
            assert reports[rank][name]["metrics"][metric] == pytest.approx(expected.metrics[metric], abs=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_resumed_equals_uninterrupted(two: Any, name: str) -> None:
    _, reports, arrays = two
    for key in [key for key in arrays[0] if key.startswith(f"{name}/")]:
        assert np.array_equal(arrays[0][key], arrays[0][key.replace(name, f"{name}-resumed", 1)]), key
    assert reports[0][f"{name}-resumed"]["losses"] == reports[0][name]["losses"]


def test_the_number_of_processes_belongs_to_a_checkpoint(two: Any, tmp_path: Path) -> None:
    folder, _, _ = two
    one = texts(tmp_path, batch_size=4)
    with pytest.raises(ConfigError, match=r"made by 2 processes; here are 1") as caught:
        one.train(resume_from_checkpoint=str(folder / "text" / "checkpoint-4"))
    assert "torchrun --nproc-per-node 2" in str(caught.value.hint)


def test_one_process_writes_and_all_know(two: Any) -> None:
    folder, reports, _ = two
    assert sorted(path.name for path in (folder / "text").iterdir()) == ["checkpoint-4", "checkpoint-8"]
    assert len({report["text"]["best"] for report in reports}) == 1 and reports[1]["text"]["best"] is not None
    assert (folder / "saved" / "model.safetensors").is_file()
    assert [report["zero"] for report in reports] == [[True, True, 0], [False, False, 1]]
    assert [report["found"] for report in reports] == [False, True]
    assert [report["gathered"] for report in reports] == [[0, 1]] * 2
    assert [report["padded"] for report in reports] == [[[0, -100]] * 2, [[1, 1]] * 2]
    assert [report["stopped"] for report in reports] == [2, 2]


def test_any_data_and_each_row_once(two: Any, tmp_path: Path) -> None:
    _, reports, _ = two
    for name, epochs in (("list", 1), ("stream", 1), ("own", 2)):
        seen = [report[name]["seen"] for report in reports]
        assert sorted(seen[0] + seen[1]) == sorted([*range(18)] * epochs), name
        assert [len(rows) for rows in seen] == [10 * epochs, 8 * epochs], name
    assert_as_in_one(two, "list", on_points(tmp_path, points(), batch_size=8, max_steps=-1, num_train_epochs=1))
    assert_as_in_one(two, "stream", on_points(tmp_path, Stream(), batch_size=8, max_steps=3))


def test_what_a_mean_is_a_mean_over(two: Any, tmp_path: Path) -> None:
    """The labels that count lie unevenly: with `average_tokens_across_devices` each counts alike."""
    _, reports, _ = two
    one = on_points(tmp_path, points(without_label=3), batch_size=18, max_steps=1)
    for name in ("average-True", "scaled"):
        assert_as_in_one(two, name, one)
    norms = [report["average-False"]["norms"] for report in reports]
    assert norms[0] == norms[1] != reports[0]["average-True"]["norms"]
