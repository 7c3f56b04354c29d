"""A stretch of a live source with one clock: packets that come, as frames and sound."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np

from .audio import SoundBlock
from .clips import Frame
from .coverage import Coverage
from .decode import MediaFile, MediaInfo
from .errors import MediaError

# Seconds after which a source that sends nothing is given up.
STALL_S = 15.0
# A decoder of up to so many pixels a second (1080p at 30 frames a second) has one thread: it takes a tenth less of the
# processor than several, and waits for no further pictures.
ONE_THREAD_PIXELS_A_SECOND = 1920 * 1080 * 30
# So many seconds of loudness are kept: as long as the longest clip that somebody asks for.
LOUDNESS_S = 60.0


class PacketFeed:
    """Encoded packets on their way from the thread that reads to the one that decodes.

    Args:
        has_sound: Whether there is sound beside the picture.
        most_s: Seconds of picture that wait at most, where whoever reads can wait.
    """

    def __init__(self, has_sound: bool, most_s: float):
        self.most_s = most_s
        self._packets: dict[str, deque[tuple[float, av.Packet]]] = {"video": deque()}
        if has_sound:
            self._packets["audio"] = deque()
        self._changed = threading.Condition()
        self._is_starving = False
        self._ended: str | None = None

    @property
    def ended(self) -> str | None:
        """Why nothing more comes; ``None`` as long as it may."""
        return self._ended

    @property
    def waiting_s(self) -> float:
        """Seconds of picture that wait to be decoded."""
        with self._changed:
            return self._waiting_s()

    def _waiting_s(self) -> float:
        times = self._packets["video"]
        return times[-1][0] - times[0][0] if times else 0.0

    def put(self, packet: av.Packet, at: float, may_wait: bool) -> None:
        """Take a packet that appears or sounds `at` so many seconds; waits for room, if it may."""
        if packet.stream.type not in self._packets:
            return
        with self._changed:
            while may_wait and self._ended is None and not self._is_starving and self._waiting_s() > self.most_s:
                self._changed.wait(STALL_S)
            if self._ended is None:
                self._packets[packet.stream.type].append((at, packet))
                self._changed.notify_all()

    def end(self, reason: str, drop: bool = False) -> float:
        """Nothing more comes. What waits is decoded, or dropped; returns the seconds of picture that were."""
        with self._changed:
            if self._ended is None:
                self._ended = reason
            left_out = self._waiting_s() if drop else 0.0
            if drop:
                for packets in self._packets.values():
                    packets.clear()
            self._changed.notify_all()
        return left_out

    def get(self, kind: str, patience_s: float) -> av.Packet | None:
        """The next packet of the picture (``"video"``) or the sound (``"audio"``); ``None`` at the end.

        Waits for it, and ends itself after so many seconds.
        """
        with self._changed:
            packets = self._packets[kind]
            try:
                while not packets and self._ended is None:
                    self._is_starving = True
                    self._changed.notify_all()
                    if not self._changed.wait(patience_s):
                        self._ended = f"nothing came for {patience_s:.0f} s"
            finally:
                self._is_starving = False
            packet = packets.popleft()[1] if packets else None
            self._changed.notify_all()
        return packet


class _Flush:
    """Stands for a packet at the end of a stream: what the decoder still holds comes out."""

    size, is_corrupt, is_discard = 0, False, False

    def __init__(self, stream: Any):
        self._stream, self.stream_index = stream, stream.index

    def decode(self) -> list[Any]:
        frames = self._stream.codec_context.decode(None)
        for frame in frames:
            frame.time_base = frame.time_base or self._stream.time_base
        return frames


class _Container:
    """What `MediaFile` asks of an open container, with packets that another thread reads."""

    def __init__(self, streams: dict[str, Any], feed: PacketFeed):
        self.streams, self._streams, self._feed = self, streams, feed

    def best(self, kind: str) -> Any:
        """The picture or the sound, as PyAV's list of streams finds it."""
        return self._streams.get(kind)

    def demux(self, streams: list[Any]) -> Iterator[Any]:
        if (context := streams[0].codec_context).is_open:  # by the segment before, to its end
            context.flush_buffers()
        while (packet := self._feed.get(streams[0].type, STALL_S)) is not None:
            yield packet
        yield _Flush(streams[0])


