"""ShanghaiTech Campus with the weakly supervised split of Zhong et al. (CVPR 2019): no sound, labels of frames."""

import os
import re
from pathlib import Path
from typing import Any

from avad_hf.media.decode import MediaError, MediaFile
from avad_hf.media.folders import pictures_in

from .classes import NameTable
from .corpus import CorpusBuilder, CorpusConfig
from .manifest import COLUMNS, ManifestError, complete
from .masks import read_frame_mask
from .splits import check_groups
from .tree import FoundVideo, Tree, walk

CLASSES = NameTable({"normal": "normal", "abnormal": "abnormal"})
# 01_0014: scene 01. Four digits stand for the original test set, whose videos are all abnormal; three for the original
# training set, whose videos are all normal.
ID = re.compile(r"([0-9]{2})_([0-9]{3,4})")
MASKS = ("testing/test_frame_mask", "test_frame_mask")
# The lists of the weakly supervised split, and MIST's versions of them (SH_Train_new.txt), which add label and length.
LISTS = {"train": "SH_Train*.txt", "test": "SH_Test*.txt"}
ORIGINAL_SPLIT = "split_original"
WEAK, ORIGINAL = "weakly_supervised", "original"


def label_of(video_id: str) -> str:
    """Class of a video, by the number of digits in its id; positions in lists say nothing."""
    return "abnormal" if len(ID.fullmatch(video_id)[2]) == 4 else "normal"


def recognise(tree: Tree) -> bool:
    """Whether a folder holds ShanghaiTech's videos, by their names and its own folders or lists."""
    set_folders = {folder for video in tree.videos for folder in video.folders} & {"training", "testing"}
    return all(ID.fullmatch(video.stem) for video in tree.videos) and (
        bool(set_folders) or any(_lists(tree.root, pattern) for pattern in LISTS.values())
    )


def rows_of(tree: Tree, fps: float | None = None) -> list[dict[str, Any]]:
    """Manifest rows of ShanghaiTech as it is released: ``.avi`` files, folders of frames, frame masks.

    ``split`` is that of the lists ``SH_Train.txt`` and ``SH_Test.txt``, if they lie in the folder or one below;
    ``split_original`` is that of the ids.

    Args:
        tree: What the folder holds.
        fps: Frames a second of folders of frames; by default that of the first video file.

    Raises:
        ManifestError: For other names, a list that contradicts the ids or names what is not there, and masks that do
            not fit.
    """
    videos: dict[str, FoundVideo] = {}
    for video in tree.videos:
        if ID.fullmatch(video.stem) is None:
            raise ManifestError(f"{video.path}: the name is no id of ShanghaiTech, such as 01_001 or 01_0014.")
        other = videos.get(video.stem)
        if other is not None and other.path.is_dir() == video.path.is_dir():
            raise ManifestError(f"{other.path} and {video.path} have the same id. Keep one of them.")
        # A file knows its frame rate; frames that were taken from it do not.
        if other is None or video.path.is_file():
            videos[video.stem] = video
    splits = _listed(tree.root, videos)
    if fps is None and any(video.path.is_dir() for video in videos.values()):
        fps = next((rate for video in videos.values() if (rate := _rate(video.path)) is not None), None)
    masks = next((tree.root / folder for folder in MASKS if (tree.root / folder).is_dir()), None)
    rows = []
    for name, video in sorted(videos.items()):
        label = label_of(name)
        mask = None if masks is None else masks / f"{name}.npy"
        rows.append(
            dict.fromkeys(COLUMNS)
            | {
                "id": name,
                "video": str(video.path),
                "label": label,
                "scene": name[:2],
                "split": splits.get(name),
                "fps": fps if video.path.is_dir() else None,
                "frame_mask": _checked(mask, video) if mask is not None and mask.is_file() else None,
                ORIGINAL_SPLIT: "train" if label == "normal" else "test",
            }
        )
    return rows


def _rate(path: Path) -> float | None:
    try:
        return MediaFile(str(path)).info.fps if path.is_file() else None
    except MediaError:  # one broken file; whoever reads it will say so
        return None


