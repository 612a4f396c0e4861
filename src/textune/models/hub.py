"""Checkpoints of the Hugging Face hub: only the files that textune reads."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from textune.errors import UnavailableError
from textune.hub import HubWords, Repository, download_error, find_repository, hub_is_off
from textune.models.weights import require_safetensors

_WORDS = HubWords(
    kind="model",
    flag="--model",
    way_out="Or name a checkpoint's folder on this machine, or `starter`, which needs no network.",
)


def download(name: str, *, revision: str | None, patterns: Sequence[str]) -> Path:
    """Returns the folder of a hub model below HF_HOME, after downloading the files that are not there yet.

    Args:
        name: `owner/name`, or a name without owner such as bert-base-uncased.
        patterns: file names to fetch, as shell patterns; files in subfolders (other formats) are left out.

    Raises:
        InputNotFoundError, ConfigError: there is no such model or revision.
        CheckpointError: it has no safetensors.
        UnavailableError: the hub is off or away and the cache does not hold the model.
        StorageError: the disk is full.
    """
    if hub_is_off():
        return _from_cache(name, revision=revision, reason=UnavailableError("The hub is off (HF_HUB_OFFLINE)."))
    try:
        repository = find_repository(name, revision=revision, words=_WORDS)
    except UnavailableError as error:
        return _from_cache(name, revision=revision, reason=error)
    return _fetch(repository, patterns)


def _fetch(repository: Repository, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    files = [file for file in repository.files if "/" not in file]
    require_safetensors(files, name=repository.name)  # before anything is downloaded
    wanted = [file for file in files if any(fnmatch(file, pattern) for pattern in patterns)]
    try:
        # Exact names instead of patterns: in the hub's patterns "*" also crosses folders.
        return Path(snapshot_download(repository.name, revision=repository.commit, allow_patterns=wanted))
    except Exception as error:
        raise download_error(error, repository.name, words=_WORDS) from error


def _from_cache(name: str, *, revision: str | None, reason: UnavailableError) -> Path:
    """Finds what an earlier download left; without it `reason` is raised."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        raise UnavailableError(
            f"{reason.message} The cache at {HF_HUB_CACHE} does not hold the model {name!r} either.",
            hint=reason.hint or _WORDS.way_out,
        ) from error
