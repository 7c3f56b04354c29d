"""TensorFlow's first checkpoint format (``Saver(write_version=V1)``), read without TensorFlow.

Such a file is a table. Its first entry lists the variables, each of the others holds the numbers of one; both are
protocol buffers (``SavedTensorSlices``).
"""

import math
import os
from collections.abc import Iterator

import numpy as np

from .tensorflow_tables import DTYPE_NAMES, DTYPES, VARINT, read_table, shape_of, values, varints

# By TensorFlow's number of a data type: the field of a TensorProto that has the numbers.
FIELDS = {1: 5, 2: 6, 3: 7, 9: 10}


def read_tensorflow(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all variables of a TensorFlow V1 checkpoint, by name.

    Raises:
        ValueError: If the file is missing, is no such checkpoint, is cut short or damaged, or holds other variables
            than whole ones of float32, float64, int32 or int64.
    """
    try:
        return _tensors(value for _, value in read_table(path))
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be read as a TensorFlow V1 checkpoint: {getattr(error, 'strerror', error)}. Give "
            "the checkpoint as it is published, or download it again."
        ) from error


def _tensors(entries: Iterator[memoryview]) -> dict[str, np.ndarray]:
    listed = dict(_listed(variable) for variable in values(next(entries, memoryview(b"")), 1, 1))
    if not listed:
        raise ValueError("it lists no variables, as the .index file of a V2 checkpoint does not either")
    tensors = {}
    for entry in entries:
        name = b"".join(values(entry, 2, 1)).decode(errors="replace")
        if name not in listed:
            raise ValueError(f"it is damaged: {name!r} is not in its list of variables, or there twice")
        shape, data_type = listed.pop(name)
        packed = values(entry, 2, 3, FIELDS[data_type])
        tensors[name] = _array(name, shape, np.dtype(DTYPES[data_type]), packed)
    if listed:
        raise ValueError(f"it is damaged: the numbers of {', '.join(listed)} are missing")
    return tensors


def _listed(variable: memoryview) -> tuple[str, tuple[tuple[int, ...], int]]:
    """A variable's name, its shape, and TensorFlow's number of its type."""
    name = b"".join(values(variable, 1)).decode(errors="replace")
    # A slice has an extent for each dimension, which is empty if it covers the whole of it.
    if len(list(values(variable, 4))) != 1 or any(map(len, values(variable, 4, 1))):
        raise ValueError(f"{name!r} is saved in parts, as partitioned variables are, and only whole ones are read")
    data_type = next(values(variable, 3, kind=VARINT), 0)
    if data_type not in DTYPES:
        raise ValueError(f"{name!r} is of type {data_type}; {DTYPE_NAMES} are read")
    return name, (shape_of(next(values(variable, 2), memoryview(b""))), data_type)


def _array(name: str, shape: tuple[int, ...], dtype: np.dtype, packed: Iterator[memoryview]) -> np.ndarray:
    # A copy, since the numbers in the file begin at any byte, and cannot be changed.
    data = bytearray().join(packed)
    if dtype.kind == "i":
        data = bytearray(np.array(varints(memoryview(data)), np.uint64).astype(dtype))
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it is damaged: {name!r} has shape {shape}, but {len(data)} bytes of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape)


__all__ = ["read_tensorflow"]
