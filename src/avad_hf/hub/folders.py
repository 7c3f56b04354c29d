"""Checkpoints as folders: written whole or not at all; and what tells weights apart."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch


class Saved(Protocol):
    """Whatever is a part of a checkpoint: models, processors, feature extractors."""

    def save_pretrained(self, save_directory: str | os.PathLike) -> object:
        """Write its files into a folder."""


def check_new(directory: str | os.PathLike) -> None:
    """Raise ``FileExistsError`` for anything but a new or empty folder."""
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not an empty directory. Give a new one; nothing was overwritten.")


def write_checkpoint(directory: str | os.PathLike, parts: Sequence[Saved], card: str) -> None:
    """Write a whole checkpoint; under another name first, so that a killed run leaves no half one."""
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory.resolve().parent) as folder:
        for part in parts:
            part.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        directory.mkdir(exist_ok=True)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, directory / path.name)


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights: names, types, shapes and values; of an exported one's files."""
    if (noted := getattr(model, "files_sha256", None)) is not None:
        return noted
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


__all__ = ["check_new", "weights_hash", "write_checkpoint"]
