"""Arrays in .npy files: what is in one, told from its header, and its numbers, mapped from disk."""

import math
import os

import numpy as np

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def array_shape(path: str | os.PathLike) -> tuple[int, ...]:
    """Read the shape of the numbers in a ``.npy`` file without reading the numbers.

    Raises:
        ValueError: If the file is missing, is no ``.npy`` file, is cut short, or holds something else than numbers.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):  # a pipe is waited for
            raise ValueError(f"{path} is no regular file. Put the file itself there.")
        with open(path, "rb") as file:
            start = file.read(24)
            file.seek(0)
            try:
                shape, _, dtype = _HEADER_READERS[np.lib.format.read_magic(file)](file)
            # A header is read as Python's own notation, of which a damaged one raises nearly anything.
            except Exception as error:
                raise ValueError(
                    f"{path} is no readable .npy file; it begins with {start!r}. A web page or an archive may have "
                    "been saved in its place, or it is cut short: download or copy it again."
                ) from error
            num_bytes = os.fstat(file.fileno()).st_size - file.tell()
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing. Download or copy it, or take its video off the corpus's lists."
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error.strerror}).") from error
    if dtype.kind not in "fiu":
        raise ValueError(
            f"{path} holds values of type {dtype}, features are plain numbers. Save it again with "
            "numpy.save(path, array.astype('float32'))."
        )
    if min(shape, default=0) < 0 or num_bytes < math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{path} is cut short: an array of shape {shape} and type {dtype} takes "
            f"{math.prod(shape) * dtype.itemsize} bytes, the file holds {num_bytes}. Download or copy it again."
        )
    return shape


def open_array(path: str | os.PathLike) -> np.memmap:
    """Open the numbers in a ``.npy`` file; only those that are used are read from disk.

    Raises:
        ValueError: As `array_shape`.
    """
    array_shape(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)
