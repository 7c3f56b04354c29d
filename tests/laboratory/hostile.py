"""Files that someone made to make a reader fail: that open what they should not, claim terabytes, or never end."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .marks import picture
from .originals import BY_NAME, _write

# "Überfall am Bahnhof" and so on, in what programs wrote before UTF-8, and in no encoding at all.
TITLES = {
    "latin1": "Überfall, Rue de l'Évêché".encode("latin-1"),
    "cp1252": "Café “Zürich” à 5 €".encode("cp1252"),
    "shift_jis": "監視カメラ　東京駅".encode("shift_jis"),
    "broken": b"half a letter: \xe2\x82, and none: \xff\xfe\xc3(",
}
BIG = 30_000


def titled(source: str, target: Path, title: bytes) -> str:
    """Copy a file, with a title and names of its streams in these bytes."""
    stand_in = "T" * len(title)
    # Without checksums, which the bytes would not fit: the file would count as damaged.
    options = {"write_crc32": "0"} if target.suffix == ".mkv" else {}
    with av.open(source) as container, av.open(str(target), "w", options=options) as out:
        out.metadata["title"] = stand_in
        streams = {}
        for stream in container.streams:
            streams[stream.index] = out.add_stream_from_template(stream)
            streams[stream.index].metadata.update(title=stand_in, handler_name=stand_in)
        for packet in container.demux():
            if packet.size and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data = target.read_bytes()
    if stand_in.encode() not in data:
        raise ValueError(f"{target} keeps no titles")
    data = data.replace(stand_in.encode(), title)
    target.write_bytes(_with_checksums(data) if data.startswith(b"OggS") else data)
    return str(target)


def _with_checksums(data: bytes) -> bytes:
    """An Ogg whose pages have the right checksums: without, they would count as damaged."""
    pages, place = [], 0
    while place < len(data):
        count = data[place + 26]
        end = place + 27 + count + sum(data[place + 27 : place + 27 + count])
        page, crc = bytearray(data[place:end]), 0
        page[22:26] = bytes(4)
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
        page[22:26] = crc.to_bytes(4, "little")
        pages.append(page)
        place = end
    return b"".join(pages)


def playlists(names: str, address: str) -> dict[str, bytes]:
    """Texts that name another file, and an address; by the ending that they have where they are what they say."""
    mpd = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>\n"
    )
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"
    texts = {
        "m3u8": hls.format(names),
        "remote.m3u8": hls.format(address),
        "crypt.m3u8": hls.format(names).replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF'),
        "mpd": mpd.format(names),
        "remote.mpd": mpd.format(address),
        "ffconcat": f"ffconcat version 1.0\nfile '{names}'\n",
        "remote.ffconcat": f"ffconcat version 1.0\nfile '{address}'\n",
        "asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>\n',
        "pls": f"[playlist]\nFile1={address}\nNumberOfEntries=1\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    }
    return {ending: text.encode() for ending, text in texts.items()}


def sized(target: Path, width: int, height: int, count: int = 3, codec: str = "mjpeg") -> str:
    """Pictures of a size that no camera has."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24" if codec == "png" else "yuvj420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return str(target)


def claiming(source: str, target: Path, size: tuple[int, int], first: int = 0) -> str:
    """Copy a file of JPEGs or PNGs, and let its pictures from number `first` on claim to be so large."""
    data, number = bytearray(Path(source).read_bytes()), 0
    for match in re.finditer(rb"\xff\xc0\x00\x11\x08|IHDR", data):
        is_png, number = match[0] == b"IHDR", number + 1
        if number > first:
            struct.pack_into(">II" if is_png else ">HH", data, match.end(), *(size if is_png else size[::-1]))
    if not first and (header := data.find(b"strf")) >= 0:
        struct.pack_into("<II", data, header + 12, *size)
    if not number:
        raise ValueError(f"{source} holds no JPEGs or PNGs")
    target.write_bytes(data)
    return str(target)


def vp8_claiming(source: str, target: Path) -> str:
    """Copy a file of VP8, and let each key frame claim the largest size that the codec knows."""
    target.write_bytes(_patched(Path(source).read_bytes(), b"\x9d\x01\x2a", 0, struct.pack("<HH", 16383, 16383)))
    return str(target)


