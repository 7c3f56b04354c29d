"""Features that others extracted and published, one video an item, in the manner of the feature store."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avad_hf.features.dataset import FeatureDataset, described, select

from .layouts import LAYOUTS, Video, refuse
from .npy import array_shape, open_array

# What tells the axis of the crops in an array of three.
NUM_CROPS = (5, 10)
# Width of the zeros that stand for sound where no video has any: VGGish's.
DEFAULT_AUDIO_SIZE = 128


class PublishedFeatures(FeatureDataset):
    """Published features of many videos, read from their ``.npy`` files when they are asked for.

    All files' headers are checked at once, so that a bad corpus is refused before training begins, not in the middle.

    Where visual and sound features differ by one row, the longer ones lose their last, as XD-Violence's authors do.

    Args:
        videos: As the functions of `avad_hf.features.published.layouts` find them.
        crop: Which crop of each frame the features are of; 0 is the centre. ``"all"`` makes each crop a row of its
            own, with ``__<crop>`` after its id.

    Attributes:
        rows: As in [`FeatureDataset`], and ``video_id`` and ``crop``, by which scores of crops can be averaged;
            ``clip_length`` in frames; ``anomalous_frames``, a list of [start, end), or ``None`` where unknown.
        audio_size: Width of the sound features.

    Raises:
        ValueError: If files are missing, damaged, or do not fit each other, with the first few and their number.
    """

    def __init__(self, videos: list[Video], crop: int | Literal["all"] = 0):
        if crop != "all" and (isinstance(crop, bool) or not isinstance(crop, int) or crop < 0):
            raise ValueError(f"crop must be a number from 0 (the centre) or 'all', got {crop!r}.")
        self.rows = []
        problems = [
            f"{name} is there {count} times. Leave it in one place, and in one split."
            for name, count in Counter(video["id"] for video in videos).items()
            if count > 1
        ]
        sizes: dict[str, tuple[int, str]] = {}
        for video in videos:
            try:
                self.rows += _rows(video, crop, sizes)
            except ValueError as error:
                problems.append(str(error))
        refuse(problems, len(videos))
        self.audio_size = sizes["audio"][0] if "audio" in sizes else DEFAULT_AUDIO_SIZE

    def _load(self, row: dict[str, Any]) -> dict[str, Tensor]:
        num_clips = row["num_clips"]
        visual = _read(row["visual_file"], num_clips, row["crop_axis"], row["crop"])
        audio = _read(row["audio_file"], num_clips) if row["has_audio"] else torch.zeros(num_clips, self.audio_size)
        edges = torch.arange(num_clips + 1, dtype=torch.float64) * row["clip_length"] / row["fps"]
        return {
            "visual_features": visual[:, :, None, None],
            "audio_features": audio[:, None],
            "clip_times": torch.stack([edges[:-1], edges[1:]], dim=1),
            "has_audio": torch.tensor([row["has_audio"]]),
        }

    def frame_labels(self, row: dict[str, Any]) -> np.ndarray | None:
        """Which frames are anomalous, as far as there are features; ``None`` where nobody knows."""
        labels = np.zeros(row["num_clips"] * row["clip_length"], np.uint8)
        for start, end in row.get("anomalous_frames") or ():
            labels[start:end] = 1
        return labels if row.get("anomalous_frames") is not None or row["anomaly"] == 0 else None

    def clip_frames(self, row: dict[str, Any]) -> tuple[int, int]:
        """Frames that a row of features stands for, twice: they do not overlap."""
        return row["clip_length"], row["clip_length"]

    def push_to_hub(self, *args, **kwargs) -> str:
        """Refused: these files are their authors' to publish."""
        raise TypeError(
            "Published features are not uploaded again: they are their authors' files. Name their source instead, or "
            "upload the trained model."
        )


def read_published(
    kind: str,
    root: str | os.PathLike,
    split: str | None = None,
    crop: int | Literal["all"] = 0,
    seed: int | None = None,
    scene: str | None = None,
    **options,
) -> PublishedFeatures:
    """Read features that others published, or your own in ``.npy`` files.

    AVACA takes them as maps of one place and clips of one sound step: ``visual_size`` is their width,
    ``num_audio_steps`` 1 and ``audio_path`` ``"plain"``, or ``"zeroed"`` where there is no sound.

    Args:
        kind: ``"xd_violence"``, ``"rtfm"`` (ShanghaiTech, UCF-Crime), ``"ar_net"`` (ShanghaiTech) or ``"npy"``; the
            functions ``find_<kind>`` of `avad_hf.features.published.layouts` show each layout.
        root: Folder that the features were unpacked in.
        split: ``"train"``, ``"validation"`` or ``"test"``; all videos by default.
        crop: As in [`PublishedFeatures`].
        seed: Seed of a validation set, held out of the training set where a corpus fixes training and test alone.
        scene: Only the videos of this scene.
        options: Options of the kind: ``fps`` (rtfm, ar_net, npy), ``stream`` (ar_net), ``clip_length`` and
            ``crop_axis`` (npy).

    Raises:
        FileNotFoundError: If the folder does not hold such features.
        ValueError: For an unknown kind or split, names that tell no label, and files that are missing or damaged.
    """
    if kind not in LAYOUTS:
        raise ValueError(f"kind must be one of {', '.join(LAYOUTS)}, got {kind!r}.")
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give the folder that the features were unpacked in.")
    videos = LAYOUTS[kind](Path(root), **options)
    splits = {video["split"] for video in videos}
    if split == "validation" and seed is None and None not in splits and split not in splits:
        raise ValueError(
            f"{root} fixes {' and '.join(sorted(splits))} alone. Give a seed to hold a quarter of the training set "
            "out for validation."
        )
    # Before crops become rows, so that all crops of a video are in one split.
    features = PublishedFeatures(select(videos, split, seed, scene, os.fspath(root)), crop)
    features.selection = described(root, split, seed, scene)
    return features


