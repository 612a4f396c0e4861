"""Data sets of the Hugging Face hub, through `datasets`, with every way it can fail said in one sentence and soon.

huggingface_hub tries an unreachable hub again for half a minute per file, so one question with a short time limit goes
first: it tells whether the hub, the repository and the revision are there, and which commit is meant.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textune.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    StorageError,
    TextuneError,
    UnavailableError,
    did_you_mean,
)

if TYPE_CHECKING:
    from datasets import DatasetDict

_PROBE_SECONDS = 10.0
_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[^@:]+))?(?:@(?P<revision>[^@:\s]+))?")
_LOCAL_COPY = (
    "Or use a copy on this machine: name its folder with --data (for glue/...: set TEXTUNE_DATA to the folder that "
    "holds it)."
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
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return _from_cache(name, UnavailableError("The hub is switched off (HF_HUB_OFFLINE)."))
    try:
        commit = _find_commit(name)
    except UnavailableError as error:
        return _from_cache(name, error)
    return HubData(_download(name, commit), commit)


def _find_commit(name: HubName) -> str:
    """Asks the hub which commit is meant; the answer also shows whether the repository holds a loading script."""
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub_errors

    api = HfApi()
    try:
        info = api.dataset_info(name.repository, revision=name.revision, timeout=_PROBE_SECONDS)
    except hub_errors.GatedRepoError as error:
        raise _gated(name, api.endpoint) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise InputNotFoundError(
            f"There is no file or folder {str(name)!r}, and no data set {name.repository!r} on {api.endpoint} that can "
            "be read without further rights.",
            hint="Check the spelling; for a private data set log in first: hf auth login",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise InputNotFoundError(
            f"The data set {name.repository!r} has no revision {name.revision!r}.",
            hint="A revision is a branch, a tag or a commit.",
        ) from error
    except hub_errors.HFValidationError as error:
        raise ConfigError(f"--data {name}: not a name the hub can have ({error}).") from error
    except hub_errors.HfHubHTTPError as error:
        raise UnavailableError(
            f"The hub at {api.endpoint} answered {error.response.status_code} for {name.repository!r}.",
            hint=f"Try again later. {_LOCAL_COPY}",
        ) from error
    except Exception as error:  # any other failure of this one request is the network's, of whatever HTTP library
        raise UnavailableError(
            f"Cannot reach the hub at {api.endpoint} for {name.repository!r} ({type(error).__name__}: {error}).",
            hint=f"Check the network, the proxy and HF_ENDPOINT. {_LOCAL_COPY}",
        ) from error
    script = f"{name.repository.split('/')[1]}.py"
    if script in {file.rfilename for file in info.siblings or ()}:
        raise DataError(
            f"The data set {name.repository!r} is loaded by a program of its own ({script}); textune runs no code from "
            "the hub.",
            hint=f"Many have a copy as data files: --data {name.repository}@refs/convert/parquet",
        )
    return str(info.sha)


def _gated(name: HubName, endpoint: str) -> UnavailableError:
    return UnavailableError(
        f"The data set {name.repository!r} is gated: its owners ask for consent before it can be downloaded.",
        hint=f"Accept the terms at {endpoint}/datasets/{name.repository}, then log in: hf auth login",
    )


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
    from huggingface_hub import errors as hub_errors

    causes = list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return StorageError(
            f"No space left while downloading {str(name)!r}.", hint="Free some space, or set HF_HOME to another disk."
        )
    if any(isinstance(cause, hub_errors.GatedRepoError) for cause in causes):
        return _gated(name, "https://huggingface.co")
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
            f"The data set {str(name)!r} cannot be read: {causes[-1]}.",
            hint="textune reads data sets of Parquet, CSV, JSON or Arrow files.",
        )
    return UnavailableError(
        f"The download of {str(name)!r} failed ({type(error).__name__}: {error}).",
        hint=f"Try again; what is complete is kept. {_LOCAL_COPY}",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


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
            hint=reason.hint or _LOCAL_COPY,
        ) from error
    if name.revision not in (None, builder.hash):
        raise UnavailableError(
            f"{reason.message} The cache holds {name.repository!r} at commit {builder.hash}, not {name.revision!r}.",
            hint=reason.hint or _LOCAL_COPY,
        )
    note = f"{reason.message} The copy in the cache is used: {name.repository} at commit {builder.hash}."
    return HubData(splits, str(builder.hash), (note,))
