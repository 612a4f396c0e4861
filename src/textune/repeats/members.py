"""Which runs several seeds or a cross-validation consist of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textune.config import SHORT_NAMES, Config
from textune.errors import ConfigError
from textune.resume import altering_options
from textune.run import ALL_ROWS, Run

_OF_THE_WHOLE = ("run.seeds", "data.folds")


@dataclass(frozen=True)
class Member:
    """One of the runs.

    Attributes:
        name: of its folder in that of the whole.
        title: what is said before it trains.
        config: its own; its output is the folder.
    """

    name: str
    title: str
    config: Config


def has_members(config: Config) -> bool:
    """Whether several runs are asked for."""
    return config.run.seeds is not None or (config.data.folds is not None and config.data.fold is None)


def settled(config: Config, output: Path) -> Config:
    """The configuration of the whole with what is the same for all its runs."""
    seed = config.training.seed if config.data.split_seed is None else config.data.split_seed
    select = config.evaluation.select if config.data.folds is None else "last"
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, split_seed=seed),
        evaluation=dataclasses.replace(config.evaluation, select=select),
        run=dataclasses.replace(config.run, output=str(output)),
    )


def members_of(config: Config) -> list[Member]:
    """The runs in the order in which they are trained.

    Args:
        config: of the whole, settled.
    """
    assert config.run.output is not None, "it is settled"
    output, data, training = Path(config.run.output), config.data, config.training

    def member(name: str, title: str, **sections: Any) -> Member:
        run = dataclasses.replace(config.run, output=str(output / name), overwrite=False, seeds=None)
        return Member(name, title, dataclasses.replace(config, run=run, **sections))

    if config.run.seeds is not None:
        seeds = range(training.seed, training.seed + config.run.seeds)
        return [
            member(
                f"seed-{seed}",
                f"seed {seed} ({number} of {len(seeds)})",
                training=dataclasses.replace(training, seed=seed),
            )
            for number, seed in enumerate(seeds, start=1)
        ]
    assert data.folds is not None, "there are several runs"
    folds = [
        member(f"fold-{fold}", f"fold {fold} of {data.folds}", data=dataclasses.replace(data, fold=fold))
        for fold in range(1, data.folds + 1)
    ]
    all_rows = dataclasses.replace(data, folds=None, validation_fraction=0.0)
    return [*folds, member(ALL_ROWS, "all rows", data=all_rows)]


def without_members(options: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Short options and dotted settings that are for each run, without those that say how many there are."""
    return (
        {name: value for name, value in options.items() if SHORT_NAMES.get(name) not in _OF_THE_WHOLE},
        {name: value for name, value in settings.items() if name not in _OF_THE_WHOLE},
    )


def require_same_members(run: Run, config: Config, *, from_checkpoint: str | None) -> None:
    """Looks whether what goes on is what was begun; more seeds may be added.

    Args:
        run: what was begun: a run, or a folder of several.
        config: the recorded one with what is given now laid over it.
        from_checkpoint: what --from names.

    Raises:
        ConfigError: there would be other folds, fewer seeds, or several runs where there is one.
    """
    recorded = run.config
    if not has_members(recorded):
        if has_members(config):
            raise ConfigError(
                f"{str(run.path)!r} is one run and cannot become several.", hint="Train them anew: leave out --resume."
            )
        return
    if from_checkpoint is not None:
        first = next(iter(run.runs), run).path
        raise ConfigError(
            f"--from: {str(run.path)!r} holds several runs, each with checkpoints of its own.",
            hint=f"Name one of them, as --resume {first}.",
        )
    if (config.run.seeds or 0) < (recorded.run.seeds or 0):
        raise ConfigError(f"--seeds: {str(run.path)!r} has {recorded.run.seeds} already, found {config.run.seeds}.")
    before, now = altering_options(recorded), altering_options(config)
    if changed := [name for name in now if now[name] != before[name]]:
        raise ConfigError(
            [f"{name}: recorded {before[name]!r}, now {now[name]!r}." for name in changed],
            hint=f"All runs in {run.path} are to be of one recipe. Leave these out, or train anew.",
        )