def _rows(video: Video, crop: int | str, sizes: dict[str, tuple[int, str]]) -> list[dict[str, Any]]:
    """Rows of one video, after a look at its files' headers; `sizes` keeps the widths, each with the file it is of."""
    files, audio_file = video["visual_files"], video["audio_file"]
    axis = None
    if len(files) == 1:
        shape = array_shape(files[0])
        axis = _crop_axis(shape, video["crop_axis"], files[0])
    num_crops = len(files) if axis is None else shape[axis]
    if crop != "all" and crop >= num_crops:
        raise ValueError(
            f"{files[0]}: crop {crop} is asked for, but there are {num_crops}. Give 0 to {num_crops - 1}."
        )
    num_sounds = None
    if audio_file is not None:
        num_sounds = _checked_table(array_shape(audio_file), "audio", audio_file, sizes)
    rows = []
    for number in range(num_crops) if crop == "all" else [crop]:
        if axis is None:
            file = files[number]
            num_clips = _checked_table(array_shape(file), "visual", file, sizes)
        else:
            file = files[0]
            num_clips = _checked_table(shape[:axis] + shape[axis + 1 :], "visual", file, sizes)
        if num_sounds is not None:
            if abs(num_clips - num_sounds) > 1:
                raise ValueError(
                    f"{file} has {num_clips} rows and {audio_file} has {num_sounds}; they may differ by one. Download "
                    "or extract both again."
                )
            num_clips = min(num_clips, num_sounds)
        if rows and num_clips != rows[0]["num_clips"]:
            raise ValueError(
                f"{file} has {num_clips} rows and {rows[0]['visual_file']}, another crop of that video, has "
                f"{rows[0]['num_clips']}. Download or extract them again."
            )
        rows.append(
            {key: value for key, value in video.items() if key != "visual_files"}
            | {
                "id": f"{video['id']}__{number}" if crop == "all" else video["id"],
                "video_id": video["id"],
                "crop": number,
                "crop_axis": axis,
                "visual_file": file,
                "num_clips": num_clips,
                "has_audio": audio_file is not None,
                "duration": num_clips * video["clip_length"] / video["fps"],
            }
        )
    return rows


def _crop_axis(shape: tuple[int, ...], given: int | None, file: str) -> int | None:
    """Axis of an array's crops: the one of 5 or 10 among the first two, ``None`` in arrays of two."""
    if len(shape) == 2:
        return None
    possible = [axis for axis in (0, 1) if given in (None, axis) and len(shape) == 3 and shape[axis] in NUM_CROPS]
    if not possible:
        what = "[T, C, D] or [C, T, D]" if given is None else ("[C, T, D]", "[T, C, D]")[given]
        raise ValueError(
            f"{file} is of shape {shape}, needed is [T, D], or {what} with C = 5 or 10 crops. Save one such array a "
            "video."
        )
    if len(possible) == 2:
        raise ValueError(
            f"{file} is of shape {shape}, where both of the first two axes could be crops. Give crop_axis, 0 for "
            "[C, T, D] or 1 for [T, C, D]."
        )
    return possible[0]


def _checked_table(shape: tuple[int, ...], kind: str, file: str, sizes: dict[str, tuple[int, str]]) -> int:
    """Number of rows of a table of features, which must be as wide as the others of its kind."""
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{file} is of shape {shape}, needed is [T, D] with one row or more. Extract it again.")
    num_rows, size = shape
    first_size, first_file = sizes.setdefault(kind, (size, file))
    if size != first_size:
        raise ValueError(
            f"{file} is {size} wide and {first_file} is {first_size} wide; {kind} features of a corpus must be of one "
            "width. Keep only those of one extractor."
        )
    return num_rows


def _read(file: str, num_rows: int, crop_axis: int | None = None, crop: int = 0) -> Tensor:
    array = open_array(file)
    if crop_axis is not None:
        array = np.moveaxis(array, crop_axis, 0)[crop]
    values = np.array(array[:num_rows], dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{file} holds NaN or infinite values. Download or extract it again, or take its video off the corpus's "
            "lists."
        )
    return torch.from_numpy(values)


__all__ = ["PublishedFeatures", "read_published"]
