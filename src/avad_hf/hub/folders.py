"""Checkpoints as folders: written whole or not at all; and what tells weights apart."""

import hashlib
import os
from collections.abc import Sequence
from typing import Protocol

import torch

from avad_hf.files import folder_written_whole


class Saved(Protocol):
    """Whatever is a part of a checkpoint: models, processors, feature extractors."""

    def save_pretrained(self, save_directory: str | os.PathLike) -> object:
        """Write its files into a folder."""


def write_checkpoint(directory: str | os.PathLike, parts: Sequence[Saved], card: str) -> None:
    """Write a whole checkpoint; under another name first, so that a killed run leaves no half one."""
    with folder_written_whole(directory) as folder:
        for part in parts:
            part.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights: names, types, shapes and values; of an exported one's files."""
    if (noted := getattr(model, "files_sha256", None)) is not None:
        return noted
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


__all__ = ["weights_hash", "write_checkpoint"]
