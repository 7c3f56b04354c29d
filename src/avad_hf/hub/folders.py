"""Checkpoints as folders: written whole or not at all; and what tells weights apart."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import snapshot_download

from avad_hf.files import folder_written_whole

from .contents import CALIBRATED_ON, CONFIGS, ENGINES, LICENSES, PARTS, WEIGHTS, checkpoint_files, inside
from .errors import hub_errors

README = "README.md"


class Saved(Protocol):
    """Whatever is a part of a checkpoint: models, processors, feature extractors."""

    def save_pretrained(self, save_directory: str | os.PathLike) -> object:
        """Write its files into a folder."""


def write_checkpoint(directory: str | os.PathLike, parts: Sequence[Saved], card: str) -> None:
    """Write a whole checkpoint; under another name first, so that a killed run leaves no half one."""
    with folder_written_whole(directory) as folder:
        for part in parts:
            part.save_pretrained(folder)
        (folder / README).write_text(card, encoding="utf-8")


def copy_checkpoint(checkpoint: str | os.PathLike, directory: Path) -> None:
    """Copy a checkpoint, and nothing else of its folder.

    Args:
        checkpoint: Folder, or Hub id.
        directory: Folder that is there.

    Raises:
        ValueError: If a file of it is a link that leads out of it.
        HubError: If the Hub has no such model, or cannot be reached.
    """
    source = Path(checkpoint)
    if not source.is_dir():
        patterns = (*CONFIGS, *WEIGHTS, *ENGINES, *LICENSES, CALIBRATED_ON, README)
        parts = [f"{part}/{pattern}" for part in PARTS for pattern in patterns]
        with hub_errors(str(checkpoint), "model", "downloaded"):
            source = Path(snapshot_download(str(checkpoint), allow_patterns=[*patterns, *parts]))
    for name in [*checkpoint_files(source), *([README] if (source / README).is_file() else [])]:
        inside(source, name, "a file")
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, directory / name)


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights: names, types, shapes and values; of an exported one's files."""
    if (noted := getattr(model, "files_sha256", None)) is not None:
        return noted
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


__all__ = ["README", "copy_checkpoint", "weights_hash", "write_checkpoint"]
