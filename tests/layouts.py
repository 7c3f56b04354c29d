"""Writes small corpora in every layout that people keep them in; the contents are the same in all."""

import json
import shutil
from pathlib import Path

import numpy as np

from .media_files import frame_times, sound, write_media

# Scene, class as a folder names it, its canonical name, number of clips.
MAVAD = [
    ("mgarr", "Normal", "normal", 5),
    ("mgarr", "Pedestrians crossing the road", "pedestrians_crossing", 3),
    ("mgarr", "u-turn", "u_turn", 1),
    ("zejtun_field", "Normal", "normal", 4),
    ("zejtun_field", "heavy weight vehicles", "heavy_goods_vehicle", 2),
]
# Classes of one's own, as they are to be kept; which are normal; number of clips.
OWN = [("ok", 0, 2), ("Night Shift", 0, 1), ("Leak-älter", 1, 2)]
SHADE = [("normal1", "normal1", 3), ("knowkdown", "knockdown", 3), ("Shoot", "shoot", 2)]


class Media:
    """One small video with sound, one without, and a sound file, to be copied as often as needed."""

    def __init__(self, folder: Path):
        times = frame_times(25, 0.4)
        self.video = write_media(folder / "v.mp4", times, sound(0, 0.4, 16000), 16000, audio_codec="aac")
        self.silent = write_media(folder / "s.mp4", times)
        self.sound = write_media(folder / "s.wav", samples=sound(0, 0.4, 16000), rate=16000)
        self.picture = write_media(folder / "p.jpg", times[:1], video_codec="mjpeg")

    def put(self, path: Path, what: str = "video") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(getattr(self, what), path))


def split_of(index: int) -> str:
    return ("train", "test")[index % 2]


def mavad_tree(media: Media, root: Path, layout: str) -> list[tuple]:
    """Write the clips of MAVAD; returns (scene, class, split, name, has side sound) of each."""
    expected, lines = [], []
    for scene, written, label, count in MAVAD:
        for index in range(count):
            name = f"{label}=é #{index}"
            split = None
            if layout == "L1":
                media.put(root / scene / written / f"{name}.mp4")
            elif layout == "L1 wav":
                media.put(root / scene / written / f"{name}.avi.mkv", "silent")
                media.put(root / scene / written / f"{name}.avi.wav", "sound")
                name += ".avi"
            elif layout == "L2":
                media.put(root / written / f"{scene} {name}.mp4")
                name = f"{scene} {name}"
            elif layout == "L3":
                media.put(root / scene / "videos" / written / f"{name}.mp4", "silent")
                media.put(root / scene / "audio" / written / f"{name}.wav", "sound")
            elif layout == "L3 flat":
                media.put(root / scene / "video" / written / f"{name}.mp4", "silent")
                media.put(root / scene / "wav" / f"{name}.wav", "sound")
            elif layout == "L4":
                split = split_of(index)
                media.put(root / scene / split / written / f"{name}.mp4")
            else:
                name = f"{scene} {name}"
                split = split_of(index) if layout == "L5 csv" else None
                media.put(root / f"{name}.mp4")
                lines.append((f"{name}.mp4", written, split))
            scene_known = None if layout in ("L2", "L5 csv", "L5 txt", "L5 json", "L5 list") else scene
            expected.append((scene_known, label, split, name, "wav" in layout or "L3" in layout))
    if layout == "L5 csv":
        rows = ["path,label,split", *(",".join(line) for line in lines)]
        (root / "annotations.csv").write_text("\n".join(rows))
    elif layout == "L5 txt":  # names with spaces, told apart by what files there are
        rows = [
            f"{name[:-4] if i % 2 else name} {label.replace(' ', '_')}" for i, (name, label, _) in enumerate(lines)
        ]
        (root / "annotations.txt").write_text("# path label\n\n" + "\n".join(rows) + "\n")
    elif layout == "L5 json":
        (root / "annotations.json").write_text(json.dumps({name: label for name, label, _ in lines}))
    elif layout == "L5 list":
        content = [{"video": name, "label": label} for name, label, _ in lines]
        (root / "annotations.json").write_text(json.dumps(content))
    return expected


