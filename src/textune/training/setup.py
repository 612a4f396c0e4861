"""What a training is made of, before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.training.checkpoint import STEP_FOLDERS, CheckpointFolders
from textune.training.parallel import ALONE, Processes
from textune.training.schedule import Schedule
from textune.training.work import Work

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Selection:
    """Which evaluation counts as the best: by which metric, and how much better it must be."""

    metric: str
    higher_is_better: bool
    min_improvement: float
    keep_best: bool


@dataclass(frozen=True)
class Intervals:
    """Steps between two logs, evaluations and checkpoints.

    Attributes:
        checkpoint: None where the clock decides.
        checkpoint_seconds: seconds between two checkpoints; None where steps decide.
    """

    log: int
    evaluation: int
    checkpoint: int | None
    checkpoint_seconds: float | None = None


@dataclass(frozen=True)
class Setup:
    """Everything training needs, made beforehand.

    Attributes:
        schedule: None where a callback sets the optimiser's learning rates after each update.
        intervals: None where callbacks ask for logs, evaluations and checkpoints.
        selection: None where `evaluate` itself notes which evaluation is the best.
        evaluate: None where nothing is evaluated.
        keep_checkpoints: how many of the last checkpoints stay besides the best; None for all.
        folders: how checkpoints are called, and what lies in them besides weights, moments and state.
        background_bytes: checkpoints of so many bytes or more are written by a thread while training goes on, and
            callbacks hear of them when they are committed; None: never.
        processes: those that train together; the main one alone writes.
        scaler: of fp16's losses; None where there is none.
        skip_bad_steps: updates of the whole training that may be left out because they are not finite.
        smaller_passes: whether a step that finds no memory is tried again in smaller passes.
    """

    model: torch.nn.Module
    work: Work
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    learning_rate: float
    max_grad_norm: float
    seed: int
    intervals: Intervals | None
    selection: Selection | None
    evaluate: Callable[[], dict[str, Any]] | None
    checkpoints: Path
    keep_checkpoints: int | None
    folders: CheckpointFolders = STEP_FOLDERS
    background_bytes: int | None = None
    processes: Processes = ALONE
    scaler: torch.amp.GradScaler | None = None
    skip_bad_steps: int = 0
    smaller_passes: bool = True
