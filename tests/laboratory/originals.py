"""Small files in order, of every container and codec that matters, written in a few tenths of a second each."""

import heapq
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from operator import itemgetter
from pathlib import Path

import av
import numpy as np

from .marks import picture, sound

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
# Containers whose pictures have no times of their own, but come so many a second.
COUNTED = ("avi",)
# Without mbtree, with which x264 does not write the same file each time.
X264 = {"preset": "veryfast", "crf": "26", "x264-params": "mbtree=0"}
X265 = {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none:pools=none:frame-threads=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "b": "400k"}
ENCODERS = {
    "h264": ("libx264", X264),
    "hevc": ("libx265", X265),
    "vp9": ("libvpx-vp9", VP9),
    # Below 0: a fixed speed. Otherwise it depends on the machine, and so does the file.
    "vp8": ("libvpx", VP9 | {"cpu-used": "-8"}),
    "mpeg4": ("mpeg4", {"b": "400k"}),
    "mpeg2": ("mpeg2video", {"b": "600k"}),
    "flv1": ("flv", {"b": "500k"}),
    "mjpeg": ("mjpeg", {"q": "6"}),
    "gif": ("gif", {}),
    "aac": ("aac", {"b": "64k"}),
    "mp3": ("libmp3lame", {"b": "64k"}),
    "opus": ("libopus", {"b": "48k"}),
    "vorbis": ("vorbis", {"strict": "experimental"}),
    "ac3": ("ac3", {"b": "96k"}),
    "pcm": ("pcm_s16le", {}),
    "flac": ("flac", {}),
}
# How late each picture is, in periods: none, a little, and a rate that changes by three; then up to half a second.
PACES = ("steady", "light", "varying", "strong")
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


# Told a packet and when it is shown, in seconds from the first picture.
Keep = Callable[[av.Packet, float], bool]


