from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from textune.evaluation import resampling
from textune.evaluation.metrics import METRICS, metric_values, statistics_of
from textune.evaluation.ranks import RankCorrelation
from textune.evaluation.resampling import Additive, Cells, codes_of, resample
from textune.evaluation.sums import Outcome

CLASSES = ("accuracy", "f1", "precision", "recall", "f1_macro", "f1_weighted", "matthews_correlation")
SEVERAL = ("f1_micro", "accuracy", "f1_macro", "f1_weighted")
NUMBERS = ("pearson", "spearmanr", "rmse")


def outcome(kind: str, num_rows: int = 60, seed: int = 0) -> tuple[Outcome, tuple[str, ...]]:
    generator = np.random.default_rng(seed)
    if kind == "classes":
        labels = generator.integers(0, 2, num_rows)
        return Outcome(labels, np.where(generator.random(num_rows) < 0.7, labels, 1 - labels), 2), CLASSES
    if kind == "several":
        labels = generator.integers(0, 2, (num_rows, 3)).astype(np.float32)
        return Outcome(labels, np.where(generator.random((num_rows, 3)) < 0.7, labels, 1 - labels), 3), SEVERAL
    labels = generator.normal(size=num_rows).round(1)  # with ties
    return Outcome(labels, (labels + generator.normal(size=num_rows)).round(1), 0), NUMBERS


def rows_of(source: Outcome, rows: npt.NDArray[Any]) -> Outcome:
    return Outcome(source.labels[rows], source.predictions[rows], source.num_labels)


@pytest.mark.parametrize("kind", ["classes", "several", "numbers"])
def test_weights_give_the_metrics_of_the_rows_they_stand_for(kind: str) -> None:
    """A row of weight 2 counts as two rows, one of weight 0 not at all."""
    source, names = outcome(kind)
    generator = np.random.default_rng(1)
    for statistic in statistics_of(source, names):
        cells = Cells.of(statistic.codes, num_rows=60, seed=0)
        prepared = statistic.prepare(cells)
        for _ in range(5):
            rows = generator.integers(0, 60, 60)
            weights = np.bincount(cells.of_rows[rows], minlength=len(cells.units)).astype(float)
            expected = metric_values(rows_of(source, rows), statistic.names)
            found = prepared.evaluate(weights[None])[0]
            assert dict(zip(statistic.names, found, strict=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["classes", "several", "numbers"])
def test_leave_one_out(kind: str) -> None:
    source, names = outcome(kind)
    additive = statistics_of(source, [name for name in names if name != "spearmanr"])[0]
    cells = Cells.of(additive.codes, num_rows=60, seed=0)
    found = additive.prepare(cells).leave_one_out()
    for row in range(60):
        expected = metric_values(rows_of(source, np.delete(np.arange(60), row)), additive.names)
        assert list(found[cells.of_rows[row]]) == pytest.approx([expected[name] for name in additive.names], rel=1e-12)


def test_rank_correlation_equals_scipy_in_every_resample() -> None:
    source, _ = outcome("numbers", 50)
    statistic = RankCorrelation(source.labels, source.predictions)
    cells = Cells.of(None, num_rows=50, seed=0)
    (weights,) = cells.draw(20, seed=3, chunk=20)
    found = statistic.prepare(cells).evaluate(weights)[:, 0]
    for value, row in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(50), row.astype(int))
        assert value == pytest.approx(
            stats.spearmanr(source.labels[rows], source.predictions[rows]).statistic, abs=1e-12
        )


def test_expansion_of_the_rank_correlation() -> None:
    """To first order it equals what ranking anew gives: the error falls with the square of the change."""
    source, _ = outcome("numbers", 80)
    statistic = RankCorrelation(source.labels, source.predictions)
    expansion = statistic.expansion()
    direction = np.random.default_rng(2).normal(size=80)
    cells = Cells.of(None, num_rows=80, seed=0)
    errors = []
    for size in (0.02, 0.01):
        weights = 1 + size * (direction - direction.mean())[None]
        # Weights that are no whole numbers have no rows; scaled up, the share that a row has of itself vanishes.
        exact = statistic.prepare(cells).evaluate(weights * 1e6)
        errors.append(abs(float(exact[0, 0] - expansion.prepare(cells).evaluate(weights)[0, 0])))
    assert errors[0] < 2e-4
    assert errors[1] < 0.35 * errors[0]
    assert expansion.value()[0] == pytest.approx(statistic.value()[0], abs=1e-3)


def test_rows_that_are_alike_share_a_cell() -> None:
    codes = codes_of(np.array([0, 1, 0, 1]), np.array([1, 1, 1, 0]))
    assert codes[0] == codes[2] and len(set(codes)) == 3
    several = codes_of(np.array([[0, 1], [1, 0], [0, 1]]), np.array([[1, 1], [1, 1], [1, 1]]))
    assert several[0] == several[2] != several[1]
    cells = Cells.of(codes, num_rows=4, seed=0)
    assert sorted(cells.units) == [1, 1, 2]


def test_counting_draws_as_rows_do() -> None:
    """Multinomial counts of cells and rows drawn one by one have the same distribution."""
    source, _ = outcome("classes", 200)
    (statistic,) = statistics_of(source, ["accuracy", "f1"])
    counted, _ = resample([statistic], seed=1, num_resamples=4000)
    (drawn,), _ = resample(
        [Additive(statistic.names, statistic.columns, statistic.compute)], seed=2, num_resamples=4000
    )
    for index in range(2):
        assert stats.ks_2samp(counted[0, :, index], drawn[:, index]).pvalue > 1e-3


def test_groups_of_rows_vary_as_rows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    source, names = outcome("numbers", 3000)
    exact = [resample([one], seed=1, num_resamples=2000)[0][0].std(axis=0) for one in statistics_of(source, names)]
    monkeypatch.setattr(resampling, "MAX_CELLS", 600)
    grouped = [resample([one], seed=1, num_resamples=2000)[0][0].std(axis=0) for one in statistics_of(source, names)]
    assert np.concatenate(grouped) == pytest.approx(np.concatenate(exact), rel=0.1)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source, names = outcome("numbers", 40)
    whole = [resample([one], seed=5, num_resamples=50)[0] for one in statistics_of(source, names)]
    monkeypatch.setattr(resampling, "CHUNK", 1000)
    for one, expected in zip(statistics_of(source, names), whole, strict=True):
        np.testing.assert_allclose(resample([one], seed=5, num_resamples=50)[0], expected, rtol=1e-12)


def test_models_are_resampled_on_the_same_rows() -> None:
    source, _ = outcome("classes", 100)
    (one,) = statistics_of(source, ["accuracy"])
    (other,) = statistics_of(Outcome(source.labels, source.labels, 2), ["accuracy"])
    values, _ = resample([one, other, one], seed=0, num_resamples=200)
    np.testing.assert_array_equal(values[0], values[2])
    assert (values[1] == 1).all()
    assert values[0].std() > 0


def test_every_metric_can_be_resampled() -> None:
    found = {
        name
        for kind in ("classes", "several", "numbers")
        for statistic in statistics_of(*outcome(kind))
        for name in statistic.names
    }
    assert found == set(METRICS)
