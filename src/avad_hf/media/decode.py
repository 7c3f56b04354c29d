"""Video files, URLs and arrays as frames and sound on one clock. The only place that decodes."""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlparse

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from torch import Tensor

from .audio import SoundBlock, SoundTrack, to_mono
from .clips import Frame

logger = logging.getLogger(__name__)

ACCEPTED_SOURCES = """\
A video is one of
- a path;
- a URL (http, https, hf or another that fsspec knows);
- a file object opened for reading, or bytes;
- a dict with "path" or "bytes", as rows of `datasets` with Video(decode=False) are;
- a dict of arrays: "frames" of shape (F, H, W, 3), uint8 RGB, and "fps" or "times" of shape (F,) in seconds; with
  sound, also "waveform" of shape (samples,) or (channels, samples) and "sampling_rate" in Hz."""


class MediaError(ValueError):
    """A file, or what was given in its place, cannot be read as video. The message names it and says what to do."""


@dataclass(frozen=True)
class MediaInfo:
    """What a video says of itself before it is decoded.

    Args:
        name: Path, URL or description, for messages.
        width: Of the picture as shown, in pixels.
        height: Of the picture as shown, in pixels.
        fps: Frames a second, on average.
        duration: Of the picture, in seconds; ``None`` if the container does not say.
        has_audio: Whether there is a sound stream. Whether it can be decoded shows in `Media.sound`.
    """

    name: str
    width: int
    height: int
    fps: float
    duration: float | None
    has_audio: bool


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the given short side; the long side is rounded down, as in pytorchvideo."""
    if width <= height:
        return short_side, math.floor(height / width * short_side)
    return math.floor(width / height * short_side), short_side


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns, counter-clockwise, that the rotation tag asks for."""
    return round(frame.rotation / 90) % 4


def _pixels(frame: av.VideoFrame, reformatter: VideoReformatter, short_side: int, resize: str) -> Tensor:
    """Scale a decoded frame and turn it upright."""
    width, height = scaled_size(frame.width, frame.height, short_side)
    if resize == "area":
        # FFmpeg's AREA only averages; enlarging needs interpolation.
        method = "AREA" if width < frame.width else "BILINEAR"
        scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", interpolation=method)
        pixels = torch.from_numpy(scaled.to_ndarray()).permute(2, 0, 1)
    else:
        full = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float()
        pixels = F.interpolate(full.unsqueeze(0), size=(height, width), mode="bilinear").squeeze(0)
    turns = _turns(frame)
    return torch.rot90(pixels, turns, dims=(1, 2)) if turns else pixels


