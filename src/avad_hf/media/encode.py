"""Writes MP4 files: pictures with their times, and the sound of another file."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .decode import MediaFile

TIME_BASE = Fraction(1, 90000)
# What an MP4 carries as it is; other sound is encoded anew, as AAC.
MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")


def write_video(
    path: str | os.PathLike,
    pictures: Iterable[tuple[float, np.ndarray]],
    size: tuple[int, int],
    fps: float,
    sound_of: MediaFile | None = None,
) -> None:
    """Write pictures as H.264 in an MP4; nothing is left under its name if that fails.

    Args:
        path: Of the MP4.
        pictures: Time in seconds and RGB of shape `(H, W, 3)`, uint8, in order.
        size: Width and height, even numbers.
        fps: Frames a second, on average; the pictures' own times count.
        sound_of: A file whose sound is kept, on the same clock.
    """
    partial = Path(path).with_name(Path(path).name + ".partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001000))
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = TIME_BASE
            stream.codec_context.options = {"preset": "veryfast", "crf": "23"}
            sound = iter(()) if sound_of is None else _sound_packets(container, sound_of)
            waiting = next(sound, None)
            for time, picture in pictures:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
                container.mux(stream.encode(frame))
                # Interleaved by time, so that neither stream is held in memory.
                while waiting is not None and waiting[0] <= time:
                    container.mux(waiting[1])
                    waiting = next(sound, None)
            container.mux(stream.encode(None))
            while waiting is not None:
                container.mux(waiting[1])
                waiting = next(sound, None)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sound_packets(container, media: MediaFile) -> Iterator[tuple[float, av.Packet]]:
    """Packets for a new stream in `container`, with their times in seconds; copied where the format allows it."""
    if not media.info.has_audio:
        return
    with media.open() as source:
        stream = source.streams.best("audio")
        if stream.codec_context.name in MP4_SOUND:
            copied = container.add_stream_from_template(stream)
            yield from _copied(source.demux(stream), copied, media.start)
        else:
            encoded = container.add_stream("aac", rate=stream.codec_context.sample_rate)
            encoded.layout = stream.codec_context.layout
            yield from _encoded(media.decode(source, stream, "sound"), encoded, media.start)


def _copied(packets: Iterable[av.Packet], stream, start: float) -> Iterator[tuple[float, av.Packet]]:
    for packet in packets:
        if packet.dts is None:  # the empty packet at the end
            continue
        shift = round(start / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
        yield float(packet.pts * packet.time_base), packet


def _encoded(frames: Iterable[av.AudioFrame], stream, start: float) -> Iterator[tuple[float, av.Packet]]:
    for frame in frames:
        if frame.pts is not None:
            frame.pts -= round(start / frame.time_base)
        for packet in stream.encode(frame):
            yield float(packet.pts * packet.time_base), packet
    for packet in stream.encode(None):
        yield float(packet.pts * packet.time_base), packet
