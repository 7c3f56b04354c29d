"""Video files as frames and sound on one clock. The only place that decodes."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import av
from av.video.reformatter import VideoReformatter

from .audio import SoundTrack
from .clips import JUMP_S, Frame, SteadyClock
from .container import PacketLog, SoundFile
from .coverage import NOTABLE_S, Coverage
from .endings import damage_within
from .errors import MediaError
from .limits import check_limit, limit
from .scaling import asked_size, quarter_turns, scaled_pixels

# Sound may go on for a moment after the last picture; codecs fill their last block, and recorders stop one by one.
_SOUND_BEYOND_S = 0.45
# Containers whose header says how long they are. Others are measured by FFmpeg, from what is left of them.
_TIMED = ("mov", "matroska", "flv", "avi", "asf", "mxf", "nut")
# The comment in the header of videos that were drawn by this library.
SYNTHETIC = "avad_hf: synthetic"


@dataclass(frozen=True)
class MediaInfo:
    """What a video says of itself before it is decoded.

    Args:
        name: Path, URL or description, for messages.
        width: Width of the picture as shown, in pixels.
        height: Height of the picture as shown, in pixels.
        fps: Frames a second, on average.
        duration: Length of the picture, in seconds; ``None`` if the container does not say.
        has_audio: Whether there is a sound stream. Whether it can be decoded shows in `Media.sound`.
        is_synthetic: Whether the file says that this library has drawn it. Pictures and arrays say nothing.
    """

    name: str
    width: int
    height: int
    fps: float
    duration: float | None
    has_audio: bool
    is_synthetic: bool = False


class MediaFile(SoundFile):
    """A video file.

    Picture and sound are read through two handles, each at its own pace, so that memory stays bounded however a
    container interleaves them. All times count from the start of the container, whichever stream begins first.

    Args:
        path: A local file.
        name: For messages, where it is not the path.
        side_sound: A file beside it whose sound is heard in place of its own; both begin together.
    """

    kind = "video"
    info: MediaInfo

    def __init__(self, path: str, name: str | None = None, side_sound: SoundFile | None = None):
        # What was seen when the frames were read last, and whether that went up to their end.
        self.seen, self.seen_all = Coverage("picture"), False
        super().__init__(path, name)
        self.sound_file = side_sound or self
        if side_sound is not None:
            self.info = replace(self.info, has_audio=True)

    @property
    def problems(self) -> list[str]:
        """What was met while reading: damage, pauses, a missing end. Empty for a file in order."""
        problems = [*self._notes, *self.seen.problems(), *self.heard.problems()]
        if self.sound_file is not self:
            problems += self.sound_file.problems
        heard = self.sound_file.heard
        pause = max(NOTABLE_S, self.seen.usual_pause)
        if self.seen_all and self.sound_file.heard_all and 0 < heard.end < self.seen.end - pause:
            problems.append(
                f"the sound ends at {heard.end:.2f} s, {self.seen.end - heard.end:.2f} s before the picture"
            )
        return list(dict.fromkeys(problems))

    @property
    def read(self) -> dict[str, Any]:
        """What was read of picture and sound the last time, for a result."""
        return {
            "picture": self.seen.to_dict(),
            "sound": self.sound_file.heard.to_dict() if self.info.has_audio else None,
            "remarks": list(dict.fromkeys(self.remarks + self.sound_file.remarks)),
        }

    def _look(self, container: Any) -> None:
        stream = self.video_stream(container)
        rate = stream.average_rate or stream.guessed_rate or 25
        width, height = stream.codec_context.width, stream.codec_context.height
        check_limit("MAX_PIXELS", width * height, f"{self.name}: pictures of {width} x {height} pixels")
        with suppress(Exception):  # a damaged start shows when frames are read
            if quarter_turns(next(container.decode(stream))) % 2:
                width, height = height, width
        self.info = MediaInfo(
            name=self.name,
            width=width,
            height=height,
            fps=float(rate),
            duration=self._duration(container, stream),
            has_audio=self.has_audio,
            is_synthetic=container.metadata.get("comment") == SYNTHETIC,
        )
        # When the longest stream ends, where the header says so, in seconds on our clock.
        self._header_end = None
        is_timed = self.format.split(",")[0] in _TIMED and not self._is_live()
        if container.duration is not None and is_timed:
            self._header_end = container.duration / av.time_base - max(0.0, self.start)

    def _is_live(self) -> bool:
        """Whether it is a Matroska written live, of whose length FFmpeg makes a guess by its bit rate."""
        return self.format.startswith("matroska") and not self.ending.known

    def close(self) -> None:
        """Close the handles of frames and sound that were not read to their end."""
        super().close()
        if self.sound_file is not self:
            self.sound_file.close()

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled: its own, or that of the file beside it."""
        return super().sound(rate) if self.sound_file is self else self.sound_file.sound(rate)

    def video_stream(self, container: Any) -> Any:
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

    def _duration(self, container: Any, stream: Any) -> float | None:
        """When the picture ends, in seconds on our clock, as far as the container says."""
        if self._is_live():
            return None
        if stream.duration is not None:
            begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - self.start
            return begin + float(stream.duration * stream.time_base)
        # Matroska keeps the end of each stream as text, such as 00:00:05.280000000.
        with suppress(KeyError, ValueError):
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - self.start
        # What the whole container says may be the length of the sound.
        is_known = container.duration is not None and not container.streams.audio
        return container.duration / av.time_base if is_known else None

    def num_frames(self, limit: int | None = None) -> int:
        """Count the frames without decoding them: exact for files in order, and an estimate for others.

        Args:
            limit: Stop at this number.
        """
        with self.open() as container:
            packets = container.demux(self.video_stream(container))
            try:
                return sum(1 for _ in islice((packet for packet in packets if packet.size), limit))
            except Exception:  # damage shows when frames are decoded
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
            MediaError: If not a single frame can be decoded, or it gets too large.
        """
        reformatter, clock = VideoReformatter(), SteadyClock(rising=True)
        seen = Coverage("picture")
        self.seen, self.seen_all = seen, False
        period = 1.0 / self.info.fps
        shown: tuple[int, int] | None = None
        length, num_errors, number = period, 0, 0
        # Decoding in threads, and judging times, an error shows some pictures before or after its own.
        errors_before: deque[int] = deque([0], maxlen=8)
        with self.open() as container:
            stream = self.video_stream(container)
            self._prepare_decoder(stream)
            sound = self.sound_stream(container) if self.has_audio else None
            log = PacketLog(float(stream.time_base or 0))
            sound_log = PacketLog(0.0 if sound is None else float(sound.time_base or 0))
            beside = () if sound is None else [(sound, sound_log)]
            marked = (
                (self._time(frame), self._lasts(frame) or period, frame)
                for frame in self.decode(container, stream, "video", log, beside)
            )
            for start, length, frame in clock.place(marked):
                self._note_jumps(clock, "picture")
                turns = quarter_turns(frame)
                size_shown = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
                if shown is None:
                    shown, scaled = size_shown, asked_size(*size_shown, size)
                    self._note_late_start(log, start, "picture")
                elif size_shown != shown and not self._changes_size(shown, size_shown):
                    return
                pixels = None
                if start >= begin and (picked is None or picked(number)):
                    try:
                        # Scaled first and turned then.
                        width, height = scaled
                        unturned = (height, width) if turns % 2 else (width, height)
                        pixels = scaled_pixels(frame, reformatter, unturned, resize)
                    except Exception:  # a frame that contradicts itself
                        log.num_errors += 1
                        self._note("some pictures could not be scaled")
                        continue
                # What follows damage is built on it, up to the next picture that stands alone.
                is_damaged = frame.is_corrupt or (log.num_errors > num_errors and not frame.key_frame)
                if is_damaged or frame.key_frame:
                    seen.damage(start, is_damaged)
                # Not every decoder notices that what a picture is built on is missing.
                if frame.key_frame or seen.is_skipped(start):
                    seen.doubt(start, not frame.key_frame)
                num_errors = log.num_errors
                seen.add(start, start + length, period, is_after_loss=num_errors > errors_before[0])
                errors_before.append(num_errors)
                number += 1
                yield Frame(start, start + length, pixels)
        if seen.start is None:
            raise MediaError(
                f"{self.name}: the container opens, but not one frame could be decoded "
                f"({'; '.join(self.problems) or 'the video stream is empty'}). The file is cut or damaged: copy it "
                "or record it again."
            )
        if self.info.duration is not None and abs(self.info.duration - clock.latest_stray) < JUMP_S:
            # The container took a wrong time for the end.
            self.info = replace(self.info, duration=seen.end)
        is_behind = log.last is not None and log.last - seen.last > 1.5 * period + 0.002
        if is_behind and not (clock.jumps or clock.first_stray):
            # PyAV says nothing of errors that come when decoding in threads is through.
            self._note("some video packets could not be decoded")
        self._note_end(seen, sound_log.end)
        if seen is self.seen:
            self.seen_all = True

    def _prepare_decoder(self, stream: Any) -> None:
        """Set what must be set before the first picture."""
        # FFmpeg's VP8 forgets its errors when it decodes several frames at a time.
        stream.thread_type = "SLICE" if stream.codec_context.name == "vp8" else "AUTO"
        stream.codec_context.options = {"max_pixels": str(int(limit("MAX_PIXELS")))}

    def _changes_size(self, before: tuple[int, int], after: tuple[int, int]) -> bool:
        """Whether it goes on where pictures of another size come."""
        self._note(f"the picture's size changes on the way, and is scaled to that of the first frame {before}")
        return True

    def _note_end(self, seen: Coverage, sound_end: float | None) -> None:
        """Note what the end of a file says of it."""
        if (damage := damage_within(self.path, self.format)) is not None:
            self._note(damage)
        self._note_missing_end(seen, sound_end)
        self._note_growth()

    def _note_missing_end(self, seen: Coverage, sound_end: float | None) -> None:
        """Note a picture that ends before the file says, or before its sound."""
        promised = self.info.duration
        if promised is None and self._header_end is not None and self._header_end - (sound_end or 0.0) > NOTABLE_S:
            promised = self._header_end
        if promised is not None and promised - seen.end >= max(NOTABLE_S, seen.usual_pause):
            self._note(f"the last {promised - seen.end:.2f} s of the picture are missing")
        elif sound_end is not None and sound_end - seen.end >= max(_SOUND_BEYOND_S, seen.usual_pause):
            self._note(f"the sound goes on for {sound_end - seen.end:.2f} s after the last picture")


__all__ = ["SYNTHETIC", "MediaError", "MediaFile", "MediaInfo", "SoundFile"]
