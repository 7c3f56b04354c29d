"""Several videos at the same time; one that fails, or is slow, holds up no other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Protocol

from torch.utils.data import Dataset as TorchDataset

from avad_hf.media.ahead import read_together
from avad_hf.media.sources import Media, open_media

# Kinds of numpy's types that can hold paths: objects, text, text of any length.
PATH_KINDS = ("O", "U", "T")


def gives_videos(inputs: Any) -> bool:
    """Whether it gives several videos, one after the other, and is not a video itself."""
    if isinstance(inputs, (str, bytes, bytearray, memoryview, Mapping, Media)) or hasattr(inputs, "read"):
        return False
    # Arrays of numbers give their rows, which are no videos: a video of arrays is a dict.
    if hasattr(inputs, "__array__"):  # an array or a Series of paths
        return getattr(inputs, "ndim", None) == 1 and getattr(inputs.dtype, "kind", None) in PATH_KINDS
    return isinstance(inputs, (Iterable, TorchDataset))


class OneVideo(Protocol):
    """What is made of one video, while others are read."""

    def add(self, media: Media, batch: Any) -> float:
        """Take its next clips; returns up to which second it is read."""

    def end(self, media: Media) -> dict[str, Any]:
        """The result, when the video is over."""


def interleave(
    videos: Iterable[Any],
    streams: int,
    decode: Callable[[Media], Iterator[Any]],
    begin: Callable[[], OneVideo],
    on_progress: Callable[[int, float, float | None], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    """Read many videos, each in a thread of its own, and take whichever clips are there first.

    Args:
        videos: They are begun in their order.
        streams: How many are read at the same time.
        decode: Reads an open video in batches of clips.
        begin: Begins with a video.
        on_progress: Called after each batch with the video's number, the seconds read so far and its duration in
            seconds (``None`` if the file does not say).

    Yields:
        The number of each video, from 0, and its result, or what was raised: as soon as it is there.
    """
    begun: dict[int, tuple[OneVideo, Media]] = {}
    failed: dict[int, Exception] = {}

    def decoded(number: int, video: Any) -> Iterator[tuple[Media, Any]]:
        with open_media(video) as media:
            for batch in decode(media):
                if number in failed:  # the rest of it, which a camera has no end of, is of no use
                    return
                yield media, batch

    readers = (decoded(number, video) for number, video in enumerate(videos))
    with closing(read_together(readers, at_once=streams, depth=1)) as entries:
        for number, entry, ended in entries:
            result = None
            # Whatever one file does, the others go on.
            try:
                if entry is None and number not in failed and isinstance(ended, StopIteration):
                    scored, media = begun.pop(number)
                    result = scored.end(media)
                elif entry is not None and number not in failed:
                    media, batch = entry
                    scored, _ = begun.get(number) or (begin(), media)
                    begun[number] = scored, media
                    until = scored.add(media, batch)
            except Exception as error:
                failed[number] = error
            if entry is None:
                if not isinstance(ended, Exception):  # Ctrl-C is nobody's result
                    raise ended
                begun.pop(number, None)
                yield number, result or failed.pop(number, ended)
            elif on_progress is not None and number not in failed:
                on_progress(number, until, media.info.duration)


__all__ = ["OneVideo", "gives_videos", "interleave"]
