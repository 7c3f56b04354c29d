"""What the Hub's client raises, in words that say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_token, httpx

NAMES = {"model": "model", "dataset": "data set", "space": "Space"}


class HubError(OSError):
    """The Hub refused, or cannot be reached; the text says what to do."""


def explain(error: BaseException, repo_id: str, kind: str = "model") -> str | None:
    """What an error of the Hub's client means for a repository; ``None`` if it is none of its errors."""
    repository = f"the {NAMES[kind]} {repo_id} on {constants.ENDPOINT}"
    login = "log in with `hf auth login`, or set HF_TOKEN" if get_token() is None else "use a token that may do this"
    for cause in _causes(error):
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if isinstance(cause, GatedRepoError):
            return f"Access to {repository} must be asked for: open its page, accept its terms, and {login}."
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"There is no {repository[4:]}, or it is private, and no such folder here. Check the name, or {login}."
            )
        if isinstance(cause, RevisionNotFoundError):
            return f"There is no such branch, tag or commit in {repository}: see its page."
        if isinstance(cause, OfflineModeIsEnabled):
            return (
                f"HF_HUB_OFFLINE is set, and this needs {repository}. Unset it; what was downloaded once is read from "
                "the cache."
            )
        if isinstance(cause, LocalEntryNotFoundError):
            return (
                f"There is no such folder here, no network (or none to {constants.ENDPOINT}), and {repo_id} is not in "
                f"the cache ({constants.HF_HUB_CACHE}). Connect once, or give a folder that is there."
            )
        if isinstance(cause, EntryNotFoundError):
            return f"A file is missing in {repository}: {_said(error)}"
        if status == 401:
            return f"The Hub does not know who asks for {repository}: {login} (its right may have ended)."
        if status == 403:
            return f"This account may not write {repository}, or see it. Give a name of your own, or a token that may."
        if isinstance(cause, HfHubHTTPError):
            return f"The Hub refused {repository}: {_said(error)}"
        if isinstance(cause, (httpx.HTTPError, ConnectionError)):
            return (
                f"The connection to {constants.ENDPOINT} failed ({type(cause).__name__}). Check the network and do "
                "the same again: what was transferred whole is not transferred again."
            )
    return None


@contextmanager
def hub_errors(repo_id: str, kind: str, done: str) -> Iterator[None]:
    """Turn errors of the Hub's client into `HubError`.

    Args:
        repo_id: ``user/name``.
        kind: ``"model"``, ``"dataset"`` or ``"space"``.
        done: What was not done: ``"uploaded"``, ``"downloaded"``, ``"loaded"``.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        if (meaning := explain(error, repo_id, kind)) is None:
            raise
        raise HubError(f"{repo_id} was not {done}. {meaning}") from error


def refuse_unreachable(place: str | os.PathLike, filename: str, **options: Any) -> None:
    """Raise the reason why a file of a repository is not there: transformers goes on without, whatever it is.

    Args:
        place: Folder or Hub id.
        filename: In it.
        options: Keyword arguments of ``from_pretrained``.
    """
    known = ("cache_dir", "force_download", "token", "local_files_only", "revision", "subfolder")
    if not os.path.isdir(place):
        hf_hub_download(
            os.fspath(place), filename, **{name: options[name] for name in known if options.get(name) is not None}
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


__all__ = ["HubError", "explain", "hub_errors", "refuse_unreachable"]
