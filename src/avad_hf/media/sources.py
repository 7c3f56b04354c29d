"""Opens whatever stands for a video: paths, URLs, file objects, bytes, arrays."""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlparse

from .arrays import MediaArrays
from .audio import SoundTrack
from .clips import Frame
from .decode import MediaError, MediaFile, MediaInfo, SoundFile
from .folders import FrameFolder
from .sections import Section

ACCEPTED_SOURCES = """\
A video is one of
- a path;
- a URL (http, https, hf or another that fsspec knows);
- a file object opened for reading, or bytes;
- a dict with "path" or "bytes", as rows of `datasets` with Video(decode=False) are;
- a row of a manifest: a dict with "video" (one of the above, or a folder of pictures) and, where they are not None,
  "audio" (a sound file beside it), "start" and "end" (a stretch of it, in seconds) and "fps" (of the pictures);
- a dict of arrays: "frames" of shape (F, H, W, 3), uint8 RGB, and "fps" or "times" of shape (F,) in seconds; with
  sound, also "waveform" of shape (samples,) or (channels, samples) and "sampling_rate" in Hz."""


@runtime_checkable
class Media(Protocol):
    """Whatever gives frames and sound on one clock: files, folders of pictures, arrays, stretches of them.

    A source that never ends has an attribute ``is_endless`` that is true.

    Attributes:
        info: What it says of itself before it is decoded.
        problems: What was met while decoding: damage, pauses. Empty where all is in order.
    """

    info: MediaInfo
    problems: list[str]

    def num_frames(self, limit: int | None = None) -> int:
        """About how many frames there are, or the limit."""

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
    ) -> Iterator[Frame]:
        """Decode the frames, scaled, as [`~avad_hf.media.decode.MediaFile`] says."""

    def sound(self, rate: int) -> SoundTrack:
        """Decode the sound, mixed to mono and resampled."""


@contextmanager
def open_media(source: Any) -> Iterator[Media]:
    """Open whatever stands for a video.

    Args:
        source: A path, URL, file object, bytes or dict of arrays (`ACCEPTED_SOURCES` lists them), or an open
            [`Media`]. URLs and file objects are copied to a temporary file first, piece by piece.

    Raises:
        MediaError: If it cannot be opened as video.
        TypeError: For anything else.
    """
    if isinstance(source, Media):
        yield source  # whoever opened it closes it
    elif isinstance(source, dict) and "frames" in source:
        unknown = set(source) - {"frames", "fps", "times", "waveform", "sampling_rate"}
        if unknown:
            raise MediaError(f"Unknown keys {sorted(unknown)} beside frames.\n{ACCEPTED_SOURCES}")
        yield MediaArrays(**source)
    elif isinstance(source, dict) and source.get("video"):
        with ExitStack() as stack:
            yield _open_row(stack, source)
    else:
        with _local_file(source) as (path, name), closing(MediaFile(path, name)) as media:
            yield media


def _open_row(stack: ExitStack, row: dict[str, Any]) -> Media:
    """Open what a manifest's row describes, for as long as the stack is open."""
    sound = None
    if (audio := row.get("audio")) is not None:
        sound = stack.enter_context(closing(SoundFile(*stack.enter_context(_local_file(audio)))))
    path, name = stack.enter_context(_local_file(row["video"]))
    media = FrameFolder(path, row.get("fps"), sound) if os.path.isdir(path) else MediaFile(path, name, sound)
    stack.enter_context(closing(media))
    start, end = row.get("start"), row.get("end")
    return media if start is None and end is None else Section(media, start or 0.0, end)


@contextmanager
def _local_file(source: Any) -> Iterator[tuple[str, str]]:
    """Path of a file on this machine, and its name for messages; what is none is copied for as long as it is used."""
    if isinstance(source, dict) and (source.get("bytes") or source.get("path")):
        source = source.get("bytes") or source["path"]
    local = isinstance(source, (str, os.PathLike)) and (os.path.exists(source) or "://" not in os.fspath(source))
    if local and (not os.path.exists(source) or os.path.isfile(source) or os.path.isdir(source)):
        yield os.fspath(source), os.fspath(source)
    elif local or isinstance(source, (str, bytes)) or hasattr(source, "read"):
        with tempfile.TemporaryDirectory(prefix="avad_hf-") as folder:
            if local:
                with open(source, "rb") as pipe:  # which can be read only once
                    copy = _copy_to(folder, pipe)
            else:
                copy = _copy_to(folder, source)
            yield copy
    else:
        raise TypeError(f"Cannot read a {type(source).__name__} as video.\n{ACCEPTED_SOURCES}")


def _copy_to(folder: str, source: Any) -> tuple[str, str]:
    """Copy a URL, bytes or file object into a folder; returns the file's path and its name for messages."""
    if isinstance(source, str):
        import fsspec

        path = os.path.join(folder, os.path.basename(urlparse(source).path) or "video")
        try:
            filesystem, remote = fsspec.core.url_to_fs(source)
            filesystem.get_file(remote, path)
        except Exception as error:  # every protocol has its own errors
            reason = f"{type(error).__name__}: {error}"
            raise MediaError(f"{source} cannot be fetched ({reason}). Check the URL.") from error
        return path, source
    path = os.path.join(folder, "video")
    with open(path, "wb") as file:
        if isinstance(source, bytes):
            file.write(source)
        elif isinstance(source, io.TextIOBase):
            raise TypeError(f"{getattr(source, 'name', source)} is opened as text. Open it with mode 'rb'.")
        else:
            if source.seekable():
                source.seek(0)  # it may have been read before
            shutil.copyfileobj(source, file)
    return path, str(getattr(source, "name", f"{type(source).__name__} object"))
