"""Videos that lie about as folders of pictures, with the manner of a video file."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import av
from av.video.reformatter import VideoReformatter

from .audio import SoundTrack
from .clips import Frame
from .coverage import Coverage
from .decode import MediaError, MediaInfo, SoundFile
from .limits import limit
from .opening import PICTURES, open_container
from .scaling import asked_size, scaled_pixels

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def pictures_in(folder: str | os.PathLike) -> list[Path]:
    """Pictures directly inside a folder, in the order of the numbers in their names (2.jpg before 10.jpg)."""
    pictures = [
        Path(entry.path)
        for entry in os.scandir(os.fspath(folder))
        # Hidden ones are leftovers of archives from macOS.
        if entry.name.lower().endswith(PICTURE_SUFFIXES) and not entry.name.startswith(".")
    ]
    return sorted(pictures, key=_by_numbers)


def _by_numbers(path: Path) -> list[str | int]:
    # The split leaves digits at odd places, so that numbers are only compared with numbers.
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path.stem))]


class FrameFolder:
    """A folder of pictures, one a frame, with the manner of a [`MediaFile`].

    Args:
        path: The folder.
        fps: Frames a second, which pictures do not say themselves.
        side_sound: The sound that belongs to them and begins with the first one.

    Raises:
        MediaError: If there is no folder, no picture in it that can be read, or no frame rate.
    """

    def __init__(self, path: str, fps: float | None, side_sound: SoundFile | None = None):
        self.name = path
        self.sound_file = side_sound
        self._seen = Coverage("picture", is_continuous=True)
        # Names of pictures that could not be read.
        self._broken: list[str] = []
        self._pictures = pictures_in(path)
        if not self._pictures:
            raise MediaError(f"{path} is a directory without pictures ({', '.join(PICTURE_SUFFIXES)}). Give a video.")
        if fps is None or not 0 < fps < 1000:
            raise MediaError(
                f"{path} is a folder of {len(self._pictures)} pictures, which do not say how many of them are a "
                f"second (fps: {fps}). Give fps: in the manifest, to scan (--fps), or beside video."
            )
        first = self._decode(self._pictures[0])
        if first is None:
            raise MediaError(f"{self._pictures[0]} cannot be read as a picture. Copy the frames of this video again.")
        self._size = (first.width, first.height)
        self.info = MediaInfo(
            name=path,
            width=first.width,
            height=first.height,
            fps=float(fps),
            duration=len(self._pictures) / fps,
            has_audio=side_sound is not None,
        )

    def close(self) -> None:
        """Close the sound's file."""
        if self.sound_file is not None:
            self.sound_file.close()

    @property
    def problems(self) -> list[str]:
        """What was met while reading: pictures that cannot be read, damage of the sound beside them."""
        problems = [f"{len(self._broken)} pictures cannot be read, first {self._broken[0]}"] if self._broken else []
        problems += self._seen.problems()
        return problems if self.sound_file is None else problems + self.sound_file.problems

    @property
    def read(self) -> dict[str, Any]:
        """What was read of picture and sound the last time, for a result."""
        sound = self.sound_file
        return {
            "picture": self._seen.to_dict(),
            "sound": None if sound is None else sound.heard.to_dict(),
            "remarks": [] if sound is None else list(sound.remarks),
        }

    @staticmethod
    def _decode(picture: Path) -> av.VideoFrame | None:
        try:
            with open_container(str(picture), picture.name, "picture", PICTURES) as container:
                container.streams.video[0].codec_context.options = {"max_pixels": str(int(limit("MAX_PIXELS")))}
                return next(container.decode(video=0), None)
        except Exception:  # whatever a decoder makes of damaged bytes
            return None

    def num_frames(self, limit: int | None = None) -> int:
        """How many pictures there are, or the limit."""
        return len(self._pictures) if limit is None else min(limit, len(self._pictures))

    def frames(
        self,
        size: int | tuple[int, int] | None,
        resize: Literal["area", "torch"] = "area",
        picked: Callable[[int], bool] | None = None,
        begin: float = 0.0,
    ) -> Iterator[Frame]:
        """Read the pictures, scaled as [`MediaFile.frames`] does; one that cannot be read is noted and left out."""
        reformatter, period = VideoReformatter(), 1.0 / self.info.fps
        scaled = asked_size(*self._size, size)
        number = 0
        self._seen, self._broken = Coverage("picture", is_continuous=True), []
        for index, picture in enumerate(self._pictures):
            if (frame := self._decode(picture)) is None:
                self._broken.append(picture.name)
                continue
            start = index * period
            self._seen.add(start, start + period)
            is_wanted = start >= begin and (picked is None or picked(number))
            pixels = scaled_pixels(frame, reformatter, scaled, resize) if is_wanted else None
            yield Frame(start, start + period, pixels)
            number += 1

    def spread(self, count: int) -> Iterator[av.VideoFrame]:
        """Some pictures, spread evenly over the folder, as they are decoded."""
        for picture in self._pictures[:: max(1, len(self._pictures) // count)][:count]:
            if (frame := self._decode(picture)) is not None:
                yield frame

    def sound(self, rate: int) -> SoundTrack:
        """The sound that was given beside the pictures, as [`MediaFile.sound`] reads it."""
        return SoundTrack((), rate) if self.sound_file is None else self.sound_file.sound(rate)
