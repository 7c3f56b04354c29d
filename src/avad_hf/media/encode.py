"""Writes MP4 files: pictures with their times, and the sound of another file."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np

from avad_hf.files import written_whole

from .audio import CLOCK_TOLERANCE_S, to_mono
from .clips import SteadyClock
from .container import SoundFile, planar_samples
from .decode import SYNTHETIC, MediaFile

TIME_BASE = Fraction(1, 90000)
# FFmpeg's encoder of each family of codecs, and its settings.
PICTURE_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "23"}),
    "hevc": ("libx265", {"preset": "veryfast", "crf": "25", "x265-params": "log-level=error"}),
    "vp9": ("libvpx-vp9", {"crf": "31", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}),
    "av1": ("libsvtav1", {"preset": "9", "crf": "32"}),
}
# What an MP4 carries as it is; other sound is encoded anew, as AAC.
MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
# In Hz; an MP4 takes MP3 from this rate on.
LEAST_MP3_RATE = 16000
# FFmpeg's encoders by codec; others become AAC. What is lossless stays so: PCM, which few players take in an MP4, as
# FLAC.
SOUND_ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "ac3": "ac3", "eac3": "eac3", "flac": "flac", "alac": "alac"}
# Their formats of samples of up to 16 bits, and of more.
LOSSLESS = {"flac": ("s16", "s32"), "alac": ("s16p", "s32p")}
# Bits a second and channel. Recorders go lower by means that FFmpeg's encoder of AAC does not have.
LEAST_BIT_RATE = 32_000
# A clock that counts samples is right as long as timestamps say the same within this: Matroska rounds to milliseconds.
STEP_S = 0.00075


@dataclass(frozen=True, eq=False)
class SoundPiece:
    """Some decoded sound as its file has it.

    Args:
        time: When its first sample sounds, in seconds.
        samples: `(channels, samples)`, of the file's own type: floats, or integers of 8 (unsigned), 16 or 32 bits.
        rate: Samples a second, in Hz.
        layout: FFmpeg's name for what the channels are, such as ``"stereo"``.
    """

    time: float
    samples: np.ndarray
    rate: int
    layout: str


def write_video(
    path: str | os.PathLike,
    pictures: Iterable[tuple[float, np.ndarray]],
    size: tuple[int, int],
    fps: float,
    sound_of: MediaFile | None = None,
    samples: tuple[np.ndarray, int] | None = None,
    repeatable: bool = False,
    is_synthetic: bool = False,
    change_sound: Callable[[Iterator[SoundPiece]], Iterable[SoundPiece]] | None = None,
    codec: str = "h264",
) -> None:
    """Write pictures in an MP4; nothing is left under its name if that fails.

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
        change_sound: What is done to the sound of `sound_of`, as pieces in order, before it is encoded anew: in the
            same family of codecs, at about the same bit rate. What it leaves as it is in lossless sound stays so.
        codec: One of `PICTURE_CODECS`.

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
        encoder, options = PICTURE_CODECS[codec]
        stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001000))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.options = dict(options)
        if repeatable:
            # With its macroblock tree, x264 (of PyAV 18.1) gives other bytes for the same pictures from run to run.
            stream.codec_context.options |= {"mbtree": "0", "threads": "1"}
        if samples is not None:
            sound = _encoded(_sound_pieces(*samples), container)
        else:
            sound = iter(()) if sound_of is None else _sound_packets(container, sound_of.sound_file, change_sound)
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


def _sound_packets(
    container: Any, media: SoundFile, change: Callable[[Iterator[SoundPiece]], Iterable[SoundPiece]] | None
) -> Iterator[tuple[float, av.Packet]]:
    """Packets for a new stream in `container`, with their times in seconds; copied where the format allows it."""
    with media.open() as source:
        stream = media.sound_stream(source)
        if stream is None:
            return
        codec = stream.codec_context.codec.canonical_name
        if codec == "mp3" and stream.rate < LEAST_MP3_RATE:
            codec = "mp3 of a low rate"
        if change is None and codec in MP4_SOUND:
            yield from _copied(source.demux(stream), container.add_stream_from_template(stream), media.start)
            return
        pieces = _decoded(media, source, stream)
        if change is None:
            yield from _encoded(pieces, container)
        else:
            encoder = "flac" if codec.startswith("pcm_") else SOUND_ENCODERS.get(codec, "aac")
            yield from _encoded(change(pieces), container, encoder, stream.bit_rate)


