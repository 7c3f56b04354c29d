"""Pickles of published labels, read without running the code that a pickle can carry."""

import collections
import os
import pickle
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from numpy._core.numeric import _frombuffer


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes for Python 2.
    return text.encode("latin1")


# All that a pickle of plain containers and numpy arrays names, as Python 2 and 3 and numpy 1 and 2 write it.
ALLOWED_GLOBALS = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _builtins in ("builtins", "__builtin__"):
    ALLOWED_GLOBALS |= {(_builtins, "set"): set, (_builtins, "frozenset"): frozenset}
for _core in ("numpy.core", "numpy._core"):
    ALLOWED_GLOBALS |= {
        (f"{_core}.multiarray", "_reconstruct"): _reconstruct,
        (f"{_core}.multiarray", "scalar"): scalar,
        (f"{_core}.numeric", "_frombuffer"): _frombuffer,
    }


class _ForbiddenGlobalError(pickle.UnpicklingError):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise _ForbiddenGlobalError(f"it asks for {module}.{name}")
        return ALLOWED_GLOBALS[module, name]


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of containers, numbers, strings and numpy arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it asks for anything else, whose code is then not run, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            # latin1 is how numpy arrays that Python 2 wrote are read.
            return _PlainUnpickler(file, encoding="latin1").load()
        except _ForbiddenGlobalError as error:
            raise ValueError(
                f"{path} is not read: {error}. Only containers, numbers, strings and numpy arrays are read from a "
                "pickle, since anything else can run code. Download the file from its authors again."
            ) from error
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise ValueError(
                f"{path} is no readable pickle ({type(error).__name__}: {error}). Download or copy it again."
            ) from error
