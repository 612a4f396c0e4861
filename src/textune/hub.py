"""The Hugging Face hub: one question with a short time limit, and every way it can fail said in one sentence.

huggingface_hub tries an unreachable hub again for half a minute per file. So this question goes first: it tells whether
the hub, the repository and the revision are there, which commit is meant and which files it has.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textune.errors import ConfigError, InputNotFoundError, StorageError, TextuneError, UnavailableError

QUESTION_SECONDS = 10.0


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit."""

    name: str
    commit: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class HubWords:
    """How messages call what is asked for.

    Attributes:
        kind: which of the hub's two kinds of repository.
        flag: the flag that names it.
        way_out: what to do without the hub.
    """

    kind: Literal["model", "dataset"]
    flag: str
    way_out: str

    @property
    def noun(self) -> str:
        return "data set" if self.kind == "dataset" else "model"


def hub_is_off() -> bool:
    """Whether HF_HUB_OFFLINE forbids all requests."""
    import huggingface_hub

    return huggingface_hub.is_offline_mode()


def find_repository(name: str, *, revision: str | None, words: HubWords) -> Repository:
    """Asks the hub about a repository.

    Raises:
        InputNotFoundError: no such repository or revision, or it is private and there is no token.
        ConfigError: a name that the hub cannot have.
        UnavailableError: the hub cannot be reached or refuses, or the repository is gated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub_errors

    api = HfApi()
    ask = api.dataset_info if words.kind == "dataset" else api.model_info
    try:
        info = ask(name, revision=revision, timeout=QUESTION_SECONDS)
    except hub_errors.GatedRepoError as error:
        raise gated(name, words=words, endpoint=api.endpoint) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise InputNotFoundError(
            f"There is no file or folder {name!r}, and no {words.noun} {name!r} on {api.endpoint} that can be read "
            "without further rights.",
            hint=f"Check the spelling; for a private {words.noun} log in first: hf auth login",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise InputNotFoundError(
            f"The {words.noun} {name!r} has no revision {revision!r}.",
            hint="A revision is a branch, a tag or a commit.",
        ) from error
    except hub_errors.HFValidationError as error:
        raise ConfigError(f"{words.flag} {name}: not a name the hub can have ({error}).") from error
    except hub_errors.HfHubHTTPError as error:
        raise UnavailableError(
            f"The hub at {api.endpoint} answered {error.response.status_code} for {name!r}.",
            hint=f"Try again later. {words.way_out}",
        ) from error
    except Exception as error:  # any other failure of this one request is the network's, of whatever HTTP library
        raise UnavailableError(
            f"Cannot reach the hub at {api.endpoint} for {name!r} ({type(error).__name__}: {error}).",
            hint=f"Check the network, the proxy and HF_ENDPOINT. {words.way_out}",
        ) from error
    return Repository(name, str(info.sha), tuple(file.rfilename for file in info.siblings or ()))


def download_error(error: Exception, name: str, *, words: HubWords) -> TextuneError:
    """What to raise when a download fails after the question was answered."""
    from huggingface_hub import errors as hub_errors

    causes = list(causes_of(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return StorageError(
            f"No space left while downloading {name!r}.", hint="Free some space, or set HF_HOME to another disk."
        )
    if any(isinstance(cause, hub_errors.GatedRepoError) for cause in causes):
        return gated(name, words=words, endpoint="https://huggingface.co")
    return UnavailableError(
        f"The download of {name!r} failed ({type(error).__name__}: {error}).",
        hint=f"Try again; what is complete is kept. {words.way_out}",
    )


def gated(name: str, *, words: HubWords, endpoint: str) -> UnavailableError:
    """The owners of the repository ask for consent first."""
    folder = "datasets/" if words.kind == "dataset" else ""
    return UnavailableError(
        f"The {words.noun} {name!r} is gated: its owners ask for consent before it can be downloaded.",
        hint=f"Accept the terms at {endpoint}/{folder}{name}, then log in: hf auth login",
    )


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, latest first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
