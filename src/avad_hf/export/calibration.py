"""Clips that an int8 network is calibrated on, and others that it is compared on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from avad_hf.corpora.manifest import read_manifest
from avad_hf.media.sources import open_media
from avad_hf.synthetic.world import render_world

MANIFESTS = (".csv", ".jsonl", ".parquet")
# Videos, and clips of them all, that are calibrated on at most: more change little and take minutes.
MOST_VIDEOS, MOST_CLIPS = 8, 24
# Videos that are compared on at most.
MOST_COMPARED = 6
# Worlds of the synthetic videos that calibrate; the demonstration model's data and tests have others.
WORLD = 7100


@dataclass(frozen=True)
class Calibration:
    """Videos and clips for an export.

    Args:
        calibration: Lists of clips, each of one video.
        comparison: Videos, or rows of a manifest, to compare on: others, unless there is only one.
        videos: Those that the clips are of.
        is_synthetic: Whether they are drawn.
    """

    calibration: Sequence[Sequence[Any]]
    comparison: Sequence[Any]
    videos: Sequence[Any] = field(default=())
    is_synthetic: bool = False

    def describe(self) -> str:
        """What was calibrated on, in words, without names of this machine."""
        count = sum(map(len, self.calibration))
        kind = "synthetic videos" if self.is_synthetic else "videos of the user"
        same = (
            ""
            if not any(video in self.videos for video in self.comparison)
            else "; compared on the same, for want of another"
        )
        return f"{count} clips of {len(self.videos)} {kind}{same}"


def calibration_clips(
    processor: Any, scenes: Sequence[str], given: Sequence[str | os.PathLike], folder: Path, read: bool = True
) -> Calibration:
    """Choose the videos and, if wanted, read the clips.

    Args:
        processor: Cuts videos into clips.
        scenes: Scenes of the synthetic world, where no videos are given.
        given: Files or manifests.
        folder: Where synthetic videos are rendered.
        read: Whether to read the clips.

    Raises:
        ValueError: If none of the given videos may be used or can be read.
    """
    videos = _videos(given) if given else _drawn(scenes, folder)
    # In turn, so that both halves have whatever kinds the list is sorted by.
    chosen = videos[::2][:MOST_VIDEOS]
    compared = videos[1::2][:MOST_COMPARED] or chosen
    count = MOST_CLIPS // len(chosen)
    batches = []
    for number, video in enumerate(chosen if read else ()):
        with open_media(video) as media:
            clips = list(islice(processor.clips(media), 2 * count))
        # How a video begins is not all that there is in it: where it has more, every second one.
        batches.append(clips if len(clips) <= count else clips[number % 2 :: 2])
    return Calibration(batches, compared, chosen, is_synthetic=not given)


def _videos(given: Sequence[str | os.PathLike]) -> list[Any]:
    videos: list[Any] = []
    for item in map(os.fspath, given):
        if not item.lower().endswith(MANIFESTS):
            videos.append(item)
            continue
        rows = read_manifest(item)
        # Stretches of a recording of which others are tested may be used, but not the whole of it.
        tested = {row["video"] for row in rows if row.get("split") == "test"}
        used = [
            row
            for row in rows
            if row.get("split") != "test"
            and (row["video"] not in tested or row.get("start") is not None or row.get("end") is not None)
        ]
        if not used:
            raise ValueError(
                f"{item} lists videos of the test split alone. Figures of the test split must not depend on what is "
                "chosen by it: give videos of the training or validation split."
            )
        videos += used
    return [video for number, video in enumerate(videos) if video not in videos[:number]]


def _drawn(scenes: Sequence[str], folder: Path) -> list[str]:
    videos = []
    count = 2 * MOST_VIDEOS // len(scenes)
    for scene in scenes:
        plans = render_world(folder / scene, scene, count, WORLD, progress=False)
        videos.append([str(folder / scene / f"{plan.stem}.mp4") for plan in plans])
    return [video for group in zip(*videos, strict=True) for video in group]


__all__ = ["Calibration", "calibration_clips"]
