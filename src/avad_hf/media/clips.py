"""Time arithmetic: frames into clips, and the second of sound that belongs to each frame. All times are in seconds."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # what makes events of scores needs no torch
    from torch import Tensor

Item = TypeVar("Item")

# A timestamp this far from where it is expected is a jump: a pause, a new beginning, or an error.
JUMP_S = 1.0
# Later than expected by less than this is rounding, or a frame rate that varies. About one frame of video.
JITTER_S = 0.04
# Times that differ by less are the same.
SAME_S = 1e-6
# So many items that follow decide whether a doubtful timestamp is true. Most of them must agree, so that three errors
# in a row are still found.
LOOK_AHEAD = 5


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture on the clock of its file. Clips that overlap hold the same frames.

    Args:
        start: When it appears, in seconds.
        end: When the next one appears, in seconds.
        pixels: `torch.Tensor` of shape `(3, H, W)`, RGB from 0 to 255; ``None`` for one that nobody picked.
        sound: `torch.Tensor` of shape `(samples,)`, what was heard until `start`; ``None`` without sound.
        first_sample: Number of the first of these samples in the whole sound; below 0 before its start.
    """

    start: float
    end: float
    pixels: "Tensor | None"
    sound: "Tensor | None" = None
    first_sample: int = 0


@dataclass(frozen=True)
class Clip:
    """Neighbouring frames that are scored together.

    Args:
        frames: As many as the encoder takes; a clip at the end of a video repeats the last one.
        num_real: How many of them are frames of the video.
    """

    frames: tuple[Frame, ...]
    num_real: int

    @property
    def start(self) -> float:
        """When the first frame appears, in seconds."""
        return self.frames[0].start

    @property
    def end(self) -> float:
        """When the last real frame gives way, in seconds."""
        return self.frames[self.num_real - 1].end


class SteadyClock:
    """Times of a stream whose timestamps may be missing, wrong, or start anew, as in recordings joined as bytes.

    A doubtful timestamp is judged by the next few:

    - if they go on from it, it is true: a jump forward is a pause, and a jump back by more than a second is a new
      beginning, which follows on where the stream has got to;
    - if they go on from what was before it, it is wrong, and its item is placed between its neighbours. What follows
      stays where it is.

    The last one has none to vouch for it: more than a second ahead it counts as wrong, unless there were pauses of
    about that length before.

    Args:
        rising: Place each item later than the one before, as pictures need. Otherwise small steps back pass through:
            they are sound that was recorded twice.
    """

    def __init__(self, rising: bool = False):
        self.jumps: list[float] = []  # seconds at which the timestamps began anew
        # Timestamps that were wrong by more than `JUMP_S`: the first, with where it is placed, and the latest.
        self.first_stray: tuple[float, float] | None = None
        self.latest_stray = -math.inf
        self._rising = rising
        self._shift = self._longest_pause = 0.0
        self._last = -math.inf  # before the first item
        self._expected = 0.0

    def place(self, items: Iterable[tuple[float | None, float, Item]]) -> Iterator[tuple[float, float, Item]]:
        """Place items on the clock; holds back a few of them, and only where one is doubtful.

        Args:
            items: For each item, in order: its timestamp in seconds (``None`` if it has none), how many seconds it
                lasts, and the item itself.

        Yields:
            When each item starts, how long it lasts, and the item.
        """
        held: deque[tuple[float | None, float, Item]] = deque()
        for item in items:
            held.append(item)
            while held and (len(held) > LOOK_AHEAD or not self._is_doubtful(held[0][0])):
                yield self._next(held)
        while held:
            yield self._next(held)

    def _is_doubtful(self, mark: float | None) -> bool:
        if mark is None:
            return False
        if self._last == -math.inf:
            return True
        time = mark + self._shift
        return time > self._expected + JITTER_S or time < self._last + (SAME_S if self._rising else 0.0)

    def _next(self, held: deque[tuple[float | None, float, Item]]) -> tuple[float, float, Item]:
        """Take the first of the held items and place it."""
        mark, length, item = held.popleft()
        # For those after it that have timestamps: seconds from its start by their lengths, and times.
        ahead, elapsed = [], length
        for other, lasts, _ in held:
            if other is not None:
                ahead.append((elapsed, other + self._shift))
            elapsed += lasts
        start = self._start(None if mark is None else mark + self._shift, ahead)
        self._last, self._expected = start, start + length
        return start, length, item

    def _start(self, time: float | None, ahead: list[tuple[float, float]]) -> float:
        if time is None:
            return self._expected
        if self._last == -math.inf:
            return self._first_start(time, ahead)
        late = time - self._expected
        if late > JITTER_S and ahead:
            is_wrong = self._is_wrong_ahead(time, self._expected, ahead)
        elif late > JITTER_S:
            is_wrong = late > max(JUMP_S, 2 * self._longest_pause)
        else:
            is_wrong = time < self._last and self._is_wrong_back(time, ahead)
        if is_wrong:
            return self._stray(time, self._between(time, ahead))
        self._longest_pause = max(self._longest_pause, late)
        if time < self._last - JUMP_S:
            self.jumps.append(self._expected)
            self._shift += self._expected - time
            return self._expected
        return self._between(time, ahead) if self._rising and time < self._last + SAME_S else time

    def _first_start(self, time: float, ahead: list[tuple[float, float]]) -> float:
        # Times from before the container's start show that it took its start from this one.
        after = [(elapsed, other) for elapsed, other in ahead if other >= -JUMP_S]
        if 2 * len(after) <= len(ahead):
            return time
        usual = min(other - elapsed for elapsed, other in after)
        is_ahead = time > usual + JITTER_S and time > min(other for _, other in after)
        is_wrong = time < -JUMP_S or (is_ahead and self._is_wrong_ahead(time, usual, after, least=2))
        return self._stray(time, usual) if is_wrong else time

    def _stray(self, time: float, start: float) -> float:
        """Note an item whose timestamp is wrong; small errors are common, and are not noted."""
        if abs(time - start) > JUMP_S:
            self.first_stray = self.first_stray or (time, start)
            self.latest_stray = max(self.latest_stray, time)
        return start

    @staticmethod
    def _is_wrong_ahead(time: float, expected: float, ahead: list[tuple[float, float]], least: int = 0) -> bool:
        votes_against = votes_for = 0
        for elapsed, other in ahead:
            if other < time + SAME_S:
                votes_against += 1
            # What would come later either way has no vote, nor what follows another pause.
            elif expected + elapsed < time and other <= time + elapsed + JUMP_S:
                votes_for += 1
        return votes_against > 0 and votes_against - votes_for >= least

    def _is_wrong_back(self, time: float, ahead: list[tuple[float, float]]) -> bool:
        votes_against = votes_for = 0
        for elapsed, other in ahead:
            # Nearer to where it would be without the step back than to where it would be after it.
            if other > self._last and other >= (self._expected + time) / 2 + elapsed:
                votes_against += 1
            elif abs(other - time - elapsed) <= JUMP_S:
                votes_for += 1
        return votes_against >= votes_for

    def _between(self, time: float, ahead: list[tuple[float, float]]) -> float:
        """Where the stream has got to; after a pause before the next item, if that is nearer to the timestamp."""
        later = [
            (index, elapsed, other) for index, (elapsed, other) in enumerate(ahead) if other > self._last + SAME_S
        ]
        # Before the next one in any case.
        start = min([self._expected, *(self._last + (other - self._last) / (index + 2) for index, _, other in later)])
        after_pause = min((other - elapsed for _, elapsed, other in later), default=start)
        return after_pause if after_pause > start and abs(time - after_pause) < abs(time - start) else start


