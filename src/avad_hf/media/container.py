"""Files with sound: their packets, what of them cannot be decoded, and their sound on the container's clock."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import av
import numpy as np

from .audio import SoundBlock, SoundTrack, to_mono
from .clips import SteadyClock
from .coverage import NOTABLE_S, Coverage
from .endings import ending
from .errors import MediaError
from .limits import MAX_SOUND_CHANNELS, MAX_SOUND_RATE, MIN_SOUND_RATE, check_limit
from .opening import open_container

# A container that cannot be read on is tried again, since the next packet may be in order; so often in a row.
MOST_TRIES = 50


def planar_samples(frame: av.AudioFrame) -> np.ndarray:
    """Samples of a decoded frame, of shape `(channels, samples)` and the file's own type."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels)).T


class PacketLog:
    """What the packets of one stream said while they were read, beside what could be decoded of them.

    Args:
        tick: Seconds of the stream's unit of time.
    """

    def __init__(self, tick: float = 0.0):
        self.num_errors = 0
        self._tick = tick
        # When the first packet begins, and the last one begins and ends, in seconds, as far as they say.
        self.first: float | None = None
        self.last: float | None = None
        self.end: float | None = None

    def add(self, packet: av.Packet, start: float) -> None:
        """Count a packet; `start` is the container's, in seconds."""
        mark = packet.pts
        if mark is None:
            mark = packet.dts
        if mark is None or packet.is_discard:
            return
        time = mark * self._tick - start
        if self.first is None:
            self.first = self.last = self.end = time
        if time > self.last:
            self.last = time
        end = time + (packet.duration or 0) * self._tick
        if end > self.end:
            self.end = end


