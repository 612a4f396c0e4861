"""Several processes, started with torchrun: the same weights as one, each row once, one that writes, one that dies."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import launch
from safetensors.numpy import load_file

from textune.display import Display
from textune.errors import ConfigError, TrainingError
from textune.finetune import train
from textune.run import Run
from textune.training import parallel
from textune.training.parallel import ALONE, Processes, connect, environment_rank, join

from .several_processes import trained, uneven

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """What two processes found: the folder, their reports, their weights."""
    folder = tmp_path_factory.mktemp("two")
    launch(HERE / "several_processes.py", folder, folder=folder)
    reports = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return folder, reports, [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2x4", "2x2x2"])
def test_two_processes_give_the_weights_of_one(two: Any, tmp_path: Path, name: str) -> None:
    _, reports, arrays = two
    expected, one = trained(uneven(tmp_path), name)
    for report in (reports[0][name], reports[1][name]):
        assert (report["steps"], report["examples"], report["tokens"]) == (6, 38, expected["tokens"])
        np.testing.assert_allclose(report["losses"], expected["losses"], rtol=1e-5)
        np.testing.assert_allclose(report["norms"], expected["norms"], rtol=1e-4)
    for key, value in one.items():
        assert np.array_equal(arrays[0][key], arrays[1][key]), f"{key} differs between the processes"
        if not key.endswith("key.bias"):  # nothing but rounding moves it
            assert float(np.abs(arrays[0][key] - value).max()) <= 1e-6, key
    assert float(np.abs(one[f"{name}/classifier.weight"] - arrays[0][f"{name}/classifier.weight"]).max()) > 0


@pytest.mark.slow
def test_each_row_comes_once_in_an_epoch(two: Any) -> None:
    _, reports, _ = two
    for name in ("2x4", "2x2x2"):
        seen = [report[name]["seen"] for report in reports]
        assert sorted(seen[0] + seen[1]) == sorted([*range(19)] * 2)
    # Of three rows in the last step, four in a pass, the second process has none.
    assert [len(report["2x4"]["seen"]) for report in reports] == [22, 16]


@pytest.mark.slow
def test_what_processes_tell_each_other(two: Any) -> None:
    folder, reports, _ = two
    assert [report["found"] for report in reports] == [False, True]
    assert all(report["gradients"] == [1.0, [3.0, 3.0], [1.0, 1.0], [2.0, 2.0], None] for report in reports)
    assert {report["different"] for report in reports} == {
        "Process 1 found other rows than process 0: ['same', 1] and ['same', 0]."
    }
    assert all(report["stopped"] == [2, "process 1 asked for it"] for report in reports)
    told = "SIGTERM: training stopped after step 1 of 6; its checkpoint is committed."
    assert [report["signalled"] for report in reports] == [[told, 143, [1]]] * 2
    assert sorted(path.name for path in (folder / "2x4" / "checkpoints").iterdir()) == ["step-3", "step-6"]
    assert sorted(path.name for path in (folder / "stopped" / "checkpoints").iterdir()) == ["step-1", "step-2"]


@pytest.mark.slow
def test_all_go_on_alike_after_trouble_in_one(two: Any, tmp_path: Path) -> None:
    """The second process found no memory for its four rows, and its share of the second step was not finite."""
    _, reports, arrays = two
    assert [report["trouble"] for report in reports] == [[6, 1, 2, [[1, 2], [2, 8]]]] * 2
    reference = uneven(tmp_path, batch_size=2, accumulation=4)
    steps, update = itertools.count(1), reference.optimizer.step
    reference.optimizer.step = lambda: None if next(steps) == 2 else update()  # type: ignore[assignment, method-assign, func-returns-value]
    _, one = trained(reference, "trouble")
    for key, value in one.items():
        assert np.array_equal(arrays[0][key], arrays[1][key]), f"{key} differs between the processes"
        if not key.endswith("key.bias"):
            assert float(np.abs(arrays[0][key] - value).max()) <= 1e-6, key


def command(data: Path, model: Path, *, batch_size: int) -> list[Any]:
    settings = ["model.dropout=0", "training.threads=1", "training.device=cpu", "evaluation.every=3steps"]
    settings += ["checkpoint.every=2steps"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return ["train", "--data", data, "--model", model, "--precision", "fp32", "--batch-size", batch_size, *flags]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path, tiny_checkpoint: Path) -> tuple[Any, Path]:
    """What the command said in two processes, and its run."""
    folder = tmp_path_factory.mktemp("command")
    done = launch("-m", "textune", *command(tiny_csv, tiny_checkpoint, batch_size=4), folder=folder)
    (run,) = (folder / "runs").iterdir()
    return done, run


@pytest.mark.slow
def test_the_command(of_two: tuple[Any, Path], tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path) -> None:
    done, run = of_two
    assert done.stderr.count("] data: ") == done.stderr.count("step 3/24") == done.stdout.count("samples/s") == 1
    one = train(
        str(tiny_csv),
        model=str(tiny_checkpoint),
        output=str(tmp_path / "one"),
        precision="fp32",
        batch_size=8,
        settings={"model.dropout": 0, "training.threads": 1, "evaluation.every": "3steps"},
        display=Display(),
    )
    found, expected = (load_file(path / "model" / "model.safetensors") for path in (run, one.path))
    assert max(float(np.abs(found[name] - value).max()) for name, value in expected.items()) <= 1e-6
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, one.path)]
    assert [summary["training"]["processes"] for summary in summaries] == [2, 1]
    assert summaries[0]["validation"]["loss"]["value"] == pytest.approx(summaries[1]["validation"]["loss"]["value"])
    ours, theirs = (Run(path).predictions("validation") for path in (run, one.path))
    assert ours["id"].equals(theirs["id"]) and len(ours) == 6
    for name in ("score_negative", "score_positive"):
        np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), atol=1e-6)
    # Half an epoch more or less would show here: one line per evaluation, none twice.
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [*range(3, 25, 3)]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_the_run_goes_on(
    of_two: tuple[Any, Path], tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path
) -> None:
    begin = time.monotonic()
    arguments = command(tiny_csv, tiny_checkpoint, batch_size=4)
    done = launch(HERE / "failing_process.py", *arguments, folder=tmp_path, check=False)
    assert done.returncode != 0
    assert "error (process 1): The third step went wrong in here." in done.stderr
    assert time.monotonic() - begin < 120, "the others did not notice"
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "summary.json").exists() and not (run / "model").exists()
    assert "step 3/" not in done.stderr
    done = launch("-m", "textune", "train", "--resume", run, folder=tmp_path)
    assert f"{run} goes on from step 2" in done.stderr
    whole = of_two[1]
    for file in (Path("model", "model.safetensors"), Path("checkpoints", "step-24", "optimizer.safetensors")):
        found, expected = load_file(run / file), load_file(whole / file)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], value) for name, value in expected.items()), file
    assert Run(run).predictions("validation").equals(Run(whole).predictions("validation"))


# ---- One process ----


def test_one_process_alone_has_nobody_to_ask() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    with connect() as processes:
        assert processes is ALONE is join()
    assert ALONE.sum_gradients([parameter], 0.5) == 0.5 and parameter.grad.tolist() == [1, 1]
    assert ALONE.share([1, 2, 3]) == ALONE.gather_shared([1, 2, 3]) == [1, 2, 3]
    assert ALONE.gather(parameter) == [parameter]
    assert (ALONE.sum([1, 2]), ALONE.largest(3), ALONE.from_main(lambda: 4)) == ([1, 2], 3, 4)
    assert ALONE.stream("dropout-3") == "dropout-3"
    assert ALONE.device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_random_streams_differ_between_processes() -> None:
    assert Processes(1, 2, 1, 2).stream("dropout-3") == "dropout-3-1"


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(3, 4, 1, 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.device(torch.device("cuda")) == torch.device("cuda", 1)
    assert processes.device(torch.device("cpu")) == torch.device("cpu")
    for device in ("cuda:0", "mps"):
        with pytest.raises(ConfigError, match=f"not all on '{device}'"):
            processes.device(torch.device(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"2 processes on this machine need as many GPUs; there are 1"):
        processes.device(torch.device("cuda"))


def test_gradients_on_the_cpu_go_by_gloo_also_where_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL, which is the default group there, takes tensors of GPUs only."""
    groups = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, group=None: groups.append(group))
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    assert Processes(0, 2, 0, 2, _values="gloo").sum_gradients([parameter], 0.5) == 0.5
    assert groups == ["gloo"]