def join_ends(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Let each frame end where the next begins, so that clips follow each other without gaps.

    What a container says of a frame's length is often missing, or one number for the whole file. The last frame, and
    one whose successor does not come later, keep their own end.
    """
    previous = None
    for frame in frames:
        if previous is not None:
            yield replace(previous, end=frame.start) if frame.start > previous.start else previous
        previous = frame
    if previous is not None:
        yield previous


def cut_clips(frames: Iterable[Frame], length: int, stride: int) -> Iterator[Clip]:
    """Cut frames into clips, holding one at a time, so that every frame is in one (in several where clips overlap).

    Args:
        frames: Frames in order.
        length: Frames of a clip.
        stride: Frames from one clip to the next, at most `length`.

    Yields:
        Clips of exactly `length` frames. A clip is added at the end only for frames that no other holds, and repeats
        the last one.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be between 1 and the clip's length {length}, got {stride}.")
    held: list[Frame] = []
    unseen = 0
    for frame in frames:
        held.append(frame)
        unseen += 1
        if len(held) == length:
            yield Clip(tuple(held), length)
            held = held[stride:]
            unseen = 0
    if unseen:
        yield Clip(tuple(held + [held[-1]] * (length - len(held))), len(held))


def deciding_clips(times: Sequence[tuple[float, float]]) -> list[bool]:
    """Which clips may decide the score of their video: all but a last one that is nearly all padding.

    The last clip repeats its last frame up to its full length, which is nothing that encoders were trained on. If less
    than a quarter of it is video (by its length, beside the others' median), it is left out of the highest score,
    unless it is the only one. By times, since a feature store knows no more.

    Args:
        times: Start and end of each clip, in seconds, in order.
    """
    if len(times) < 2:
        return [True] * len(times)
    lengths = [end - start for start, end in times]
    return [True] * (len(times) - 1) + [lengths[-1] >= 0.25 * median(lengths[:-1]) - 1e-6]


def sound_window(end: float, sound_start: float, length: float, rate: int) -> tuple[int, int]:
    """Which samples sound during the `length` seconds before `end`.

    Args:
        end: Where the window ends, in seconds (AVACA IV-C: exactly at the time of its frame).
        sound_start: When sample 0 sounds, in seconds, on the same clock.
        length: Length of the window, in seconds.
        rate: Samples a second, in Hz.

    Returns:
        First sample and the one after the last; either may lie outside the sound. The end is rounded to the nearest
        sample for each window by itself, so that errors do not add up at 30 frames a second.
    """
    stop = math.floor((end - sound_start) * rate + 0.5)
    return stop - round(length * rate), stop
