"""Files and folders that appear whole under their names, or not at all; and text that may be printed."""

import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from avad_hf.disks import writing

try:
    import fcntl
except ImportError:  # Windows, which moves no open file either: partial names are not locked there
    fcntl = None  # type: ignore[assignment]

# How the name of a file ends that is not finished.
PARTIAL = ".partial"
# How many may write under one name at the same time, each with a partial name of its own. More are a mistake, or
# somebody who wants no file to be written.
MOST_WRITERS = 100
# Streams that are open already, under whichever name. `> results.json` makes a regular file of one.
STREAMS = re.compile(r"/dev/(stdin|stdout|stderr|fd/.*)|/proc/[^/]+/(task/[^/]+/)?fd/.*")
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# What a terminal obeys, or cannot show: control characters, those that turn the direction of text, what is no
# character, and halves of characters, which stand for the bytes of file names that are no UTF-8.
UNPRINTABLE = re.compile(
    r"[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def shown(text: object) -> str:
    """A name or a message on one line, with what a terminal would obey as escapes: names come from anywhere."""
    return UNPRINTABLE.sub(_escape, str(text))


def _escape(match: re.Match) -> str:
    character = match[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name
        code -= 0xDC00
    return ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON with ``null`` for numbers that are not known (NaN, infinite), and escapes for what a terminal obeys."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # Line ends of JSON are between its values: those within are escaped already.
    return "\n".join(UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {_finite(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_output(path: str | os.PathLike) -> None:
    """Try whether a file can be written, before it is computed what to write.

    Raises:
        OSError: If it cannot, with the reason.
    """
    target = _regular(path)
    try:
        partial, descriptor = _claim(target)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} cannot be written: {target.parent} does not exist.") from None
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from None
    partial.unlink()
    _close(descriptor)


def check_folder(directory: str | os.PathLike) -> None:
    """Try whether a folder can be written, or made, before it is computed what to write there.

    Raises:
        OSError: If it cannot, with the reason.
    """
    directory = Path(directory).absolute()
    nearest = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is {_kind(nearest)}. Give a folder.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise PermissionError(
            f"Nothing can be written to {nearest}. Give another folder. ({error.strerror or error})"
        ) from None


def _kind(path: Path) -> str:
    """What is under a name, in words."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # a link to nothing, or in a circle
        return "a broken link"
    return KINDS.get(stat.S_IFMT(mode), "no regular file")


def _regular(path: str | os.PathLike, follow_links: bool = True) -> Path:
    """Where a file is written; raises ``OSError`` where there is something other than a regular file.

    `os.replace` asks nobody: as root it puts a file in the place of a device.
    """
    if STREAMS.fullmatch(os.path.abspath(path)):
        raise FileExistsError(
            f"{path} is a stream that is open already, and is not replaced. Give a file; where the command can write "
            "to standard output, that is called -."
        )
    target = Path(path).absolute()
    if target.is_symlink():
        if not follow_links:
            return target
        # In a folder that others write too, it may lead to a file that they may not write.
        if hasattr(os, "geteuid") and os.lstat(target).st_uid != os.geteuid():
            raise FileExistsError(f"{path} is a link that another user made, and is not followed. Give another name.")
        target = Path(os.path.realpath(target))
    if os.path.lexists(target) and not target.is_file():
        what = _kind(target)
        if what == "a folder":
            raise IsADirectoryError(f"{path} is a folder. Give a file.")
        raise FileExistsError(f"{path} is {what}, and only regular files are replaced. Give another name.")
    return target


def _claim(target: Path, is_folder: bool = False) -> tuple[Path, int | None]:
    """Make a partial name beside `target`, which was not there before, so that no link leads elsewhere; and lock it.

    What killed runs left is free, since locks are the operating system's, and is removed. What somebody else holds is
    passed over.

    Returns:
        The partial name, and the open descriptor that holds the lock.
    """
    for number in range(1, MOST_WRITERS + 1):
        partial = target.with_name(f"{target.name}{'' if number == 1 else f'.{number}'}{PARTIAL}")
        with suppress(OSError):  # held, of another kind, not there
            descriptor = _lock(partial, is_folder)
            try:
                shutil.rmtree(partial) if is_folder else partial.unlink()
            finally:
                _close(descriptor)
        try:
            if is_folder:
                partial.mkdir()
            else:
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        try:
            return partial, _lock(partial, is_folder)
        except (BlockingIOError, FileNotFoundError):  # taken for what a killed run left, between the two calls
            continue
    raise FileExistsError(f"{MOST_WRITERS} others are writing {target}. Give another name.")


def _lock(partial: Path, is_folder: bool) -> int | None:
    """Open and lock a partial name; raises ``OSError`` if it is held, a link, or of another kind."""
    if fcntl is None:
        if not partial.exists():
            raise FileNotFoundError(partial)
        return None
    # O_NONBLOCK: a pipe would wait for its other end.
    how = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_NONBLOCK
    descriptor = os.open(partial, how | os.O_NOFOLLOW)
    try:
        if not is_folder and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileExistsError(partial)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks: nothing can be said to be held
            return descriptor
        if not os.path.samestat(os.lstat(partial), os.fstat(descriptor)):  # replaced before it was locked
            raise FileNotFoundError(partial)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


@contextmanager
def written_whole(path: str | os.PathLike, follow_links: bool = True) -> Iterator[Path]:
    """Give another name to write to; the file gets its own when all went well, and is removed otherwise.

    Its permissions are those of the file that is replaced, or those of any new file.

    Args:
        path: Name of the file.
        follow_links: Replace the file that a link of this user leads to; otherwise replace the link.

    Raises:
        OSError: If there is something other than a regular file, or nothing can be written there.
    """
    target = _regular(path, follow_links)
    with writing(target, reads=True):
        partial, descriptor = _claim(target)
    try:
        is_new = target.is_symlink() or not target.exists()
        mode = os.stat(partial if is_new else target).st_mode & 0o777
        with writing(target, reads=True):
            yield partial
        with suppress(OSError):  # of file systems without permissions
            os.chmod(partial, mode)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        _close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that appears under its name when all of it is on the disk, and never in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nobody gave its name: a link there is none of a user's.
    with written_whole(path, follow_links=False) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike | BinaryIO, text: str) -> None:
    """Write text in UTF-8, with its line ends as they are, to a file that appears whole, or to one open for bytes."""
    data = text.encode("utf-8", "backslashreplace")
    if not isinstance(path, (str, os.PathLike)):
        path.write(data)
        path.flush()
        return
    with written_whole(path) as partial:
        partial.write_bytes(data)


def check_new(directory: str | os.PathLike) -> None:
    """Raise ``FileExistsError`` for anything but a new or empty folder."""
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not an empty directory. Give a new one; nothing was overwritten.")


@contextmanager
def folder_written_whole(directory: str | os.PathLike) -> Iterator[Path]:
    """Give another folder to write to; it, or what is in it, moves to `directory` when all went well."""
    target = Path(directory).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, descriptor = _claim(target.with_name(f".{target.name}"), is_folder=True)
    try:
        with writing(target, reads=True):
            yield partial
        if not target.exists():
            os.rename(partial, target)  # all at once
            return
        for path in sorted(partial.iterdir()):
            os.replace(path, target / path.name)
        partial.rmdir()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _close(descriptor)


__all__ = [
    "PARTIAL",
    "as_json",
    "check_folder",
    "check_new",
    "check_output",
    "folder_written_whole",
    "shown",
    "write_file",
    "write_text",
    "written_whole",
]
