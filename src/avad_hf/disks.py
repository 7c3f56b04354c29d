"""Disks that are full or cannot be written: one sentence that says which file, why, and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}
# What a disk answers that cannot be written, and what to do then. Those of the first group no reader is answered.
ONLY_WRITERS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or give a folder on a disk that holds larger files",
    errno.EROFS: "have the disk mounted for writing, or give another folder",
}
ADVICE = ONLY_WRITERS | {
    errno.EIO: "have the disk and the limit of a file's size (ulimit -f) checked, or give a folder on another disk",
    errno.EACCES: "have its permissions changed, or give another folder",
    errno.EPERM: "have its permissions changed, or give another folder",
}
# How much room (bytes) there is at most on a disk that counts as full where a library does not say why it failed: the
# last part of a file finds no room while a little is left.
NO_ROOM = 1 << 20
# What libraries in C++ (torch, OpenVINO) say of any file that they cannot write.
STREAM_ERRORS = ("iostream error", "inline_container", "PytorchStreamWriter")


class DiskError(OSError):
    """A file cannot be written. Its text is one sentence, and `filename` the file."""

    def __str__(self) -> str:
        return self.strerror


@contextmanager
def writing(
    path: str | os.PathLike, what: str = "The file", again: str = "run the same command again", reads: bool = False
) -> Iterator[None]:
    """Say in one sentence what cannot be written, where, and why.

    Where one is within another, the outer one says what was written, and the inner one which file.

    Args:
        path: File or folder that is written.
        what: What it is, for the beginning of the sentence.
        again: What to do once the disk can be written.
        reads: Whether other files are read meanwhile, whose errors are not of this disk.

    Raises:
        DiskError: If something fails because of the disk.
    """
    try:
        yield
    except DiskError as error:
        raise _sentence(error.errno, error.filename, what, again) from error
    except Exception as error:
        code = _code(error, path)
        if code not in (ONLY_WRITERS if reads else ADVICE):
            raise
        raise _sentence(code, path, what, again) from error


def refuse_full_disk(error: Exception, path: str | os.PathLike, what: str) -> None:
    """Raise [`DiskError`] if an error means that a disk is full, after which no other video fares better."""
    if (code := _code(error, path)) in FULL:
        raise _sentence(code, path, what, "run the same command again") from error


def _code(error: Exception, path: str | os.PathLike) -> int | None:
    """What the disk answered, as a number of `errno`; ``None`` if an error came of something else."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for one in chain:
        number = one.errno if isinstance(one, OSError) else None
        if number is None and (match := re.search(r"os error (\d+)", str(one))):  # of safetensors, which is in Rust
            number = int(match[1])
        if number in ADVICE:
            return number
    if any(words in str(one) for one in chain for words in STREAM_ERRORS):
        return errno.ENOSPC if _room(path) < NO_ROOM else errno.EIO
    return None


def _sentence(code: int, path: str | os.PathLike, what: str, again: str) -> DiskError:
    room = _room(path)
    free = f"{room / 1e9:.1f} GB" if room >= 1e9 else f"{room / 1e6:.1f} MB"
    text = (
        f"{what} ({path}) cannot be written: {os.strerror(code)}; {free} are free there. What is finished stays: "
        f"{ADVICE[code]}, and {again}."
    )
    return DiskError(code, text, os.fspath(path))


def _room(path: str | os.PathLike) -> int:
    """Free bytes where a file is, or is to be."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


__all__ = ["DiskError", "refuse_full_disk", "writing"]
