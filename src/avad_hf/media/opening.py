"""Opens files with FFmpeg: regular files only, of known containers, which can open nothing else by themselves."""

import os
import stat
from typing import Any

import av

from .errors import MediaError
from .limits import check_limit

# Demuxers by FFmpeg's names. None of them reads other files: playlists (HLS, DASH, concat, SDP), scripts and patterns
# of picture names are left out, and so are devices and games' formats that nobody maintains.
CONTAINERS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "live_flv", "kux", "ogg", "asf", "mxf", "gif"),
    *("apng", "dhav", "ivf", "nut", "wtv", "gxf", "dv", "rm", "mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo"),
    *("obu", "av1", "vvc", "yuv4mpegpipe", "h261", "h263", "webp_anim"),
)
SOUND_CONTAINERS = ("wav", "w64", "aiff", "au", "caf", "mp3", "aac", "flac", "ac3", "eac3", "amr", "wv", "tta", "dts")
PICTURES = ("jpeg_pipe", "png_pipe", "bmp_pipe", "webp_pipe", "gif", "apng")

# How texts begin that name other files, for a message that says so.
_PLAYLISTS = {
    b"#extm3u": "an HLS playlist",
    b"ffconcat version": "an ffconcat script",
    b"<mpd": "a DASH manifest",
    b"v=0": "an SDP description",
    b"[playlist]": "a playlist",
    b"[reference]": "a playlist",
    b"<asx": "a playlist",
    b"<smil": "a playlist",
}


def open_container(
    path: str, name: str, kind: str = "video", formats: tuple[str, ...] = CONTAINERS + SOUND_CONTAINERS
) -> Any:
    """Open a file with FFmpeg, which sees its content, and neither its name nor other files.

    Args:
        path: Path of a regular file.
        name: For messages.
        kind: What it should be, for messages.
        formats: Containers that it may be, by FFmpeg's names.

    Returns:
        PyAV's container, which the caller closes.

    Raises:
        MediaError: If it is none of them, or asks for more than `avad_hf.media.limits` allows.
    """
    descriptor = open_regular(path, name)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise MediaError(f"{name} is empty (0 bytes). Copy or record it again.")
        head = os.read(descriptor, 4096)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if (playlist := _playlist(head)) is not None:
            raise MediaError(
                f"{name} is {playlist}, a text that names other files or addresses; it is not read, lest it opens "
                "what you did not ask for. Give the video itself."
            )
        options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": ",".join(formats)}
        try:
            container = av.open("fd:", options=options, metadata_errors="replace")
        # Whatever the reader of a container does with bytes that are wrong: FFmpeg's errors, and Python's beside them.
        except Exception as error:
            raise MediaError(
                f"{name} cannot be opened as {kind} ({type(error).__name__}: {size} bytes of no known container). If "
                "it was cut off while recording or copying, its index is gone: copy it again, or repair it, and "
                f"check that it is {kind} at all."
            ) from error
    finally:
        os.close(descriptor)  # FFmpeg has its own
    try:
        check_limit("MAX_STREAMS", len(container.streams), f"{name}: {len(container.streams)} streams in one file")
    except MediaError:
        container.close()
        raise
    return container


def open_regular(path: str, name: str) -> int:
    """Descriptor of a regular file, for reading; raises [`MediaError`] for anything else, without waiting for it."""
    if "\0" in path:
        raise MediaError(f"{name!r} is no path: it holds a NUL byte.")
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise MediaError(f"{name}: no such file. Check the path.") from error
    except IsADirectoryError as error:
        raise MediaError(f"{name} is a directory. Give a video file, or several of them.") from error
    except OSError as error:
        raise MediaError(f"{name} cannot be opened: {error.strerror}. Check the path and its permissions.") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise MediaError(f"{name} is a directory. Give a video file, or several of them.")
    raise MediaError(f"{name} is a device, pipe or socket, and no file. Give a video file.")


def _playlist(head: bytes) -> str | None:
    """What a text is that names other files; ``None`` for anything else."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, what in _PLAYLISTS.items():
        if text.startswith(begin) or (text.startswith(b"<?xml") and begin[:1] == b"<" and begin in text):
            return what
    return None


__all__ = ["CONTAINERS", "PICTURES", "SOUND_CONTAINERS", "open_container", "open_regular"]
