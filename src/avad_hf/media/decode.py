"""Video files as frames and sound on one clock. The only place that decodes."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from torch import Tensor

from .audio import SoundBlock, SoundTrack, to_mono
from .clips import JUMP_S, Frame, SteadyClock


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


def asked_size(width: int, height: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of scaled frames.

    Args:
        width: Of the picture as shown, in pixels.
        height: Of the picture as shown, in pixels.
        size: Short side, which keeps the proportion; or height and width, which may not; or ``None`` for no scaling.
    """
    if size is None:
        return width, height
    return (size[1], size[0]) if isinstance(size, tuple) else scaled_size(width, height, size)


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns, counter-clockwise, that the rotation tag asks for."""
    return round(frame.rotation / 90) % 4


def scaled_pixels(frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int], resize: str) -> Tensor:
    """Scale a decoded frame to a width and height, and turn it upright; RGB of shape `(3, H, W)`."""
    width, height = size
    if resize == "area":
        # FFmpeg's AREA only averages; enlarging, be it one side, needs interpolation.
        method = "AREA" if width <= frame.width and height <= frame.height else "BILINEAR"
        scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", interpolation=method)
        pixels = torch.from_numpy(scaled.to_ndarray()).permute(2, 0, 1)
    else:
        full = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float()
        pixels = F.interpolate(full.unsqueeze(0), size=(height, width), mode="bilinear").squeeze(0)
    turns = _turns(frame)
    return torch.rot90(pixels, turns, dims=(1, 2)) if turns else pixels


def planar_samples(frame: av.AudioFrame) -> np.ndarray:
    """Samples of a decoded frame, of shape `(channels, samples)` and the file's own type."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels)).T


class SoundFile:
    """A file with sound, which may have a picture too. All times count from the start of the container.

    Args:
        path: Of a local file.
        name: For messages, where it is not the path.
    """

    kind = "sound"

    def __init__(self, path: str, name: str | None = None):
        self.path, self.name = path, name or path
        # What was met while decoding: damage, pauses. Empty for a file in order.
        self.problems: list[str] = []
        self._handles: list[Any] = []
        with self.open() as container:
            # Seconds on the container's clock that are 0 on ours.
            self.start = (container.start_time or 0) / av.time_base
            self.has_audio = bool(container.streams.audio)
            self._look(container)

    def _look(self, container) -> None:
        """Read what else is to be known of a container, or refuse it."""
        if not self.has_audio:
            raise MediaError(f"{self.name} has no sound. Give the sound file that belongs to the video, or none.")

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
            # Absolute, since FFmpeg takes what stands before a colon for a protocol: 12:30.mp4.
            container = av.open(os.path.abspath(self.path))
        except (av.FFmpegError, OSError) as error:
            raise MediaError(
                f"{self.name} cannot be opened as {self.kind} ({type(error).__name__}: {os.path.getsize(self.path)} "
                "bytes read as no known container). If it was cut off while recording or copying, its index is gone: "
                f"copy it again, or repair it, and check that it is {self.kind} at all."
            ) from error
        self._handles.append(container)
        try:
            yield container
        finally:
            # Whoever takes it off the list closes it: another thread may be closing all, and twice would crash.
            try:
                self._handles.remove(container)
            except ValueError:
                pass
            else:
                container.close()

    def close(self) -> None:
        """Close the handles of frames and sound that were not read to their end."""
        with suppress(IndexError):
            while True:
                self._handles.pop().close()

    def _note(self, problem: str) -> None:
        # A second reading meets the same again.
        if problem not in self.problems:
            self.problems.append(problem)

    def sound_stream(self, container):
        """The sound stream to listen to, or ``None`` if there is none that can be decoded."""
        stream = container.streams.best("audio")
        return None if stream is None or stream.codec_context is None else stream

    def decode(self, container, stream, what: str) -> Iterator[Any]:
        """Decode what can be decoded, noting damage instead of stopping at it."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                self._note(f"reading the {what} stopped early ({type(error).__name__})")
                with suppress(av.FFmpegError):
                    yield from stream.decode(None)  # what the decoder still holds
                break
            try:
                yield from packet.decode()
            except av.EOFError:
                break
            except (av.FFmpegError, OSError):
                self._note(f"some {what} packets could not be decoded")

    def _time(self, frame: av.VideoFrame | av.AudioFrame) -> float | None:
        """When a decoded frame says that it appears or sounds, in seconds on our clock."""
        return None if frame.time is None else frame.time - self.start

    def _note_jumps(self, clock: SteadyClock, what: str) -> None:
        if clock.jumps:
            self._note(f"the clock of the {what} starts anew, first at {clock.jumps[0]:.2f} s")
        if clock.first_stray is not None:
            said, placed = clock.first_stray
            self._note(f"single times of the {what} are wrong, first {said:.2f} s in place of {placed:.2f} s")

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled.

        Args:
            rate: Wanted samples a second, in Hz.

        Returns:
            [`SoundTrack`], whose ``has_sound`` is false for a file without a sound stream that can be decoded.
        """
        track = SoundTrack(self._sound_blocks(), rate)
        if self.has_audio and not track.has_sound:
            self._note("the sound cannot be decoded")
        return track

    def _sound_blocks(self) -> Iterator[SoundBlock]:
        if not self.has_audio:
            return
        clock = SteadyClock()
        with self.open() as container:
            if (stream := self.sound_stream(container)) is None:
                return
            marked = (
                (self._time(frame), frame.samples / frame.sample_rate, frame)
                for frame in self.decode(container, stream, "sound")
            )
            for start, _, frame in clock.place(marked):
                self._note_jumps(clock, "sound")
                mono = to_mono(planar_samples(frame))
                if not np.isfinite(mono).all():
                    self._note("some samples of the sound are no numbers, and are silenced")
                    mono = np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)
                yield SoundBlock(start, mono, frame.sample_rate)


