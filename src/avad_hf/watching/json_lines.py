"""Events as lines of JSON, at the end of a file or on standard output."""

import errno
import os
import stat
import sys
import threading
from typing import Any

from avad_hf.files import as_json, write_text

# Bytes that are held for a disk that is full: some thousand events.
MOST_HELD_BYTES = 1 << 20
STANDARD_OUTPUT = "-"


class JsonLines:
    """Writes each event as one line of JSON.

    A file is opened anew for each event, so that it may be moved away (logrotate). What a full disk does not take is
    held, and written with the next event. Standard output waits for its reader, as it does for every program.

    Args:
        path: A file, which may hold lines already; ``-`` for standard output.

    Raises:
        OSError: If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = None if os.fspath(path) == STANDARD_OUTPUT else os.path.abspath(path)
        self._guard = threading.Lock()  # cameras send at the same time
        self._held = b""
        self._delivered = self._failed_tries = self._dropped = 0
        self._problem: str | None = None
        if self._path is not None:
            try:
                os.close(_open(self._path))
            except OSError as error:
                raise OSError(
                    f"{path} cannot be written: {error.strerror}. Give a file, or - for standard output."
                ) from None

    def send(self, event: dict[str, Any]) -> None:
        """As [`~avad_hf.watching.sinks.Sink`] says."""
        line = f"{as_json(event)}\n".encode()
        with self._guard:
            if len(self._held) + len(line) > MOST_HELD_BYTES:
                self._dropped += 1
                line = b""
            self._held += line
            self._write()

    def health(self) -> dict[str, Any]:
        """As [`~avad_hf.watching.sinks.Sink`] says."""
        with self._guard:
            return {
                "waiting": self._held.count(b"\n"),
                "delivered": self._delivered,
                "failed_tries": self._failed_tries,
                "dropped": self._dropped,
                "problem": self._problem,
            }

    def close(self) -> None:
        """Write what is held, if there is room by now."""
        with self._guard:
            self._write()

    def _write(self) -> None:
        if not self._held:
            return
        count = self._held.count(b"\n")
        try:
            if self._path is None:
                write_text(sys.stdout.buffer, self._held.decode())
            else:
                _append(self._path, self._held)
        except OSError as error:
            self._failed_tries += 1
            self._problem = f"{self._path or 'Standard output'} cannot be written: {error.strerror}."
            if self._path is not None:
                return
            self._dropped += count  # nobody reads any more; what is in the stream's own buffer stays there
        else:
            self._delivered += count
            self._problem = None
        self._held = b""


def _open(path: str) -> int:
    """Open a file to write at its end; nothing waits for the reader of a pipe."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(errno.EEXIST, "it is no regular file")
    return descriptor


def _append(path: str, lines: bytes) -> None:
    """Write lines at the end of a file, all of them or none."""
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        try:
            while lines:
                lines = lines[os.write(descriptor, lines) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


__all__ = ["JsonLines"]