def test_memory_that_runs_out_among_processes_is_no_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensor: torch.Tensor, group: Any = None) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.distributed, "all_reduce", fail)
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    said = "NCCL error in: NCCLUtils.cpp\nLast error:\nCuda failure 2 'out of memory'"
    with pytest.raises(RuntimeError, match="out of memory"):
        Processes(0, 2, 0, 2).sum_gradients(parameters, 0.5)
    said = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer"
    with pytest.raises(TrainingError, match="another one has ended"):
        Processes(0, 2, 0, 2).sum_gradients(parameters, 0.5)


@pytest.mark.parametrize("value", ["", "two", "-1", "1.5"])
def test_an_environment_without_numbers(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    for ask in (environment_rank, join):
        with pytest.raises(ConfigError, match=f"WORLD_SIZE: expected a whole number .*, found '{value}'") as caught:
            ask()
        assert "unset WORLD_SIZE" in str(caught.value.hint)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", value)
    with pytest.raises(ConfigError, match=f"RANK: expected a whole number .*, found '{value}'"):
        environment_rank()


def test_an_environment_that_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert environment_rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert environment_rank() == 1
    with pytest.raises(ConfigError, match="in the environment, but no LOCAL_RANK, MASTER_ADDR, MASTER_PORT") as caught:
        join()
    assert "torchrun --nproc-per-node N" in str(caught.value.hint)
    assert parallel._joined is None
