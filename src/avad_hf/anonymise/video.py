"""A video file through everything: its pictures are written anew, its sound is copied or its speech hidden."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from avad_hf.media.decode import MediaFile
from avad_hf.media.encode import PICTURE_CODECS, write_video
from avad_hf.media.errors import MediaError
from avad_hf.media.sources import open_media

from .anonymiser import Anonymiser, Hidden
from .sheets import Sample, even
from .sound import hide_sound
from .speech import SpeechFinder

Speech = Literal["keep", "mute", "blur"]
# Pictures of a contact sheet.
NUM_SAMPLES = 12


@dataclass
class Anonymised:
    """What was found in a video, and pictures to look at.

    Args:
        report: Ready for JSON: ``seconds`` and ``pictures``; ``found``, by kind: ``pictures_with`` (share), ``area``
            (mean share of the picture) and ``a_minute``, the mean number in a picture of each minute; ``speech``:
            ``method``, ``spans`` in seconds and ``seconds``; ``sound``, ``copied``, ``encoded anew`` or ``none``;
            ``codec``; ``problems`` of the file.
        samples: Pictures as written, for a contact sheet.
        checks: Others, of random times, for a person to confirm.
    """

    report: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    checks: list[Sample] = field(default_factory=list)


def anonymise_video(
    source: str | os.PathLike | MediaFile,
    path: str | os.PathLike,
    anonymiser: Anonymiser,
    *,
    speech: Speech = "keep",
    finder: SpeechFinder | None = None,
    num_checks: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Anonymised:
    """Write a video again without what tells who is in it.

    The picture is encoded anew in its own family of codecs, where that is H.264, H.265, VP9 or AV1, else as H.264;
    8 bits a channel, 4:2:0, upright. Pictures keep their times, to a hundredth of a millisecond. Sound is copied bit
    for bit where none of its speech is hidden and an MP4 takes it; PCM becomes FLAC, with the same samples. Nothing
    else goes over: no metadata, no subtitles, no track of places.

    Args:
        source: The video; it is never changed.
        path: Name of the MP4 that is written.
        anonymiser: Hides parts of the pictures.
        speech: ``"keep"``; ``"mute"``: silence in its place; ``"blur"``: noise as loud, in which no word is left.
        finder: Finds speech; a new one by default.
        num_checks: Pictures of random times to give back beside the contact sheet's.
        on_progress: Called after each picture with its time in seconds.

    Raises:
        ValueError: If the file would be written over itself, or for another word for speech.
        MediaError: If the video cannot be read.
        TypeError: For arrays, folders of pictures and stretches of a video.
    """
    if speech not in ("keep", "mute", "blur"):
        raise ValueError(f"speech must be keep, mute or blur, got {speech!r}.")
    with open_media(source) as media:
        if not isinstance(media, MediaFile):
            raise TypeError(f"Anonymised are whole video files, and no {type(media).__name__}.")
        if os.path.exists(path) and os.path.samefile(media.path, path):
            raise ValueError(f"{path} is the video itself, which is never written over. Give another name.")
        if min(media.info.width, media.info.height) < 16:
            raise MediaError(f"{media.name}: {media.info.width} x {media.info.height} pixels are too few.")
        spans: list[tuple[float, float]] = []
        if speech != "keep" and media.info.has_audio:
            spans = [tuple(span) for span in (finder or SpeechFinder()).find(media.sound_file)]
        codec = _codec(media)
        seen = _Seen(media.info.duration or 60.0, num_checks)
        frames = ((one.start, _array(one)) for one in media.frames(None))

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for hidden in anonymiser.hide(frames):
                seen.add(hidden)
                if on_progress is not None:
                    on_progress(hidden.time)
                yield hidden.time, _even_sided(hidden.picture)

        size = (media.info.width + media.info.width % 2, media.info.height + media.info.height % 2)
        # An MP4 takes no PCM: it becomes FLAC, with the same samples. Of damaged sound only what was searched for
        # speech goes over.
        is_changed = spans or _is_pcm(media) or (speech != "keep" and media.sound_file.problems)
        change = (
            partial(hide_sound, spans=spans, method="blur" if speech == "blur" else "mute") if is_changed else None
        )
        write_video(
            path,
            pictures(),
            size,
            media.info.fps,
            media,
            change_sound=change,
            codec=codec,
            is_synthetic=media.info.is_synthetic,
        )
        report = seen.report() | {"codec": codec, "problems": media.problems}
        report["speech"] = {
            "method": speech,
            "spans": [[round(begin, 3), round(end, 3)] for begin, end in spans],
            "seconds": round(sum(end - begin for begin, end in spans), 3),
        }
    return Anonymised(report, seen.samples, seen.checks)


def _is_pcm(media: MediaFile) -> bool:
    if not media.info.has_audio:
        return False
    with media.sound_file.open() as container:
        stream = media.sound_file.sound_stream(container)
        return stream is not None and stream.codec_context.name.startswith("pcm_")


def _codec(media: MediaFile) -> str:
    with media.open() as container:
        name = media.video_stream(container).codec_context.name
    return next((codec for codec in PICTURE_CODECS if name.endswith(codec)), "h264")


def _array(frame: Any) -> np.ndarray:
    return np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy())


def _even_sided(picture: np.ndarray) -> np.ndarray:
    """A picture of even sides, as 4:2:0 needs: a last row or column comes twice."""
    height, width = picture.shape[:2]
    return (
        np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else picture
    )


class _Seen:
    """Counts what was hidden, and keeps some pictures.

    Args:
        duration: About how long the video is, in seconds.
        num_checks: Pictures of random times.
    """

    def __init__(self, duration: float, num_checks: int):
        self._times = even(duration, NUM_SAMPLES)
        self._check_times = sorted(random.uniform(0, duration) for _ in range(num_checks))
        self.samples: list[Sample] = []
        self.checks: list[Sample] = []
        self._num_pictures, self._end = 0, 0.0
        self._minutes: dict[str, dict[int, list[int]]] = {}
        self._with: dict[str, int] = {}
        self._area: dict[str, float] = {}

    def add(self, hidden: Hidden) -> None:
        """Count a picture."""
        self._num_pictures += 1
        self._end = hidden.time
        for times, kept in ((self._times, self.samples), (self._check_times, self.checks)):
            if times and hidden.time >= times[0]:
                while times and hidden.time >= times[0]:
                    del times[0]
                kept.append(Sample(hidden.time, hidden.picture, hidden.all_boxes))
        height, width = hidden.picture.shape[:2]
        for kind, boxes in hidden.boxes.items():
            self._minutes.setdefault(kind, {}).setdefault(int(hidden.time // 60), []).append(len(boxes))
            self._with[kind] = self._with.get(kind, 0) + bool(len(boxes))
            covered = np.zeros((-(-height // 4), -(-width // 4)), dtype=bool)  # a quarter of the size says it as well
            for left, top, right, bottom in np.rint(boxes / 4).astype(int).clip(min=0):
                covered[top:bottom, left:right] = True
            self._area[kind] = self._area.get(kind, 0.0) + float(covered.mean())

    def report(self) -> dict[str, Any]:
        """What was found, ready for JSON."""
        return {
            "seconds": round(self._end, 3),
            "pictures": self._num_pictures,
            "found": {
                kind: {
                    "pictures_with": round(self._with[kind] / self._num_pictures, 4),
                    "area": round(self._area[kind] / self._num_pictures, 4),
                    "a_minute": [round(float(np.mean(counts)), 2) for _, counts in sorted(minutes.items())],
                }
                for kind, minutes in self._minutes.items()
            },
        }


__all__ = ["Anonymised", "Speech", "anonymise_video"]
