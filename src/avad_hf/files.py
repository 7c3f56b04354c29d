"""Files and folders that appear whole under their names, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How the name of a file ends that is not finished.
PARTIAL = ".partial"


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give another name to write to; the file gets its own when all went well, and is removed otherwise."""
    partial = Path(path).with_name(Path(path).name + PARTIAL)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that appears under its name when all of it is on the disk, and never in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, with its line ends as they are; it appears whole."""
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def check_new(directory: str | os.PathLike) -> None:
    """Raise ``FileExistsError`` for anything but a new or empty folder."""
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not an empty directory. Give a new one; nothing was overwritten.")


@contextmanager
def folder_written_whole(directory: str | os.PathLike) -> Iterator[Path]:
    """Give another folder to write to; what is in it moves to `directory` when all went well."""
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}-", dir=directory.resolve().parent) as folder:
        yield Path(folder)
        directory.mkdir(exist_ok=True)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, directory / path.name)


__all__ = ["PARTIAL", "check_new", "folder_written_whole", "write_file", "write_text", "written_whole"]
