"""The normal clips that a detector keeps: an even sample of bounded size, the same for the same footage.

What everything else is computed from. A clip is in it if the hash of its name is among the smallest ones, so it does
not matter in which order footage comes, or in how many parts: what is kept of two parts together is what is kept of
the two samples. That is why a detector that is updated equals one that was fitted to all the footage.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Bits of a clip's flags.
HEARD, CERTAIN, USED = 1, 2, 4
# What is remembered of a video: columns of its table.
COLUMNS = ("id", "group", "scene", "hour")


@dataclass
class KeptClips:
    """Normal clips.

    Args:
        videos: For each video `COLUMNS`, sorted by id.
        video: Number of each clip's video, of shape `(N,)`.
        times: Start and end of each clip in microseconds, of shape `(N, 2)`, whole numbers.
        flags: `HEARD`: it has sound; `CERTAIN`: a person says that it is normal; `USED`: it was not left out as one of
            the contamination.
        vectors: What clips are compared by, of shape `(N, width)`, by the names of the features, float32.
    """

    videos: list[list[Any]]
    video: Tensor
    times: Tensor
    flags: Tensor
    vectors: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video)

    def has(self, flag: int) -> Tensor:
        """Which clips have a flag, of shape `(N,)`."""
        return (self.flags & flag) != 0

    def column(self, name: str) -> list[Any]:
        """What is known of each clip's video."""
        index = COLUMNS.index(name)
        return [self.videos[number][index] for number in self.video.tolist()]

    @property
    def recordings(self) -> list[str]:
        """What each clip was recorded with: rows of one group, or else the video alone."""
        return [group or name for name, group in zip(self.column("id"), self.column("group"), strict=True)]

    def priorities(self) -> list[tuple[bool, bytes]]:
        """In which order clips are kept, the first ones first."""
        certain = self.has(CERTAIN).tolist()
        names = zip(self.column("id"), self.times[:, 0].tolist(), certain, strict=True)
        return [(not sure, hashlib.sha256(f"{name}\0{start}".encode()).digest()) for name, start, sure in names]

    def limited(self, most: int) -> "KeptClips":
        """At most so many of the clips, in the order of their priorities; of two with one name the later one."""
        latest: dict[tuple[Any, int], int] = {}
        for index, key in enumerate(zip(self.column("id"), self.times[:, 0].tolist(), strict=True)):
            before = latest.get(key)
            # What a person has said stays.
            if before is None or self.flags[index] & CERTAIN or not self.flags[before] & CERTAIN:
                latest[key] = index
        priorities = self.priorities()
        order = sorted(latest.values(), key=priorities.__getitem__)[:most]
        return self.chosen(torch.tensor(order, dtype=torch.long))

    def chosen(self, index: Tensor) -> "KeptClips":
        """Some of the clips, with the videos that they are from."""
        video = self.video[index]
        numbers = sorted(set(video.tolist()), key=lambda number: str(self.videos[number][0]))
        renumbered = torch.zeros(len(self.videos), dtype=torch.long)
        renumbered[numbers] = torch.arange(len(numbers))
        return KeptClips(
            [self.videos[number] for number in numbers],
            renumbered[video],
            self.times[index],
            self.flags[index],
            {name: vectors[index] for name, vectors in self.vectors.items()},
        )

    def table(self) -> Tensor:
        """The videos as JSON, in bytes."""
        text = json.dumps(self.videos, ensure_ascii=False, separators=(",", ":"))
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()


def videos_of(table: Tensor) -> list[list[Any]]:
    """What `KeptClips.table` wrote; raises ``ValueError`` for a table that is damaged."""
    try:
        videos = json.loads(bytes(table.cpu().tolist()))
        if not all(isinstance(row, list) and len(row) == len(COLUMNS) and isinstance(row[0], str) for row in videos):
            raise ValueError("its rows are no videos")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"The checkpoint's table of normal videos is damaged ({error}). Copy or fit it again."
        ) from error
    return videos


def clips_of_video(
    row: Mapping[str, Any], times: Tensor, vectors: Mapping[str, Tensor], heard: bool, certain: bool = False
) -> KeptClips:
    """All clips of one video.

    Args:
        row: What is known of it: ``id``, ``group``, ``scene``, ``hour``.
        times: Start and end of each, in seconds, of shape `(T, 2)`.
        vectors: What they are compared by, of shape `(T, width)`, by the names of the features.
        heard: Whether it has sound.
        certain: Whether a person says that these are normal.
    """
    flags = HEARD * heard | CERTAIN * certain | USED
    return KeptClips(
        [[row.get(name) for name in COLUMNS]],
        torch.zeros(len(times), dtype=torch.long),
        (times.double() * 1e6).round().long(),
        torch.full((len(times),), flags, dtype=torch.uint8),
        {name: value.float() for name, value in vectors.items()},
    )


def together(parts: Sequence[KeptClips], most: int) -> KeptClips:
    """Clips of several parts, as many as may be kept; later parts come before earlier ones of the same name."""
    videos: list[list[Any]] = []
    numbers: list[Tensor] = []
    for part in parts:
        numbers.append(part.video + len(videos))
        videos += part.videos
    names = parts[0].vectors
    whole = KeptClips(
        videos,
        torch.cat(numbers),
        torch.cat([part.times for part in parts]),
        torch.cat([part.flags for part in parts]),
        {name: torch.cat([part.vectors[name] for part in parts]) for name in names},
    )
    return _merged(whole).limited(most)


def _merged(clips: KeptClips) -> KeptClips:
    """The same clips, with one row for each video."""
    first: dict[str, int] = {}
    videos, renumbered = [], []
    for row in clips.videos:
        if row[0] not in first:
            first[row[0]] = len(videos)
            videos.append(row)
        renumbered.append(first[row[0]])
    clips.videos, clips.video = videos, torch.tensor(renumbered)[clips.video]
    return clips


class Collector:
    """Takes clips as footage is read, and never holds many more than may be kept."""

    def __init__(self, most: int):
        self.most, self._kept, self._new, self.seen = most, None, [], 0

    def add(self, clips: KeptClips) -> None:
        """Take the next clips."""
        self._new.append(clips)
        self.seen += len(clips)
        if sum(map(len, self._new)) >= self.most:
            self._join()

    def _join(self) -> None:
        parts: Iterable[KeptClips] = [self._kept, *self._new] if self._kept is not None else self._new
        self._kept, self._new = together(list(parts), self.most), []

    def kept(self) -> KeptClips:
        """What is kept of everything that came."""
        if self._new:
            self._join()
        return self._kept


__all__ = ["CERTAIN", "COLUMNS", "HEARD", "USED", "Collector", "KeptClips", "clips_of_video", "together", "videos_of"]
