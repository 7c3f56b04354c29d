"""TensorFlow's first checkpoint format (``Saver(write_version=V1)``), read without TensorFlow.

Such a file is a sorted table as in LevelDB: blocks of entries, an index block that says where they lie, and a footer
that says where the index lies. The first entry lists the variables, each of the others holds the numbers of one; both
are protocol buffers (``SavedTensorSlices``). The blocks' checksums are not compared, since in Python that takes some
two hundred times as long as all else.
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
# By TensorFlow's number of a data type: numpy's name, and the field of a TensorProto that has the numbers.
DTYPES = {1: ("<f4", 5), 2: ("<f8", 6), 3: ("<i4", 7), 9: ("<i8", 10)}
# Wire types of protocol buffers; these messages have no others.
VARINT, BYTES = 0, 2


def is_tensorflow(path: str | os.PathLike) -> bool:
    """Whether a file ends as TensorFlow's tables do, which is quickly seen; false if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(-FOOTER, os.SEEK_END)
            return file.read().endswith(MAGIC)
    except OSError:  # also of files that are shorter
        return False


def read_tensorflow(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all variables of a TensorFlow V1 checkpoint, by name.

    Raises:
        ValueError: If the file is missing, is no such checkpoint, is cut short or damaged, or holds other variables
            than whole ones of float32, float64, int32 or int64.
    """
    try:
        with open(path, "rb") as file:
            if not is_tensorflow(path):
                start = file.read(24)
                raise ValueError(f"it begins with {start!r} and does not end as one; it is another file or cut short")
            # Closed with the last view of it: closing it here fails where the traceback of an error has one.
            return _tensors(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be read as a TensorFlow V1 checkpoint: {getattr(error, 'strerror', error)}. Give "
            "the checkpoint as it is published, or download it again."
        ) from error


def _tensors(file: memoryview) -> dict[str, np.ndarray]:
    entries = (entry for block in _blocks(file) for entry in _entries(block))
    listed = dict(_listed(variable) for variable in _values(next(entries, file[:0]), 1, 1))
    if not listed:
        raise ValueError("it lists no variables, as the .index file of a V2 checkpoint does not either")
    tensors = {}
    for entry in entries:
        name = b"".join(_values(entry, 2, 1)).decode(errors="replace")
        if name not in listed:
            raise ValueError(f"it is damaged: {name!r} is not in its list of variables, or there twice")
        shape, dtype, field = listed.pop(name)
        tensors[name] = _array(name, shape, np.dtype(dtype), _values(entry, 2, 3, field))
    if listed:
        raise ValueError(f"it is damaged: the numbers of {', '.join(listed)} are missing")
    return tensors


def _listed(variable: memoryview) -> tuple[str, tuple[tuple[int, ...], str, int]]:
    """A variable's name, and its shape, numpy's name of its type, and the field of a TensorProto with its numbers."""
    name = b"".join(_values(variable, 1)).decode(errors="replace")
    # A slice has an extent for each dimension, which is empty if it covers the whole of it.
    if len(list(_values(variable, 4))) != 1 or any(map(len, _values(variable, 4, 1))):
        raise ValueError(f"{name!r} is saved in parts, as partitioned variables are, and only whole ones are read")
    data_type = next(_values(variable, 3, kind=VARINT), 0)
    if data_type not in DTYPES:
        raise ValueError(f"{name!r} is of type {data_type}; float32, float64, int32 and int64 (1, 2, 3, 9) are read")
    shape = tuple(next(_values(dimension, 1, kind=VARINT), 0) for dimension in _values(variable, 2, 2))
    return name, (shape, *DTYPES[data_type])


def _array(name: str, shape: tuple[int, ...], dtype: np.dtype, packed: Iterator[memoryview]) -> np.ndarray:
    # A copy, since the numbers in the file begin at any byte, and cannot be changed.
    data = bytearray().join(packed)
    if dtype.kind == "i":
        data = bytearray(np.array(_varints(memoryview(data)), np.uint64).astype(dtype))
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it is damaged: {name!r} has shape {shape}, but {len(data)} bytes of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape)


def _blocks(file: memoryview) -> list[memoryview]:
    """The blocks of entries, when it is sure that they, one of metadata, the index and the footer fill the file."""
    numbers = _varints(file[-FOOTER : -len(MAGIC)])
    metadata, index = numbers[:2], numbers[2:4]
    data = [_varints(entry)[:2] for entry in _entries(_block(file, *index))]
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
    return file[offset : offset + size]


def _entries(block: memoryview) -> Iterator[memoryview]:
    """The values in a block; the keys only repeat the names that are in the values."""
    # After the entries come places to begin a search at, and how many of these there are.
    place, end = 0, len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    while place < end:
        _, place = _varint(block, place)  # bytes of the key that are as in the one before
        key, place = _varint(block, place)
        size, place = _varint(block, place)
        place += key + size
        if place > end:
            raise ValueError("it is damaged: an entry is longer than its block")
        yield block[place - size : place]


def _values(message: memoryview, field: int, *fields: int, kind: int = BYTES) -> Iterator[Any]:
    """What a protocol buffer has in a field, or in a field of the messages in that field, and so on."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value, place = _varint(message, place)
        if tag & 7 == BYTES:
            value, place = message[place : place + value], place + value
        if tag & 7 not in (VARINT, BYTES) or place > len(message):
            raise ValueError("it is damaged: a message in it does not end as it should")
        if tag == field << 3 | (BYTES if fields else kind):
            yield from _values(value, *fields, kind=kind) if fields else (value,)


def _varints(data: memoryview) -> list[int]:
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
