"""Repositories on the Hub: opened, and changed in one commit."""

import fnmatch
from collections.abc import Iterable, Mapping

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from .errors import NAMES, HubError


def open_repository(
    api: HfApi,
    repo_id: str,
    kind: str = "model",
    private: bool | None = None,
    revision: str | None = None,
    space_sdk: str | None = None,
) -> str:
    """Make a repository, or see that the one that is there is as private as it shall be.

    Args:
        api: Client.
        repo_id: ``user/name``, or ``name`` of one's own.
        kind: ``"model"``, ``"dataset"`` or ``"space"``.
        private: What it must be; ``None`` takes it as it is, and makes a public one.
        revision: Branch; created if it does not exist.
        space_sdk: Kit of a new Space.

    Returns:
        ``user/name``.

    Raises:
        HubError: If it is there and public but must be private, or the other way round.
    """
    repo = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=space_sdk).repo_id
    if private is not None and api.repo_info(repo, repo_type=kind).private != private:
        actual, wanted = ("public", "private") if private else ("private", "public")
        raise HubError(
            f"The {NAMES[kind]} {repo} is there already and is {actual}, not {wanted}; nothing was uploaded. Change "
            "it in its settings on the Hub, or give another name."
        )
    if revision is not None:
        api.create_branch(repo, repo_type=kind, branch=revision, exist_ok=True)
    return repo


def commit_files(
    api: HfApi,
    repo: str,
    files: Mapping[str, str | bytes],
    stale: Iterable[str],
    message: str,
    revision: str | None = None,
    description: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Add files to a model's repository and delete those that they replace, in one commit.

    Args:
        api: Client.
        repo: ``user/name``.
        files: Content (bytes) or path (text) of each, by its name there.
        stale: Patterns of names that belong to what was there before, if they are not among the files.
        message: Title of the commit.
        revision: Branch; the main one by default.
        description: Text of the commit.
        create_pr: Whether to propose it and not to do it.
    """
    present = api.list_repo_files(repo, revision=revision)
    gone = {name for pattern in stale for name in fnmatch.filter(present, pattern)} - files.keys()
    operations = [
        *(CommitOperationAdd(name, content) for name, content in files.items()),
        *(CommitOperationDelete(name) for name in sorted(gone)),
    ]
    return api.create_commit(
        repo,
        operations,
        commit_message=message,
        commit_description=description,
        revision=revision,
        create_pr=create_pr,
    )


__all__ = ["commit_files", "open_repository"]
