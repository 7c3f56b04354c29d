"""A Space that shows a detector: a page on which a video is uploaded and scored."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi

from .cards import card, space_app
from .errors import hub_errors
from .repository import open_repository


def push_space(
    model_id: str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    notes: Sequence[str] = (),
    requirement: str = "avad-hf",
) -> str:
    """Make a Space (gradio) that scores uploaded videos with a detector on the Hub, or bring one up to date.

    For a private detector the Space needs a token that may read it, as the secret ``HF_TOKEN`` in its settings.

    Args:
        model_id: ``user/name`` of a detector's checkpoint with its processor.
        repo_id: ``user/name`` of the Space; created if it does not exist.
        private: Create the Space as private.
        token: Token of the account; the saved one by default.
        notes: What its page says of the weights.
        requirement: What pip installs there: this library by its name in the package index, or an address of it.

    Returns:
        Address of the Space.

    Raises:
        HubError: If the Hub refuses or cannot be reached.
    """
    api = HfApi(token=token)
    with hub_errors(repo_id, "space", "uploaded"), tempfile.TemporaryDirectory() as folder:
        repo = open_repository(api, repo_id, "space", private, space_sdk="gradio")
        title = repo.split("/")[-1]
        files = {
            "README.md": card(
                "space", {"title": title, "models": [model_id]}, title=title, model=model_id, facts=notes
            ),
            "app.py": space_app(model_id),
            "requirements.txt": f"{requirement}\n",
        }
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        api.upload_folder(repo_id=repo, repo_type="space", folder_path=folder, commit_message=f"Shows {model_id}")
    return f"{api.endpoint}/spaces/{repo}"


__all__ = ["push_space"]
