"""What a damage works on: a file in order, where the damaged one goes, and what is drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .originals import Original

LONGEST_BYTES = 20_000


class NotPossibleError(Exception):
    """This damage cannot be done to this file."""


@dataclass(frozen=True)
class Job:
    """What a damage works on.

    Args:
        original: What the file is.
        path: Of the file in order.
        target: Where the damaged one is written.
        rng: What is drawn.
    """

    original: Original
    path: Path
    target: Path
    rng: np.random.Generator

    @property
    def kind(self) -> str:
        """How the name of the file that is damaged ends."""
        return self.path.suffix[1:]

    def between(self, low: float, high: float) -> int:
        """A whole number, all alike likely."""
        return int(self.rng.integers(int(low), max(int(low) + 1, int(high))))

    def length(self) -> int:
        """A number of bytes, small ones as likely as large ones."""
        return max(1, round(float(np.exp(self.rng.uniform(0, np.log(LONGEST_BYTES))))))

    def payload(self, data: bytes) -> tuple[int, int]:
        """Where pictures and sound lie in it, more or less."""
        if self.kind in ("mp4", "mov", "m4a") and (begin := data.find(b"mdat")) >= 0:
            end = data.find(b"moov", begin)
            return begin + 4, end - 4 if end > 0 else len(data)
        return len(data) * 3 // 100, len(data) * 98 // 100

    def stretch(self, data: bytes) -> tuple[int, int]:
        """Begin and end of some bytes of the payload."""
        low, high = self.payload(data)
        begin = self.between(low, high)
        return begin, min(begin + self.length(), high)
