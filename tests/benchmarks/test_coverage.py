from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import coverage
from textune.evaluation.metrics import metric_values
from textune.evaluation.sums import Outcome


def test_true_values_are_those_of_a_large_sample() -> None:
    population = coverage.POPULATIONS["like MRPC"]
    cells = np.repeat(np.arange(4), (population.ravel() * 1_000_000).round().astype(int))
    expected = metric_values(Outcome(cells // 2, cells % 2, 2), coverage.METRIC_NAMES)
    assert coverage.true_values(population, coverage.METRIC_NAMES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_rows", [100, 408])
def test_intervals_hold_the_true_value(num_rows: int) -> None:
    """Of 200 draws about 190, give or take 3 each way; the whole simulation is the program's."""
    shares = coverage.interval_coverage(
        coverage.POPULATIONS["like MRPC"], num_rows=num_rows, draws=200, num_resamples=500
    )
    for name, method in (("accuracy", "wilson"), ("f1", "bca"), ("matthews_correlation", "bca")):
        assert 0.90 <= shares[name][method] <= 0.99


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "coverage.json"
    coverage.main(["--draws", "3", "--rows", "50", "--resamples", "50", "--output", str(output)])
    results = json.loads(output.read_text())
    assert [entry["population"] for entry in results["intervals"]] == list(coverage.POPULATIONS)
    assert len(results["comparison"]) == len(coverage.RECIPES)
    printed = capsys.readouterr().out
    assert "| like CoLA | 50 | f1 |" in printed
    assert "| seeds | spread | rows | accuracy | f1 | matthews_correlation | mcnemar |" in printed