class MediaFile(SoundFile):
    """A video file.

    Picture and sound are read through two handles, each at its own pace, so that memory stays bounded however a
    container interleaves them. All times count from the start of the container, whichever stream begins first.

    Args:
        path: Of a local file.
        name: For messages, where it is not the path.
        side_sound: A file beside it whose sound is heard in place of its own; both begin together.
    """

    kind = "video"

    def __init__(self, path: str, name: str | None = None, side_sound: SoundFile | None = None):
        super().__init__(path, name)
        self.sound_file = side_sound or self
        if side_sound is not None:
            self.info = replace(self.info, has_audio=True)
            side_sound.problems = self.problems

    def _look(self, container) -> None:
        stream = self.video_stream(container)
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
            has_audio=self.has_audio,
        )

    def close(self) -> None:
        """Close the handles of frames and sound that were not read to their end."""
        super().close()
        if self.sound_file is not self:
            self.sound_file.close()

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled: its own, or that of the file beside it."""
        return super().sound(rate) if self.sound_file is self else self.sound_file.sound(rate)

    def video_stream(self, container):
        """The stream that is the picture; raises [`MediaError`] if there is none."""
        # A picture on the cover of a sound file is a video stream too, but FFmpeg ranks it last.
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            kinds = ", ".join(sorted({item.type for item in container.streams})) or "none"
            raise MediaError(
                f"{self.name} has no picture (streams: {kinds}). Sound alone cannot be scored: give the video that it "
                "belongs to."
            )
        if stream.codec_context is None:
            raise MediaError(
                f"{self.name}: its picture has a format that FFmpeg {av.ffmpeg_version_info} cannot decode. Convert "
                "it, to H.264 for example."
            )
        return stream

    def _duration(self, container, stream) -> float | None:
        """When the picture ends, in seconds on our clock, as far as the container says."""
        if stream.duration is not None:
            begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - self.start
            return begin + float(stream.duration * stream.time_base)
        # Matroska keeps the end of each stream as text, such as 00:00:05.280000000.
        with suppress(KeyError, ValueError):
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - self.start
        # What the whole container says may be the length of the sound.
        known = container.duration is not None and not container.streams.audio
        return container.duration / av.time_base if known else None

    def num_frames(self, limit: int | None = None) -> int:
        """Count the frames without decoding them: exact for files in order, and an estimate for others.

        Args:
            limit: Stop at this number.
        """
        with self.open() as container:
            packets = container.demux(self.video_stream(container))
            try:
                return sum(1 for _ in islice((packet for packet in packets if packet.size), limit))
            except (av.FFmpegError, OSError):  # damage shows when frames are decoded
                count = round((self.info.duration or 0.0) * self.info.fps)
                return count if limit is None else min(limit, count)

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
        begin: float = -math.inf,
    ) -> Iterator[Frame]:
        """Decode the frames, scaled.

        Args:
            size: Short side of the scaled frames, in pixels, or their height and width; ``None`` leaves them as they
                are.
            resize: ``"area"`` averages areas inside FFmpeg's scaler and gives uint8. ``"torch"`` scales the full
                picture as pytorchvideo's transform does (bilinear, no antialiasing) and gives float32: slower, for
                comparison with published features.
            picked: Says of a frame's number, from 0, whether it is wanted: the others come without pixels, which
                saves scaling them.
            begin: In seconds; frames that appear before it come without pixels too.

        Yields:
            Frames in order and of one size; they end when the container says, which `join_ends` makes exact.

        Raises:
            MediaError: If not a single frame can be decoded.
        """
        reformatter, clock = VideoReformatter(), SteadyClock(rising=True)
        period = 1.0 / self.info.fps
        last: float | None = None
        stored = scaled = None
        pauses: list[str] = []
        with self.open() as container:
            stream = self.video_stream(container)
            stream.thread_type = "AUTO"
            marked = (
                (self._time(frame), float(frame.duration * frame.time_base) if frame.duration else period, frame)
                for frame in self.decode(container, stream, "video")
            )
            for number, (start, length, frame) in enumerate(clock.place(marked)):
                self._note_jumps(clock, "picture")
                if last is not None and start - last > max(1.0, 10 * period):
                    pauses.append(f"{last + period:.2f} to {start:.2f} s")
                last = start
                if stored is None:
                    stored = (frame.width, frame.height)
                    # Scaled first and turned then.
                    lying = size[::-1] if isinstance(size, tuple) and _turns(frame) % 2 else size
                    scaled = asked_size(*stored, lying)
                elif (frame.width, frame.height) != stored:
                    self._note(
                        f"the picture's size changes on the way, and is scaled to that of the first frame {stored}"
                    )
                is_wanted = start >= begin and (picked is None or picked(number))
                pixels = scaled_pixels(frame, reformatter, scaled, resize) if is_wanted else None
                yield Frame(start, start + length, pixels)
        if pauses:
            more = f" and {len(pauses) - 3} more times" if len(pauses) > 3 else ""
            self._note(f"there is no picture from {', '.join(pauses[:3])}{more}")
        if last is None:
            raise MediaError(
                f"{self.name}: the container opens, but not one frame could be decoded "
                f"({'; '.join(self.problems) or 'the video stream is empty'}). The file is cut or damaged: copy it "
                "or record it again."
            )
        if self.info.duration is not None and abs(self.info.duration - clock.latest_stray) < JUMP_S:
            # The container took a wrong time for the end.
            self.info = replace(self.info, duration=last + length)
