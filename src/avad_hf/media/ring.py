"""The encoded packets of a camera's last seconds, from which a file is cut without encoding anything anew."""

import heapq
import io
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from avad_hf.files import written_whole

from .encode import LEAST_MP3_RATE, MP4_SOUND
from .errors import MediaError

# Pictures that players expect in an MP4, by FFmpeg's names. Others go into Matroska, which takes all.
MP4_PICTURES = ("h264", "hevc", "av1", "vp9", "mpeg4")
# Python's own bytes for a packet, beside its data: G.711 comes in packets of 160 bytes.
PACKET_BYTES = 300
# A timestamp that is so many seconds away from the newest one is wrong, or the clock was set. Containers interleave
# picture and sound within a few seconds.
STRAY_S = 10.0
# Clocks of one segment that are remembered: each stray timestamp and each setting of the clock makes one.
MOST_CLOCKS = 4
# The beginning of a clip is nearly lost when it goes within so many seconds; or when the ring is so full, and no more
# than the rest goes before it. Who cuts looks a few times a second.
NEARLY_S, NEARLY_FULL = 2.0, 0.9


@dataclass(frozen=True)
class Cut:
    """A file that was cut.

    Args:
        path: Its name, with its ending: ``.mp4``, or ``.mkv`` where an MP4 cannot hold what the camera sends.
        begin: When its first picture appears, in seconds since 1970.
        end: When its last picture ends.
        has_sound: Whether it has sound.
    """

    path: Path
    begin: float
    end: float
    has_sound: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """A packet: its bytes, when it appears or sounds, and how long, in the units of its stream and in seconds."""

    data: bytes
    pts: int
    duration: int
    is_key: bool
    time: float
    end: float

    @property
    def size(self) -> int:
        return len(self.data) + PACKET_BYTES


class _Track:
    """One stream of a segment.

    Args:
        source: The input's stream.
        copy: A copy of it, with all that a muxer asks.
    """

    def __init__(self, source: Any, copy: Any):
        self.stream, self.base = copy, Fraction(source.time_base)
        rate = (source.guessed_rate or source.average_rate) if source.type == "video" else None
        # How long a packet lasts that does not say it, in units: a player drops one that lasts no time.
        self.usual = max(1, round(1 / rate / self.base)) if rate else 1
        # When the packet after the last one begins, if it does not say it.
        self.next: int | None = None


class _Segment:
    """The packets of one stretch with one clock.

    The pictures are in groups that begin with a key frame, since only from there they can be decoded. The container
    they come from may be closed: a container that writes nothing keeps copies of its streams.
    """

    def __init__(self, streams: Sequence[Any], begun: float, start: float):
        self._begun, self._start = begun, start
        self._holder: Any = av.open(io.BytesIO(), "w", format="null")
        copies = [self._holder.add_stream_from_template(stream, opaque=True) for stream in streams]
        self.is_mp4 = all(_fits_mp4(copy) for copy in copies)
        for copy in copies:
            if self.is_mp4 and copy.codec_context.codec.canonical_name == "hevc":
                copy.codec_context.codec_tag = "hvc1"  # without it Apple's players show nothing
        self._holder.start_encoding()  # which takes the tags over
        self.tracks = {source.index: _Track(source, copy) for source, copy in zip(streams, copies, strict=True)}
        self.picture = next(iter(self.tracks))
        self.groups: deque[list[_Kept]] = deque()
        self.sounds: deque[_Kept] = deque()
        self.newest = start  # on the container's clock, in seconds
        # Seconds from what timestamps say to the container's clock, after it was set.
        self._clocks: deque[Fraction] = deque(maxlen=MOST_CLOCKS)

    def add(self, packet: av.Packet) -> int:
        """Keep a packet; gives back how many bytes it takes."""
        track = self.tracks[packet.stream_index]
        pts, duration = self._place(packet, track), packet.duration or track.usual
        track.next = pts + duration
        self.newest = max(self.newest, float(pts * track.base))
        begin, end = (self._begun + float(mark * track.base) - self._start for mark in (pts, track.next))
        kept = _Kept(bytes(packet), pts, duration, packet.is_keyframe, begin, end)
        if packet.stream_index != self.picture:
            self.sounds.append(kept)
        elif kept.is_key:
            self.groups.append([kept])
        elif self.groups:
            self.groups[-1].append(kept)
        else:  # built on a key frame that was missed
            return 0
        return kept.size

    def _place(self, packet: av.Packet, track: _Track) -> int:
        """When a packet begins, in units of its stream; where the clock was set, it follows what came before."""
        following = track.next
        if following is None or abs(float(following * track.base) - self.newest) > STRAY_S:
            following = round(self.newest / track.base)
        mark = packet.pts if packet.pts is not None else packet.dts
        if mark is None:
            return following
        for clock in (*self._clocks, Fraction(0)):
            pts = mark + round(clock / track.base)
            if abs(float(pts * track.base) - self.newest) <= STRAY_S:
                return pts
        self._clocks.appendleft((following - mark) * track.base)
        return following

    @property
    def end(self) -> float:
        """When the newest packet begins, in seconds since 1970."""
        return self._begun + self.newest - self._start

    def drop(self) -> int:
        """Forget the first group and the sound before the next one; gives back how many bytes that frees."""
        freed = sum(kept.size for kept in self.groups.popleft()) if self.groups else 0
        while self.sounds and (not self.groups or self.sounds[0].end <= self.groups[0][0].time):
            freed += self.sounds.popleft().size
        return freed

    def first_group(self, begin: float) -> int:
        """The group that shows a moment, or the first one."""
        return max((number for number, group in enumerate(self.groups) if group[0].time <= begin), default=0)

    def chosen(self, begin: float, end: float) -> tuple[list[_Kept], list[_Kept]]:
        """Pictures, in the order of decoding, and sound, from the key frame before `begin` up to `end`."""
        key, *others = (kept for group in islice(self.groups, self.first_group(begin), None) for kept in group)
        # What appears before the first key frame is built on pictures before it.
        pictures = [key, *(kept for kept in others if kept.pts > key.pts)]
        number = max(number for number, kept in enumerate(pictures) if number == 0 or kept.time < end) + 1
        newest = max(kept.pts for kept in pictures[:number])
        # One that was decoded early is shown late: what appears before it goes with it.
        while number < len(pictures) and pictures[number].pts < newest:
            number += 1
        pictures = pictures[:number]
        last = max(kept.end for kept in pictures)
        return pictures, [kept for kept in self.sounds if key.time <= kept.time < last]


