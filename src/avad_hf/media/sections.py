"""A stretch of a longer video."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

from .audio import SoundTrack
from .clips import Frame
from .decode import MediaError, MediaFile
from .folders import FrameFolder


class Section:
    """The frames of a video that appear from one second to another, on the clock of the whole.

    Sound from before the first frame is heard with it, as in the whole video.

    Args:
        media: The whole video.
        start: When it begins, in seconds.
        end: When it is over, in seconds; the video's own end by default.

    Raises:
        MediaError: If it is empty.
    """

    def __init__(self, media: MediaFile | FrameFolder, start: float = 0.0, end: float | None = None):
        whole = media.info.duration
        if start < 0 or (end is not None and end <= start) or (whole is not None and start >= whole):
            until = "its end" if end is None else f"{end:g} s"
            length = "unknown length" if whole is None else f"{whole:.2f} s"
            raise MediaError(
                f"{media.info.name}: from {start:g} s to {until} is no stretch of a video of {length}. Correct start "
                "and end (seconds)."
            )
        self._media, self._start, self._end = media, start, float("inf") if end is None else end
        lasts = [time for time in (end, whole) if time is not None]
        self.info = replace(media.info, duration=min(lasts) if lasts else None)

    @property
    def problems(self) -> list[str]:
        """What was met while decoding."""
        return self._media.problems

    @property
    def read(self) -> dict[str, Any]:
        """What was read of the whole video, for a result."""
        return self._media.read

    def close(self) -> None:
        """Close the video."""
        self._media.close()

    def num_frames(self, limit: int | None = None) -> int:
        """About how many frames there are, by the mean rate, or the limit."""
        end = self.info.duration
        count = self._media.num_frames() if end is None else round((end - self._start) * self.info.fps)
        return count if limit is None else min(limit, count)

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
    ) -> Iterator[Frame]:
        """Read the frames that appear within the section; their numbers count from its first one."""
        # Not by seeking, after which files without reliable timestamps do not say where they are.
        before = number = 0

        def is_wanted(index: int) -> bool:
            return picked is None or picked(index - before)

        for frame in self._media.frames(size, resize, is_wanted, self._start):
            if frame.start >= self._end:
                break
            if frame.start >= self._start:
                number += 1
                yield frame
            else:
                before += 1
        if not number:
            raise MediaError(f"{self.info.name}: no frame appears from {self._start:g} to {self._end:g} s.")

    def sound(self, rate: int) -> SoundTrack:
        """The sound of the whole video."""
        return self._media.sound(rate)