class MediaFile:
    """A video file.

    Picture and sound are read through two handles, each at its own pace, so that memory stays bounded however a
    container interleaves them. All times count from the start of the container, whichever stream begins first.

    Args:
        path: Of a local file.
        name: For messages, where it is not the path.
    """

    def __init__(self, path: str, name: str | None = None):
        self.path, self.name = path, name or path
        # What was met while decoding: damage, pauses. Empty for a file in order.
        self.problems: list[str] = []
        self._handles: list[Any] = []
        with self.open() as container:
            stream = self._video_stream(container)
            # Seconds on the container's clock that are 0 on ours.
            self.start = (container.start_time or 0) / av.time_base
            rate = stream.average_rate or stream.guessed_rate or 25
            width, height = stream.codec_context.width, stream.codec_context.height
            with suppress(av.FFmpegError, StopIteration):  # a damaged start shows when frames are read
                if _turns(next(container.decode(stream))) % 2:
                    width, height = height, width
            self.info = MediaInfo(
                name=self.name,
                width=width,
                height=height,
                fps=float(rate),
                duration=self._duration(container, stream),
                has_audio=bool(container.streams.audio),
            )

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the container; raises [`MediaError`] if that fails."""
        if not os.path.exists(self.path):
            raise MediaError(f"{self.name}: no such file. Check the path.")
        if os.path.isdir(self.path):
            raise MediaError(f"{self.name} is a directory. Give a video file, or several of them.")
        if os.path.getsize(self.path) == 0:
            raise MediaError(f"{self.name} is empty (0 bytes). Copy or record it again.")
        try:
            container = av.open(self.path)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(
                f"{self.name} cannot be opened as video ({type(error).__name__}: {os.path.getsize(self.path)} bytes "
                "read as no known container). If it was cut off while recording or copying, its index is gone: copy "
                "it again, or repair it, and check that it is a video at all."
            ) from error
        self._handles.append(container)
        try:
            yield container
        finally:
            container.close()
            self._handles = [handle for handle in self._handles if handle is not container]

    def close(self) -> None:
        """Close the handles of frames and sound that were not read to their end."""
        while self._handles:
            self._handles.pop().close()

    def _note(self, problem: str) -> None:
        # A second reading meets the same again.
        if problem not in self.problems:
            self.problems.append(problem)

    def _video_stream(self, container):
        # A picture on the cover of a sound file is a video stream too, but FFmpeg ranks it last.
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            kinds = ", ".join(sorted({item.type for item in container.streams})) or "none"
            raise MediaError(
                f"{self.name} has no picture (streams: {kinds}). Sound alone cannot be scored: give the video that it "
                "belongs to."
            )
        return stream

    def _duration(self, container, stream) -> float | None:
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        # Matroska keeps it as text, such as 00:00:05.280000000.
        with suppress(KeyError, ValueError):
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return None if container.duration is None else container.duration / av.time_base

    def decode(self, container, stream, what: str) -> Iterator[Any]:
        """Decode what can be decoded, noting damage instead of stopping at it."""
        broken = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                self._note(f"reading the {what} stopped early ({type(error).__name__})")
                break
            try:
                yield from packet.decode()
            except av.EOFError:
                break
            except (av.FFmpegError, OSError):
                broken += 1
        if broken:
            self._note(f"{broken} {what} packets could not be decoded")

    def frames(self, short_side: int, resize: Literal["area", "torch"] = "area") -> Iterator[Frame]:
        """Decode the frames, scaled.

        Args:
            short_side: Of the scaled frames, in pixels.
            resize: ``"area"`` averages areas inside FFmpeg's scaler and gives uint8. ``"torch"`` scales the full
                picture as pytorchvideo's transform does (bilinear, no antialiasing) and gives float32: slower, for
                comparison with published features.

        Yields:
            Frames in order; they end when the container says, which `join_ends` makes exact.

        Raises:
            MediaError: If not a single frame can be decoded.
        """
        reformatter = VideoReformatter()
        period = 1.0 / self.info.fps
        last: float | None = None
        pauses: list[str] = []
        with self.open() as container:
            stream = self._video_stream(container)
            stream.thread_type = "AUTO"
            for frame in self.decode(container, stream, "video"):
                start = None if frame.time is None else frame.time - self.start
                if start is None or (last is not None and start <= last):
                    # No timestamp, or one that runs backwards: go on by the average rate.
                    start = 0.0 if last is None else last + period
                elif last is not None and start - last > max(1.0, 10 * period):
                    pauses.append(f"{last + period:.2f} to {start:.2f} s")
                last = start
                length = float(frame.duration * frame.time_base) if frame.duration else period
                yield Frame(start, start + length, _pixels(frame, reformatter, short_side, resize))
        if pauses:
            more = f" and {len(pauses) - 3} more times" if len(pauses) > 3 else ""
            self._note(f"there is no picture from {', '.join(pauses[:3])}{more}")
        if last is None:
            raise MediaError(
                f"{self.name}: the container opens, but not one frame could be decoded "
                f"({'; '.join(self.problems) or 'the video stream is empty'}). The file is cut or damaged: copy it "
                "or record it again."
            )

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled.

        Args:
            rate: Wanted samples a second, in Hz.

        Returns:
            [`SoundTrack`], whose ``has_sound`` is false for a file without a sound stream that can be decoded.
        """
        return SoundTrack(self._sound_blocks(), rate)

    def _sound_blocks(self) -> Iterator[SoundBlock]:
        if not self.info.has_audio:
            return
        with self.open() as container:
            stream = container.streams.best("audio")
            for frame in self.decode(container, stream, "sound"):
                samples = frame.to_ndarray()
                if not frame.format.is_planar:
                    samples = samples.reshape(-1, len(frame.layout.channels)).T
                start = None if frame.time is None else frame.time - self.start
                yield SoundBlock(start, to_mono(samples), frame.sample_rate)


