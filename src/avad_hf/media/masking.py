"""A video whose pictures are made unrecognisable in part before anything else sees them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .audio import SoundTrack
from .clips import Frame
from .decode import MediaInfo
from .scaling import asked_size, scaled_pixels
from .sources import Media


class HiddenPicture(Protocol):
    """A picture of which parts are hidden."""

    @property
    def time(self) -> float:
        """When it appears, in seconds."""

    @property
    def picture(self) -> np.ndarray:
        """RGB of shape `(H, W, 3)`, uint8."""


class Masking(Protocol):
    """Hides parts of pictures, such as `avad_hf.anonymise.anonymiser.Anonymiser`."""

    @property
    def recipe(self) -> dict[str, Any]:
        """What is hidden and how, for the recipe of features."""

    def hide(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[HiddenPicture]:
        """Hide parts of pictures, of shape `(H, W, 3)`, uint8 RGB, with their times in seconds, in order."""


class MaskedMedia:
    """A video with hidden parts, with the manner of a [`Media`]. Its sound stays.

    Args:
        media: The video, open.
        masking: What hides parts of its pictures, at their full size.
    """

    def __init__(self, media: Media, masking: Masking):
        self._media, self._masking = media, masking

    @property
    def info(self) -> MediaInfo:
        """What the video says of itself."""
        return self._media.info

    @property
    def problems(self) -> list[str]:
        """What was met while reading."""
        return self._media.problems

    def __getattr__(self, name: str) -> Any:
        """What only some videos have: ``read``, ``is_endless``, ``close``."""
        return getattr(self._media, name)

    def num_frames(self, limit: int | None = None) -> int:
        """About how many frames there are, or the limit."""
        return self._media.num_frames(limit)

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
    ) -> Iterator[Frame]:
        """Decode the frames, hide parts of them, and scale them, as [`MediaFile.frames`] does."""
        reformatter, ends = VideoReformatter(), deque[float]()

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for frame in self._media.frames(None):
                if frame.pixels is not None:  # as of all where none is picked
                    ends.append(frame.end)
                    yield frame.start, np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy())

        for number, hidden in enumerate(self._masking.hide(pictures())):
            pixels = None
            if picked is None or picked(number):
                height, width = hidden.picture.shape[:2]
                frame = av.VideoFrame.from_ndarray(hidden.picture, format="rgb24")
                pixels = scaled_pixels(frame, reformatter, asked_size(width, height, size), resize)
            yield Frame(hidden.time, ends.popleft(), pixels)

    def sound(self, rate: int) -> SoundTrack:
        """The sound of the video."""
        return self._media.sound(rate)


__all__ = ["MaskedMedia", "Masking"]
