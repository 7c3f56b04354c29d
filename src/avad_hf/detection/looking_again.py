"""Single clips of videos whose features are stored: read again for their pictures, and for what is seen and heard."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from avad_hf.media.sources import open_media

# Short side of a picture, in pixels.
PICTURE_SIDE = 180


@dataclass(frozen=True)
class SeenClip:
    """A clip that was read again.

    Args:
        probabilities: What is ``"seen"`` and ``"heard"``, of shape `(classes,)` each, where encoders have classes.
        picture: Its middle frame, of shape `(3, H, W)`, RGB, 8 bits; ``None`` if nobody asked for it.
    """

    probabilities: dict[str, Tensor]
    picture: Tensor | None = None


def look_again(processor: Any, row: Mapping[str, Any], clips: Mapping[int, bool]) -> dict[int, SeenClip]:
    """Read some clips of a video again, as they were read when their features were computed.

    Args:
        processor: What computed the features.
        row: The video, as of a manifest.
        clips: Numbers of the clips in the video, and whether a picture of each is wanted.

    Raises:
        MediaError: If it cannot be read any more.
    """
    probabilities: dict[int, dict[str, Tensor]] = {}
    middles: dict[int, int] = {}
    with open_media(row) as media:
        with closing(processor.clips(media)) as read:
            for number, clip in zip(range(max(clips) + 1), read, strict=False):
                if number in clips:
                    named = processor.encode_and_name([clip])[1] if processor.classes else {}
                    probabilities[number] = {sense: rows[0].double().cpu() for sense, rows in named.items()}
                    middles[number * processor.clip_stride + clip.num_real // 2] = number
        middles = {frame: number for frame, number in middles.items() if clips[number]}
        pictures = {}
        if middles:
            with closing(media.frames(PICTURE_SIDE, picked=middles.__contains__)) as frames:
                for number, frame in zip(range(max(middles) + 1), frames, strict=False):
                    if number in middles:
                        pictures[middles[number]] = frame.pixels
    return {number: SeenClip(named, pictures.get(number)) for number, named in probabilities.items()}


__all__ = ["SeenClip", "look_again"]