class PacketRing:
    """The encoded packets of a camera's last seconds.

    One thread adds, and others cut. A key frame stays as long as pictures that are built on it: the ring holds up to
    one group of pictures more than it is asked for.

    Args:
        seconds: How much is held.
        most_bytes: The most that is held; then the oldest pictures go before their time.
    """

    def __init__(self, seconds: float, most_bytes: int):
        self.seconds, self.most_bytes = seconds, most_bytes
        self.num_bytes = 0
        self._segments: deque[_Segment] = deque()
        self._lock = threading.Lock()

    def begin(self, streams: Sequence[Any], begun: float, start: float) -> None:
        """Begin a new segment.

        Args:
            streams: PyAV's streams of an open container: the picture, and the sound if there is some.
            begun: When time 0 of the segment was, in seconds since 1970.
            start: Seconds on the container's clock that are 0 on the segment's.
        """
        segment = _Segment(streams, begun, start)
        with self._lock:
            self._segments.append(segment)

    def add(self, packet: av.Packet) -> None:
        """Keep a packet of the newest segment; what belongs to none of its streams is left out."""
        with self._lock:
            if not self._segments or not packet.size or packet.stream_index not in self._segments[-1].tracks:
                return
            self.num_bytes += self._segments[-1].add(packet)
            self._trim()

    def _trim(self) -> None:
        newest = self._segments[-1]
        oldest = newest.end - self.seconds
        while self.num_bytes > self.most_bytes or self._is_over(self._segments[0], oldest):
            first = self._segments[0]
            self.num_bytes -= first.drop()
            if first is not newest and not first.groups and not first.sounds:
                self._segments.popleft()

    def _is_over(self, segment: _Segment, oldest: float) -> bool:
        """Whether nobody needs the first group of a segment to see what was at a moment or later."""
        if len(segment.groups) > 1:
            return segment.groups[1][0].time <= oldest
        if segment is self._segments[-1]:
            return not segment.groups and bool(segment.sounds) and segment.sounds[0].end <= oldest
        return segment.end <= oldest or not segment.groups

    @property
    def newest(self) -> float | None:
        """When the newest packet begins, in seconds since 1970; ``None`` before the first."""
        with self._lock:
            return self._segments[-1].end if self._segments else None

    def is_losing(self, begin: float) -> bool:
        """Whether the picture of a moment (seconds since 1970) is forgotten soon, or already."""
        with self._lock:
            segment = self._holding(begin)
            if segment is None:
                return False
            if begin <= self._segments[-1].end - self.seconds + NEARLY_S:
                return True
            if self.num_bytes <= NEARLY_FULL * self.most_bytes:
                return False
            before = [group for one in islice(self._segments, self._segments.index(segment)) for group in one.groups]
            before += islice(segment.groups, segment.first_group(begin))
            return sum(kept.size for group in before for kept in group) < (1 - NEARLY_FULL) * self.most_bytes

    def _holding(self, begin: float) -> _Segment | None:
        """The segment that shows a moment, or the nearest later one."""
        return next((one for one in self._segments if one.groups and one.groups[-1][-1].end > begin), None)

    def cut(self, begin: float, end: float, path: str | os.PathLike) -> Cut:
        """Write what was between two moments, as the camera sent it; it begins with the key frame before.

        It never goes over the end of a segment: of several the one that holds `begin` is taken, or the next one.

        Args:
            begin: In seconds since 1970.
            end: In seconds since 1970.
            path: Name of the file, without its ending.

        Raises:
            MediaError: If the ring holds nothing of it, or FFmpeg cannot write it.
            DiskError: If the disk is full or cannot be written.
        """
        with self._lock:
            segment = self._holding(begin)
            if segment is None or segment.groups[0][0].time >= end:
                raise MediaError(self._nothing(begin, end))
            pictures, sounds = segment.chosen(begin, end)
        target = Path(f"{os.fspath(path)}{'.mp4' if segment.is_mp4 else '.mkv'}")
        with written_whole(target, follow_links=False) as partial:
            try:
                _write(partial, segment, pictures, sounds)
            except av.error.ArgumentError as error:
                raise MediaError(
                    f"{target} cannot be written: FFmpeg does not accept what the camera sends ({error.strerror}). "
                    "Try another codec of the camera."
                ) from error
        return Cut(target, pictures[0].time, max(kept.end for kept in pictures), bool(sounds))

    def _nothing(self, begin: float, end: float) -> str:
        held = [one for one in self._segments if one.groups]
        span = f"{_clock(held[0].groups[0][0].time)} to {_clock(held[-1].end)}" if held else "nothing yet"
        return (
            f"There is no picture from {_clock(begin)} to {_clock(end)} UTC in the ring of the last "
            f"{self.seconds:g} s; it holds {span}. Let the ring hold more seconds."
        )


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")


