"""Seeded damages of a file. The same case gives the same bytes."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import damaged_bytes, damaged_packets
from .jobs import Job, NotPossibleError
from .originals import BY_NAME, ORIGINALS, Original


@dataclass(frozen=True)
class Case:
    """One damage of one original, which its id tells how to repeat.

    Args:
        original: Name of the original.
        kind: A key of `KINDS`.
        seed: Decides all that is drawn.
    """

    original: str
    kind: str
    seed: int

    @property
    def id(self) -> str:
        """Such as ``mp4-h264-aac:cut_end:123``."""
        return f"{self.original}:{self.kind}:{self.seed}"

    @classmethod
    def of(cls, text: str) -> "Case":
        """The case of an id."""
        original, kind, seed = text.split(":")
        return cls(original, kind, int(seed))


@dataclass(frozen=True)
class Damaged:
    """A damaged file.

    Args:
        source: What `open_media` takes.
        description: What was done to it.
        begins_later: The beginning was taken away, so that times count from another moment.
        retimed: Headers were changed, which may hold the rate that gives pictures their times.
        request: What else the reader is told.
    """

    source: dict[str, str]
    description: str
    begins_later: bool = False
    retimed: bool = False
    request: dict[str, Any] | None = None


def damage(case: Case, source: dict[str, str], folder: Path) -> Damaged:
    """Write a damaged copy of an original.

    Args:
        case: What to do.
        source: What `Original.write` returned.
        folder: Where to write.

    Raises:
        NotPossibleError: If this cannot be done to this file.
    """
    key = "audio" if "audio" in source else "video"
    path = Path(source[key])
    target = folder / path.name
    rng = np.random.default_rng([zlib.crc32(f"{case.original}:{case.kind}".encode()), case.seed])
    job = Job(BY_NAME[case.original], path, target, rng)
    facts = KINDS[case.kind].act(job)
    return Damaged(source | {key: str(target)}, **facts)


def _has_sound(original: Original) -> bool:
    return original.sound is not None


def _has_both(original: Original) -> bool:
    return original.sound is not None and original.side is None


def _has_times(original: Original) -> bool:
    """A GIF draws each picture over the one before, and of WAV and MP3 nothing tells when they sound."""
    return original.container != "gif" and original.side not in ("wav", "mp3")


def _is_ts(original: Original) -> bool:
    return original.container == "ts"


def _may_grow(original: Original) -> bool:
    kinds = ("ts", "flv", "mkv", "webm", "avi", "ogg")
    return original.side is None and (original.container in kinds or "fragmented" in original.name)


@dataclass(frozen=True)
class Kind:
    """A kind of damage.

    Args:
        act: Writes the damaged file and says what it did, and other fields of [`Damaged`].
        suits: Which originals it can be done to.
    """

    act: Callable[[Job], dict[str, Any]]
    suits: Callable[[Original], bool] = lambda original: True


KINDS = {
    "cut_end": Kind(damaged_bytes.cut_end),
    "cut_begin": Kind(damaged_bytes.cut_begin),
    "zero": Kind(damaged_bytes.overwrite(lambda job, length: bytes(length), "zeros")),
    "noise": Kind(damaged_bytes.overwrite(lambda job, length: job.rng.bytes(length), "noise")),
    "flip": Kind(damaged_bytes.flip),
    "bursts": Kind(damaged_bytes.bursts),
    "header": Kind(damaged_bytes.header),
    "remove": Kind(damaged_bytes.remove),
    "repeat": Kind(damaged_bytes.repeat),
    "swap": Kind(damaged_bytes.swap),
    "garbage": Kind(damaged_bytes.garbage),
    "grow": Kind(damaged_bytes.grow, _may_grow),
    # Written anew without some pictures, a file of a rate that varies by itself is a file in order.
    "drop_pictures": Kind(
        damaged_packets.drop_pictures,
        lambda original: original.side is None and _has_times(original) and original.pace != "strong",
    ),
    "drop_sound": Kind(damaged_packets.drop_sound, lambda original: _has_sound(original) and _has_times(original)),
    "sound_ends": Kind(damaged_packets.sound_ends, _has_sound),
    "pictures_end": Kind(damaged_packets.pictures_end, _has_both),
    "drop_key": Kind(damaged_packets.drop_key, _is_ts),
    "jump": Kind(
        damaged_packets.jump, lambda original: original.container not in ("gif", "avi") and _has_times(original)
    ),
    "jump_back": Kind(damaged_packets.jump_back, lambda original: original.container in ("ts", "flv")),
    "ts_drop": Kind(damaged_packets.ts_drop, _is_ts),
    "ts_no_times": Kind(damaged_packets.ts_no_times, _is_ts),
    "duration": Kind(damaged_bytes.duration, lambda original: original.container not in ("gif", "ogg", "ts")),
}


def cases(count: int, seed: int) -> list[Case]:
    """Cases of every kind and original in turn. Those of a smaller count are not among those of a larger one."""
    rng = np.random.default_rng(seed)
    pairs = [(original.name, kind) for original in ORIGINALS for kind in KINDS if KINDS[kind].suits(original)]
    chosen: list[Case] = []
    while len(chosen) < count:
        for index in rng.permutation(len(pairs))[: count - len(chosen)]:
            chosen.append(Case(*pairs[index], seed=int(rng.integers(1 << 31))))
    return chosen


__all__ = ["KINDS", "Case", "Damaged", "Kind", "NotPossibleError", "cases", "damage"]
