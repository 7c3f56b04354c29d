"""Live sources: RTSP, HTTP, devices, files that grow, pipes. Each is opened again for ever, and holds up no other."""

import ctypes
import gc
import logging
import math
import os
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Generator
from typing import Any, Protocol
from urllib.parse import urlsplit

import av

from .connections import ConnectionReader
from .errors import MediaError
from .fetching import without_file_protocol
from .growing import GrowingFile
from .limits import check_limit
from .opening import CONTAINERS
from .segments import STALL_S, Segment

logger = logging.getLogger(__name__)

# FFmpeg's own limit of a try to connect and of a read, in seconds. PyAV's timeout hangs some streams.
TIMEOUT_S = 5.0
# Seconds before the first new try, and at most; each try waits twice as long as the one before, and up to half as long
# again by chance, so that a hundred cameras do not come back in the same moment.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
# A connection that held for so many seconds was a good one: the next try comes soon again.
GOOD_S = 30.0
# Seconds that picture may wait to be computed before it is left out. Two clips of 32 frames at 25 a second are 2.56.
MOST_BEHIND_S = 2.0
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
# Times at which packets came, for what says no times, and for two devices on one clock.
_WALL_CLOCK = {"use_wallclock_as_timestamps": "1"}
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
        sound: The sound device beside a video device, by ALSA's name: ``hw:1`` or ``default``.
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
        self._sound, self.ring, self.most_behind_s, self._quiet_s = sound, ring, most_behind_s, quiet_s
        self._stopped = threading.Event()
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._current: Segment | None = None
        self._generation, self._lock = 0, threading.Lock()
        self.state = "starting"
        self.problem: str | None = None
        self.num_reconnects = self.num_gaps = self.num_pictures = 0
        self.left_out_s = 0.0
        # When the reader last did something, in monotonic seconds; never while it waits for the next try.
        self.alive_at = math.inf

    def segments(self) -> Generator[Segment, None, None]:
        """The stretches, as they come; each must be read to its end, or left, before the next one is asked for."""
        self._start_reader()
        try:
            while True:
                try:
                    found = self._ready.get(timeout=1.0)
                except queue.Empty:
                    # A reader that hangs within FFmpeg is left behind, and ends when it comes back.
                    if self.is_live and time.monotonic() - self.alive_at > 2 * STALL_S:
                        self._start_reader()
                    continue
                if found is None:
                    return
                if isinstance(found, Segment):
                    yield found
                    found.feed.end("nobody reads on", drop=True)
                else:
                    found.close()
                    # PyAV's containers and streams refer to each other: without this, their decoders keep threads.
                    gc.collect()
                    _give_memory_back()
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
        self.alive_at = time.monotonic()
        threading.Thread(target=self._read_for_ever, args=(generation,), name="camera", daemon=True).start()

    # For the reader of a connection.

    def is_old(self, generation: int) -> bool:
        """Whether a reader is to end, since another has taken over or all is over."""
        return self._stopped.is_set() or generation != self._generation

    def _read_for_ever(self, generation: int) -> None:
        wait = FIRST_WAIT_S
        while not self.is_old(generation):
            begun = self.alive_at = time.monotonic()
            try:
                self._read(generation)
                problem = "the source ended" if self.is_live else None
            except Exception as error:  # whatever a network does, the camera is tried again
                problem = _words(error, self._source)
            if self.is_old(generation):
                return
            self.end_segment(problem or "over")
            if not self.is_live:
                self.state, self.problem = "ended", problem
                self._ready.put(None)
                return
            self.state, self.problem, self.alive_at = "reconnecting", problem, math.inf
            if time.monotonic() - begun > GOOD_S:
                wait = FIRST_WAIT_S
            self._stopped.wait(wait * random.uniform(1.0, 1.5))
            wait = min(2 * wait, LONGEST_WAIT_S)
            self.num_reconnects += 1

    def _read(self, generation: int) -> None:
        opened: list[Any] = []
        try:
            opened.append(self._open())
            check_limit("MAX_STREAMS", len(opened[0].streams), f"{self.name}: {len(opened[0].streams)} streams")
            if self._sound is not None:
                opened.append(_opened(self._sound, format="alsa", options=_WALL_CLOCK))
            reader = ConnectionReader(self, opened[0], opened[-1], generation)
            try:
                reader.read()
            finally:
                if not reader.end():  # a device that hangs is never closed
                    del opened[1:]
        finally:
            for container in opened:
                self._ready.put(container)  # closed by whoever decodes, when that is through

    def _open(self) -> Any:
        if self.is_device:
            return _opened(self._source, format="v4l2", options=_WALL_CLOCK)
        if not self.is_live:
            file = GrowingFile(self._source, self._quiet_s, self._stopped)
            return _opened(file, options={"format_whitelist": ",".join(CONTAINERS)})
        options = {"timeout": str(round(TIMEOUT_S * 1e6))}
        if self._source.lower().startswith("rtsp"):
            return _opened(self._source, options=options | _RTSP)
        container = _opened(self._source, options=options | _HTTP)
        if container.format.name == "mpjpeg":  # which says no times
            container.close()
            container = _opened(self._source, options=options | _HTTP | _WALL_CLOCK)
        return container

    def end_segment(self, reason: str, drop: bool = False) -> None:
        """End the segment that is read, if there is one; `drop` leaves out what waits."""
        if (current := self._current) is not None and current.feed.ended is None:
            self.left_out_s += current.feed.end(reason, drop)

    def begin_segment(self, generation: int, segment: Segment) -> None:
        """Hand a new segment to whoever decodes; raises [`MediaError`] to a reader that is old."""
        with self._lock:
            if self.is_old(generation):
                raise MediaError("another reader has taken over")
            self.num_gaps += self._current is not None
            self._current = segment
        self.state, self.problem = "live", None
        self._ready.put(segment)


def _give_memory_back() -> None:
    """Have glibc give the system what it keeps for threads that are gone: a camera may come back for months."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _opened(source: Any, options: dict[str, str], format: str | None = None) -> Any:
    return av.open(source, format=format, options=options, metadata_errors="replace")


def _words(error: Exception, source: str) -> str:
    """An error without the address, which may hold a password."""
    if isinstance(error, MediaError):
        return str(error)
    words = str(getattr(error, "strerror", None) or type(error).__name__)
    secret = urlsplit(source).netloc.rpartition("@")[0] if "://" in source else ""
    return words.replace(secret, "...") if secret else words


__all__ = ["SOURCES", "Camera", "check_source", "shown_source"]