def _fits_mp4(stream: Any) -> bool:
    codec = stream.codec_context.codec.canonical_name
    if stream.type == "video":
        return codec in MP4_PICTURES
    return codec in MP4_SOUND and not (codec == "mp3" and stream.codec_context.sample_rate < LEAST_MP3_RATE)


def _write(path: Path, segment: _Segment, pictures: list[_Kept], sounds: list[_Kept]) -> None:
    """Mux packets; both streams are moved by the same time, so that the first picture is at 0."""
    # The index at the front: a page plays it before all has come.
    options = {"movflags": "+faststart"} if segment.is_mp4 else {}
    with av.open(str(path), "w", format="mp4" if segment.is_mp4 else "matroska", options=options) as container:
        muxed = []
        origin = pictures[0].pts * segment.tracks[segment.picture].base
        for number, track in segment.tracks.items():
            kept = pictures if number == segment.picture else sounds
            if not kept:
                continue
            stream = container.add_mux_stream("h264" if kept is pictures else "aac")
            # Any codec: a filter that does nothing sets it. PyAV itself would refuse G.711 in a Matroska.
            BitStreamFilterContext("null", track.stream, stream)
            stream.time_base = track.base
            muxed.append(_packets(kept, stream, track.base, round(origin / track.base)))
        for _, packet in heapq.merge(*muxed, key=lambda item: item[0]):
            with suppress(av.error.InvalidDataError):  # a damaged packet: the others are evidence too
                container.mux(packet)


def _packets(kept: list[_Kept], stream: Any, base: Fraction, origin: int) -> Iterator[tuple[float, av.Packet]]:
    """Packets of a stream, with the seconds when they are decoded.

    That is as late as the times of all pictures allow: what a camera says of it may be missing, or not rise.
    """
    shown = [one.pts - origin for one in kept]
    ordered = sorted(shown)
    early = max(due - pts for due, pts in zip(ordered, shown, strict=True))
    dts = -sys.maxsize
    for one, pts, due in zip(kept, shown, ordered, strict=True):
        dts = max(dts + 1, due - early)
        packet = av.Packet(one.data)
        packet.time_base, packet.dts, packet.pts, packet.duration = base, dts, max(pts, dts), one.duration
        packet.is_keyframe, packet.stream = one.is_key, stream
        yield float(dts * base), packet


__all__ = ["Cut", "PacketRing"]
