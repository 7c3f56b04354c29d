"""Surveillance Camera Fight Dataset: clips with a fight or without, many with their sound."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .classes import NameTable
from .corpus import CorpusBuilder, CorpusConfig
from .manifest import COLUMNS, ManifestError, complete

# Folder of each class, as published.
FOLDERS = {"fight": "fight", "noFight": "normal"}
# Which recording each clip was cut from: the recording's address, then a line "fi001: 0.13.50 - 0.15.60" a clip.
LIST = "videos.txt"
RECORDING = re.compile(r"https?://\S*[?&]v=([\w-]+)\s*")
CLIP = re.compile(r"(fi|nofi)(\d{3})\s*:.*")
OTHERS = re.compile(r"nofi\d{3} - nofi\d{3} : .*")
# Those are clips of two other data sets, all without a fight: their look alone would tell the class.
FOREIGN = range(62, 92)


def groups_of(path: Path) -> dict[str, str]:
    """The recording of each clip, by the list that is published beside them.

    The list has one clip under two recordings; these count as one.

    Raises:
        ManifestError: If there is no such list, or a line in it is of another form.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path} is missing: it says which recording each clip is from, and clips of one recording must stay "
            "together. Give a checkout of fight-detection-surv-dataset as it is published, or a manifest with the "
            "column group."
        )
    groups: dict[str, str] = {}
    recording = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := RECORDING.fullmatch(line):
            recording = match[1]
        elif (match := CLIP.fullmatch(line)) and recording is not None:
            name = match[1] + match[2]
            other = groups.setdefault(name, recording)
            if other != recording:
                groups = {clip: other if group == recording else group for clip, group in groups.items()}
                recording = other
        elif line.strip() and OTHERS.fullmatch(line) is None:
            raise ManifestError(f"{path}, line {number}: {line[:60]!r} is neither a recording nor a clip.")
    return groups


def _clips(folder: Path) -> Iterator[tuple[Path, str]]:
    """The clips that count, and their classes."""
    for name, label in FOLDERS.items():
        paths = sorted((folder / name).glob("*.mp4"))
        if not paths:
            raise ManifestError(
                f"{folder} has no clips in {name}/. Give a checkout of fight-detection-surv-dataset: fight/, noFight/ "
                f"and {LIST}."
            )
        for path in paths:
            if CLIP.fullmatch(f"{path.stem}:") is None:
                raise ManifestError(f"{path}: the name is none of this data set, such as fi001.mp4 or nofi001.mp4.")
            if label == "normal" and int(path.stem[-3:]) in FOREIGN:
                continue
            yield path, label


class CctvFightsConfig(CorpusConfig):
    """The clips of surveillance cameras, without those of other data sets."""

    classes = NameTable({"normal": "normal", "fight": "fight"})

    def read_folder(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of a checkout as it is published; ``group`` is the recording."""
        groups, rows = groups_of(folder / LIST), []
        for path, label in _clips(folder.absolute()):
            if path.stem not in groups:
                raise ManifestError(f"{folder / LIST} does not say which recording {path.name} is from.")
            known_columns = {"video": os.fspath(path), "label": label, "group": groups[path.stem]}
            rows.append(dict.fromkeys(COLUMNS) | known_columns)
        return complete(rows, folder.absolute(), str(folder))


class CctvFights(CorpusBuilder):
    """Clips of about two seconds from surveillance cameras: fights, and none."""

    BUILDER_CONFIG_CLASS = CctvFightsConfig
    BUILDER_CONFIGS = [CctvFightsConfig(name="all")]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = "all"
    description = "Clips of two seconds from surveillance recordings, many with sound: fights, and none."
    homepage = "https://github.com/seymanurakti/fight-detection-surv-dataset"
    citation = "Aktı, Tataroğlu and Ekenel, Vision-based Fight Detection from Surveillance Cameras, IPTA 2019."  # noqa: RUF001