class MediaArrays:
    """Frames and sound that are decoded already, with the manner of a [`MediaFile`].

    Args:
        frames: RGB of shape `(F, H, W, 3)`, uint8.
        fps: Frames a second, where `times` are not given.
        times: When each frame appears, in seconds, of shape `(F,)`, rising.
        waveform: Sound of shape `(samples,)` or `(channels, samples)` that begins at 0 s.
        sampling_rate: Of the waveform, in Hz.
    """

    def __init__(self, frames, fps=None, times=None, waveform=None, sampling_rate=None):
        self.problems: list[str] = []
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise MediaError(
                f"frames must be uint8 RGB of shape (F, H, W, 3), got {frames.dtype} of {frames.shape}. Put channels "
                "last and scale to 0-255."
            )
        if (fps is None) == (times is None):
            raise MediaError("Frames in arrays need either fps (frames a second) or times (seconds, one a frame).")
        if times is None:
            if not fps > 0:
                raise MediaError(f"fps must be above 0, got {fps}.")
            times = np.arange(len(frames)) / fps
        times = np.asarray(times, dtype=np.float64)
        if times.shape != (len(frames),) or (np.diff(times) <= 0).any():
            raise MediaError(
                f"times must be one number a frame, each above the last: shape ({len(frames)},), got {times.shape}."
            )
        period = float(np.diff(times).mean()) if len(times) > 1 else 1.0 / (fps or 25)
        self._frames, self._times, self._period = frames, times, period
        self._waveform, self._rate = self._checked_sound(waveform, sampling_rate), sampling_rate
        self.info = MediaInfo(
            name=f"arrays of {len(frames)} frames",
            width=frames.shape[2],
            height=frames.shape[1],
            fps=1.0 / period,
            duration=float(times[-1] + period - times[0]),
            has_audio=waveform is not None,
        )

    @staticmethod
    def _checked_sound(waveform, sampling_rate) -> np.ndarray | None:
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
        mono = to_mono(waveform)
        if not np.isfinite(mono).all():
            raise MediaError("waveform holds NaN or infinite samples. Repair or silence them first.")
        return mono

    def frames(self, short_side: int, resize: Literal["area", "torch"] = "area") -> Iterator[Frame]:
        """Scale the frames, as [`MediaFile.frames`] does."""
        reformatter = VideoReformatter()
        for start, image in zip(self._times.tolist(), self._frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            yield Frame(start, start + self._period, _pixels(frame, reformatter, short_side, resize))

    def sound(self, rate: int) -> SoundTrack:
        """Resample the sound, as [`MediaFile.sound`] does."""
        blocks = [] if self._waveform is None else [SoundBlock(0.0, self._waveform, int(self._rate))]
        return SoundTrack(blocks, rate)


Media = MediaFile | MediaArrays


@contextmanager
def open_media(source: Any) -> Iterator[Media]:
    """Open whatever stands for a video.

    Args:
        source: A path, URL, file object, bytes or dict of arrays (`ACCEPTED_SOURCES` lists them), or an open
            [`Media`]. URLs and file objects are copied to a temporary file first, piece by piece.

    Raises:
        MediaError: If it cannot be opened as video.
        TypeError: For anything else.
    """
    if isinstance(source, (MediaFile, MediaArrays)):
        yield source  # whoever opened it closes it
    elif isinstance(source, dict) and "frames" in source:
        unknown = set(source) - {"frames", "fps", "times", "waveform", "sampling_rate"}
        if unknown:
            raise MediaError(f"Unknown keys {sorted(unknown)} beside frames.\n{ACCEPTED_SOURCES}")
        yield MediaArrays(**source)
    elif isinstance(source, dict) and (source.get("bytes") or source.get("path")):
        with open_media(source.get("bytes") or source["path"]) as media:
            yield media
    elif isinstance(source, (str, os.PathLike)) and (os.path.exists(source) or "://" not in os.fspath(source)):
        with closing(MediaFile(os.fspath(source))) as media:
            yield media
    elif isinstance(source, (str, bytes)) or hasattr(source, "read"):
        with (
            tempfile.TemporaryDirectory(prefix="avad_hf-") as folder,
            closing(MediaFile(*_copy_to(folder, source))) as media,
        ):
            yield media
    else:
        raise TypeError(f"Cannot read a {type(source).__name__} as video.\n{ACCEPTED_SOURCES}")


def _copy_to(folder: str, source: Any) -> tuple[str, str]:
    """Copy a URL, bytes or file object into a folder; returns the file's path and its name for messages."""
    if isinstance(source, str):
        import fsspec

        path = os.path.join(folder, os.path.basename(urlparse(source).path) or "video")
        try:
            filesystem, remote = fsspec.core.url_to_fs(source)
            filesystem.get_file(remote, path)
        except Exception as error:  # every protocol has its own errors
            reason = f"{type(error).__name__}: {error}"
            raise MediaError(f"{source} cannot be fetched ({reason}). Check the URL.") from error
        return path, source
    path = os.path.join(folder, "video")
    with open(path, "wb") as file:
        if isinstance(source, bytes):
            file.write(source)
        else:
            shutil.copyfileobj(source, file)
    return path, str(getattr(source, "name", f"{type(source).__name__} object"))