@dataclass(frozen=True)
class Original:
    """A file to be written.

    Args:
        name: ``container-video-sound`` and what is special about it.
        video: Codec of the picture, a key of `ENCODERS`.
        sound: Codec of the sound; ``None`` for none.
        side: How the name of a file with the sound ends that lies beside the video; ``None`` where both are in one.
        fps: Frames a second, on average for those of another pace.
        size: Width and height, in pixels.
        rate: Samples a second of the sound, in Hz.
        sound_start: When the sound begins, in seconds; the pictures begin at 0.
        sound_end: How much later than the picture it ends, in seconds; earlier below 0.
        start: When both begin on the container's clock, in seconds; below 0 an edit list cuts the beginning off.
        pace: One of `PACES`.
        options: For the muxer.
        encoder: For the encoder of the picture, besides those of `ENCODERS`.
    """

    name: str
    video: str = "h264"
    sound: str | None = "aac"
    side: str | None = None
    seconds: float = 4.0
    fps: Fraction = Fraction(25)
    size: tuple[int, int] = (96, 64)
    rate: int = 44100
    channels: int = 1
    sound_start: float = 0.0
    sound_end: float = 0.0
    start: float = 0.0
    pace: str = "steady"
    options: dict[str, str] = field(default_factory=dict, hash=False)
    encoder: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def container(self) -> str:
        """How its name ends."""
        return self.name.split("-")[0]

    def times(self) -> list[float]:
        """When its pictures appear, in seconds from the first."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        gaps, period = [], 1 / float(self.fps)
        while sum(gaps) < self.seconds:
            slow = {"steady": 1.0, "light": rng.uniform(0.8, 1.2), "varying": 1.0 + 2.0 * (sum(gaps) % 2 > 1)}
            slow["strong"] = min(0.5 // period, rng.choice([1, 1, 1, 2, 4, 12]))
            gaps.append(period * float(slow[self.pace]))
        return [float(time) for time in np.cumsum([0.0, *gaps[:-1]])]

    def write(self, folder: Path, keep: Keep | None = None) -> dict[str, str]:
        """Write it; returns what `open_media` takes: the video's path and, if it has one, the sound's beside it.

        Args:
            folder: Where to.
            keep: Of each packet of the file that has the sound, whether it is written. It may change the packet.
        """
        path = folder / f"{self.name}.{self.container}"
        if self.side is None:
            _write(path, self, self.sound, keep)
            return {"video": str(path)}
        side = folder / f"{self.name}.{self.side}"
        _write(path, self, None)
        _write(side, replace(self, video=""), self.sound, keep)
        return {"video": str(path), "audio": str(side)}


def _write(path: Path, original: Original, sound_codec: str | None, keep: Keep | None = None) -> None:
    # Bitexact: no random identifiers, so that the same file comes out each time.
    with av.open(str(path), "w", options={"fflags": "+bitexact"} | original.options) as container:
        pictures = _pictures(container, original) if original.video else iter(())
        sounds = _sounds(container, original, sound_codec) if sound_codec else iter(())
        # Side by side by their times, as recorders write them.
        for _, packet in heapq.merge(pictures, sounds, key=itemgetter(0)):
            if keep is None or keep(packet, float(packet.pts * packet.time_base) - original.start):
                container.mux(packet)


def _pictures(container, original: Original) -> Iterator[tuple[float, av.Packet]]:
    codec, options = ENCODERS[original.video]
    stream = container.add_stream(codec, rate=original.fps)
    stream.width, stream.height = original.size
    odd = original.size[0] % 2 or original.size[1] % 2
    default = "yuv444p" if odd and codec in ("libx264", "libx265") else "yuv420p"
    stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "gray"}.get(original.video, default)
    # GIFs count hundredths, and AVIs pictures.
    clock = 1 / original.fps if original.container in COUNTED else Fraction(1, 90000)
    if codec in ("mpeg4", "mpeg2video"):
        clock = 1 / original.fps
    clock = Fraction(1, 100) if codec == "gif" else clock
    context = stream.codec_context
    context.time_base, context.gop_size = clock, round(original.fps)
    # One thread, so that the same file comes out each time.
    context.thread_count = 1
    context.options = options | ({"bf": "0"} if original.container in COUNTED else {}) | original.encoder
    start = 0.0 if original.container in COUNTED else original.start

    def encoded() -> Iterator[av.Packet]:
        for number, time in enumerate(original.times()):
            frame = av.VideoFrame.from_ndarray(picture(number, *original.size), format="rgb24")
            frame.pts, frame.time_base = round((start + time) / clock), clock
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return ((float(packet.dts * packet.time_base), packet) for packet in encoded())


def _sounds(container, original: Original, codec: str) -> Iterator[tuple[float, av.Packet]]:
    name, options = ENCODERS[codec]
    stream = container.add_stream(name, rate=original.rate)
    stream.layout = LAYOUTS[original.channels]
    stream.codec_context.options = options
    samples = sound(original.seconds - original.sound_start + original.sound_end, original.rate, original.channels)
    samples = np.rint(samples * 32767 / 1.3).astype(np.int16)

    def encoded() -> Iterator[av.Packet]:
        for begin in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, begin : begin + 1024].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=LAYOUTS[original.channels])
            frame.sample_rate, frame.time_base = original.rate, Fraction(1, original.rate)
            frame.pts = round((original.start + original.sound_start) * original.rate) + begin
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return ((float(packet.dts * packet.time_base), packet) for packet in encoded())


ORIGINALS = [
    Original("mp4-h264-aac", encoder={"bf": "3"}),
    Original("mp4-h264-aac-late", sound_start=0.7, options={"movflags": "faststart"}, fps=Fraction(15), channels=2),
    Original("mp4-h264-aac-fragmented", options=FRAGMENTED, encoder={"bf": "2"}),
    Original("mp4-h264-silent-strong", sound=None, pace="strong", encoder={"bf": "2"}),
    Original("mp4-h264-aac-edit", start=-0.6, options={"avoid_negative_ts": "disabled"}, encoder={"bf": "2"}),
    Original("mp4-hevc-ac3", video="hevc", sound="ac3", rate=48000, channels=2),
    Original("mp4-mpeg4-mp3", video="mpeg4", sound="mp3", rate=22050, fps=Fraction(20), encoder={"bf": "2"}),
    Original("mov-mjpeg-pcm", video="mjpeg", sound="pcm", rate=8000, size=(64, 48), fps=Fraction(12)),
    Original("mov-h264-aac", encoder={"bf": "2"}, rate=48000, fps=Fraction(30000, 1001)),
    Original("mkv-h264-aac", encoder={"bf": "3"}),
    Original("mkv-vp9-opus", video="vp9", sound="opus", rate=48000),
    Original("mkv-hevc-ac3-light", video="hevc", sound="ac3", rate=48000, pace="light", fps=Fraction(20)),
    Original("mkv-h264-pcm-odd", sound="pcm", rate=8000, size=(97, 65), fps=Fraction(15)),
    Original("webm-vp9-opus", video="vp9", sound="opus", rate=48000, channels=2, size=(160, 96)),
    Original("webm-vp8-opus-late", video="vp8", sound="opus", rate=48000, sound_start=0.5),
    Original("avi-mpeg4-mp3", video="mpeg4", sound="mp3"),
    Original("avi-mjpeg-pcm", video="mjpeg", sound="pcm", rate=11025, size=(64, 48), fps=Fraction(10)),
    Original("avi-h264-ac3", sound="ac3", rate=48000),
    Original("ts-h264-aac", encoder={"bf": "2"}),
    Original("ts-hevc-ac3", video="hevc", sound="ac3", rate=48000),
    Original("ts-mpeg2-mp3", video="mpeg2", sound="mp3", rate=48000, encoder={"bf": "2"}),
    Original("flv-h264-aac", encoder={"bf": "2"}),
    Original("flv-flv1-mp3", video="flv1", sound="mp3"),
    Original("ogg-vp8-opus", video="vp8", sound="opus", rate=48000),
    Original("ogg-vp8-vorbis", video="vp8", sound="vorbis", channels=2),
    Original("gif-gif-silent", video="gif", sound=None, size=(64, 48), fps=Fraction(10)),
    Original("mp4-h264-pcm-wav", sound="pcm", side="wav", rate=16000, fps=Fraction(10)),
    Original("mp4-h264-opus-ogg", sound="opus", side="ogg", rate=48000, fps=Fraction(10)),
    Original("mp4-h264-mp3-mp3", sound="mp3", side="mp3", fps=Fraction(10)),
    Original("mp4-h264-aac-m4a", side="m4a", fps=Fraction(10)),
]
BY_NAME = {original.name: original for original in ORIGINALS}


# What each container may hold, as recorders and encoders write it.
HOLDS = {
    "mp4": (("h264", "hevc", "mpeg4", "vp9"), ("aac", "mp3", "ac3", "opus", None)),
    "mov": (("h264", "hevc", "mpeg4", "mjpeg"), ("aac", "mp3", "pcm", None)),
    "mkv": (("h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2", "mjpeg"), ("aac", "mp3", "ac3", "opus", "pcm", "flac")),
    "webm": (("vp8", "vp9"), ("opus", "vorbis", None)),
    "avi": (("mpeg4", "mjpeg", "h264"), ("mp3", "pcm", "ac3", None)),
    "ts": (("h264", "hevc", "mpeg2"), ("aac", "mp3", "ac3", None)),
    "flv": (("h264", "flv1"), ("aac", "mp3", None)),
    "ogg": (("vp8",), ("opus", "vorbis", None)),
    "gif": (("gif",), (None,)),
}
RATES = {
    "aac": (8000, 16000, 22050, 44100, 48000),
    "mp3": (22050, 44100),
    "ac3": (32000, 44100, 48000),
    "opus": (48000,),
    "vorbis": (22050, 44100, 48000),
    "pcm": (8000, 11025, 44100),
    "flac": (16000, 48000),
}
# How each container may be written besides.
WAYS = {
    "mp4": (
        *({}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+delay_moov+default_base_moof"}),
        {"movflags": "delay_moov", "frag_duration": "500000"},
    ),
    "mov": ({}, {"movflags": "faststart"}),
    "mkv": ({}, {"live": "1"}, {"cues_to_front": "1", "reserve_index_space": "10000"}),
    "webm": ({}, {"live": "1"}),
    "flv": ({}, {"flvflags": "no_duration_filesize"}),
    "ts": ({}, {"mpegts_flags": "resend_headers"}, {"mpegts_copyts": "1"}),
}


def drawn(count: int, seed: int) -> list[Original]:
    """Other files in order, drawn from what containers, encoders and recorders do."""
    rng = np.random.default_rng(seed)

    def pick(choices):
        return choices[int(rng.integers(len(choices)))]

    made = []
    for index in range(count):
        container = list(HOLDS)[index % len(HOLDS)]
        videos, sounds = HOLDS[container]
        video, sound_codec = pick(videos), pick(sounds)
        counted = container in COUNTED or video in ("mpeg4", "mpeg2", "gif")
        pace = "steady" if container in COUNTED else pick([pace for pace in PACES if not counted or pace != "light"])
        fast, sizes = (Fraction(25), Fraction(30), Fraction(24)), ((64, 48), (96, 64), (160, 96), (128, 98))
        reorders = video in ("h264", "hevc", "mpeg4", "mpeg2") and container not in COUNTED
        edited = container in ("mp4", "mov") and rng.random() < 0.2
        made.append(
            Original(
                f"{container}-{video}-{sound_codec or 'silent'}-{index}",
                video=video,
                sound=sound_codec,
                seconds=float(rng.uniform(3, 5)),
                fps=pick(fast if video == "mpeg2" else (*fast, Fraction(10), Fraction(15), Fraction(30000, 1001))),
                size=pick(sizes),
                rate=pick(RATES.get(sound_codec, (48000,))),
                channels=2 if sound_codec == "vorbis" else pick((1, 2)),
                # An AVI's sound begins with its picture.
                sound_start=0.0 if container in COUNTED else float(pick((0.0, 0.0, 0.3, 1.1))),
                sound_end=float(rng.uniform(-0.15, 0.3)),
                start=-0.4 if edited else 0.0,
                pace=pace,
                options={"avoid_negative_ts": "disabled"} if edited else pick(WAYS.get(container, ({},))),
                encoder={"bf": pick(("0", "2", "3"))} if reorders else {},
            )
        )
    return made
