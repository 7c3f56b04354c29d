"""Frames and sound in arrays, with the manner of a video file."""

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .audio import SoundBlock, SoundTrack, to_mono
from .clips import Frame
from .coverage import Coverage
from .decode import MediaError, MediaInfo
from .scaling import asked_size, scaled_pixels


class MediaArrays:
    """Frames and sound that are decoded already, with the manner of a [`MediaFile`].

    Args:
        frames: RGB of shape `(F, H, W, 3)`, uint8.
        fps: Frames a second, where `times` are not given.
        times: When each frame appears, in seconds, of shape `(F,)`, rising.
        waveform: Sound of shape `(samples,)` or `(channels, samples)` that begins at 0 s.
        sampling_rate: Sampling rate of the waveform, in Hz.
    """

    def __init__(
        self, frames: Any, fps: Any = None, times: Any = None, waveform: Any = None, sampling_rate: Any = None
    ) -> None:
        self.problems: list[str] = []
        try:
            frames = np.asarray(frames)
        except ValueError as error:
            raise MediaError(f"frames must be one array, all of one size: {error}.") from error
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise MediaError(
                f"frames must be uint8 RGB of shape (F, H, W, 3), got {frames.dtype} of {frames.shape}. Put channels "
                "last and scale to 0-255."
            )
        if (fps is None) == (times is None):
            raise MediaError("Frames in arrays need either fps (frames a second) or times (seconds, one a frame).")
        if times is None:
            if not isinstance(fps, Real) or not 0 < float(fps) < math.inf:
                raise MediaError(f"fps must be a number above 0, got {fps!r}.")
            times = np.arange(len(frames)) / fps
        times = np.asarray(times, dtype=np.float64)
        if times.shape != (len(frames),) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise MediaError(
                f"times must be one finite number a frame, each above the last: shape ({len(frames)},), got shape "
                f"{times.shape}."
            )
        period = float(np.diff(times).mean()) if len(times) > 1 else 1.0 / (fps or 25)
        self._frames, self._times, self._period = frames, times, period
        self._waveform, self._rate = self._checked_sound(waveform, sampling_rate), sampling_rate
        self.info = MediaInfo(
            name=f"arrays of {len(frames)} frames",
            width=frames.shape[2],
            height=frames.shape[1],
            fps=1.0 / period,
            duration=float(times[-1] + period),
            has_audio=waveform is not None,
        )

    @staticmethod
    def _checked_sound(waveform: Any, sampling_rate: Any) -> np.ndarray | None:
        if waveform is None:
            return None
        if not isinstance(sampling_rate, (int, np.integer)) or sampling_rate <= 0:
            raise MediaError(f"A waveform needs its sampling_rate in Hz, a whole number, got {sampling_rate!r}.")
        waveform = np.asarray(waveform)
        if waveform.ndim not in (1, 2) or (waveform.ndim == 2 and waveform.shape[0] > waveform.shape[1]):
            raise MediaError(
                f"waveform must be of shape (samples,) or (channels, samples), got {waveform.shape}. Transpose it if "
                "channels come last."
            )
        if waveform.dtype not in (np.float16, np.float32, np.float64, np.int16, np.int32, np.uint8):
            raise MediaError(
                f"waveform must be floating point within -1 and 1, or int16, int32 or uint8, got {waveform.dtype}."
            )
        mono = to_mono(waveform)
        if not np.isfinite(mono).all():
            raise MediaError("waveform holds NaN or infinite samples. Repair or silence them first.")
        return mono

    @property
    def read(self) -> dict[str, Any]:
        """What there is of picture and sound, for a result."""
        picture, sound = Coverage("picture"), None
        picture.add(float(self._times[0]), float(self._times[-1] + self._period))
        if self._waveform is not None:
            sound = Coverage("sound")
            sound.add(0.0, len(self._waveform) / self._rate)
        return {"picture": picture.to_dict(), "sound": sound and sound.to_dict(), "remarks": []}

    def num_frames(self, limit: int | None = None) -> int:
        """How many frames there are, or the limit."""
        return len(self._frames) if limit is None else min(limit, len(self._frames))

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
    ) -> Iterator[Frame]:
        """Scale the frames, as [`MediaFile.frames`] does."""
        reformatter = VideoReformatter()
        scaled = asked_size(self.info.width, self.info.height, size)
        for number, (start, image) in enumerate(zip(self._times.tolist(), self._frames, strict=True)):
            pixels = None
            if picked is None or picked(number):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                pixels = scaled_pixels(frame, reformatter, scaled, resize)
            yield Frame(start, start + self._period, pixels)

    def sound(self, rate: int) -> SoundTrack:
        """Resample the sound, as [`MediaFile.sound`] does."""
        blocks = [] if self._waveform is None else [SoundBlock(0.0, self._waveform, int(self._rate))]
        return SoundTrack(blocks, rate)
