"""Where signal handlers run, which OpenVINO changes."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Let this thread's signal handlers run where they ran before the block, in which OpenVINO computes or loads.

    Each of its cores makes a stack for them, and frees it when it goes: where cores do not go in the reverse order of
    their coming, a stack stays in use that is freed, and the next Ctrl-C is a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    change, before = ctypes.CDLL(None).sigaltstack, _Stack()
    change(None, ctypes.byref(before))
    try:
        yield
    finally:
        change(ctypes.byref(before), None)


__all__ = ["signal_stack_kept"]
