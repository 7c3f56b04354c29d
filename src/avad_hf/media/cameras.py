"""Live sources: RTSP, HTTP, devices, files that grow, pipes. Each is opened again for ever, and holds up no other."""

import os
import queue
import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import av

from .clips import JUMP_S
from .errors import MediaError
from .fetching import without_file_protocol
from .growing import GrowingFile
from .limits import check_limit
from .opening import CONTAINERS
from .segments import STALL_S, PacketFeed, Segment

# FFmpeg's own limit of a try to connect and of a read, in seconds. PyAV's timeout hangs some streams.
TIMEOUT_S = 5.0
# Seconds before the first new try, and at most; each try waits twice as long as the one before, and up to half as long
# again by chance, so that a hundred cameras do not come back in the same moment.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
# A connection that held for so many seconds was a good one: the next try comes soon again.
GOOD_S = 30.0
# Seconds that picture may wait to be computed before it is left out. Two clips of 32 frames at 25 a second are 2.56.
MOST_BEHIND_S = 2.0
# Seconds of a file that wait for who decodes them.
AHEAD_S = 2.0
# Sound that is so many seconds behind the picture has stopped. Containers interleave within about one.
SOUND_LATE_S = 3.0
# A packet that took so many seconds to come did not wait within FFmpeg; of those that did so many are looked at.
AT_ONCE_S, MOST_WAITED = 0.005, 2000
# A file that nobody wrote to for so many seconds is over.
QUIET_S = 5.0

# An address without its slashes, which holds a password all the same.
HALF_ADDRESS = re.compile("(rtsps?|https?):(?!//)", re.IGNORECASE)
NETWORK = ("rtsp", "rtsps", "http", "https")
SOURCES = (
    "A live source is an address (rtsp://, rtsps://, or http:// and https:// with MPEG-TS, MJPEG, FLV or Matroska), a "
    "device (/dev/video0), a file that may grow, a named pipe, or - for standard input."
)
# What an address on the network may be and open by itself: nothing on this machine.
_RTSP = {"rtsp_transport": "tcp", "protocol_whitelist": "rtsp,rtsps,rtp,tcp,tls"}
_HTTP = {
    "protocol_whitelist": "http,https,httpproxy,tcp,tls",
    "format_whitelist": "mpegts,mpjpeg,flv,matroska,webm,ogg",
    "analyzeduration": "2000000",  # microseconds of the stream before its pictures come
    "seekable": "0",  # lest FFmpeg asks again for the beginning, which is gone
}


class Ring(Protocol):
    """Keeps the last encoded packets, such as [`~avad_hf.media.ring.PacketRing`]."""

    def begin(self, streams: list[Any], begun: float, start: float) -> None:
        """A new segment begins, of these streams of PyAV's; its time 0 since 1970, and on the container's clock."""

    def add(self, packet: av.Packet) -> None:
        """Its next packet."""


