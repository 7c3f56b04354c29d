"""The folder of a run: one run at a time, and what killed runs left there."""

import errno
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from avad_hf.disks import writing
from avad_hf.files import PARTIAL, check_new

logger = logging.getLogger(__name__)

# The file that is locked. A killed run leaves it behind, unlocked; what lists or pushes folders passes over it.
LOCK = ".lock"
# How temporary folders are called. Those without a lock are left alone: they are another program's, or just made.
TEMPORARY = "avad_hf-"
# What file systems without locks answer.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def only_run(
    directory: str | os.PathLike, is_main_process: bool = True, made: str | os.PathLike | None = None
) -> Iterator[None]:
    """Hold a folder for one run; it is made if it is not there, and removed again if nothing was written to it.

    The lock is the operating system's, which lets go of it when a process ends, however it ends. Readers need no lock.

    Args:
        directory: Output folder of the run.
        is_main_process: Whether this process is the first of the run's; the others share its lock.
        made: What the user gave, if `directory` is where that is made.

    Raises:
        ValueError: If another run holds the folder.
        FileExistsError: If it is a file.
        DiskError: If it cannot be written.
    """
    if not is_main_process:
        yield
        return
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file, and not an empty folder. Give a new or empty folder.")
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    lock = FileLock(directory / LOCK)
    try:
        with writing(directory, "The folder of the run"):
            directory.mkdir(parents=True, exist_ok=True)
            _acquire(lock, directory, made or directory)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                (directory / LOCK).unlink()
            lock.release()
        for path in new:
            with suppress(OSError):  # which holds something
                path.rmdir()


def _acquire(lock: FileLock, directory: Path, shown: str | os.PathLike) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"Another run is writing {shown} ({_holder(directory / LOCK)}). Wait for it, stop it, or give another "
            "folder."
        ) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        (directory / LOCK).unlink(missing_ok=True)
        logger.warning("%s is on a file system without locks: start no second run on it.", shown)
        return
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    # On a full disk a run may still find that all is done.
    with suppress(OSError):
        (directory / LOCK).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))


def _holder(path: Path) -> str:
    """Which process holds a lock, in words."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which process it is"


def sweep(directory: str | os.PathLike) -> None:
    """Remove what killed runs left half-written in a folder that this run holds; what is in use by others stays.

    Args:
        directory: Folder that is known to be this run's.
    """
    with os.scandir(os.fspath(directory)) as entries:
        found = list(entries)
    for entry in found:
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        if _is_locked(path / LOCK if is_folder else path):
            continue
        # Hidden ones are those of `folder_written_whole`, which knows whether they are in use and removes them itself.
        is_half = entry.name.endswith(PARTIAL) and not (is_folder and entry.name.startswith("."))
        if is_folder and (is_half or entry.name.startswith(f"{PARTIAL}-")):
            shutil.rmtree(path, ignore_errors=True)
        elif is_folder:
            sweep(path)
        elif is_half:
            path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Whether a living process holds a lock: the file of a run, or one that it is writing."""
    if not path.name.endswith((LOCK, PARTIAL)) or not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError, NotImplementedError):
        return True


@contextmanager
def new_folder(directory: str | os.PathLike) -> Iterator[Path]:
    """Give a folder to fill; it becomes `directory` when all went well, and is removed otherwise.

    It is in a folder beside `directory`, by whose name the next run finds what a killed one left; what else is put
    into that one goes with it. Two runs that make the same folder exclude each other.

    Args:
        directory: New or empty folder.

    Raises:
        ValueError: If another run makes the same folder.
        FileExistsError: If the folder holds files already.
        DiskError: If nothing can be written beside it.
    """
    target = Path(directory).resolve()
    workplace = target.with_name(f"{PARTIAL}-{target.name}")
    try:
        with only_run(workplace, made=directory):
            _empty(workplace)  # of what a killed run left
            check_new(directory)
            folder = workplace / "new"
            try:
                with writing(folder, "The new folder"):
                    folder.mkdir()
                yield folder
                if target.is_dir():
                    target.rmdir()
                os.replace(folder, target)
            finally:
                _empty(workplace)
    finally:
        with suppress(OSError):  # where another run is at work
            workplace.rmdir()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for temporary files, which a killed process leaves and the next one that asks for one removes."""
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        if os.path.isfile(path / LOCK) and not path.is_symlink() and not _is_locked(path / LOCK):
            shutil.rmtree(path, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError):  # another process took it for one that was left
            continue
        except (OSError, NotImplementedError):  # without locks nobody removes it
            pass
        break
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _empty(workplace: Path) -> None:
    for path in workplace.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)


__all__ = ["LOCK", "new_folder", "only_run", "sweep", "temporary_folder"]