MAVAD_LAYOUTS = ["L1", "L1 wav", "L2", "L3", "L3 flat", "L4", "L5 csv", "L5 txt", "L5 json", "L5 list"]


def shade_tree(media: Media, root: Path, layout: str) -> list[tuple]:
    """Write the clips of SHADE; returns (class, split, name, has side sound) of each."""
    expected, lists = [], {"train": [], "test": []}
    for written, label, count in SHADE:
        for index in range(count):
            name, split = f"{label} {index}", split_of(index)
            if layout == "S1":
                media.put(root / {"train": "Training"}.get(split, split) / written / f"{name}.mp4")
            elif layout.startswith("S2"):
                media.put(root / written / f"{name}.mp4")
                line = f"{written}/{name}{'' if index else '.mp4'}"
                lists[split].append(f"{line} {written}" if layout == "S2 labels" else line)
            else:
                split = None
                for frame in range(12):
                    media.put(root / written / name / f"{frame:06d}.jpg", "picture")
                media.put(root / written / f"{name}.wav", "sound")
            expected.append((label, split, name, layout == "S3"))
    if layout.startswith("S2"):
        for split, lines in lists.items():
            (root / f"{split}.txt").write_text("\n".join(lines))
    return expected


SHADE_LAYOUTS = ["S1", "S2", "S2 labels", "S3"]


def own_tree(media: Media, root: Path, layout: str) -> list[tuple]:
    """Write clips of classes of one's own; returns (scene, class, anomaly, split, name) of each, sorted."""
    expected, lines = [], []
    for label, anomaly, count in OWN:
        for index in range(count):
            name, scene, split = f"{label} {index}", None, None
            if layout == "L1":
                scene = "Hall 1"
                media.put(root / scene / label / f"{name}.mp4")
            elif layout == "L3":
                scene = "hall"
                media.put(root / scene / "video" / label / f"{name}.mp4", "silent")
                media.put(root / scene / "audio" / label / f"{name}.wav", "sound")
            elif layout == "S1":
                split = split_of(index)
                media.put(root / split / label / f"{name}.mp4")
            elif layout == "L5":
                media.put(root / f"{name}.mp4")
                lines.append(f"{name}.mp4,{label}")
            else:
                media.put(root / label / f"{name}.mp4")
            expected.append((scene, label, anomaly, split, name))
    if layout == "L5":
        (root / "annotations.csv").write_text("\n".join(lines))
    return sorted(expected, key=str)


OWN_LAYOUTS = ["L1", "L2", "L3", "L5", "S1"]


def shanghaitech_tree(media: Media, root: Path, train: list[str], test: list[str], lists: str = "plain") -> None:
    """Write ids with three digits as files, those with four as folders of frames with their masks."""
    for name in [*train, *test]:
        if len(name) == 6:
            media.put(root / "training" / "videos" / f"{name}.avi", "silent")
        else:
            for frame in range(5):
                media.put(root / "testing" / "frames" / name / f"{frame:03d}.jpg", "picture")
            masks = root / "testing" / "test_frame_mask"
            masks.mkdir(parents=True, exist_ok=True)
            np.save(masks / f"{name}.npy", np.array([0, 0, 1, 1, 0], dtype=np.uint8))
    for file, names in (("SH_Train.txt", train), ("SH_Test.txt", test)):
        if lists == "plain":  # as published: no newline at the end
            (root / file).write_text("\n".join(names))
        elif lists == "mist":
            lines = [f"{name},{int(len(name) == 7)},-1" for name in names]
            (root / file.replace(".txt", "_new.txt")).write_text("\n".join(lines) + "\n")
