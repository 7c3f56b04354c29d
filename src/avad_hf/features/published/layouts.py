"""Where published features lie, one function a layout: each finds a corpus's videos, their labels and files.

A video is a dict: ``id``, ``label``, ``anomaly`` (1, 0 or ``None``), ``scene``, ``split``, ``fps``, ``clip_length`` in
frames, ``visual_files`` (one, or one a crop), ``audio_file`` or ``None``, ``crop_axis`` of an array of several crops
where the layout fixes it, ``anomalous_frames`` (a list of [start, end), ``None`` where unknown), and more by corpus.
"""

import csv
import io
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.corpora.classes import is_normal, refuse_doubtful
from avad_hf.corpora.splits import SPLIT_ALIASES

from .names import surveillance_label, xd_violence_classes
from .unpickling import read_plain_pickle

logger = logging.getLogger(__name__)

# Frames of a snippet that I3D makes one feature of, in all three published corpora.
I3D_CLIP_LENGTH = 16
UCF_CRIME_FPS = 30.0
XD_VIOLENCE_FPS = 24.0
# Neither its authors nor its features say; another value moves the clips' seconds and no frame number.
SHANGHAITECH_FPS = 24.0
LABEL_COLUMNS = ("id", "label", "anomaly", "split", "scene")

Video = dict[str, Any]


def refuse(problems: list[str], num_videos: int, shown: int = 5) -> None:
    """Raise one ``ValueError`` that counts all problems of a corpus and shows the first."""
    if problems:
        more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
        listed = "\n".join(f"- {problem}" for problem in problems[:shown] + more)
        raise ValueError(f"{len(problems)} problems in features of {num_videos} videos:\n{listed}")


def find_xd_violence(root: Path) -> list[Video]:
    """Find XD-Violence's features: I3D of five crops, and VGGish.

    Layout: ``i3d-features/{RGB,RGBTest}/<name>__<k>.npy`` and ``vggish-features/{train,test}/<name>__vggish.npy``,
    with or without the two outer folders; ``annotations.txt`` beside them if wanted. A video without sound file is one
    without sound. ``label`` is the first class in the name, ``classes`` lists all, the most important first.
    """
    videos = []
    for split, visual_name in (("train", "RGB"), ("test", "RGBTest")):
        folders = [root / "i3d-features" / visual_name, root / visual_name]
        if folder := next((folder for folder in folders if folder.is_dir()), None):
            audio_folders = [root / "vggish-features" / split, root / split]
            sounds = _named(next((folder for folder in audio_folders if folder.is_dir()), None), "__vggish.npy")
            videos += [
                _video(name, split, XD_VIOLENCE_FPS, files, audio_file=sounds.get(name))
                for name, files in _visual_files(folder).items()
            ]
    if not videos:
        raise FileNotFoundError(
            f"{root} holds no XD-Violence features. Unpack RGB.zip and RGBTest.zip into {root}/i3d-features and "
            f"vggish-features.zip into {root}/vggish-features."
        )
    problems = []
    for video in videos:
        try:
            video["classes"] = xd_violence_classes(video["id"])
        except ValueError as error:
            problems.append(str(error))
        else:
            _labelled(video, video["classes"][0])
    if (path := root / "annotations.txt").is_file() and any(video["split"] == "test" for video in videos):
        annotations = _read_xd_annotations(path)
        by_id = {video["id"]: video for video in videos}
        for name, intervals in annotations.items():
            if name in by_id:
                by_id[name]["anomalous_frames"] = intervals
            else:
                problems.append(f"{name} is in {path}, but no folder holds its features. Add them or drop its line.")
    refuse(problems, len(videos))
    _log_silent(videos)
    return videos