def shown_source(source: str) -> str:
    """A source for people: without user, password and query, which may hold secrets."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def check_source(source: str) -> str:
    """A source as it is read.

    Raises:
        ValueError: If it is nothing that can be watched.
    """
    source = without_file_protocol(source)
    scheme = source.partition("://")[0].lower() if "://" in source and not os.path.exists(source) else None
    if scheme is None and HALF_ADDRESS.match(source) and not os.path.exists(source):
        raise ValueError(f"{source.partition(':')[0]}: is followed by // in an address. {SOURCES}")
    if scheme is not None and scheme not in NETWORK:
        raise ValueError(f"{shown_source(source)} cannot be watched. {SOURCES}")
    if scheme is not None and not urlsplit(source).hostname:
        raise ValueError(f"{shown_source(source)} names no host. {SOURCES}")
    if scheme is None and source != "-" and (os.path.isdir(source) or not source or "\0" in source):
        raise ValueError(f"{source!r} is a folder or no path. {SOURCES}")
    return source


class Camera:
    """One live source, as stretches without a gap.

    A thread reads it. Where the connection fails, stalls, changes or jumps in time, the segment ends and another one
    begins, when there is something to read again: a live source is tried for ever, a file or pipe ends. When whoever
    decodes falls behind a live source, what waits is left out, and the newest pictures come next.

    Args:
        source: `SOURCES` says what it may be.
        name: For people; by default the source without its credentials.
        sound: Of a device, the sound device beside it, by ALSA's name: ``hw:1`` or ``default``.
        ring: Takes the encoded packets too.
        most_behind_s: Seconds that picture may wait before it is left out.
        quiet_s: A file that nobody wrote to for so many seconds is over.

    Raises:
        ValueError: If the source is nothing that can be watched.
    """

    def __init__(
        self,
        source: str,
        name: str | None = None,
        *,
        sound: str | None = None,
        ring: Ring | None = None,
        most_behind_s: float = MOST_BEHIND_S,
        quiet_s: float = QUIET_S,
    ):
        self._source, self.name = check_source(source), name or shown_source(source)
        self.is_device = self._source.startswith("/dev/video")
        # What goes on whether or not somebody reads it.
        self.is_live = self.is_device or "://" in self._source
        if sound is not None and not self.is_device:
            raise ValueError(f"sound={sound!r} goes with a device such as /dev/video0; {self.name} has its own sound.")
        self._sound, self._ring, self._most_behind_s, self._quiet_s = sound, ring, most_behind_s, quiet_s
        self._stopped = threading.Event()
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._current: Segment | None = None
        self._generation, self._lock = 0, threading.Lock()
        self.state, self.problem = "starting", None
        self.num_reconnects = self.num_gaps = self.num_pictures = 0
        self.left_out_s = 0.0
        self._origin: float | None = None  # monotonic seconds at the camera's first picture

    def segments(self) -> Iterator[Segment]:
        """The stretches, as they come; each must be read to its end, or left, before the next one is asked for."""
        self._start_reader()
        opened = time.monotonic()
        try:
            while True:
                try:
                    found = self._ready.get(timeout=1.0)
                except queue.Empty:
                    # A reader that hangs within FFmpeg is left behind, and ends when it comes back.
                    if self._is_hanging(opened):
                        opened = time.monotonic()
                        self._start_reader()
                    continue
                if found is None:
                    return
                if isinstance(found, Segment):
                    yield found
                    found.feed.end("nobody reads on", drop=True)
                else:
                    found.close()
                opened = time.monotonic()
        finally:
            self.stop()

    def stop(self) -> None:
        """Let it end: what waits is decoded, and nothing more is read."""
        self._stopped.set()
        if (current := self._current) is not None:
            current.feed.end("stopped")
        self._ready.put(None)

    @property
    def health(self) -> dict[str, Any]:
        """How it is, ready for JSON."""
        current = self._current
        info = None if current is None else current.info
        return {
            "state": self.state,
            "problem": self.problem,
            "frames": self.num_pictures,
            "reconnects": self.num_reconnects,
            "gaps": self.num_gaps,
            "left_out": round(self.left_out_s, 3),
            "has_audio": bool(info and info.has_audio),
            "width": info and info.width,
            "height": info and info.height,
            "fps": info and round(info.fps, 3),
        }

    def _start_reader(self) -> None:
        with self._lock:
            self._generation += 1
            generation = self._generation
        threading.Thread(target=self._read_for_ever, args=(generation,), name="camera", daemon=True).start()

    def _is_old(self, generation: int) -> bool:
        return self._stopped.is_set() or generation != self._generation

    def _is_hanging(self, since: float) -> bool:
        """Whether a reader that should have come by now has not: in opening, or in a read that FFmpeg does not end."""
        return (
            self.is_live
            and self.state != "reconnecting"
            and time.monotonic() - since > 2 * STALL_S
            and not self._stopped.is_set()
        )

    def _read_for_ever(self, generation: int) -> None:
        wait = FIRST_WAIT_S
        while not self._is_old(generation):
            begun = time.monotonic()
            try:
                self._read(generation)
                problem = "the source ended" if self.is_live else None
            except Exception as error:  # whatever a network does, the camera is tried again
                problem = _words(error, self._source)
            if self._is_old(generation):
                return
            self._end_segment(problem or "over")
            if not self.is_live:
                self.state, self.problem = "ended", problem
                self._ready.put(None)
                return
            self.state, self.problem = "reconnecting", problem
            if time.monotonic() - begun > GOOD_S:
                wait = FIRST_WAIT_S
            self._stopped.wait(wait * random.uniform(1.0, 1.5))
            wait = min(2 * wait, LONGEST_WAIT_S)
            self.num_reconnects += 1

    def _read(self, generation: int) -> None:
        container = self._open()
        try:
            check_limit("MAX_STREAMS", len(container.streams), f"{self.name}: {len(container.streams)} streams")
            _Reader(self, container, generation).read()
        finally:
            self._ready.put(container)  # closed by whoever decodes, when that is through

    def _open(self) -> Any:
        if self.is_device:
            return _opened(self._source, format="v4l2", options={"use_wallclock_as_timestamps": "1"})
        if not self.is_live:
            file = GrowingFile(self._source, self._quiet_s, self._stopped)
            # PyAV closes what it did not open only with the file object.
            return _opened(file, options={"format_whitelist": ",".join(CONTAINERS)})
        options = {"timeout": str(round(TIMEOUT_S * 1e6))}
        if self._source.lower().startswith("rtsp"):
            return _opened(self._source, options=options | _RTSP)
        container = _opened(self._source, options=options | _HTTP)
        if container.format.name == "mpjpeg":  # which says no times
            container.close()
            options["use_wallclock_as_timestamps"] = "1"
            container = _opened(self._source, options=options | _HTTP)
        return container

    def _end_segment(self, reason: str, drop: bool = False) -> None:
        if (current := self._current) is not None and current.feed.ended is None:
            self.left_out_s += current.feed.end(reason, drop)

    def _begin_segment(self, generation: int, segment: Segment) -> None:
        with self._lock:
            if self._is_old(generation):
                raise MediaError("another reader has taken over")
            now = time.monotonic()
            if self._origin is None:
                self._origin = now
            else:
                self.num_gaps += 1
                segment.shift = now - self._origin
            self._current = segment
        self.state, self.problem = "live", None
        self._ready.put(segment)


class _Reader:
    """Reads one connection, and cuts it into segments.

    Args:
        camera: Whose connection it is.
        container: The connection, open.
        generation: The camera's number of this reader.
    """

    def __init__(self, camera: Camera, container: Any, generation: int):
        self.camera, self.container, self.generation = camera, container, generation
        self.picture = container.streams.best("video")
        if self.picture is None or self.picture.codec_context is None:
            raise MediaError(f"{camera.name} has no picture that can be decoded.")
        sound = container.streams.best("audio")
        self.sound = None if sound is None or sound.codec_context is None else sound
        self.num_segments = 0
        self.last_picture: float | None = None  # on the container's clock, in seconds
        self.last_sound: float | None = None
        self.hears = self.sound is not None

    def read(self) -> None:
        """Read until it ends or fails."""
        camera, may_wait = self.camera, not self.camera.is_live
        segment: Segment | None = None
        streams = [self.picture] if self.sound is None else [self.picture, self.sound]
        for packet, came in self._packets(streams):
            if camera._is_old(self.generation):
                return
            at = _seconds(packet)
            is_picture = packet.stream_index == self.picture.index
            if reason := self._change(segment, at, is_picture):
                camera._end_segment(reason, drop=reason == _BEHIND)
                segment = None
            if is_picture:
                camera.num_pictures += 1
                self.last_picture = at if at is not None else self.last_picture
            else:
                self.last_sound = at if at is not None else self.last_sound
            if segment is None:
                # Of a live source whatever is built on a key frame that was missed is damaged.
                if camera.is_live and not (is_picture and packet.is_keyframe):
                    continue
                segment = self._begin(at, came)
            if at is not None and camera.is_live:
                # A network delays packets; the least delay is the nearest to none.
                segment.begun = min(segment.begun, came - (at - segment.start))
            if camera._ring is not None:
                camera._ring.add(packet)
            segment.feed.put(packet, (at or 0.0) - segment.start, may_wait)

    def _packets(self, streams: list[Any]) -> Iterator[tuple[av.Packet, float]]:
        """Packets, and when they came, in seconds since 1970.

        Opening a live source takes a second or so, while packets wait within FFmpeg. The last of those came now, and
        the others as much earlier as they say.
        """
        packets = (packet for packet in self.container.demux(streams) if packet.size)
        waited: list[av.Packet] = []
        if self.camera.is_live:
            since = time.monotonic()
            for packet in packets:
                waited.append(packet)
                if time.monotonic() - since > AT_ONCE_S or len(waited) == MOST_WAITED:
                    break
                since = time.monotonic()
        latest = max((mark for packet in waited if (mark := _seconds(packet)) is not None), default=None)
        now_s = time.time()
        for packet in waited:
            mark = _seconds(packet)
            yield packet, now_s if mark is None or latest is None else now_s - (latest - mark)
        for packet in packets:
            yield packet, time.time()

    def _begin(self, at: float | None, came: float) -> Segment:
        camera = self.camera
        start = at or 0.0
        if self.num_segments == 0 and not camera.is_live:
            start = (self.container.start_time or 0) / av.time_base  # as a file that is over has it
        begun = came - ((at or 0.0) - start)
        feed = PacketFeed(
            self.picture.index,
            self.sound.index if self.hears else None,
            AHEAD_S,
        )
        segment = Segment(
            self.container,
            feed,
            camera.name,
            start=start,
            begun=begun,
            has_audio=self.hears,
        )
        self.num_segments += 1
        self.last_sound = None
        if camera._ring is not None:
            camera._ring.begin([self.picture, *([self.sound] if self.hears else [])], begun, start)
        camera._begin_segment(self.generation, segment)
        return segment

    def _change(self, segment: Segment | None, at: float | None, is_picture: bool) -> str | None:
        """Why a new segment has to begin with this packet, if it has to."""
        if segment is None:
            return None
        if segment.feed.ended is not None:
            return segment.feed.ended
        if not self.camera.is_live:
            return None
        if not is_picture:
            # Sound that comes back is heard again from a new segment on.
            if not self.hears and self.sound is not None:
                self.hears = True
                return "the sound came back"
            return None
        if at is None or self.last_picture is None:
            return None
        if not -JUMP_S < at - self.last_picture < JUMP_S + STALL_S:
            return f"its clock jumped by {at - self.last_picture:.1f} s"
        if self.hears and at - max(segment.start, self.last_sound or segment.start) > SOUND_LATE_S:
            self.hears = False
            return "the sound stopped"
        if segment.feed.waiting_s > self.camera._most_behind_s:
            return _BEHIND
        return None


def _seconds(packet: av.Packet) -> float | None:
    """When it is decoded, on the container's clock; ``None`` if it does not say."""
    mark = packet.dts if packet.dts is not None else packet.pts
    return None if mark is None else float(mark * packet.time_base)


_BEHIND = "computing fell behind"


def _opened(source: Any, options: dict[str, str], format: str | None = None) -> Any:
    return av.open(source, format=format, options=options, metadata_errors="replace")


def _words(error: Exception, source: str) -> str:
    """An error without the address, which may hold a password."""
    if isinstance(error, MediaError):
        return str(error)
    words = getattr(error, "strerror", None) or type(error).__name__
    secret = re.escape(urlsplit(source).netloc.rpartition("@")[0]) if "://" in source else ""
    return re.sub(secret, "...", str(words)) if secret else str(words)


__all__ = ["SOURCES", "Camera", "check_source", "shown_source"]
