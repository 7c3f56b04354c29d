"""Walks a folder and finds what videos it holds: files, folders of pictures, and sound files beside them."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from avad_hf.media.folders import PICTURE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".ts")
SOUND_SUFFIXES = (".wav", ".flac")
# Folders that say what kind of file is in them, beside which others lie for the same clips.
VIDEO_FOLDERS = ("video", "videos", "frames")
# A folder that links lead to twice is walked twice, and so on in it: some links more, and it never ends.
MOST_FOLDERS = 1_000_000
MOST_LEVELS = 100
SOUND_FOLDERS = ("audio", "audios", "wav", "wavs", "sound", "sounds")


@dataclass(frozen=True)
class FoundVideo:
    """A video in a folder.

    Args:
        path: The file, or the folder of pictures.
        folders: Names of the folders between the root and it, without those that name a kind of file.
        stem: Its name without ending.
        in_kind_folder: Whether it lies in a folder such as ``video``.
    """

    path: Path
    folders: tuple[str, ...]
    stem: str
    in_kind_folder: bool


@dataclass(frozen=True)
class Tree:
    """What a folder holds.

    Args:
        root: The folder.
        videos: In order of their paths.
        audio: The sound file that belongs to a video, by the video's path.
        orphans: Sound files that belong to no video.
    """

    root: Path
    videos: list[FoundVideo]
    audio: dict[Path, Path]
    orphans: list[Path]


def walk(root: Path) -> Tree:
    """Find videos and the sound that belongs to them, following links.

    A folder of pictures is a video. Sound belongs to a video if it has the same name and lies beside it, or in a
    folder such as ``audio`` beside a folder such as ``video``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a link leads back to a folder that holds it, a name is no UTF-8, or there is no video.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give the folder of the corpus.")
    videos, sounds = [], []
    _visit(root, (), {}, videos, sounds, [])
    if not videos:
        raise ValueError(
            f"{root} holds no video ({', '.join(VIDEO_SUFFIXES)}) and no folder of pictures. Give another folder."
        )
    beside, apart = defaultdict(list), defaultdict(list)
    for path in sounds:
        folders, in_kind_folder = _without_kind(path.parent.relative_to(root).parts)
        beside[folders, path.stem].append(path)
        if in_kind_folder:
            apart[folders, path.stem].append(path)
    audio: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for video in videos:
        # L3: audio folders may leave out the class that video folders have.
        for candidates in (beside[video.folders, video.stem], apart[video.folders[:-1], video.stem]):
            if len(candidates) > 1:
                raise ValueError(f"Which sound belongs to {video.path}, {candidates[0]} or {candidates[1]}? Keep one.")
            if candidates:
                if candidates[0] in owners:
                    raise ValueError(
                        f"{candidates[0]} would belong to two videos, {owners[candidates[0]]} and {video.path}. "
                        "Rename them."
                    )
                audio[video.path] = candidates[0]
                owners[candidates[0]] = video.path
                break
    return Tree(root, videos, audio, [path for path in sounds if path not in owners])


def _without_kind(parts: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    kept = tuple(part for part in parts if part.lower() not in VIDEO_FOLDERS + SOUND_FOLDERS)
    return kept, len(kept) < len(parts)


def _visit(
    folder: Path,
    parts: tuple[str, ...],
    above: dict[tuple[int, int], Path],
    videos: list[FoundVideo],
    sounds: list[Path],
    walked: list[tuple[int, int]],
) -> None:
    stat = folder.stat()
    identity = (stat.st_dev, stat.st_ino)
    walked.append(identity)
    if len(parts) > MOST_LEVELS or len(walked) > MOST_FOLDERS:
        raise ValueError(
            f"{folder} is more than {MOST_LEVELS} folders deep, or the {MOST_FOLDERS + 1}th folder, as links lead "
            "to them. Remove the links, or give a folder without them."
        )
    if identity in above:
        raise ValueError(
            f"{folder} is a link back to {above[identity]}, which holds it. Remove the link, or give a folder "
            "without it."
        )
    pictures, files, folders = False, [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{folder}: the name {os.fsencode(entry.name)!r} is no UTF-8. Rename it.") from None
        try:
            is_folder = entry.is_dir()
        except OSError:
            raise ValueError(f"{entry.path} is a link that leads back to itself. Remove it.") from None
        if is_folder:
            folders.append(entry)
        elif entry.name.lower().endswith(PICTURE_SUFFIXES):
            pictures = True
        else:
            files.append(Path(entry.path))
    kept, in_kind_folder = _without_kind(parts)
    video_files = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    videos += [FoundVideo(path, kept, path.stem, in_kind_folder) for path in video_files]
    sounds += [path for path in files if path.suffix.lower() in SOUND_SUFFIXES]
    if pictures and not video_files and not folders and parts:
        kept, in_kind_folder = _without_kind(parts[:-1])
        videos.append(FoundVideo(folder, kept, folder.name, in_kind_folder))
    for entry in folders:
        _visit(Path(entry.path), (*parts, entry.name), above | {identity: folder}, videos, sounds, walked)


__all__ = ["FoundVideo", "Tree", "walk"]