class Segment(MediaFile):
    """A stretch of a live source without a gap, with the manner of a [`Media`] that never ends.

    It can be read once. Its pictures keep one size: a source that changes it begins a new segment.

    Args:
        picture: PyAV's stream of the picture, which another thread demuxes.
        sound: That of the sound; ``None`` without.
        feed: What that thread gives.
        name: For messages, without credentials.
        start: Seconds on the container's clock that are 0 on this one.
        begun: Seconds since 1970 at this clock's 0.
    """

    is_endless = True

    def __init__(
        self,
        picture: Any,
        sound: Any,
        feed: PacketFeed,
        name: str,
        *,
        start: float,
        begun: float,
    ):
        self._streams = {"video": picture} if sound is None else {"video": picture, "audio": sound}
        self.feed, self.name, self.path = feed, name, ""
        self.start, self.begun, self.has_audio = start, begun, sound is not None
        self.sound_file = self
        self._notes, self.remarks = [], []
        self.seen, self.seen_all = Coverage("picture"), False
        self.heard, self.heard_all = Coverage("sound", is_continuous=True), False
        self._handles, self._is_read = [], False
        rate = picture.average_rate or picture.guessed_rate or 25
        # Without a rate of its own a source says its unit of time, which no camera reaches.
        rate = float(rate) if rate <= 1000 else 25.0
        context = picture.codec_context
        self.info = MediaInfo(name, context.width, context.height, rate, None, self.has_audio)
        self._loudness: deque[tuple[float, float, float]] = deque()

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The packets, as a container."""
        yield _Container(self._streams, self.feed)

    def num_frames(self, limit: int | None = None) -> int:
        """More than anybody asks for: it has no end."""
        return 2**31 if limit is None else limit

    def frames(self, *args: Any, **kwargs: Any) -> Iterator[Frame]:
        """Decode the frames, scaled, as [`MediaFile.frames`] does, once."""
        if self._is_read:
            raise MediaError(f"{self.name} can be read once: what a camera sent is gone.")
        self._is_read = True
        yield from super().frames(*args, **kwargs)

    def _prepare_decoder(self, stream: Any) -> None:
        if stream.codec_context.is_open:
            return
        super()._prepare_decoder(stream)
        if self.info.width * self.info.height * self.info.fps <= ONE_THREAD_PIXELS_A_SECOND:
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1

    def _changes_size(self, before: tuple[int, int], after: tuple[int, int]) -> bool:
        reason = f"the picture's size changed from {before[0]} x {before[1]} to {after[0]} x {after[1]}"
        self.feed.end(reason, drop=True)
        return False

    def _note_end(self, seen: Coverage, sound_end: float | None) -> None:
        """Whoever reads knows why it ended."""

    def _sound_blocks(self, heard: Coverage) -> Iterator[SoundBlock]:
        for block in super()._sound_blocks(heard):
            end = block.start + len(block.samples) / block.rate
            self._loudness.append((block.start, end, float(np.square(block.samples, dtype=np.float64).mean())))
            while self._loudness[0][1] < end - LOUDNESS_S:
                self._loudness.popleft()
            yield block

    def sound_db(self, begin: float, end: float) -> float | None:
        """How loud it was, in dB of full scale (-100 for silence); ``None`` where no sound is known."""
        total = length = 0.0
        for start, stop, power in list(self._loudness):
            if (shared := min(stop, end) - max(start, begin)) > 0:
                total, length = total + shared * power, length + shared
        return float(10 * np.log10(max(total / length, 1e-10))) if length else None

    def lag(self, at: float) -> float:
        """Seconds since a time on this clock."""
        return time.time() - (self.begun + at)


__all__ = ["STALL_S", "PacketFeed", "Segment"]
