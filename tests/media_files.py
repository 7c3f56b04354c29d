"""Writes small media files whose clock and contents are known exactly."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VIDEO_TIME_BASE = Fraction(1, 90000)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(times: np.ndarray) -> np.ndarray:
    """A sum of sines whose sum does not repeat within minutes, so that every moment sounds different."""
    return sum(np.sin(2 * np.pi * f * times + p) for f, p in ((211.3, 0.1), (587.9, 1.0), (1313.7, 2.0))) / 4


def frame_times(fps: Fraction | float, seconds: float, start: float = 0.0) -> list[float]:
    return [start + i / float(fps) for i in range(round(seconds * float(fps)))]


def sound(start: float, seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """The tone from `start` on, of shape (channels, samples); channels differ and average to the tone."""
    mono = tone(start + np.arange(round(seconds * rate)) / rate)
    return mono * (1 + np.linspace(-0.3, 0.3, channels)[:, None]) if channels > 1 else mono[None]


def gray(index: int, width: int, height: int) -> np.ndarray:
    """A plain picture whose brightness counts frames, bright in its upper left quarter."""
    picture = np.full((height, width, 3), 40 + index % 100, dtype=np.uint8)
    picture[: height // 2, : width // 2] = 220
    return picture


def write_media(
    path,
    times: list[float] = (),
    samples: np.ndarray | None = None,
    rate: int = 48000,
    sound_start: float = 0.0,
    size: tuple[int, int] = (64, 48),
    video_codec: str = "libx264",
    audio_codec: str = "pcm_s16le",
    options: dict | None = None,
    pictures=gray,
):
    """Write pictures at `times` (seconds) and samples (channels, n) from `sound_start` (seconds) on."""
    with av.open(str(path), "w", options=options or {}) as container:
        if len(times):
            video = container.add_stream(video_codec, rate=Fraction(25))
            video.width, video.height = size
            video.pix_fmt = (
                "yuvj420p" if video_codec == "mjpeg" else "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
            )
            # An AVI counts frames and knows no presentation times: 25 a second, none out of order.
            clock = Fraction(1, 25) if str(path).endswith(".avi") else VIDEO_TIME_BASE
            video.codec_context.time_base = clock
            video.codec_context.options = {"bf": "0"} if clock != VIDEO_TIME_BASE else {}
        if samples is not None:
            audio = container.add_stream(audio_codec, rate=rate)
            audio.layout = LAYOUTS[len(samples)]
        if len(times):
            for index, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(pictures(index, *size), format="rgb24")
                frame.pts, frame.time_base = round(time / clock), clock
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if samples is not None:
            packed = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
            for begin in range(0, packed.shape[1], 1024):
                block = np.ascontiguousarray(packed[:, begin : begin + 1024].T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout=LAYOUTS[len(samples)])
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(sound_start * rate) + begin
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return str(path)


def remux(source: str, target, times: int = 1, **options: str) -> str:
    """Copy the streams of a file as they are, `times` in a row."""
    with av.open(source) as probe:
        seconds = max(float(s.duration * s.time_base) for s in probe.streams)
    with av.open(str(target), "w", options=options) as out:
        streams = None
        for turn in range(times):
            with av.open(source) as container:
                if streams is None:
                    streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
                for packet in container.demux():
                    if packet.dts is None:
                        continue
                    shift = round(turn * seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return str(target)


def with_rotation(source: str, target, quarter_turns_clockwise: int) -> str:
    """Write the rotation matrix of a phone held upright into the track header of an MP4."""
    one, (a, b) = 1 << 16, {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns_clockwise]
    matrix = struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
    data = bytearray(Path(source).read_bytes())
    offset = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[offset : offset + 36] = matrix
    Path(target).write_bytes(data)
    return str(target)


def retimed(source: str, target, kind: str, shifts: dict[int, float], **options: str) -> str:
    """Copy a file, adding seconds to the presentation times of some packets of its picture or sound.

    Args:
        source: A file whose packets know when they are decoded, such as a MOV.
        kind: ``"video"`` or ``"audio"``.
        shifts: Seconds to add, by the packet's number.
        options: For the muxer.
    """
    with av.open(source) as container, av.open(str(target), "w", options=options) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        numbers = dict.fromkeys(streams, 0)
        for packet in container.demux():
            if not packet.size:
                continue
            index = packet.stream.index
            if packet.stream.type == kind:
                packet.pts += round(shifts.get(numbers[index], 0.0) / packet.time_base)
                # Muxers refuse what is shown before it is decoded: a tick a packet is early enough for steps back.
                packet.dts = numbers[index] if min(shifts.values(), default=0.0) < 0 else packet.dts
            numbers[index] += 1
            packet.stream = streams[index]
            out.mux(packet)
    return str(target)
