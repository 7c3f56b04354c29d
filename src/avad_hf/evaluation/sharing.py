"""Metrics on the Hub: modules of `evaluate`, as folders or Spaces that work where this library is not installed."""

import os
import re
import tempfile
from importlib.resources import files as resources
from pathlib import Path

from huggingface_hub import HfApi

from avad_hf.files import check_new, folder_written_whole
from avad_hf.hub.cards import card, metric_app
from avad_hf.hub.errors import hub_errors
from avad_hf.hub.repository import open_repository

# Files of avad_hf.metrics by metric: the module of `evaluate`, then what it imports. They import nothing else of ours.
METRICS = {
    "anomaly_scores": ("anomaly_scores.py", "ranking.py"),
    "event_classes": ("event_classes.py", "classes.py"),
}
# What the page of the Space needs besides gradio, which every Space of that kit has.
REQUIREMENTS = "evaluate>=0.4.6\nnumpy>=2\n"


def write_metric(metric: str, directory: str | os.PathLike, location: str | None = None) -> None:
    """Write a metric as a folder that ``evaluate.load(directory)`` reads.

    It holds the code of the metric, a card, and the page that a Space shows. `avad_hf` itself is not needed there.

    Args:
        metric: ``"anomaly_scores"`` or ``"event_classes"``.
        directory: New or empty folder. `evaluate` finds the code by the folder's name, so that the name must be made
            of letters, digits and underscores.
        location: What the card calls the metric in ``evaluate.load``; the folder by default.

    Raises:
        ValueError: For an unknown metric, or a name that `evaluate` cannot import.
        FileExistsError: If the folder holds files already.
    """
    name = Path(os.path.abspath(directory)).name
    _check_names(metric, name)
    check_new(directory)
    code, *imported = METRICS[metric]
    sources = resources("avad_hf.metrics")
    texts = {
        "README.md": card(f"metric_{metric}", {"title": name}, title=name, location=location or os.fspath(directory)),
        "app.py": metric_app(name),
        "requirements.txt": REQUIREMENTS,
        f"{name}.py": (sources / code).read_text(encoding="utf-8"),
        **{file: (sources / file).read_text(encoding="utf-8") for file in imported},
    }
    with folder_written_whole(directory) as folder:
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")


def push_metric(metric: str, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a metric as a Space, from which everybody loads it with ``evaluate.load(repo_id)``.

    `evaluate` runs the code of the Space on the machine of whoever loads it.

    Args:
        metric: ``"anomaly_scores"`` or ``"event_classes"``.
        repo_id: ``user/name`` of the Space; created if it does not exist. The name must be made of letters,
            digits and underscores.
        private: Create the Space as private. If it exists, it must already be private.
        token: Token of the account; the saved one by default.

    Returns:
        Address of the Space.

    Raises:
        ValueError: For an unknown metric, or a name that `evaluate` cannot import.
        HubError: If the Hub refuses or cannot be reached.
    """
    name = repo_id.split("/")[-1]
    _check_names(metric, name)
    api = HfApi(token=token)
    with hub_errors(repo_id, "space", "uploaded"), tempfile.TemporaryDirectory() as folder:
        repo = open_repository(api, repo_id, "space", private, space_sdk="gradio")
        write_metric(metric, Path(folder) / name, location=repo)
        api.upload_folder(
            repo_id=repo, repo_type="space", folder_path=Path(folder) / name, commit_message=f"Metric {metric}"
        )
    return f"{api.endpoint}/spaces/{repo}"


def _check_names(metric: str, name: str) -> None:
    """Raise ``ValueError`` for an unknown metric, and for a folder or Space whose name `evaluate` cannot import."""
    if metric not in METRICS:
        raise ValueError(f"Unknown metric: {metric!r}. Known metrics: {', '.join(METRICS)}.")
    taken = {Path(file).stem for file in METRICS[metric][1:]} | {"app"}
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in taken:
        raise ValueError(
            f"evaluate imports a metric by the name of its folder or Space, and cannot import {name!r}. Use letters, "
            f"digits and underscores, with a letter first, and none of the names {', '.join(sorted(taken))}: "
            f"{metric}, for example."
        )


__all__ = ["METRICS", "push_metric", "write_metric"]
