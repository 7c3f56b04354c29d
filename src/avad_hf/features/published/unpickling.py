"""Pickles of published labels, read without running the code that a pickle can carry.

A pickle names what is called with which arguments. Only plain containers and numpy's arrays may be named, and numpy
itself is never called with what a file says: types are made anew from their names, and arrays from as many bytes as
are there, since numpy believes any state that it is given and then reads memory that is not its own.
"""

import math
import mmap
import os
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

# Numbers, truth values and text; no objects, and no records, which can hold them.
PLAIN_TYPES = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SUa]\d{1,9}|bool)")
ORDERS = ("<", ">", "|", "=")
# How deep tuples may lie in each other, where labels have two: Python computes the hash of one by a call for each.
MOST_NESTED = 100


class Dtype:
    """A numpy type in a pickle: its name, and the order of bytes from its state."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: Any, *_: Any):
        name = name.decode("ascii") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not PLAIN_TYPES.fullmatch(name):
            raise pickle.UnpicklingError(f"it has arrays of the type {name!r}, and only numbers and text are read")
        self._name, self._order = name, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if order not in ORDERS or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError(f"the state of its type {self._name!r} is none of a plain type")
        self._order = order

    @property
    def dtype(self) -> np.dtype:
        """The type itself."""
        return np.dtype(self._name).newbyteorder(self._order)


class Array(np.ndarray):
    """An array in a pickle: empty at first, and filled once, with as many numbers as there are bytes."""

    _is_filled: ClassVar[bool] = False

    def __new__(cls, *_: Any) -> "Array":
        """Make an empty one, whatever a pickle asks for."""
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if self._is_filled:
            raise pickle.UnpicklingError("it fills an array twice")
        dtype, data = _checked(shape, dtype, data)
        super().__setstate__((1, shape, dtype, bool(is_fortran), data))
        self._is_filled = True


class Ordered(dict):
    """An ordered dict in a pickle; its attributes, which torch gives to some, mean nothing here."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Called:
    """A function that a pickle may call, and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


def _checked(shape: Any, dtype: Any, data: Any) -> tuple[np.dtype, bytes | bytearray]:
    """The type and the bytes of an array, if they belong together."""
    data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote bytes
    if not isinstance(dtype, Dtype) or not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("it has an array without a type, or without bytes")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise pickle.UnpicklingError(f"it has an array of the shape {shape!r}")
    needed = math.prod(shape) * dtype.dtype.itemsize
    if needed != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(data)} bytes and needs {needed}")
    return dtype.dtype, data


def _scalar(dtype: Any, data: Any) -> np.generic:
    dtype, data = _checked((), dtype, data)
    return np.frombuffer(data, dtype)[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    dtype, data = _checked(shape, dtype, data)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes for Python 2.
    return text.encode("latin1")


# All that a pickle of plain containers and numpy arrays names, as Python 2 and 3 and numpy 1 and 2 write it.
ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): Called(_encode),
    ("collections", "OrderedDict"): Ordered,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
}
for _builtins in ("builtins", "__builtin__"):
    ALLOWED_GLOBALS |= {(_builtins, "set"): set, (_builtins, "frozenset"): frozenset}
for _core in ("numpy.core", "numpy._core"):
    ALLOWED_GLOBALS |= {
        (f"{_core}.multiarray", "_reconstruct"): Array,
        (f"{_core}.multiarray", "scalar"): Called(_scalar),
        (f"{_core}.numeric", "_frombuffer"): Called(_frombuffer),
    }


class _ForbiddenGlobalError(pickle.UnpicklingError):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise _ForbiddenGlobalError(f"it asks for {module}.{name}")
        return ALLOWED_GLOBALS[module, name]


def _check_steps(file: Any, size: int) -> None:
    """Raise ``pickle.UnpicklingError`` for a pickle that takes memory, or calls within calls, without end.

    Python makes room for as many remembered objects as the largest number says that a pickle gives one.
    """
    mark = pickletools.markobject
    depths: list[Any] = []  # of the tuples on the stack; 0 of anything else
    remembered: dict[int, int] = {}
    for step, argument, _ in pickletools.genops(file):
        if step.name == "MARK":
            depths.append(mark)
        elif step.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(remembered) if argument is None else argument
            if number > size:
                raise pickle.UnpicklingError(f"it remembers an object under the number {number}")
            remembered[number] = depths[-1]
        elif step.name in ("GET", "BINGET", "LONG_BINGET"):
            depths.append(remembered.get(argument, 0))
        else:
            taken = []
            for kind in reversed(step.stack_before):
                if kind is pickletools.stackslice:
                    while depths[-1] is not mark:
                        taken.append(depths.pop())
                else:
                    taken.append(depths.pop())
            inner = max((depth for depth in taken if depth is not mark), default=0)
            depth = 1 + inner if step.name.startswith(("TUPLE", "EMPTY_TUPLE")) else inner if step.name == "DUP" else 0
            if depth > MOST_NESTED:
                raise pickle.UnpicklingError(f"it has tuples in more than {MOST_NESTED} others")
            depths += [depth] * len(step.stack_after)


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of containers, numbers, strings and numpy arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it asks for anything else, whose code is then not run, or is damaged.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError(f"{path} is no regular file. Put the file itself there.")
    with open(path, "rb") as file:
        try:
            if not os.fstat(file.fileno()).st_size:
                raise EOFError("it is empty")
            # Gives no more bytes than there are, whatever number a pickle asks for.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_steps(data, len(data))
                data.seek(0)
                # latin1 is how numpy arrays that Python 2 wrote are read.
                return _PlainUnpickler(data, encoding="latin1").load()
        except _ForbiddenGlobalError as error:
            raise ValueError(
                f"{path} is not read: {error}. Only containers, numbers, strings and numpy arrays are read from a "
                "pickle, since anything else can run code. Download the file from its authors again."
            ) from error
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise ValueError(
                f"{path} is no readable pickle ({type(error).__name__}: {error}). Download or copy it again."
            ) from error