def _checked(mask: Path, video: FoundVideo) -> str:
    if video.path.is_dir():
        num_labels, num_frames = len(read_frame_mask(mask)), len(pictures_in(video.path))
        if num_labels != num_frames:
            raise ManifestError(
                f"{mask} has {num_labels} labels for the {num_frames} frames of {video.path}. Copy both again."
            )
    return os.fspath(mask)


def _lists(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if path.is_file())


def _listed(root: Path, videos: dict[str, FoundVideo]) -> dict[str, str]:
    """Split of each id, or nothing if the lists are not there."""
    splits: dict[str, str] = {}
    for split, pattern in LISTS.items():
        paths = _lists(root, pattern)
        if len(paths) > 1:
            raise ManifestError(f"Which list counts, {' or '.join(map(str, paths))}? Keep one of them.")
        for path in paths:
            for line in path.read_text(encoding="utf-8-sig").split("\n"):
                name, label, *_ = [*re.split(r"[,\s]+", line.strip()), ""]
                if name and splits.setdefault(_known(path, name, label, videos), split) != split:
                    raise ManifestError(f"{path}: {name} is in the list of {splits[name]} too. Keep it in one.")
    if splits and set(splits.values()) != set(LISTS):
        raise ManifestError(f"{root} has one list of {' and '.join(LISTS.values())}, but both are needed.")
    if splits and (left_out := sorted(videos.keys() - splits.keys())):
        raise ManifestError(f"{len(left_out)} videos are in neither list, first {left_out[0]}. Complete the lists.")
    return splits


def _known(path: Path, name: str, label: str, videos: dict[str, FoundVideo]) -> str:
    if name not in videos:
        raise ManifestError(f"{path} lists {name}, and there is no such video. Copy it, or correct the list.")
    if label in ("0", "1") and label != str(int(label_of(name) == "abnormal")):
        raise ManifestError(
            f"{path} says {label} of {name}, but an id of {len(ID.fullmatch(name)[2])} digits is "
            f"{label_of(name)}. Correct the list."
        )
    return name


class ShanghaiTechConfig(CorpusConfig):
    """A split of ShanghaiTech: by the lists of Zhong et al., or the original one by ids."""

    classes = CLASSES
    splits_at_random = False  # a split of its own would be taken for the published one

    def read_folder(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of the released folders."""
        tree = walk(folder.absolute())
        return complete(rows_of(tree, self.fps), tree.root, str(folder))


class ShanghaiTech(CorpusBuilder):
    """ShanghaiTech with its frame masks, in the weakly supervised split (238 and 199 videos) or the original one."""

    BUILDER_CONFIG_CLASS = ShanghaiTechConfig
    BUILDER_CONFIGS = [ShanghaiTechConfig(name=name) for name in (WEAK, ORIGINAL)]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = WEAK
    description = "A campus in 13 scenes without sound: normal videos, and abnormal ones with labels of frames."
    homepage = "https://svip-lab.github.io/dataset/campus_dataset.html"
    citation = "Luo et al., ICCV 2017; split by Zhong et al., CVPR 2019."

    def select(self) -> list[dict[str, Any]]:
        """All rows, in the split that the configuration names."""
        if self.config.name == ORIGINAL:
            try:
                check_groups(self.rows, [row[ORIGINAL_SPLIT] for row in self.rows], ORIGINAL_SPLIT)
            except ValueError as error:
                raise ManifestError(f"{self.config.data_dir}: {error}") from None
            # The columns of seeds are of the other split.
            return [
                {name: value for name, value in row.items() if not re.fullmatch("split_[0-9]+", name)}
                | {"split": row[ORIGINAL_SPLIT]}
                for row in self.rows
            ]
        if not any(row["split"] for row in self.rows):
            raise ManifestError(
                f"{self.config.data_dir}: the weakly supervised split needs the lists SH_Train.txt and SH_Test.txt of "
                "GCN-Anomaly-Detection (Zhong et al.) in that folder. name='original' takes the split of the ids, "
                "which has no abnormal video in training."
            )
        return self.rows
