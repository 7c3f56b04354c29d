"""Copies what is no file on this machine: addresses, pipes, file objects, bytes. Bounded in size, never for ever."""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from avad_hf.runs import temporary_folder

from .errors import MediaError
from .limits import MAX_STILL_S, check_limit, limit

# Where videos may come from, by fsspec's names. Protocols that read another address, or a script, are left out
# (reference, simplecache, zip, dask, jupyter ...): what they would open is not what was asked for.
PROTOCOLS = ("http", "https", "hf", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "ftp", "sftp", "ssh", "hdfs")
_PIECE_BYTES = 1 << 20


def is_address(source: str | os.PathLike) -> bool:
    """Whether something names a place elsewhere. A file of that name on this machine comes first."""
    return isinstance(source, str) and "://" in source and not os.path.exists(source)


def without_file_protocol(source: str) -> str:
    """The path that a ``file://`` URL names; anything else as it is."""
    return url2pathname(urlsplit(source).path) if source.startswith("file://") else source


def is_pipe(path: str) -> bool:
    """Whether something can be read once, from its beginning: ``/dev/stdin``, or what a shell makes of ``<(...)``."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def copied(source: Any) -> Iterator[tuple[str, str]]:
    """Copy bytes or a file object to a temporary file; gives its path, and a name for messages.

    Raises:
        MediaError: If it is longer than `avad_hf.media.limits` allows.
        TypeError: For a file opened as text.
    """
    name = str(getattr(source, "name", f"{type(source).__name__} object"))
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"{name} is opened as text. Open it with mode 'rb'.")
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    elif source.seekable():
        source.seek(0)  # it may have been read before
    with _temporary_file() as path:
        _write(source, path, name)
        yield path, name


@contextmanager
def copied_address(address: str) -> Iterator[tuple[str, str]]:
    """Copy what is found at an address to a temporary file; gives its path, and the address for messages.

    There is no limit in time as long as something arrives. What a server packed by gzip is unpacked.

    Raises:
        MediaError: If the address is malformed or of another protocol, nothing can be fetched from it, or too much.
    """
    protocol, shown = _checked(address)
    with _temporary_file() as path:
        try:
            with _remote(protocol, address) as remote:
                _write(remote, path, shown)
        except MediaError:
            raise
        except Exception as error:  # every protocol has its own errors
            raise MediaError(f"{shown} cannot be fetched ({_reason(error)}). Check the URL.") from error
        yield path, shown


def _checked(address: str) -> tuple[str, str]:
    """Protocol of an address, and how it is shown: without passwords, and without a query, which may be signed."""
    try:
        parts = urlsplit(address)
        protocol, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise MediaError(f"{address!r} is malformed ({error}). Check the URL.") from error
    if protocol not in PROTOCOLS:
        raise MediaError(
            f"{address!r} has a protocol from which no video is read. Give a path, or a URL that begins with one of "
            f"{', '.join(PROTOCOLS)}."
        )
    if not host and protocol != "hdfs":
        raise MediaError(f"{address!r} is malformed (it names no host). Check the URL.")
    return protocol, f"{protocol}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _remote(protocol: str, address: str) -> Any:
    """What is at an address, opened for reading. By the protocol named, so that chained ones cannot come in."""
    import fsspec

    options, reading = {}, {}
    if protocol in ("http", "https"):
        import aiohttp

        still = aiohttp.ClientTimeout(total=None, sock_connect=MAX_STILL_S, sock_read=MAX_STILL_S)
        options, reading = {"client_kwargs": {"timeout": still}}, {"block_size": 0}  # in one go, from the beginning
    filesystem = fsspec.filesystem(protocol, **options)
    return filesystem.open(filesystem._strip_protocol(address), "rb", **reading)


def _reason(error: Exception) -> str:
    if "Timeout" in type(error).__name__:
        return f"nothing arrived for {MAX_STILL_S:g} s"
    cause = error.__cause__ or error  # fsspec takes whatever went wrong for a missing file
    # Without the passwords and signatures of the address.
    return re.sub(r"//[^/@\s]*@|\?[^\s'\")]*", "", f"{type(cause).__name__}: {cause}".rstrip(": "))


@contextmanager
def _temporary_file() -> Iterator[str]:
    with temporary_folder() as folder:
        yield os.path.join(folder, "video")


def _write(source: Any, path: str, name: str) -> None:
    """Copy an opened file, piece by piece, up to the size that is allowed."""
    copied_bytes, most = 0, limit("MAX_COPY_BYTES")
    what = f"{name} does not end after {most:,.0f} bytes"
    with open(path, "wb") as file:
        while piece := source.read(_PIECE_BYTES):
            copied_bytes += len(piece)
            check_limit("MAX_COPY_BYTES", copied_bytes, what)
            file.write(piece)


__all__ = ["PROTOCOLS", "copied", "copied_address", "is_address", "is_pipe", "without_file_protocol"]
