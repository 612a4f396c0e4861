"""Data sets of the Hugging Face hub, through `datasets`, with every way it can fail said in one sentence and soon."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textune.errors import ConfigError, DataError, TextuneError, UnavailableError, did_you_mean
from textune.hub import HubWords, causes_of, download_error, find_repository, hub_is_off

if TYPE_CHECKING:
    from datasets import DatasetDict

_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[^@:]+))?(?:@(?P<revision>[^@:\s]+))?")
_COMMIT = re.compile("[0-9a-f]{40}")
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
    """Opens what an earlier download left below HF_HOME: a commit that is named, else the latest one.

    Raises:
        UnavailableError: `reason`, since it is not there, or only the hub knows which commit a branch or tag is.
    """
    import datasets

    way_out = reason.hint or _WORDS.way_out
    try:
        builder = _cached(name.repository, name.config)
        if name.revision is not None and _COMMIT.fullmatch(name.revision):
            version = str(builder.config.version)
            builder = _cached(name.repository, builder.config.name, version=version, commit=name.revision)
        splits = builder.as_dataset()
    except Exception as error:
        raise UnavailableError(
            f"{reason.message} The cache at {datasets.config.HF_DATASETS_CACHE} does not hold {str(name)!r} either.",
            hint=way_out,
        ) from error
    commit = str(builder.hash)
    if name.revision not in (None, commit):
        raise UnavailableError(
            f"{reason.message} The cache holds {name.repository!r} at commit {commit}; only the hub knows whether that "
            f"is {name.revision!r}.",
            hint=f"To use it, name the commit: --data {replace(name, revision=commit)}. {way_out}",
        )
    note = f"{reason.message} The copy in the cache is used: {name.repository} at commit {commit}."
    return HubData(splits, commit, (note,))


def _cached(repository: str, config: str | None, *, version: str = "auto", commit: str = "auto") -> Any:
    """What `datasets` calls the builder of an earlier download."""
    from datasets.packaged_modules.cache.cache import Cache

    return Cache(
        dataset_name=repository.split("/")[1], repo_id=repository, config_name=config, version=version, hash=commit
    )