def _read_xd_annotations(path: Path) -> dict[str, list[list[int]]]:
    """Intervals [start, end) in frames of each video; names may hold spaces, so lines are read from their end."""
    annotations = {}
    for number, line in _lines(path):
        match = re.fullmatch(r"(.*_label_\S+)((?:\s+\d+)+)", line)
        frames = [int(frame) for frame in match[2].split()] if match else []
        intervals = [list(pair) for pair in zip(frames[::2], frames[1::2], strict=False)]
        if not frames or len(frames) % 2 or any(start >= end for start, end in intervals):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not a name and pairs of frames, start before end. Restore the "
                "published line."
            )
        annotations[match[1].removesuffix(".mp4")] = intervals
    return annotations


def find_rtfm(root: Path, fps: float | None = None) -> list[Video]:
    """Find RTFM's I3D features of ShanghaiTech or UCF-Crime, ten crops in each file.

    Layout: ``<folder>/<id>_i3d.npy`` of shape ``[T, 10, 2048]``, in folders with Train and Test in their names, or in
    the folder itself. Labels come from the ids, never from places in a list: in ShanghaiTech, four digits after ``_``
    are an anomalous video (``01_0014``), three a normal one; UCF-Crime's ids begin with their class.

    Args:
        root: Folder with the two folders, or one of them.
        fps: Frames a second of the videos; 24 for ShanghaiTech and 30 for UCF-Crime by default.
    """
    by_split = defaultdict(list)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if split := _split_of_folder(folder):
            by_split[split].append(folder)
    if not by_split and _named(root, ".npy"):
        by_split[_split_of_folder(root)] = [root]
    if not by_split:
        raise FileNotFoundError(
            f"{root} holds neither .npy files nor folders with Train or Test in their names, like "
            f"SH_Train_ten_crop_i3d, but {_names(root.iterdir())}. Give the folder that the features were unpacked in."
        )
    if several := next((found for found in by_split.values() if len(found) > 1), None):
        raise ValueError(
            f"{root} holds several folders of one split: {_names(several)}. Keep one corpus in a folder, or give one "
            "of them."
        )
    videos, problems = [], []
    for split, (folder,) in by_split.items():
        for stem, files in _visual_files(folder).items():
            name = stem.removesuffix("_i3d")
            try:
                label, scene = surveillance_label(name)
            except ValueError as error:
                problems.append(str(error))
                continue
            default_fps = SHANGHAITECH_FPS if scene else UCF_CRIME_FPS
            video = _video(name, split, default_fps if fps is None else fps, files, crop_axis=1)
            videos.append(_labelled(video, label) | {"scene": scene})
    refuse(problems, len(videos) + len(problems))
    return videos


def _split_of_folder(folder: Path) -> str | None:
    # Whole words, since "latest" holds "test".
    words = re.findall(r"[a-z]+", folder.name.lower())
    splits = {SPLIT_ALIASES[word] for word in words if word in SPLIT_ALIASES}
    return splits.pop() if len(splits) == 1 else None


