"""TensorFlow's tables and messages, read without TensorFlow.

A table is a sorted list of keys and values as in LevelDB: blocks of entries, an index block that says where they lie,
and a footer that says where the index lies. The values are protocol buffers.
"""

import math
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48
# After each block: the kind of its compression, and a checksum of four bytes.
TRAILER = 5
# Bytes of a key, which is a variable's name. A key may repeat the one before in two bytes, however long that is.
MOST_KEY = 1000
# By TensorFlow's number of a data type: numpy's name.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
# What an error calls them.
DTYPE_NAMES = "float32, float64, int32 and int64 (1, 2, 3, 9)"
# Wire types of protocol buffers; these messages have no others.
VARINT, BYTES, FIXED32 = 0, 2, 5


def is_table(path: str | os.PathLike) -> bool:
    """Whether a file ends as TensorFlow's tables do, which is quickly seen; false if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(-FOOTER, os.SEEK_END)
            return file.read().endswith(MAGIC)
    except OSError:  # also of files that are shorter
        return False


def read_table(path: str | os.PathLike) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a table, in their order.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is another file, cut short or damaged; without its name.
    """
    with open(path, "rb") as file:
        if not is_table(path):
            start = file.read(24)
            raise ValueError(f"it begins with {start!r} and does not end as one; it is another file or cut short")
        # Closed with the last view of it: closing it here fails where the traceback of an error has one.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return (entry for block in _blocks(content) for entry in _entries(block))


def _blocks(file: memoryview) -> list[memoryview]:
    """The blocks of entries, when it is sure that they, one of metadata, the index and the footer fill the file."""
    numbers = varints(file[-FOOTER : -len(MAGIC)])
    metadata, index = numbers[:2], numbers[2:4]
    data = [varints(value)[:2] for _, value in _entries(_block(file, *index))]
    places = [*data, metadata, index]
    ends = [offset + size + TRAILER for offset, size in places]
    if [0, *ends] != [*(offset for offset, _ in places), len(file) - FOOTER]:
        raise ValueError("it is damaged or cut short: its blocks do not fill it")
    return [_block(file, *place) for place in data]


def _block(file: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + TRAILER + FOOTER > len(file):
        raise ValueError(f"it is damaged or cut short: of its {len(file)} bytes, a block is at {offset} + {size}")
    if compression := file[offset + size]:
        raise ValueError(f"it is damaged or compressed (kind {compression}, 1 is snappy), as none is")
    end = offset + size + 1
    if checksum_of(file[offset:end]) != int.from_bytes(file[end : end + 4], "little"):
        raise ValueError(f"it is damaged or cut short: its block at {offset} has another checksum")
    return file[offset : offset + size]


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values in a block."""
    # After the entries come places to begin a search at, and how many of these there are.
    place, end = 0, len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    key = b""
    while place < end:
        same, place = _varint(block, place)  # bytes of the key that are as in the one before
        other, place = _varint(block, place)
        size, place = _varint(block, place)
        if same > len(key) or same + other > MOST_KEY or place + other + size > end:
            raise ValueError("it is damaged: an entry is longer than its block, or its key is endless")
        key = key[:same] + bytes(block[place : place + other])
        place += other + size
        yield key, block[place - size : place]


def values(message: memoryview, field: int, *fields: int, kind: int = BYTES) -> Iterator[Any]:
    """What a protocol buffer has in a field, or in a field of the messages in that field, and so on."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == FIXED32:
            value, place = int.from_bytes(message[place : place + 4], "little"), place + 4
        else:
            value, place = _varint(message, place)
        if wire == BYTES:
            value, place = message[place : place + value], place + value
        if wire not in (VARINT, BYTES, FIXED32) or place > len(message):
            raise ValueError("it is damaged: a message in it does not end as it should")
        if tag == field << 3 | (BYTES if fields else kind):
            yield from values(value, *fields, kind=kind) if fields else (value,)


def shape_of(message: memoryview) -> tuple[int, ...]:
    """What a ``TensorShapeProto`` says."""
    return tuple(next(values(dimension, 1, kind=VARINT), 0) for dimension in values(message, 2))


def varints(data: memoryview) -> list[int]:
    """All numbers of a packed field."""
    numbers, place = [], 0
    while place < len(data):
        number, place = _varint(data, place)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and the place after it."""
    number = 0
    for index, byte in enumerate(data[place : place + 10]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number % 2**64, place + index + 1
    raise ValueError("it is damaged: a number in it does not end")


def _shifts() -> np.ndarray:
    """What CRC-32C makes of a byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (0x82F63B78 * (table & 1))
    return table


SHIFTS = _shifts()


def checksum_of(data: bytes | bytearray | memoryview) -> int:
    """A checksum as TensorFlow stores it: moved, so that one of data that has checksums in it is as good as any."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C (Castagnoli) of many bytes.

    A checksum is linear in the one before it. So equal parts of the data go through the table at once, each from
    zero, and so do the 32 single bits, which say what a part makes of the checksum of all before it.
    """
    length = math.isqrt(len(data))  # of a part, and about as many parts
    parts = len(data) // max(length, 1)
    columns = np.zeros((length, parts + 32), np.uint8)
    columns[:, :parts] = np.frombuffer(data, np.uint8, length * parts).reshape(parts, length).T
    state = np.concatenate([np.zeros(parts, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
    for column in columns:
        state = SHIFTS[(state ^ column) & 0xFF] ^ (state >> 8)
    sums, bits = state[:parts].tolist(), state[parts:].tolist()
    total = 0xFFFFFFFF
    for part in sums:
        moved = part
        for number, bit in enumerate(bits):
            if total >> number & 1:
                moved ^= bit
        total = moved
    for byte in data[length * parts :]:
        total = int(SHIFTS[(total ^ byte) & 0xFF]) ^ total >> 8
    return total ^ 0xFFFFFFFF


__all__ = [
    "BYTES",
    "DTYPES",
    "DTYPE_NAMES",
    "FIXED32",
    "VARINT",
    "checksum_of",
    "crc32c",
    "is_table",
    "read_table",
    "shape_of",
    "values",
    "varints",
]
