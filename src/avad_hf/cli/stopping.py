"""How a command is stopped, by Ctrl-C or SIGTERM: what is done is kept, and a second signal ends it at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout`, `accelerate launch` and terminals send the same signal to a process and to its group. What comes within so
# many seconds of the first one is no second one.
ECHO_S = 0.5


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; libraries let it through as they do Ctrl-C."""


class _Asked:
    """What the signal handler knows: the signal that asked for the end, and whether it has to wait."""

    signal: int | None = None
    must_wait = False


@contextmanager
def listening() -> Iterator[None]:
    """Raise [`Stopped`] in the block when a signal comes; end the process when a second one does."""
    _Asked.signal = None
    if threading.current_thread() is not threading.main_thread():  # whose the handlers are
        yield
        return
    heard = {number: signal.getsignal(number) for number in SIGNALS}
    # nohup and shells have some ignored. None: a handler in C, which could not be put back.
    heard = {number: before for number, before in heard.items() if before not in (signal.SIG_IGN, None)}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # A handler in Python waits for what computes in C++, perhaps for minutes. This thread does not.
    threading.Thread(target=_end_at_second, args=(reader,), daemon=True).start()
    before_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in heard:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, before in heard.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(before_fd)
        os.close(writer)


def _stop(number: int, frame: object) -> None:
    if _Asked.signal is None:
        _Asked.signal = number
        check()


def _end_at_second(reader: int) -> None:
    first = None
    while number := os.read(reader, 1):
        if number[0] in SIGNALS:
            first = first or time.monotonic()
            if time.monotonic() - first > ECHO_S:
                os._exit(128 + number[0])
    os.close(reader)


def _forget() -> None:
    """In a forked process, which its parent ends: no handler, and nothing that wakes the parent."""
    if signal.getsignal(signal.SIGTERM) is _stop or signal.getsignal(signal.SIGINT) is _stop:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def asked() -> int | None:
    """The signal that asked for the end."""
    return _Asked.signal


def check() -> None:
    """Raise [`Stopped`] if a signal came: what the handler raised can be lost in a callback of FFmpeg."""
    if _Asked.signal is not None and not _Asked.must_wait:
        raise Stopped(_Asked.signal)


@contextmanager
def unstopped() -> Iterator[None]:
    """Let a first signal wait until the block is through: it writes what is done."""
    _Asked.must_wait = True
    try:
        yield
    finally:
        _Asked.must_wait = False
    check()


__all__ = ["SIGNALS", "Stopped", "asked", "check", "listening", "unstopped"]
