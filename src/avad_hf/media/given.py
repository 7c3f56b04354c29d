"""Videos as users of transformers give them: arrays with a frame rate, sound beside them, one or a list."""

import os
from typing import Any

import numpy as np
from PIL import Image

from .errors import MediaError


def as_sources(
    videos: Any, audio: Any = None, fps: float | None = None, sampling_rate: int | None = None
) -> list[Any]:
    """What `open_media` takes, one a video.

    Args:
        videos: One of `avad_hf.media.sources.ACCEPTED_SOURCES`; frames as an array or tensor of 8 bits, of shape
            `(F, H, W, 3)` or `(F, 3, H, W)`, or as a list of pictures (of PIL, or of shape `(H, W, 3)`); or a list of
            such videos, or one array of shape `(B, F, H, W, 3)`.
        audio: Sound beside the videos, one or a list: the path of a file beside the path of a video, a waveform of
            shape `(samples,)` or `(channels, samples)` beside frames; ``None`` for a video without. Beside an array
            of videos also one of shape `(B, samples)` or `(B, channels, samples)`.
        fps: Frames a second of frames in arrays.
        sampling_rate: Samples a second of waveforms, in Hz.

    Raises:
        ValueError: For no video, or another number of sounds than of videos.
        MediaError: For sound that does not go with its video.
    """
    sources = _as_list(videos)
    if not sources:
        raise ValueError("No video was given.")
    sounds = [None] * len(sources) if audio is None else list(audio) if isinstance(audio, (list, tuple)) else None
    if sounds is None:
        is_batch = _rank(videos) == 5 and _rank(audio) in (2, 3)
        sounds = list(audio) if is_batch else [audio]
    if len(sounds) != len(sources):
        raise ValueError(f"audio must have one sound a video: got {len(sounds)} of them for {len(sources)} videos.")
    return [_source(*pair, fps, sampling_rate) for pair in zip(sources, sounds, strict=True)]


def _rank(value: Any) -> int | None:
    """Dimensions of an array or tensor; ``None`` for anything else."""
    return len(value.shape) if hasattr(value, "shape") and hasattr(value, "dtype") else None


def _as_list(videos: Any) -> list[Any]:
    if _rank(videos) == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if videos and all(isinstance(picture, Image.Image) or _rank(picture) == 3 for picture in videos):
        return [list(videos)]  # the pictures of one video
    return list(videos)


def _source(video: Any, sound: Any, fps: float | None, sampling_rate: int | None) -> Any:
    if isinstance(video, (list, tuple)):
        pictures = [one.convert("RGB") if isinstance(one, Image.Image) else one for one in video]
        video = np.stack([np.asarray(picture) for picture in pictures])
    if _rank(video) is not None:
        frames = np.asarray(video)
        if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:  # as torch has them
            frames = frames.transpose(0, 2, 3, 1)
        source = {"frames": frames, "fps": fps}
        return source if sound is None else source | {"waveform": np.asarray(sound), "sampling_rate": sampling_rate}
    if sound is None:
        return video
    if not isinstance(video, (str, os.PathLike)) or not isinstance(sound, (str, os.PathLike)):
        raise MediaError(
            f"Sound beside a video must be the path of a file beside a path, or a waveform beside frames in an array; "
            f"got a {type(sound).__name__} beside a {type(video).__name__}. A file's own sound is read with it."
        )
    return {"video": video, "audio": sound}


__all__ = ["as_sources"]
