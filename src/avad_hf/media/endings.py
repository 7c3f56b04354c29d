"""Whether a file ends where it should, by its container's own bookkeeping.

FFmpeg reads a file that was cut off as far as it goes, and mostly says nothing. Each container has something that only
a whole file has: sizes that add up, a last block, a flag. Read here from a few blocks at the beginning and the end.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

# Boxes of an MP4's top level.
_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"free", b"skip", b"wide", b"meta"}
_BOXES |= {b"uuid", b"pdin", b"prft", b"emsg", b"pnot", b"udta", b"imda"}
# The longest page of an Ogg file.
_OGG_PAGE = 27 + 255 + 255 * 255
# Each byte with its bits in reverse.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Boxes of an MP4's top level that are walked; a fragmented one has two a fragment, mostly of a second or more.
_MOST_BOXES = 1_000_000


@dataclass(frozen=True)
class Ending:
    """How a file ends.

    Args:
        damage: What shows that its end, or something within, is missing, in words; ``None`` if nothing does.
        known: Whether a missing end would show.
    """

    damage: str | None
    known: bool


class _Bytes:
    """Random access to a file."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def read(self, position: int, length: int) -> bytes:
        if not 0 <= position < self.size:
            return b""
        self._file.seek(position)
        return self._file.read(length)

    def number(self, position: int, length: int, order: Literal["big", "little"] = "big") -> int | None:
        """An unsigned number; ``None`` where the file has no such bytes."""
        data = self.read(position, length)
        return int.from_bytes(data, order) if len(data) == length else None


def ending(path: str, container: str) -> Ending:
    """Look how a file ends.

    Args:
        path: Path of a regular file.
        container: FFmpeg's name of its format.
    """
    look = _LOOKS.get(container.split(",")[0])
    if look is None:
        return Ending(None, known=False)
    with open(path, "rb") as file:
        return look(_Bytes(file))


def _short(have: int, claimed: int, what: str) -> Ending:
    return Ending(f"the file is cut off: {what} ends {claimed - have:,} bytes after the file's end", known=True)


def _longer(file: _Bytes, end: int, known: bool = True) -> Ending:
    """A file in order up to `end`. Recorders fill up with zeros; anything else has been put in somewhere."""
    if file.read(end, 1 << 16).strip(b"\0"):
        return Ending(f"the file is damaged: it holds {file.size - end:,} bytes more than its header says", known)
    return Ending(None, known)