def gif_claiming(source: str, target: Path) -> str:
    """Copy a GIF, and let its screen be 65,535 pixels wide and high."""
    data = bytearray(Path(source).read_bytes())
    struct.pack_into("<HH", data, 6, 65535, 65535)
    target.write_bytes(data)
    return str(target)


def wav(target: Path, rate: int, channels: int = 1, claimed: int | None = None, seconds: float = 0.5) -> str:
    """A WAV of 16-bit samples, half a second at 16 kHz, whose header claims what it likes."""
    samples = (np.sin(np.arange(round(16000 * seconds)) / 5) * 9000).astype("<i2").tobytes()
    size = len(samples) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), channels * 2 & 0xFFFF, 16)
    head = b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    target.write_bytes(head + b"data" + struct.pack("<I", size) + samples)
    return str(target)


def many_streams(target: Path, count: int) -> str:
    """An MP4 with a picture and so many streams."""
    with av.open(str(target), "w") as out:
        video = out.add_stream("mjpeg", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        sounds = [out.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count - 1)]
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            out.mux(video.encode(frame))
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 80), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 0
            out.mux(stream.encode(frame))
        out.mux(video.encode(None))
    return str(target)


def jumping(folder: Path, name: str, seconds: float, at: float = 1.0) -> str:
    """An original whose times are later by `seconds` from a moment on, picture and sound alike."""
    moved = set()

    def keep(packet: av.Packet, time: float) -> bool:
        kind = packet.stream.type
        if kind in moved or time >= at:
            moved.add(kind)
            ticks = round(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return True

    return BY_NAME[name].write(folder, keep)["video"]


def _patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite what lies so many bytes after each place where a name ends."""
    patched, place = bytearray(data), 0
    while (place := data.find(name, place)) >= 0:
        place += len(name)
        patched[place + offset : place + offset + len(value)] = value
    if patched == data:
        raise ValueError(f"{name!r} is not in it")
    return bytes(patched)


# Headers of an MP4 that claim a billion entries, and how far from the name the number lies.
TABLES = {"stts": 4, "stsz": 8, "stsc": 4, "stco": 4, "ctts": 4, "stss": 4, "elst": 4}


def table_claiming(source: str, target: Path, table: str, count: int = 2**30) -> str:
    """Copy an MP4, and let a table of its header claim so many entries."""
    target.write_bytes(_patched(Path(source).read_bytes(), table.encode(), TABLES[table], struct.pack(">I", count)))
    return str(target)


def box(name: bytes, payload: bytes = b"") -> bytes:
    """A box of an MP4."""
    return struct.pack(">I", 8 + len(payload)) + name + payload


def nested_boxes(source: str, target: Path, depth: int = 10_000) -> str:
    """Copy an MP4 behind a box in a box in a box."""
    # From the inside out would copy 10,000 times: all heads in a row, each of the length that is left.
    heads = b"".join(struct.pack(">I", 8 * (depth - level)) + b"udta" for level in range(depth))
    data = Path(source).read_bytes()
    end = struct.unpack(">I", data[:4])[0]
    target.write_bytes(data[:end] + heads + data[end:])
    return str(target)


def nested_moov(source: str, target: Path, depth: int = 5_000) -> str:
    """An MP4 whose header lies in a header in a header."""
    data = Path(source).read_bytes()
    end = struct.unpack(">I", data[:4])[0]
    heads = b"".join(struct.pack(">I", 8 * (depth - level)) + b"moov" for level in range(depth))
    target.write_bytes(data[:end] + heads)
    return str(target)


def empty_boxes(source: str, target: Path, count: int = 500_000) -> str:
    """Copy an MP4 behind half a million empty boxes, the last of which claims to go on to the end."""
    data = Path(source).read_bytes()
    end = struct.unpack(">I", data[:4])[0]
    target.write_bytes(data[:end] + box(b"free") * count + data[end:] + b"\0\0\0\0free" * 1000)
    return str(target)


def zero_boxes(target: Path) -> str:
    """Boxes of length 0 and 1, which is the length of a longer number, without end."""
    target.write_bytes(
        box(b"ftyp", b"isom\0\0\2\0isommp41") + b"\0\0\0\1moov" + bytes(8) + (b"\0\0\0\1trak" + bytes(8)) * 5000
    )
    return str(target)


def element(name: bytes, payload: bytes, size: int | None = None) -> bytes:
    """An element of a Matroska file, of a size that may be a lie."""
    return name + bytes([1]) + (len(payload) if size is None else size).to_bytes(7, "big") + payload


CLUSTER, TAGS, TAG, SIMPLE_TAG = b"\x1f\x43\xb6\x75", b"\x12\x54\xc3\x67", b"\x73\x73", b"\x67\xc8"
TAG_NAME, TAG_TEXT = b"\x45\xa3", b"\x44\x87"


def _with_elements(source: str, target: Path, elements: bytes) -> str:
    """Copy a Matroska file of unknown length, with elements before its first cluster."""
    data = Path(source).read_bytes()
    place = data.index(CLUSTER)
    target.write_bytes(data[:place] + elements + data[place:])
    return str(target)


def nested_tags(source: str, target: Path, depth: int = 20_000) -> str:
    """Tags in tags in tags."""
    inner = element(TAG_NAME, b"x") + element(TAG_TEXT, b"y")
    heads, length = [], len(inner)
    for _ in range(depth):
        heads.append(SIMPLE_TAG + bytes([1]) + length.to_bytes(7, "big"))
        length += len(heads[-1])
    tags = element(TAGS, element(TAG, b"".join(reversed(heads)) + inner))
    return _with_elements(source, target, tags)


def many_tags(source: str, target: Path, count: int = 100_000) -> str:
    """A hundred thousand tags."""
    one = element(TAG, element(SIMPLE_TAG, element(TAG_NAME, b"NAME") + element(TAG_TEXT, b"text")))
    return _with_elements(source, target, element(TAGS, one * count))


def element_claiming(source: str, target: Path, size: int = 2**40) -> str:
    """A tag that claims a terabyte."""
    return _with_elements(source, target, element(TAGS, element(TAG, element(SIMPLE_TAG, b"", size), size), size))


def block_claiming(source: str, target: Path) -> str:
    """A block of pictures that claims a gigabyte."""
    data = bytearray(Path(source).read_bytes())
    place = data.index(b"\xa3", data.index(CLUSTER) + 12)
    data[place + 1 : place + 9] = bytes([1]) + (2**30).to_bytes(7, "big")
    target.write_bytes(data)
    return str(target)


def chained(folder: Path, count: int = 1000) -> str:
    """An Ogg of so many recordings of a tenth of a second, one after the other."""
    short = replace(BY_NAME["mp4-h264-opus-ogg"], video="", seconds=0.1)
    _write(folder / "one.ogg", short, "opus")
    one, target = (folder / "one.ogg").read_bytes(), folder / "chained.ogg"
    target.write_bytes(one * count)
    return str(target)


def avi_claiming(source: str, target: Path) -> str:
    """An AVI whose index claims 4 gigabytes, and whose streams so many frames."""
    data = _patched(Path(source).read_bytes(), b"idx1", 0, struct.pack("<I", 2**32 - 16))
    target.write_bytes(_patched(data, b"strh", 4 + 32, struct.pack("<I", 2**32 - 1)))
    return str(target)


def flv_claiming(source: str, target: Path) -> str:
    """An FLV whose first tag is an array of a billion entries."""
    script = b"\x02\x00\x0aonMetaData\x08" + struct.pack(">I", 2**30) + b"\x00\x01a\x0a" + struct.pack(">I", 2**31 - 1)
    tag = b"\x12" + len(script).to_bytes(3, "big") + bytes(7) + script
    data = Path(source).read_bytes()
    target.write_bytes(data[:13] + tag + struct.pack(">I", len(tag)) + data[13:])
    return str(target)


def id3_claiming(source: str, target: Path) -> str:
    """An MP3 behind an ID3 tag of 256 megabytes."""
    target.write_bytes(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + b"TIT2\x7f\x7f\x7f\x7f\0\0" + Path(source).read_bytes())
    return str(target)


# Contents that are no video, by what they are.
NO_VIDEOS: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"root:x:0:0:root:/root:/bin/bash\n" * 100,
    "html": lambda: b"<!DOCTYPE html><html><body>not found</body></html>" * 20,
    "pdf": lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" * 50,
    "zip": lambda: b"PK\x03\x04" + bytes(5000),
    "program": lambda: b"\x7fELF\x02\x01\x01" + bytes(5000),
    "zeros": lambda: bytes(100_000),
    "noise": lambda: np.random.default_rng(0).bytes(100_000),
    "srt": lambda: b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 50,
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}
