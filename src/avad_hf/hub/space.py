"""A Space that shows a detector: a page on which a video is uploaded and scored."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from huggingface_hub import HfApi

from .cards import card, space_app
from .errors import hub_errors
from .repository import open_repository

GIVE = (
    "The package index does not have it: give git+https://..., the https:// address of a wheel, or the path of a "
    "wheel (`pip wheel --no-deps .` in a checkout makes one)."
)


def check_requirement(requirement: str | os.PathLike | None, private: bool | None) -> Path | None:
    """See whether the pip of a Space can install this library from there.

    Args:
        requirement: As of `push_space`.
        private: Whether the Space is private.

    Returns:
        The wheel that is to be put beside the program; ``None`` for an address.

    Raises:
        ValueError: If it cannot, with what to give instead.
    """
    if requirement is None:
        raise ValueError(f"A Space needs the address of this library, and none is given. {GIVE}")
    text = os.fspath(requirement)
    if text.startswith(("git+https://", "https://")):
        if any(character.isspace() for character in text):
            raise ValueError(f"The address of this library must be in one piece, got {text!r}.")
        parts = urlsplit(text)
        if parts.username or parts.password:
            raise ValueError("The address of this library holds a login, which everybody could read in the Space.")
        return None
    wheel = Path(text)
    if not (wheel.name.startswith("avad_hf-") and wheel.suffix == ".whl" and wheel.is_file()):
        raise ValueError(f"{text!r} is no address of this library, and no wheel of it here. {GIVE}")
    if private:
        raise ValueError(
            "A private Space cannot install a wheel that lies in it: pip has no token there. Give the address of this "
            "library, or make the Space public."
        )
    return wheel


def push_space(
    model_id: str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    notes: Sequence[str] = (),
    requirement: str | os.PathLike | None = None,
) -> str:
    """Make a Space (gradio) that scores uploaded videos with a detector on the Hub, or bring one up to date.

    For a private detector the Space needs a token that may read it, as the secret ``HF_TOKEN`` in its settings.

    Args:
        model_id: ``user/name`` of a detector's checkpoint with its processor.
        repo_id: ``user/name`` of the Space; created if it does not exist.
        private: Create the Space as private.
        token: Token of the account; the saved one by default.
        notes: What its page says of the weights.
        requirement: Where pip gets this library, which the package index does not have: ``git+https://...``, the
            ``https://`` address of a wheel, or a wheel on this computer, which is put beside the program of a public
            Space.

    Returns:
        Address of the Space.

    Raises:
        ValueError: Without a requirement that pip can install there.
        HubError: If the Hub refuses or cannot be reached.
    """
    wheel = check_requirement(requirement, private)
    api = HfApi(token=token)
    with hub_errors(repo_id, "space", "uploaded"), tempfile.TemporaryDirectory() as folder:
        repo = open_repository(api, repo_id, "space", private, space_sdk="gradio")
        address = str(requirement)
        if wheel is not None:
            check_requirement(wheel, api.repo_info(repo, repo_type="space").private)
            shutil.copy(wheel, folder)
            # A Space is built before its files are there: a path would not be found.
            address = f"{api.endpoint}/spaces/{repo}/resolve/main/{quote(wheel.name)}"
        title = repo.split("/")[-1]
        files = {
            "README.md": card(
                "space", {"title": title, "models": [model_id]}, title=title, model=model_id, facts=notes
            ),
            "app.py": space_app(model_id),
            "requirements.txt": f"avad-hf[app] @ {address}\n",
        }
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        api.upload_folder(
            repo_id=repo,
            repo_type="space",
            folder_path=folder,
            commit_message=f"Shows {model_id}",
            delete_patterns="*.whl",  # of former versions
        )
    return f"{api.endpoint}/spaces/{repo}"


__all__ = ["check_requirement", "push_space"]