class SoundFile:
    """A file with sound, which may have a picture too. All times count from the start of the container.

    Args:
        path: A local file.
        name: For messages, where it is not the path.
    """

    kind = "sound"

    def __init__(self, path: str, name: str | None = None):
        self.path, self.name = path, name or path
        self._notes: list[str] = []
        # What one may want to know of a file in order, such as that its end cannot be verified.
        self.remarks: list[str] = []
        # What was heard when the sound was read last, and whether that went up to its end.
        self.heard, self.heard_all = Coverage("sound", is_continuous=True), False
        self._handles: list[Any] = []
        with self.open() as container:
            self._stamp = self._size_and_time()
            # Seconds on the container's clock that are 0 on ours.
            self.start = (container.start_time or 0) / av.time_base
            self.has_audio = bool(container.streams.audio)
            self.format = container.format.name
            self.ending = ending(self.path, self.format)
            self._look(container)
        if self.ending.damage is not None:
            self._note(self.ending.damage)
        elif not self.ending.known:
            self.remarks.append("the container does not say where it ends: a missing end would not show")

    def _look(self, container: Any) -> None:
        """Read what else is to be known of a container, or refuse it."""
        if not self.has_audio:
            raise MediaError(f"{self.name} has no sound. Give the sound file that belongs to the video, or none.")

    @property
    def problems(self) -> list[str]:
        """What was met while reading: damage, pauses, a missing end. Empty for a file in order."""
        return [*self._notes, *self.heard.problems()]

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the container; raises [`MediaError`] if that fails."""
        container = open_container(self.path, self.name, self.kind)
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
        if problem not in self._notes:
            self._notes.append(problem)

    def _size_and_time(self) -> tuple[int, int] | None:
        """Size and time of the file, which tell whether someone is writing it."""
        try:
            status = os.stat(self.path)
        except OSError:  # removed while it is read, which harms nobody who has it open
            return None
        return status.st_size, status.st_mtime_ns

    def _note_growth(self) -> None:
        """Note a file that is not what it was when it was opened."""
        now = self._size_and_time()
        if now is not None and self._stamp is not None and now != self._stamp:
            self._note(
                f"the file was written to while it was read ({self._stamp[0]:,} bytes at first, {now[0]:,} at the "
                "end): what came later is missing"
            )

    def sound_stream(self, container: Any) -> Any:
        """The sound stream to listen to, or ``None`` if there is none that can be decoded."""
        stream = container.streams.best("audio")
        return None if stream is None or stream.codec_context is None else stream

    def decode(
        self, container: Any, stream: Any, what: str, log: PacketLog | None = None, beside: Sequence = ()
    ) -> Iterator:
        """Decode what can be decoded, noting damage instead of stopping at it.

        Args:
            container: An open container.
            stream: The stream to decode.
            what: Its name in messages.
            log: Takes what its packets say.
            beside: Further streams and their logs, which are looked at, and not decoded.
        """
        log = PacketLog() if log is None else log
        logs = {stream.index: log} | {other.index: its_log for other, its_log in beside}
        streams = [stream, *(other for other, _ in beside)]
        failures = 0
        packets = container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except Exception as error:
                failures += 1
                log.num_errors += 1
                self._note(f"reading the {what} failed in places ({type(error).__name__})")
                if failures >= MOST_TRIES:
                    with suppress(Exception):
                        for frame in stream.decode(None):  # what the decoder still holds
                            frame.time_base = frame.time_base or stream.time_base
                            yield frame
                    break
                packets = container.demux(streams)  # it goes on where it stopped
                continue
            if packet.size:
                failures = 0
                logs[packet.stream_index].add(packet, self.start)
            if packet.stream_index != stream.index:
                continue
            if packet.is_corrupt:
                log.num_errors += 1
                self._note(f"some {what} packets are incomplete")
            try:
                yield from packet.decode()
            except av.EOFError:
                break
            # Decoders give FFmpeg's errors, and PyAV its own for what they made of bytes that are wrong.
            except Exception:
                log.num_errors += 1
                self._note(f"some {what} packets could not be decoded")

    def _time(self, frame: av.VideoFrame | av.AudioFrame) -> float | None:
        """When a decoded frame says that it appears or sounds, in seconds on our clock."""
        try:
            time = frame.time
        except Exception:  # damaged ones may come without a time base
            return None
        return None if time is None or not math.isfinite(time) else time - self.start

    @staticmethod
    def _lasts(frame: av.VideoFrame | av.AudioFrame) -> float:
        """How long a decoded frame says that it lasts, in seconds; 0 if it does not say."""
        return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0

    def _note_jumps(self, clock: SteadyClock, what: str) -> None:
        if clock.jumps:
            self._note(f"the clock of the {what} starts anew, first at {clock.jumps[0]:.2f} s")
        if clock.first_stray is not None:
            said, placed = clock.first_stray
            self._note(f"single times of the {what} are wrong, first {said:.2f} s in place of {placed:.2f} s")

    def _note_late_start(self, log: PacketLog, start: float, what: str) -> None:
        """Note that the first packets gave nothing, as before the first key frame of a broadcast."""
        if log.first is not None and NOTABLE_S < start - log.first < float("inf"):
            self._note(f"the first {start - log.first:.2f} s of the {what} cannot be decoded")

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled.

        Args:
            rate: Wanted samples a second, in Hz.

        Returns:
            [`SoundTrack`], whose ``has_sound`` is false for a file without a sound stream that can be decoded.
        """
        self.heard, self.heard_all = Coverage("sound", is_continuous=True), False
        track = SoundTrack(self._sound_blocks(self.heard), rate)
        if self.has_audio and not track.has_sound:
            self._note("the sound cannot be decoded")
        return track

    def _sound_blocks(self, heard: Coverage) -> Iterator[SoundBlock]:
        if not self.has_audio:
            return
        clock = SteadyClock()
        with self.open() as container:
            if (stream := self.sound_stream(container)) is None:
                return
            log = PacketLog(float(stream.time_base or 0))
            marked = (
                (self._time(frame), frame.samples / frame.sample_rate, frame)
                for frame in self.decode(container, stream, "sound", log)
                if self._can_be_heard(frame)
            )
            for start, length, frame in clock.place(marked):
                self._note_jumps(clock, "sound")
                try:
                    mono = to_mono(planar_samples(frame))
                except Exception:  # of a frame that contradicts itself
                    self._note("some sound packets could not be decoded")
                    continue
                if not np.isfinite(mono).all():
                    self._note("some samples of the sound are no numbers, and are silenced")
                    mono = np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)
                if heard.start is None:
                    self._note_late_start(log, start, "sound")
                heard.damage(start, frame.is_corrupt)
                # A fragmented MP4 of sound that begins late has its first packet at 0, and says that it lasts so long.
                heard.add(start, start + (max(length, self._lasts(frame)) if heard.start is None else length))
                yield SoundBlock(start, mono, frame.sample_rate)
        if heard is self.heard:
            self.heard_all = True

    def _can_be_heard(self, frame: av.AudioFrame) -> bool:
        """Whether a frame has samples at a rate, and of so many channels, as sound has; others are noted."""
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        if not frame.samples or not rate:
            return False
        if MIN_SOUND_RATE <= rate <= MAX_SOUND_RATE and channels <= MAX_SOUND_CHANNELS:
            return True
        try:
            check_limit("MAX_SOUND_RATE", rate, f"sound of {rate:,} Hz is left out")
            check_limit("MAX_SOUND_CHANNELS", channels, f"sound of {channels} channels is left out")
        except MediaError as error:
            self._note(str(error).split(". ")[0])
            return False
        if rate < MIN_SOUND_RATE:
            self._note(f"sound of {rate} Hz is left out; {MIN_SOUND_RATE} Hz and more are heard")
            return False
        return True