def _sound_pieces(samples: np.ndarray, rate: int) -> Iterator[SoundPiece]:
    """Samples piece by piece, so that they are encoded as the pictures are."""
    for begin in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, begin : begin + 1024], dtype=np.float32)
        yield SoundPiece(begin / rate, piece, rate, ("mono", "stereo")[len(piece) - 1])


def _decoded(media: SoundFile, source: Any, stream: Any) -> Iterator[SoundPiece]:
    marked = (
        (None if frame.time is None else frame.time - media.start, frame.samples / frame.sample_rate, frame)
        for frame in media.decode(source, stream, "sound")
        if media._can_be_heard(frame)
    )
    for time, _, frame in SteadyClock().place(marked):
        yield SoundPiece(time, planar_samples(frame), frame.sample_rate, frame.layout.name)


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


def _encoded(
    pieces: Iterable[SoundPiece], container: Any, encoder: str = "aac", bit_rate: int | None = None
) -> Iterator[tuple[float, av.Packet]]:
    """Packets for a new stream in `container`, with their times in seconds.

    Args:
        pieces: Sound in order.
        container: The file that is written.
        encoder: FFmpeg's name for it.
        bit_rate: Bits a second that the sound had before; the encoder's own choice without it.
    """
    pieces = map(_with_known_layout, pieces)
    first = next(pieces, None)
    if first is None:
        return
    stream = _sound_stream(container, encoder, first, bit_rate)
    for piece in _in_step(chain([first], pieces), stream.codec_context.frame_size):
        planar = {"u1": "u8p", "i2": "s16p", "i4": "s32p", "f4": "fltp", "f8": "dblp"}[piece.samples.dtype.str[1:]]
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece.samples), format=planar, layout=piece.layout)
        whole.sample_rate, whole.time_base = piece.rate, Fraction(1, piece.rate)
        whole.pts = round(piece.time * piece.rate)
        for packet in stream.encode(whole):
            yield float(packet.pts * packet.time_base), packet
    for packet in stream.encode(None):
        yield float(packet.pts * packet.time_base), packet


def _with_known_layout(piece: SoundPiece) -> SoundPiece:
    """FFmpeg mixes only what it has a name for; a recorder's "2 channels" is stereo, and others are averaged."""
    count = len(piece.samples)
    if count > 2 and piece.layout.endswith("channels"):
        return replace(piece, samples=to_mono(piece.samples)[None], layout="mono")
    # "5.1(side)" too is written as "5.1", which every encoder takes.
    return replace(piece, layout=("mono", "stereo")[count - 1] if count <= 2 else piece.layout.removesuffix("(side)"))


def _sound_stream(container: Any, encoder: str, like: SoundPiece, bit_rate: int | None) -> Any:
    """A new stream for sound like this; more channels than stereo stay only as 5.1."""
    rates = av.Codec(encoder, "w").audio_rates
    stream = container.add_stream(encoder, rate=like.rate if rates is None or like.rate in rates else 48000)
    stream.layout = like.layout if like.layout in ("mono", "stereo", "5.1") else "stereo"
    if encoder in LOSSLESS:
        # 24 of 32 bits are kept.
        stream.format = LOSSLESS[encoder][like.samples.dtype.itemsize > 2]
    elif bit_rate:
        stream.bit_rate = max(bit_rate, LEAST_BIT_RATE * len(like.samples))
    stream.codec_context.open()
    return stream


def _in_step(pieces: Iterable[SoundPiece], frame_size: int) -> Iterator[SoundPiece]:
    """Pieces whose times differ from what their samples add up to only where the sound pauses or its clock drifts.

    An encoder joins what it gets to frames, and each has one time. So silence fills the last frame before a pause, and
    what overlaps is cut.

    Args:
        pieces: Sound in order.
        frame_size: Samples that the encoder takes at once.
    """
    clock, size = None, 0  # when the next sample should sound, and how many went before it
    for piece in pieces:
        samples, late = piece.samples, 0.0 if clock is None else piece.time - clock
        if clock is None or STEP_S < abs(late) <= CLOCK_TOLERANCE_S:
            clock = piece.time
        elif late > CLOCK_TOLERANCE_S:
            if missing := min(round(late * piece.rate), -size % frame_size):
                silence = np.full((len(samples), missing), 128 if samples.dtype == np.uint8 else 0, samples.dtype)
                yield replace(piece, time=clock, samples=silence)
            clock, size = piece.time, size + missing
        elif late < -CLOCK_TOLERANCE_S:
            samples = samples[:, round(-late * piece.rate) :]
        if samples.shape[1]:
            yield replace(piece, time=clock, samples=samples)
        clock, size = clock + samples.shape[1] / piece.rate, size + samples.shape[1]
