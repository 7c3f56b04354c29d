"""One connection to a live source: its packets, cut into segments without a gap."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av

from .clips import JUMP_S
from .errors import MediaError
from .segments import STALL_S, PacketFeed, Segment

if TYPE_CHECKING:
    from .cameras import Camera  # which imports this

logger = logging.getLogger(__name__)

# Seconds of a file that wait for who decodes them.
AHEAD_S = 2.0
# Sound that is so many seconds behind the picture has stopped. Containers interleave within about one.
SOUND_LATE_S = 3.0
# Packets that waited within FFmpeg have come when for so many seconds none was prompter than those before, but for the
# second number; so many packets are looked at at most.
SETTLED_S, SAME_ZERO_S, MOST_WAITED = 0.25, 0.005, 2000
# Seconds in a second by which a camera's clock may be slow: crystals differ by a tenth of it at most.
MOST_DRIFT = 1e-3
_BEHIND = "computing fell behind"


class ConnectionReader:
    """Reads one connection, and cuts it into segments.

    Args:
        camera: Whose connection it is.
        container: The connection, open.
        sound_container: What has the sound: the same, or a device beside it.
        generation: The camera's number of this reader.
    """

    def __init__(self, camera: "Camera", container: Any, sound_container: Any, generation: int):
        self.camera, self.container, self.generation = camera, container, generation
        self.picture = container.streams.best("video")
        if self.picture is None or self.picture.codec_context is None:
            raise MediaError(f"{camera.name} has no picture that can be decoded.")
        self.sound_container: Any = None if sound_container is container else sound_container
        sound = sound_container.streams.best("audio")
        self.sound = None if sound is None or sound.codec_context is None else sound
        self.num_segments = 0
        self.segment: Segment | None = None
        self.is_over = False
        self.microphone: threading.Thread | None = None
        self.lock = threading.Lock()
        self.last_picture: float | None = None  # on the container's clock, in seconds
        self.last_sound: float | None = None
        self.newest: float | None = None  # of both, in this segment
        self.hears = self.sound is not None

    def read(self) -> None:
        """Read until it ends or fails."""
        streams = [self.picture]
        if self.sound_container is not None:
            self.microphone = threading.Thread(target=self._hear, name="microphone", daemon=True)
            self.microphone.start()
        elif self.sound is not None:
            streams.append(self.sound)
        for packet, came in self._packets(streams):
            if self.camera.is_old(self.generation):
                return
            self._take(packet, came)

    def end(self) -> bool:
        """Let the thread of a sound device end; returns whether it has."""
        self.is_over = True
        if self.microphone is not None:
            self.microphone.join(STALL_S)
        return self.microphone is None or not self.microphone.is_alive()

    def _hear(self) -> None:
        """Read a sound device. Where it fails, the sound stops, and what is seen goes on."""
        try:
            for packet in self.sound_container.demux(self.sound):
                if self.is_over or self.camera.is_old(self.generation):
                    return
                if packet.size:
                    self._take(packet, time.time())
        except av.error.FFmpegError as error:
            logger.warning("%s: its sound device failed: %s", self.camera.name, error.strerror)

    def _take(self, packet: av.Packet, came: float) -> None:
        """Hand a packet on, in a new segment where one has to begin."""
        camera = self.camera
        camera.alive_at = time.monotonic()
        with self.lock:
            at = _seconds(packet)
            is_picture = packet.stream.type == "video"
            if reason := self._change(self.segment, at, is_picture):
                camera.end_segment(reason, drop=reason == _BEHIND)
                self.segment = None
            if is_picture:
                camera.num_pictures += 1
                self.last_picture = at if at is not None else self.last_picture
            else:
                self.last_sound = at if at is not None else self.last_sound
            if self.segment is None:
                # Whatever is built on a key frame that was missed is damaged; a device's pictures stand alone.
                is_whole = is_picture and (packet.is_keyframe or camera.is_device)
                if camera.is_live and not is_whole:
                    return
                self.segment = self._begin(at, came)
            segment = self.segment
            if at is not None and camera.is_live:
                # A network delays packets, and the least delay is the nearest to none. A camera's clock may be slow.
                slower = MOST_DRIFT * max(0.0, at - self.newest) if self.newest is not None else 0.0
                segment.begun = min(segment.begun + slower, came - (at - segment.start))
                self.newest = at if self.newest is None else max(at, self.newest)
            # Two devices number their streams alike: of these the picture alone is kept.
            if camera.ring is not None and (is_picture or self.sound_container is None):
                camera.ring.add(packet)
        segment.feed.put(packet, (at or 0.0) - segment.start, may_wait=not camera.is_live)

    def _packets(self, streams: list[Any]) -> Iterator[tuple[av.Packet, float]]:
        """Packets, and when they came, in seconds since 1970.

        Opening a live source takes a second or so, while packets wait within FFmpeg. They come all at once then, and
        are said to have come as much earlier as their own times say.
        """
        packets = (packet for packet in self.container.demux(streams) if packet.size)
        waited: list[av.Packet] = []
        zero = math.inf  # of the container's clock, in seconds since 1970, as the promptest packet says it
        if self.camera.is_live:
            lower_since = time.monotonic()
            for packet in packets:
                waited.append(packet)
                if (mark := _seconds(packet)) is not None and time.time() - mark < zero - SAME_ZERO_S:
                    zero, lower_since = time.time() - mark, time.monotonic()
                if time.monotonic() - lower_since > SETTLED_S or len(waited) == MOST_WAITED:
                    break
        for packet in waited:
            mark = _seconds(packet)
            yield packet, time.time() if mark is None else zero + mark
        for packet in packets:
            yield packet, time.time()

    def _begin(self, at: float | None, came: float) -> Segment:
        camera = self.camera
        start = at or 0.0
        if self.num_segments == 0 and not camera.is_live:
            start = (self.container.start_time or 0) / av.time_base  # as a file that is over has it
        begun = came - ((at or 0.0) - start)
        sound = self.sound if self.hears else None
        feed = PacketFeed(sound is not None, AHEAD_S)
        segment = Segment(self.picture, sound, feed, camera.name, start=start, begun=begun)
        self.num_segments += 1
        self.last_sound = self.newest = None
        if camera.ring is not None:
            kept = [self.picture] if sound is None or self.sound_container is not None else [self.picture, sound]
            camera.ring.begin(kept, begun, start)
        camera.begin_segment(self.generation, segment)
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
        if segment.feed.waiting_s > self.camera.most_behind_s:
            return _BEHIND
        return None


def _seconds(packet: av.Packet) -> float | None:
    """When it is decoded, on the container's clock; ``None`` if it does not say."""
    mark = packet.dts if packet.dts is not None else packet.pts
    return None if mark is None else float(mark * packet.time_base)


__all__ = ["ConnectionReader"]
