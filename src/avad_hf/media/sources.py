"""Opens whatever stands for a video: paths, URLs, file objects, bytes, arrays."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

from .arrays import MediaArrays
from .audio import SoundTrack
from .clips import Frame
from .decode import MediaError, MediaFile, MediaInfo, SoundFile
from .fetching import PROTOCOLS, copied, copied_address, is_address, is_pipe, without_file_protocol
from .folders import FrameFolder
from .sections import Section

ACCEPTED_SOURCES = f"""\
A video is one of
- a path;
- a URL ({", ".join(PROTOCOLS)});
- a file object opened for reading, or bytes;
- a dict with "path" or "bytes", as rows of `datasets` with Video(decode=False) are;
- a row of a manifest: a dict with "video" (one of the above, or a folder of pictures) and, where they are not None,
  "audio" (a sound file beside it), "start" and "end" (a stretch of it, in seconds) and "fps" (of the pictures);
- a dict of arrays: "frames" of shape (F, H, W, 3), uint8 RGB, and "fps" or "times" of shape (F,) in seconds; with
  sound, also "waveform" of shape (samples,) or (channels, samples) and "sampling_rate" in Hz."""


@runtime_checkable
class Media(Protocol):
    """Whatever gives frames and sound on one clock: files, folders of pictures, arrays, stretches of them.

    A source that never ends has an attribute ``is_endless`` that is true. One that knows has ``read``: what of picture
    and sound was read the last time, in seconds: ``picture`` and ``sound`` with ``start``, ``end``, ``seconds``, and
    lists of stretches ``missing`` and ``damaged``; ``remarks`` on a file in order.
    """

    @property
    def info(self) -> MediaInfo:
        """What it says of itself before it is decoded."""

    @property
    def problems(self) -> list[str]:
        """What was met while reading: damage, pauses, a missing end. Empty where all is in order."""

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
    if isinstance(source, str):
        source = without_file_protocol(source)
    if isinstance(source, (str, os.PathLike)) and not is_address(source):
        path = os.fspath(source)
        if isinstance(path, str) and is_pipe(path):
            with open(path, "rb") as pipe, copied(pipe) as copy:  # which can be read only once
                yield copy
        else:
            yield path, path
    elif isinstance(source, str):
        with copied_address(source) as copy:
            yield copy
    elif isinstance(source, bytes) or hasattr(source, "read"):
        with copied(source) as copy:
            yield copy
    else:
        raise TypeError(f"Cannot read a {type(source).__name__} as video.\n{ACCEPTED_SOURCES}")
