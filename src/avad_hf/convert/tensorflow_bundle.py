"""TensorFlow's second checkpoint format (V2, and SavedModels' ``variables``), read without TensorFlow.

Such a checkpoint is several files of one prefix: ``<prefix>.index``, a table with a protocol buffer for each tensor
(``BundleEntryProto``), and ``<prefix>.data-00000-of-00001``, ..., the numbers, one tensor after the other.
"""

import math
import os
import re
from pathlib import Path

import numpy as np

from .tensorflow_tables import DTYPE_NAMES, DTYPES, FIXED32, VARINT, checksum_of, read_table, shape_of, values

INDEX = ".index"
DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
# Bookkeeping of TensorFlow's: which object holds which tensor, a text, and how often it was saved.
BOOKKEEPING = re.compile(r"_CHECKPOINTABLE_OBJECT_GRAPH|(.*/)?save_counter/\.ATTRIBUTES/VARIABLE_VALUE")
# Data files of one checkpoint. Published ones have one; more than this is a mistake or somebody's joke.
MOST_SHARDS = 1000


def bundle_prefix(path: str | os.PathLike) -> Path | None:
    """Prefix of the V2 checkpoint that a path stands for; ``None`` for other files, and where nothing is.

    Args:
        path: An index, a data file, or the prefix of both.
    """
    path = Path(path)
    if not path.is_file():
        return path if _index(path).is_file() else None
    if path.suffix == INDEX:
        return path.with_suffix("")
    match = DATA.fullmatch(path.name)
    return None if match is None else path.with_name(match[1])


def bundle_files(path: str | os.PathLike) -> list[Path]:
    """Files of a V2 checkpoint: the index, and the data files that it asks for.

    Args:
        path: Its index, one of its data files, or the prefix of both.

    Raises:
        ValueError: If the index is missing, is none, or is damaged.
    """
    prefix = bundle_prefix(path) or Path(path)
    try:
        return [_index(prefix), *_shards(prefix, dict(read_table(_index(prefix))))]
    except (OSError, ValueError) as error:
        raise _refusal(_index(prefix), error) from error


def read_bundle(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all tensors of a TensorFlow V2 checkpoint, by name; its bookkeeping is left out.

    Args:
        path: Its index, one of its data files, or the prefix of both.

    Raises:
        ValueError: If a file is missing, is none of such a checkpoint, is cut short or damaged, or holds other tensors
            than whole ones of float32, float64, int32 or int64.
    """
    prefix = bundle_prefix(path) or Path(path)
    file = _index(prefix)  # the file that is read, for the error
    tensors = {}
    try:
        entries = dict(read_table(file))
        shards = _shards(prefix, entries)
        del entries[b""]
        left = sum(shard.stat().st_size for shard in shards)
        for key, entry in entries.items():
            name, file = key.decode(errors="replace"), _index(prefix)
            number, offset, size, checksum = (
                next(values(entry, field, kind=kind), 0)
                for field, kind in ((3, VARINT), (4, VARINT), (5, VARINT), (6, FIXED32))
            )
            if number >= len(shards):
                raise ValueError(f"it is damaged: {name!r} is in data file {number} of {len(shards)}")
            if size > left:
                raise ValueError("it is damaged or cut short: its tensors are larger than its data files")
            left -= size
            is_tensor = BOOKKEEPING.fullmatch(name) is None
            if is_tensor:
                shape, dtype = _layout(name, entry)
                if size != math.prod(shape) * dtype.itemsize:
                    raise ValueError(f"it is damaged: {name!r} has shape {shape}, but {size} bytes of {dtype}")
            file = shards[number]
            data = _read(name, file, offset, size)
            if is_tensor:
                if checksum_of(data) != checksum:
                    raise ValueError(f"it is damaged: the checksum of {name!r} is another than the index says")
                tensors[name] = np.frombuffer(data, dtype).reshape(shape)
    except (OSError, ValueError, OverflowError) as error:
        raise _refusal(file, error) from error
    return tensors


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + INDEX)


def _refusal(path: Path, error: Exception) -> ValueError:
    path = getattr(error, "filename", None) or path
    return ValueError(
        f"{path} cannot be read as part of a TensorFlow V2 checkpoint: {getattr(error, 'strerror', None) or error}. "
        "Give the checkpoint as it is published, its .index beside its .data files, or download it again."
    )


def _shards(prefix: Path, entries: dict[bytes, memoryview]) -> list[Path]:
    """The data files that an index asks for."""
    if b"" not in entries:
        raise ValueError("it has no header")
    header = entries[b""]
    if next(values(header, 1), None) is not None:
        raise ValueError("it is a V1 checkpoint: give it under another ending")
    count = next(values(header, 1, kind=VARINT), 0)
    if not 1 <= count <= MOST_SHARDS:
        raise ValueError(f"it asks for {count} data files, and 1 to {MOST_SHARDS} are read")
    if next(values(header, 2, kind=VARINT), 0):
        raise ValueError("its numbers have their first byte first (big-endian), which is not read")
    return [prefix.with_name(f"{prefix.name}.data-{number:05}-of-{count:05}") for number in range(count)]


def _layout(name: str, entry: memoryview) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a tensor."""
    data_type = next(values(entry, 1, kind=VARINT), 0)
    if data_type not in DTYPES:
        raise ValueError(f"{name!r} is of type {data_type}; {DTYPE_NAMES} are read")
    if next(values(entry, 7), None) is not None:
        raise ValueError(f"{name!r} is saved in parts, as partitioned variables are, and only whole ones are read")
    return shape_of(next(values(entry, 2), memoryview(b""))), np.dtype(DTYPES[data_type])


def _read(name: str, path: Path, offset: int, size: int) -> bytearray:
    if offset + size > path.stat().st_size:
        raise ValueError(f"it is cut short: it has {path.stat().st_size} bytes, and {name!r} is at {offset} + {size}")
    with open(path, "rb") as file:
        file.seek(offset)
        # A copy, since the numbers in the file begin at any byte, and cannot be changed.
        return bytearray(file.read(size))


__all__ = ["bundle_files", "bundle_prefix", "read_bundle"]
