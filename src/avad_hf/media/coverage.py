"""What of a stream was read, and what was not: the account that a result gives of its picture and its sound."""

from collections import Counter
from heapq import heappush, heappushpop
from typing import Any

# Less than this is rounding of containers, or the edge of a codec's block.
NOTABLE_S = 0.25
# So many stretches are kept and listed; those after them are counted.
MOST_LISTED = 100
# Steps from picture to picture that differ by more than this from the usual one are irregular. Of a steady camera one
# in ten is at most, and one in fifty where single ones stand for a loss.
_IRREGULAR, _STEADY_SHARE, _STEADIEST_SHARE = 0.5, 0.1, 0.02


class Coverage:
    """The stretches of one stream that were read, missing and damaged. All times are in seconds.

    Args:
        what: ``"picture"`` or ``"sound"``.
        is_continuous: Whether the stream has no pauses by nature. Pictures may come when something moves; then only
            what is much longer than usual is missing.
    """

    def __init__(self, what: str, is_continuous: bool = False):
        self.what = what
        # When the first item begins, and the last one begins and ends.
        self.start: float | None = None
        self.last = 0.0
        self.end = 0.0
        self._until = 0.0
        self._is_continuous = is_continuous
        self._gaps: list[tuple[float, float]] = []
        self._num_more = 0
        # The longest pauses that may be none of the reader's, by length.
        self._pauses: list[tuple[float, float, float]] = []
        self._damaged: list[tuple[float, float]] = []
        self._damaged_since: float | None = None
        self._doubtful: list[tuple[float, float]] = []
        self._doubtful_since: float | None = None
        # Milliseconds from one item to the next, below a second.
        self._steps: Counter[int] = Counter()

    def add(self, start: float, end: float, usual: float | None = None, is_after_loss: bool = False) -> None:
        """Count an item that was read, later than the one before.

        Args:
            start: When it begins.
            end: When it ends, as it says itself.
            usual: How long items last that are followed by others at once; less than `end` says before a pause. By
                default that.
            is_after_loss: Whether something before it could not be read for certain, so that a pause is a loss.
        """
        if self.start is None:
            self.start = start
        else:
            if (pause := start - self._until) > NOTABLE_S - 1e-6:
                if self._is_continuous or is_after_loss:
                    self._append(self._gaps, self._until, start)
                elif len(self._pauses) < MOST_LISTED:
                    heappush(self._pauses, (pause, self._until, start))
                else:
                    heappushpop(self._pauses, (pause, self._until, start))
            if not self._is_continuous and start - self.last < 1.0:
                self._steps[round((start - self.last) * 1000)] += 1
        self.last, self.end = start, max(self.end, end)
        self._until = self.end if usual is None else max(self._until, min(end, start + usual))

    def is_skipped(self, start: float) -> bool:
        """Whether an item that begins now comes later than the steps between those before let expect."""
        count = self._steps.total()
        return count >= 10 and self.start is not None and start - self.last > 1.8 * (self.last - self.start) / count

    def damage(self, time: float, is_damaged: bool) -> None:
        """Note from when on what was read is damaged, or in order again."""
        self._damaged_since = self._switch(self._damaged, self._damaged_since, time, is_damaged)

    def doubt(self, time: float, is_doubtful: bool) -> None:
        """Note from when on pictures are built on missing ones, if the steps between them are steady to the end."""
        self._doubtful_since = self._switch(self._doubtful, self._doubtful_since, time, is_doubtful)

    def _switch(self, stretches: list, since: float | None, time: float, is_on: bool) -> float | None:
        if is_on:
            return time if since is None else since
        if since is not None:
            self._append(stretches, since, time)
        return None

    def _append(self, stretches: list[tuple[float, float]], start: float, end: float) -> None:
        if len(stretches) < MOST_LISTED:
            stretches.append((start, end))
        else:
            self._num_more += 1

    @property
    def missing(self) -> list[tuple[float, float]]:
        """Stretches within the stream of which nothing was read, by their start and end."""
        longest = self.usual_pause
        return sorted(self._gaps + [(start, end) for pause, start, end in self._pauses if pause > longest])

    def _paces(self) -> tuple[float, float]:
        """The share of steps between items that are irregular, and how long the long ones are, in seconds."""
        count = self._steps.total()
        steps = sorted(self._steps.items())
        usual = longest = steps[0][0] if steps else 0
        seen = 0
        for step, times in steps:
            usual = step if seen < count / 2 else usual
            longest = step if seen < 0.95 * count else longest
            seen += times
        odd = sum(times for step, times in steps if abs(step - usual) > _IRREGULAR * usual + 1)
        return odd / max(1, count), longest / 1000

    @property
    def usual_pause(self) -> float:
        """Up to how many seconds without a picture are nothing special, by the steps between the others."""
        irregular, longest = self._paces()
        return NOTABLE_S - 1e-6 if irregular <= _STEADY_SHARE else max(1.0, 4 * longest)

    @property
    def damaged(self) -> list[tuple[float, float]]:
        """Stretches that were read from damaged data, by their start and end."""
        found = self._damaged + ([] if self._damaged_since is None else [(self._damaged_since, self.end)])
        if self._paces()[0] <= _STEADIEST_SHARE:
            found += self._doubtful + ([] if self._doubtful_since is None else [(self._doubtful_since, self.end)])
        return sorted(found)

    def problems(self) -> list[str]:
        """What is missing and damaged, in words; empty for a stream in order."""
        problems = []
        for stretches, words in ((self.missing, "there is no"), (self.damaged, "there is only damaged")):
            if stretches:
                listed = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in stretches[:3])
                more = len(stretches) - 3 + self._num_more
                problems.append(f"{words} {self.what} from {listed}{f' and {more} more times' if more > 0 else ''}")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """For a result: from when to when there was something, and what was missing and damaged within."""
        missing = self.missing
        start = self.end if self.start is None else self.start
        return {
            "start": round(start, 3),
            "end": round(self.end, 3),
            "seconds": round(max(0.0, self.end - start - sum(end - begin for begin, end in missing)), 3),
            "missing": [[round(begin, 3), round(end, 3)] for begin, end in missing],
            "damaged": [[round(begin, 3), round(end, 3)] for begin, end in self.damaged],
        }


__all__ = ["MOST_LISTED", "NOTABLE_S", "Coverage"]