def find_ar_net(root: Path, stream: str = "combine", fps: float = SHANGHAITECH_FPS) -> list[Video]:
    """Find AR-Net's I3D features of ShanghaiTech.

    Layout: ``train_split.txt``, ``test_split.txt``, ``GT/video_label.pickle``, ``GT/frame_label.pickle`` if wanted,
    and ``features_video/i3d/<stream>/<id>/feature.npy``, in ``<root>/shanghaitech`` or the folder itself.

    Args:
        root: Folder that the features were unpacked in.
        stream: ``"rgb"``, ``"flow"``, or ``"combine"`` for both side by side.
        fps: Frames a second of the videos.
    """
    root = root / "shanghaitech" if (root / "shanghaitech").is_dir() else root
    streams = root / "features_video" / "i3d"
    needed = ["train_split.txt", "test_split.txt", "GT/video_label.pickle", "features_video/i3d"]
    if missing := [name for name in needed if not (root / name).exists()]:
        raise FileNotFoundError(
            f"{root} holds no AR-Net features: {', '.join(missing)} missing. Give the folder that they were unpacked "
            "in."
        )
    if not (streams / stream).is_dir():
        raise ValueError(f"{streams} has no stream {stream!r}, but {_names(streams.iterdir())}. Give one of them.")
    video_labels = _read_labels(root / "GT" / "video_label.pickle")
    frame_file = root / "GT" / "frame_label.pickle"
    frame_labels = _read_labels(frame_file) if frame_file.is_file() else {}
    videos, problems = [], []
    for split in ("train", "test"):
        for _, name in _lines(root / f"{split}_split.txt"):
            labels = video_labels.get(name)
            if labels is None or labels.size != 1 or labels.flat[0] not in (0, 1):
                problems.append(f"{name} is in {split}_split.txt, but has no label 0 or 1 in GT/video_label.pickle.")
                continue
            video = _video(name, split, fps, [os.fspath(streams / stream / name / "feature.npy")])
            videos.append(_labelled(video, "abnormal" if labels.flat[0] else "normal"))
            video["scene"] = name.partition("_")[0]
            if name in frame_labels:
                video["anomalous_frames"] = _intervals(frame_labels[name])
    refuse(problems, len(videos) + len(problems))
    return videos


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    labels = read_plain_pickle(path)
    if not isinstance(labels, dict):
        raise ValueError(
            f"{path} holds a {type(labels).__name__}, needed is a dict of labels by id. Download it again."
        )
    return {name: np.asarray(values) for name, values in labels.items()}


def _intervals(flags: np.ndarray) -> list[list[int]]:
    """Runs [start, end) of ones among 0/1 frame labels."""
    edges = np.diff(np.concatenate([[0], np.ravel(flags) != 0, [0]]).astype(int))
    return np.flatnonzero(edges).reshape(-1, 2).tolist()


def find_npy(
    root: Path, *, fps: float, clip_length: int = I3D_CLIP_LENGTH, crop_axis: int | None = None
) -> list[Video]:
    """Find features of your own.

    Layout: ``visual/<id>.npy`` of shape ``[T, D]``, ``[T, C, D]`` or ``[C, T, D]`` for C crops, 5 or 10, or
    ``visual/<id>__<k>.npy`` of ``[T, D]`` one a crop; ``audio/<id>.npy`` of ``[T, A]``, or none for a video without
    sound; ``labels.csv`` with a header and the columns ``id`` and ``label``, and if wanted ``split``, ``scene`` and
    ``anomaly`` (0 or 1; by default 0 for the label normal and 1 for all others). The list says which videos there
    are; without list all are taken, unlabelled.

    Args:
        root: Folder with the three.
        fps: Frames a second of the videos.
        clip_length: Frames that a row of features stands for.
        crop_axis: Axis of the crops in arrays of three, 0 or 1, where both could be.
    """
    if not (root / "visual").is_dir():
        raise FileNotFoundError(
            f"{root} has no folder 'visual'. Put one <id>.npy a video there, and sound in 'audio'."
        )
    if clip_length < 1 or crop_axis not in (None, 0, 1):
        raise ValueError(
            f"clip_length must be 1 frame or more and crop_axis 0, 1 or None, got {clip_length} and {crop_axis}."
        )
    files = _visual_files(root / "visual")
    sounds = _named(root / "audio" if (root / "audio").is_dir() else None, ".npy")
    listed = root / "labels.csv"
    facts = _read_label_list(listed) if listed.is_file() else {name: {} for name in files}
    videos = []
    for name, columns in facts.items():
        # A listed video without file is refused with all other missing files.
        visual_files = files.get(name, [os.fspath(root / "visual" / f"{name}.npy")])
        video = _video(name, None, fps, visual_files, clip_length, sounds.get(name), crop_axis)
        videos.append(video | columns)
    _log_silent(videos)
    return videos


