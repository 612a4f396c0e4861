from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from trained import QUICK

import textune.job
from textune.data.batching import ShapedPlan, shaped_plan
from textune.display import Display
from textune.finetune import train
from textune.run import Run


class Notes(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ShapedPlan, dict[str, Any]]]:
    """The plans that a training has drawn, and with which options."""
    drawn = []

    def spy(lengths: Any, **options: Any) -> ShapedPlan:
        drawn.append((shaped_plan(lengths, **options), options))
        return drawn[-1][0]

    monkeypatch.setattr(textune.job, "shaped_plan", spy)
    return drawn


@pytest.fixture
def quickly(tmp_path: Path, tiny_csv: Path, tiny_checkpoint: Path) -> Any:
    without_epochs = {name: value for name, value in QUICK.items() if name != "epochs"}

    def call(settings: dict[str, Any], **options: Any) -> Run:
        values = {**without_epochs, "model": str(tiny_checkpoint), "output": str(tmp_path / "run"), **options}
        return train(str(tiny_csv), settings={"training.duration": "1epoch", **settings}, **values)

    return call


def test_batches_of_a_run_follow_the_budget(quickly: Any, plans: list[Any]) -> None:
    display = Notes()
    settings = {"training.tokens_per_batch": 32, "training.batching": "length"}
    run = quickly({"training.duration": "2epochs", **settings}, accumulation=2, display=display)
    ((plan, options),) = plans
    assert (options["accumulation"], options["by_length"], options["padded"]) == (2, True, False)
    assert run.summary["training"]["steps"] == 2 * plan.steps_per_epoch
    training = yaml.safe_load((run.path / "config.yaml").read_text())["training"]
    assert (training["batching"], training["tokens_per_batch"]) == ("length", 32)
    sizes = np.diff(plan.bounds)
    assert sizes.min() < sizes.max()
    (note,) = (text for text in display.notes if text.startswith("batches:"))
    assert note == (
        f"batches: {plan.steps_per_epoch} steps in an epoch; {sizes.min()} to {sizes.max()} rows in a pass, "
        "of similar length, at most 32 tokens"
    )
    assert not any("tokens" in text for text in display.warnings)


def test_rows_beyond_the_budget_are_said(quickly: Any, plans: list[Any]) -> None:
    display = Notes()
    quickly({"training.tokens_per_batch": 6}, display=display)
    ((plan, _),) = plans
    beyond = int((plan.lengths > 6).sum())
    assert beyond > 0
    assert f"{beyond} training rows have more than 6 tokens; each is a batch alone" in display.warnings


def test_a_length_in_examples_is_that_of_the_rows(quickly: Any, plans: list[Any]) -> None:
    run = quickly({"training.tokens_per_batch": 32, "training.duration": "116examples"})
    ((plan, _),) = plans
    assert len(plan.lengths) == 58
    assert run.summary["training"]["epochs"] == 2.0
    assert run.summary["training"]["steps"] == 2 * plan.steps_per_epoch


@pytest.mark.parametrize(
    ("family", "settings", "padded", "widths"),
    [
        ("bert", {}, False, None),
        ("bert", {"engine.unpadded": False}, False, None),
        ("bert", {"tokens.pad_to_multiple_of": 8}, True, {8, 16}),
        ("bert", {"tokens.pad_to_max_length": True, "tokens.max_length": 24}, True, {24}),
        ("mpnet", {"tokens.pad_to_multiple_of": 8}, True, {8, 16}),
    ],
)
def test_padding_counts_where_the_model_needs_it_whatever_the_engine_does(
    quickly: Any,
    plans: list[Any],
    tiny_model_folder: Any,
    family: str,
    settings: dict[str, Any],
    padded: bool,
    widths: set[int] | None,
) -> None:
    quickly({"training.tokens_per_batch": 64, **settings}, model=str(tiny_model_folder(family)))
    ((plan, options),) = plans
    assert options["padded"] is padded
    found = set(plan.lengths.tolist())
    assert found <= widths if widths is not None else len(found) > 2


def test_groups_of_length_give_the_same_weights_however_a_step_is_cut(quickly: Any, tmp_path: Path) -> None:
    found = []
    for size, accumulation in ((16, 1), (4, 4)):
        run = quickly(
            {"training.batching": "length", "model.dropout": 0.0},
            batch_size=size,
            accumulation=accumulation,
            learning_rate=5e-5,
            output=str(tmp_path / str(size)),
        )
        found.append(run.predictions("validation"))
    for name in ("score_negative", "score_positive"):
        np.testing.assert_allclose(found[0].column(name), found[1].column(name), atol=1e-6)
