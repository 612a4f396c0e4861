"""Data sets of the Hugging Face hub, through `datasets`, with every way it can fail said in one sentence and soon."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textune.errors import ConfigError, DataError, TextuneError, UnavailableError, did_you_mean
from textune.hub import HubWords, causes_of, download_error, find_repository, hub_is_off

if TYPE_CHECKING:
    from datasets import DatasetDict

_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[^@:]+))?(?:@(?P<revision>[^@:\s]+))?")
_WORDS = HubWords(
    kind="dataset",
    flag="--data",
    way_out="Or use a copy on this machine: name its folder with --data (for glue/...: set TEXTUNE_DATA to the folder "
    "that holds it).",
)


@dataclass(frozen=True)
class HubName:
    """A data set on the hub, written `owner/name[:config][@revision]`."""

    repository: str
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        return f"{self.repository}{config}{f'@{self.revision}' if self.revision else ''}"


@dataclass(frozen=True)
class HubData:
    """What the hub, or its cache on this machine, gave."""

    splits: DatasetDict
    commit: str
    notes: tuple[str, ...] = ()


def parse_hub_name(text: str) -> HubName | None:
    """Returns the parts of `owner/name[:config][@revision]`, or None where the text is not of that form."""
    match = _NAME.fullmatch(text)
    return HubName(match["repository"], match["config"], match["revision"]) if match else None


def load_from_hub(name: HubName) -> HubData:
    """Downloads a data set into the cache below HF_HOME; where the hub is off or away, opens what the cache holds.

    Raises:
        InputNotFoundError: no such repository or revision (or it is private and there is no token).
        ConfigError: no such configuration, or several to choose from.
        UnavailableError: the hub cannot be reached, refuses, is off (HF_HUB_OFFLINE), or the data set is gated.
        DataError: the repository holds a program instead of data files, or files that cannot be read.
        StorageError: the disk is full.
    """
    if hub_is_off():
        return _from_cache(name, UnavailableError("The hub is switched off (HF_HUB_OFFLINE)."))
    try:
        commit = _find_commit(name)
    except UnavailableError as error:
        return _from_cache(name, error)
    return HubData(_download(name, commit), commit)


def _find_commit(name: HubName) -> str:
    """Asks the hub which commit is meant; the answer also shows whether the repository holds a loading script."""
    repository = find_repository(name.repository, revision=name.revision, words=_WORDS)
    script = f"{name.repository.split('/')[1]}.py"
    if script in repository.files:
        raise DataError(
            f"The data set {name.repository!r} is loaded by a program of its own ({script}); textune runs no code from "
            "the hub.",
            hint=f"Many have a copy as data files: --data {name.repository}@refs/convert/parquet",
        )
    return repository.commit


def _download(name: HubName, commit: str) -> DatasetDict:
    import datasets

    try:
        # The commit also keeps `datasets` from asking a further service, with its time limit of 100 s, about the data.
        loaded = datasets.load_dataset(name.repository, name.config, revision=commit)
    except Exception as error:
        raise _load_error(name, commit, error) from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict({"train": loaded})


def _load_error(name: HubName, commit: str, error: Exception) -> TextuneError:
    from datasets import exceptions

    if isinstance(error, ValueError) and (configs := _config_names(name, commit)):
        listed = ", ".join(configs)
        if name.config is None and len(configs) > 1:
            return ConfigError(
                f"The data set {name.repository!r} has several configurations: {listed}.",
                hint=f"Choose one: --data {name.repository}:{configs[0]}",
            )
        if name.config is not None and name.config not in configs:
            near = did_you_mean(name.config, configs)
            return ConfigError(f"{name.repository!r} has no configuration {name.config!r}; it has {listed}.{near}")
    if isinstance(error, (exceptions.DatasetsError, ValueError, RuntimeError, FileNotFoundError)):
        return DataError(
            f"The data set {str(name)!r} cannot be read: {list(causes_of(error))[-1]}.",
            hint="textune reads data sets of Parquet, CSV, JSON or Arrow files.",
        )
    return download_error(error, str(name), words=_WORDS)


def _config_names(name: HubName, commit: str) -> list[str]:
    import datasets

    try:
        return [str(config) for config in datasets.get_dataset_config_names(name.repository, revision=commit)]
    except Exception:  # then the first error is the one to report
        return []


def _from_cache(name: HubName, reason: UnavailableError) -> HubData:
    """Opens what an earlier download left below HF_HOME; without it `reason` is raised."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    try:
        builder: Any = Cache(
            dataset_name=name.repository.split("/")[1],
            repo_id=name.repository,
            config_name=name.config,
            version="auto",
            hash="auto",
        )
        splits = builder.as_dataset()
    except Exception as error:
        raise UnavailableError(
            f"{reason.message} The cache at {datasets.config.HF_DATASETS_CACHE} does not hold {str(name)!r} either.",
            hint=reason.hint or _WORDS.way_out,
        ) from error
    if name.revision not in (None, builder.hash):
        raise UnavailableError(
            f"{reason.message} The cache holds {name.repository!r} at commit {builder.hash}, not {name.revision!r}.",
            hint=reason.hint or _WORDS.way_out,
        )
    note = f"{reason.message} The copy in the cache is used: {name.repository} at commit {builder.hash}."
    return HubData(splits, str(builder.hash), (note,))