def _read_label_list(path: Path) -> dict[str, Video]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = reader.fieldnames or []
    if not {"id", "label"} <= set(columns) <= set(LABEL_COLUMNS):
        raise ValueError(
            f"{path} has the columns {', '.join(columns) or 'none'}; needed are id and label, known besides are "
            "anomaly, split and scene. Mend its first line."
        )
    facts = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if None in row or not row["id"] or row["id"] in facts:
            raise ValueError(f"{where}: each line needs an id of its own and no more cells than the first line.")
        label, split = row["label"] or None, (row.get("split") or "").lower()
        anomaly = row.get("anomaly") or ""
        if not anomaly and label is not None:
            refuse_doubtful([label])
            anomaly = "0" if is_normal(label) else "1"
        if anomaly not in ("", "0", "1") or split not in ("", *SPLIT_ALIASES):
            raise ValueError(
                f"{where}: anomaly must be 0, 1 or empty and split train, validation, test or empty, got {anomaly!r} "
                f"and {split!r}."
            )
        facts[row["id"]] = {
            "label": label,
            "anomaly": int(anomaly) if anomaly else None,
            "split": SPLIT_ALIASES.get(split),
            "scene": row.get("scene") or None,
        }
    return facts


def _video(
    name: str,
    split: str | None,
    fps: float,
    visual_files: list[str],
    clip_length: int = I3D_CLIP_LENGTH,
    audio_file: str | None = None,
    crop_axis: int | None = None,
) -> Video:
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be the videos' frames a second, above 0, got {fps}.")
    return {
        "id": name,
        "label": None,
        "anomaly": None,
        "scene": None,
        "split": split,
        "fps": fps,
        "clip_length": clip_length,
        "visual_files": visual_files,
        "audio_file": audio_file,
        "crop_axis": crop_axis,
        "anomalous_frames": None,
    }


def _labelled(video: Video, label: str) -> Video:
    """Fill in what the label of a corpus with one normal class says; a normal video has no anomalous frames."""
    anomaly = int(label != "normal")
    video |= {"label": label, "anomaly": anomaly, "anomalous_frames": None if anomaly else []}
    return video


def _visual_files(folder: Path) -> dict[str, list[str]]:
    """Files of each video in a folder: ``<name>.npy``, or one a crop that any video has, there or not."""
    crops = defaultdict(set)
    for stem in _named(folder, ".npy"):
        match = re.fullmatch(r"(.+)__(\d)", stem)
        crops[match[1] if match else stem].add(int(match[2]) if match else None)
    if not crops:
        raise FileNotFoundError(f"{folder} holds no .npy files. Unpack or copy the features into it.")
    num_crops = 1 + max((crop for found in crops.values() for crop in found - {None}), default=0)
    files = {}
    for name, found in sorted(crops.items()):
        if None in found and len(found) > 1:
            raise ValueError(f"{folder} holds both {name}.npy and crops {name}__<k>.npy. Keep one of the two.")
        stems = [name] if None in found else [f"{name}__{crop}" for crop in range(num_crops)]
        files[name] = [os.path.join(folder, f"{stem}.npy") for stem in stems]
    return files


def _named(folder: Path | None, ending: str) -> dict[str, str]:
    """Files of a folder that end so, by name without the ending; hidden ones are leftovers of archives from macOS."""
    names = os.listdir(folder) if folder else []
    return {
        name.removesuffix(ending): os.path.join(folder, name)
        for name in names
        if name.endswith(ending) and not name.startswith(".")
    }


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines of a text file that hold something."""
    # Not splitlines, which also cuts at rare characters that names can hold.
    return [(number, line.strip()) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no regular file. Put the file itself there.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason}). Save it again as UTF-8.") from error


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(path.name for path in paths)) or "nothing"


def _log_silent(videos: list[Video]) -> None:
    if silent := [video["id"] for video in videos if video["audio_file"] is None]:
        logger.warning(
            "%d of %d videos have no sound file and get zeros, first %s", len(silent), len(videos), silent[0]
        )


LAYOUTS = {"xd_violence": find_xd_violence, "rtfm": find_rtfm, "ar_net": find_ar_net, "npy": find_npy}
