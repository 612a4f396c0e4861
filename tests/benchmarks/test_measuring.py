from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from datetime import date
from pathlib import Path

import pytest

from benchmarks import measuring
from benchmarks.measuring import (
    Results,
    Spread,
    environment,
    growth,
    in_turns,
    largest_difference,
    largest_relative_difference,
    percentile,
    product_rate,
    ratios,
    result_path,
    run,
    share_of_rate,
    table,
)
from textune.cli.main import run as run_command
from textune.training.precision import Measurement


def test_a_spread_has_the_median_and_both_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.5]) == Spread(2.5, 1.0, 3.0)
    assert Spread.of([3.0, 1.0]).median == 2.0
    assert Spread.of([1234.56, 1200.0, 1300.0]).text() == "1,234.6 (1,200.0 to 1,300.0)"
    assert Spread.of([2.0]).text(2) == "2.00"


def test_ratios_are_taken_within_a_round() -> None:
    """The second round ran on a machine half as fast; the ratio is 2 in both, and not 4 or 1."""
    assert ratios([20.0, 10.0], [10.0, 5.0]) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="argument 2 is"):
        ratios([1.0, 2.0], [1.0])


def test_the_largest_difference_of_curves() -> None:
    assert largest_relative_difference([1.0, 2.2, 3.0], [1.0, 2.0, 4.0]) == pytest.approx(0.25)
    assert largest_relative_difference([1.0], [1.0]) == 0
    assert math.isnan(largest_relative_difference([math.nan, 1.0], [1.0, 1.0]))
    assert largest_difference([[0.5, 0.5], [0.1, 0.9]], [[0.5, 0.5], [0.2, 0.85]]) == pytest.approx(0.1)
    assert math.isnan(largest_difference([[0.5, math.nan], [0.1, 0.9]], [[0.5, 0.5], [0.1, 0.9]]))
    with pytest.raises(ValueError, match="argument 2 is"):
        largest_relative_difference([1.0], [1.0, 2.0])


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 100)) == (50, 95, 100)
    assert percentile([7.0], 95) == 7.0


@pytest.mark.parametrize("power", [0, 1, 2])
def test_growth_is_the_exponent(power: int) -> None:
    sizes = [10, 100, 1000]
    assert growth(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_the_share_of_the_rate_counts_six_operations_a_token_and_weight() -> None:
    assert share_of_rate(parameters=10**6, tokens=1000, seconds=2.0, gflops=6.0) == pytest.approx(0.5)


def test_fp32_products_that_round_like_bf16_do_not_count() -> None:
    found = [Measurement("fp32-blas", 100, 3e-7), Measurement("fp32-onednn", 900, 3e-3), Measurement("bf16", 950, 3e-3)]
    assert product_rate(found, "fp32") == 100
    assert product_rate(found, "bf16") == 950


def test_turns_alternate() -> None:
    assert list(in_turns(2, ["a", "b"])) == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_tables_are_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@dataclasses.dataclass(frozen=True)
class Sum:
    numbers: list[int]


def test_programs_get_their_task_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adding.py").write_text(
        "import os\nfrom dataclasses import dataclass\nfrom benchmarks.measuring import answer\n"
        "@dataclass\nclass Sum:\n    numbers: list\n"
        "print('something else')\n"
        "answer(Sum, lambda task: {'sum': sum(task.numbers), 'threads': os.environ['OMP_NUM_THREADS'],\n"
        "                          'cache': os.environ['TEXTUNE_CACHE']})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = measuring.ask("adding", Sum([1, 2]), threads=3, cache=tmp_path / "cache")
    assert found == {"sum": 3, "threads": "3", "cache": str(tmp_path / "cache")}


@pytest.mark.parametrize(("given", "passed_on"), [(None, "0"), ("2,3", "2"), ("GPU-1b,GPU-2c", "GPU-1b"), ("", "")])
def test_a_measured_process_sees_one_gpu_at_most(
    monkeypatch: pytest.MonkeyPatch, given: str | None, passed_on: str
) -> None:
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert environment(threads=1, cache="cache")["CUDA_VISIBLE_DEVICES"] == passed_on


def test_a_measured_process_tokenises_with_as_many_threads_as_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYON_NUM_THREADS", "16")
    found = environment(threads=3, cache="cache")
    assert found["RAYON_NUM_THREADS"] == found["OMP_NUM_THREADS"] == "3"


def test_the_machine_is_described_with_the_threads_that_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run_here(command: list[str], environment: dict[str, str]) -> str:
        asked.append(environment["OMP_NUM_THREADS"])
        assert command[1:3] == ["-m", "textune"]
        assert run_command(command[3:]) == 0
        return capsys.readouterr().out

    monkeypatch.setattr(measuring, "run", run_here)
    found = measuring.machine(threads=3)
    assert asked == ["3"]
    assert measuring.machine_line(found).startswith(found["processor"])


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)ended with 1:.*ZeroDivisionError"):
        run([sys.executable, "-c", "1/0"], environment(threads=1, cache=tmp_path))


def test_results_hold_date_options_and_machine(tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.json"
    arguments = argparse.Namespace(output=path, rounds=3, local_copy="data", keep=Path("runs"))
    results = Results("training", arguments, {"processor": "a chip"})
    results.write(runs=[1])
    results.write(runs=[1, 2], summary=Spread(1.0, 0.5, 2.0))
    assert json.loads(path.read_text()) == {
        "about": {
            "benchmark": "training",
            "date": str(date.today()),
            "options": {"rounds": 3},
            "machine": {"processor": "a chip"},
        },
        "runs": [1, 2],
        "summary": {"median": 1.0, "low": 0.5, "high": 2.0},
    }


def test_earlier_results_of_the_day_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    first = result_path("startup")
    assert first.name == f"{date.today()}-startup.json"
    first.write_text("{}")
    assert result_path("startup").name == f"{date.today()}-startup-2.json"