def _mp4(file: _Bytes) -> Ending:
    position = boxes = 0
    fragmented = has_end = False
    while position + 8 <= file.size and boxes < _MOST_BOXES:
        boxes += 1
        header = file.read(position, 16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        elif length == 0:  # up to the end of the file, as a live recording has it
            return Ending(None, known=not fragmented)
        if length < 8 or kind not in _BOXES:
            break
        if position + length > file.size:
            return _short(file.size, position + length, f"its last box ({kind.decode('latin-1')})")
        fragmented |= kind == b"moof"
        has_end = kind == b"mfra"
        position += length
    # The index of a file in one piece says how long it is; fragments come one by one.
    return _longer(file, position, known=not fragmented or has_end)


def _vint(data: bytes, keep_marker: bool) -> tuple[int, int] | None:
    """A number of EBML and its length in bytes; ``None`` for what is none."""
    if not data or data[0] == 0:
        return None
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return None
    value = int.from_bytes(data[:length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def _matroska(file: _Bytes) -> Ending:
    position = 0
    for _ in range(8):
        head = file.read(position, 16)
        identity = _vint(head, keep_marker=True)
        size = None if identity is None else _vint(head[identity[1] :], keep_marker=False)
        if identity is None or size is None:
            break
        begin = position + identity[1] + size[1]
        if identity[0] == 0x18538067:  # Segment, which holds everything
            if size[0] == (1 << 7 * size[1]) - 1:  # of unknown size: written live
                return Ending(None, known=False)
            if begin + size[0] > file.size:
                return _short(file.size, begin + size[0], "its segment")
            return _longer(file, begin + size[0])
        position = begin + size[0]
    return Ending(None, known=False)


# Elements of a Matroska file, of its segment, and of its clusters, which are looked into where they have no length.
_ELEMENTS = {0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B, 0x1941A469}
_ELEMENTS |= {0x1043A770, 0x1254C367, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF}
# The longest element whose checksum is computed: clusters are some megabytes.
_MOST_CHECKED = 1 << 26


def damage_within(path: str, container: str) -> str | None:
    """What of a file contradicts its own structure and checksums, in words; reads all of it, where there are some.

    Args:
        path: Path of a regular file.
        container: FFmpeg's name of its format.
    """
    if container.split(",")[0] != "matroska":
        return None
    with open(path, "rb") as opened:
        file = _Bytes(opened)
        position, end, wrong = 0, file.size, 0
        while position + 2 <= end:
            head = file.read(position, 16)
            identity = _vint(head, keep_marker=True)
            length = None if identity is None else _vint(head[identity[1] :], keep_marker=False)
            if identity is None or length is None or identity[0] not in _ELEMENTS:
                is_filling = not file.read(position, 1 << 16).strip(b"\0")
                return None if is_filling else f"the file is damaged after {position:,} bytes"
            begin = position + identity[1] + length[1]
            is_open = length[0] == (1 << 7 * length[1]) - 1
            if identity[0] == 0x18538067 or is_open:
                position = begin
                continue
            position = begin + length[0]
            if position > file.size:
                return f"the file is cut off: its last block ends {position - file.size:,} bytes after the file's end"
            if length[0] <= _MOST_CHECKED and file.read(begin, 2) == b"\xbf\x84":
                data = file.read(begin + 2, length[0] - 2)
                wrong += zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little")
    return f"{wrong} blocks of the file are damaged, by their checksums" if wrong else None


def _riff(file: _Bytes) -> Ending:
    position = 0
    # An AVI above 1 GB is several blocks in a row.
    while (head := file.read(position, 8))[:4] == b"RIFF" and len(head) == 8:
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):  # written to a pipe
            return Ending(None, known=False)
        end = position + 8 + size
        if end > file.size + 1:  # some forget the byte that fills up to an even number
            return _short(file.size, end, "its RIFF block")
        position = end + size % 2
    return _longer(file, position) if position else Ending(None, known=False)


def _flv(file: _Bytes) -> Ending:
    # Each tag is followed by its size.
    size = file.number(file.size - 4, 4)
    body = None if not size else file.number(file.size - 4 - size + 1, 3)
    if size is None or size < 11 or body is None or body + 11 != size:
        return Ending("the file is cut off within its last block", known=True)
    return Ending(None, known=False)


def _ogg(file: _Bytes) -> Ending:
    # Each page has a checksum and a number; FFmpeg leaves those out that are wrong, and says nothing.
    numbers: dict[int, int] = {}
    ended: set[int] = set()
    position, bad = 0, []
    while position < file.size:
        data = file.read(position, _OGG_PAGE)
        lacing = data[27 : 27 + data[26]] if len(data) > 26 else b""
        page = data[: 27 + len(lacing) + sum(lacing)]
        serial, number = int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
        length = 27 + len(lacing) + sum(lacing)
        is_whole = data[:4] == b"OggS" and data[26:27] == bytes([len(lacing)]) and len(page) == length
        if not is_whole or _ogg_checksum(page) != page[22:26] or number != numbers.get(serial, number - 1) + 1:
            bad.append(position)
        if not is_whole:
            following = data.find(b"OggS", 1)
            position += following if following > 0 else max(1, len(data) - 3)
            continue
        numbers[serial] = number
        if page[5] & 4:
            ended.add(serial)
        position += len(page)
    if bad:
        times = "once" if len(bad) == 1 else f"{len(bad)} times"
        return Ending(f"the file is damaged or cut off {times}, first after {bad[0]:,} bytes", known=True)
    if numbers.keys() - ended:
        return Ending("the file is cut off: its last page is not marked as the last", known=True)
    return Ending(None, known=True)


def _ogg_checksum(page: bytes) -> bytes:
    """Ogg's CRC is zlib's with the bits of each byte, and of the result, in reverse, and begins at 0."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    value = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2).to_bytes(4, "little")


def _gif(file: _Bytes) -> Ending:
    data = file.read(0, file.size)
    position = 13 + _gif_colours(data[10:11])
    try:
        while data[position] != 0x3B:  # the trailer
            if data[position] == 0x21:  # an extension
                position += 2
            elif data[position] == 0x2C:  # a picture
                position += 10 + _gif_colours(data[position + 9 : position + 10]) + 1
            else:
                return Ending(f"the file is damaged after {position:,} bytes, and not read on", known=True)
            while data[position]:
                position += 1 + data[position]
            position += 1
    except IndexError:
        return Ending("the file is cut off: its trailer is missing", known=True)
    return _longer(file, position + 1)


def _gif_colours(flags: bytes) -> int:
    """Bytes of the table of colours that follows."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _mpegts(file: _Bytes) -> Ending:
    head = file.read(0, 8 * 204)
    for length, first in ((188, 0), (192, 4), (204, 0)):
        if all(head[place : place + 1] in (b"\x47", b"") for place in range(first, 4 * length, length)):
            if file.size % length:
                return Ending("the file is cut off within its last packet", known=True)
            break
    return Ending(None, known=False)


def _mpegps(file: _Bytes) -> Ending:
    return Ending(None, known=b"\0\0\1\xb9" in file.read(file.size - 4096, 4096))


_LOOKS: dict[str, Callable[[_Bytes], Ending]] = {
    "mov": _mp4,
    "matroska": _matroska,
    "avi": _riff,
    "wav": _riff,
    "flv": _flv,
    "ogg": _ogg,
    "gif": _gif,
    "mpegts": _mpegts,
    "mpeg": _mpegps,
}


__all__ = ["Ending", "damage_within", "ending"]
