"""Writes MP4 files: pictures with their times, and the sound of another file."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from avad_hf.files import written_whole

from .audio import to_mono
from .clips import SteadyClock
from .container import SoundFile, planar_samples
from .decode import SYNTHETIC, MediaFile

TIME_BASE = Fraction(1, 90000)
# What an MP4 carries as it is; other sound is encoded anew, as AAC.
MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


def write_video(
    path: str | os.PathLike,
    pictures: Iterable[tuple[float, np.ndarray]],
    size: tuple[int, int],
    fps: float,
    sound_of: MediaFile | None = None,
    samples: tuple[np.ndarray, int] | None = None,
    repeatable: bool = False,
    is_synthetic: bool = False,
) -> None:
    """Write pictures as H.264 in an MP4; nothing is left under its name if that fails.

    Args:
        path: Name of the MP4.
        pictures: Time in seconds and RGB of shape `(H, W, 3)`, uint8, in order.
        size: Width and height, even numbers.
        fps: Frames a second, on average; the pictures' own times count.
        sound_of: A file whose sound is kept, on the same clock.
        samples: Sound that begins at 0 s, encoded as AAC: floats within -1 and 1 of shape `(channels, samples)`, one
            or two channels, and their rate in Hz. Not together with `sound_of`.
        repeatable: Whether the same input must give the same bytes, at the cost of a slightly larger file.
        is_synthetic: Whether this library has drawn the pictures; the file says so.

    Raises:
        ValueError: If there are two sounds, or the samples have another shape.
    """
    if samples is not None and sound_of is not None:
        raise ValueError("Give either sound_of or samples: an MP4 gets one sound.")
    if samples is not None and (np.ndim(samples[0]) != 2 or len(samples[0]) not in (1, 2)):
        raise ValueError(f"samples must be of shape (1 or 2 channels, samples), got {np.shape(samples[0])}.")
    with written_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        if is_synthetic:
            container.metadata["comment"] = SYNTHETIC
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001000))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.options = {"preset": "veryfast", "crf": "23"}
        if repeatable:
            # With its macroblock tree, x264 (of PyAV 18.1) gives other bytes for the same pictures from run to run.
            stream.codec_context.options |= {"mbtree": "0", "threads": "1"}
        if samples is not None:
            sound = _encoded(_sound_frames(*samples), container, 0.0)
        else:
            sound = iter(()) if sound_of is None else _sound_packets(container, sound_of.sound_file)
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


def _sound_packets(container: Any, media: SoundFile) -> Iterator[tuple[float, av.Packet]]:
    """Packets for a new stream in `container`, with their times in seconds; copied where the format allows it."""
    with media.open() as source:
        stream = media.sound_stream(source)
        if stream is None:
            return
        if stream.codec_context.name in MP4_SOUND:
            yield from _copied(source.demux(stream), container.add_stream_from_template(stream), media.start)
        else:
            yield from _encoded(media.decode(source, stream, "sound"), container, media.start)


def _sound_frames(samples: np.ndarray, rate: int) -> Iterator[av.AudioFrame]:
    """Samples as frames, piece by piece, so that they are encoded as the pictures are."""
    for begin in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, begin : begin + 1024], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=("mono", "stereo")[len(piece) - 1])
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), begin
        yield frame


def _copied(packets: Iterable[av.Packet], stream: Any, start: float) -> Iterator[tuple[float, av.Packet]]:
    marked = (
        (
            None if packet.pts is None else float(packet.pts * packet.time_base) - start,
            float((packet.duration or 0) * packet.time_base),
            packet,
        )
        for packet in packets
        if packet.dts is not None  # unlike the empty packet at the end
    )
    last = None
    for time, _, packet in SteadyClock().place(marked):
        unit = packet.time_base
        packet.pts = packet.dts = round(time / unit) if last is None else max(last + 1, round(time / unit))
        last, packet.stream = packet.dts, stream
        yield time, packet


def _encoded(frames: Iterable[av.AudioFrame], container: Any, start: float) -> Iterator[tuple[float, av.Packet]]:
    marked = (
        (None if frame.time is None else frame.time - start, frame.samples / frame.sample_rate, frame)
        for frame in frames
    )
    stream = None
    for time, _, frame in SteadyClock().place(marked):
        samples = planar_samples(frame)
        if stream is None:
            rate = frame.sample_rate if frame.sample_rate in AAC_RATES else 48000
            stream = container.add_stream("aac", rate=rate)
            stream.layout = "mono" if len(samples) == 1 else "stereo"
        # FFmpeg mixes only what it has a name for; a recorder's "2 channels" is stereo, and others are averaged.
        if len(samples) > 2 and frame.layout.name.endswith("channels"):
            samples = to_mono(samples)[None]
        named = frame.layout.name if len(samples) > 2 else ("mono", "stereo")[len(samples) - 1]
        planar = {"u1": "u8p", "i2": "s16p", "i4": "s32p", "f4": "fltp", "f8": "dblp"}[samples.dtype.str[1:]]
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=planar, layout=named)
        whole.sample_rate, whole.time_base = frame.sample_rate, Fraction(1, frame.sample_rate)
        whole.pts = round(time * frame.sample_rate)
        for packet in stream.encode(whole):
            yield float(packet.pts * packet.time_base), packet
    for packet in stream.encode(None) if stream is not None else ():
        yield float(packet.pts * packet.time_base), packet
