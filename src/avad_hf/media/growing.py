"""Bytes of a file that somebody is still writing, of a pipe, or of standard input."""

import io
import os
import select
import sys
import threading
import time
from typing import BinaryIO

from .errors import MediaError
from .fetching import is_pipe

# How often a file is looked at that may have grown, in seconds: a clip lasts longer.
LOOK_EVERY_S = 0.1


class GrowingFile(io.RawIOBase):
    """Reads a file to where it ends growing, or a pipe to its end.

    Args:
        path: File or named pipe; ``-`` is standard input.
        quiet_s: A file that nobody wrote to for so many seconds is over.
        stopped: Set by whoever wants to read no more: what is read then is empty.

    Raises:
        MediaError: If it cannot be opened.
    """

    def __init__(self, path: str, quiet_s: float, stopped: threading.Event):
        super().__init__()
        self._quiet_s, self._stopped = quiet_s, stopped
        try:
            self._file: BinaryIO = sys.stdin.buffer if path == "-" else open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise MediaError(f"{path}: {error.strerror}. Check the path.") from error
        self.is_pipe = path == "-" or is_pipe(path)

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """A file is, a pipe is not."""
        return not self.is_pipe

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """The next bytes: as many as are there, and none at the end."""
        while not self._stopped.is_set():
            if self.is_pipe:
                if not select.select([self._file], [], [], LOOK_EVERY_S)[0]:
                    continue
                return os.read(self._file.fileno(), size if size > 0 else 1 << 16)
            if data := self._file.read(size):
                return data
            if time.time() - os.fstat(self._file.fileno()).st_mtime > self._quiet_s:
                break
            self._stopped.wait(LOOK_EVERY_S)
        return b""

    def close(self) -> None:
        """Close the file; standard input stays."""
        if self._file is not sys.stdin.buffer and not self._file.closed:
            self._file.close()
        super().close()


__all__ = ["GrowingFile"]
