"""Keras's files of weights (``.h5``), read by h5py: their arrays, and nothing that lies elsewhere."""

import os
from pathlib import Path

import numpy as np

START = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".h5", ".hdf5")


def is_keras(start: bytes) -> bool:
    """Whether a file that begins so is one of HDF5."""
    return start.startswith(START)


def check_reader(path: str | os.PathLike) -> None:
    """Raise ``ImportError`` for what is called like a file of Keras's, if h5py is not installed."""
    if Path(path).suffix in ENDINGS:
        _h5py(path)


def _h5py(path: str | os.PathLike):
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{os.fspath(path)} is a file of Keras, which h5py reads, and it is not installed. Install it with: "
            "pip install 'avad-hf[keras]'"
        ) from error
    return h5py


def read_keras(path: str | os.PathLike, most_bytes: int) -> dict[str, np.ndarray]:
    """Read all arrays of a file of HDF5, by their paths in it.

    Links are not followed.

    Args:
        path: The file.
        most_bytes: How large they may be together.

    Raises:
        ValueError: If it is damaged, is larger, or has arrays of anything but numbers, or in other files.
        ImportError: If h5py is not installed.
    """
    h5py = _h5py(path)
    arrays: dict[str, np.ndarray] = {}

    def add(name: str, node: object) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        if node.external or node.is_virtual:
            raise ValueError(f"the numbers of {name!r} are in another file")
        if node.dtype.kind not in "fiu":
            raise ValueError(f"{name!r} is of type {node.dtype}, and only numbers are read")
        if node.nbytes + sum(array.nbytes for array in arrays.values()) > most_bytes:
            raise ValueError(f"its arrays have more than {most_bytes} bytes, which no file of weights has")
        arrays[name] = node[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(add)
    # A damaged file raises nearly anything.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a file of Keras ({type(error).__name__}: {error}). Give the file as it is "
            "published, or download it again; nothing was written."
        ) from error
    return arrays


__all__ = ["check_reader", "is_keras", "read_keras"]
