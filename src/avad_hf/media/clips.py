"""Time arithmetic: frames into clips, and the second of sound that belongs to each frame. All times are in seconds."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor


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
    pixels: Tensor | None
    sound: Tensor | None = None
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
    """Times of a stream whose timestamps may be missing or start anew, as in recordings that were joined as bytes.

    A jump back by more than a second is a new beginning, and follows on where the stream has got to. Smaller steps
    back pass through.
    """

    def __init__(self):
        self.jumps: list[float] = []  # seconds at which the timestamps began anew
        self._shift = 0.0
        self._expected: float | None = None

    def __call__(self, time: float | None, length: float) -> float:
        """Place what lasts `length` seconds and is marked `time`, or not marked at all."""
        if time is None:
            time = self._expected or 0.0
        else:
            time += self._shift
            if self._expected is not None and time < self._expected - 1.0:
                self.jumps.append(self._expected)
                self._shift += self._expected - time
                time = self._expected
        self._expected = time + length
        return time


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


def sound_window(end: float, sound_start: float, length: float, rate: int) -> tuple[int, int]:
    """Which samples sound during the `length` seconds before `end`.

    Args:
        end: Where the window ends, in seconds (AVACA IV-C: exactly at the time of its frame).
        sound_start: When sample 0 sounds, in seconds, on the same clock.
        length: Of the window, in seconds.
        rate: Samples a second, in Hz.

    Returns:
        First sample and the one after the last; either may lie outside the sound. The end is rounded to the nearest
        sample for each window by itself, so that errors do not add up at 30 frames a second.
    """
    stop = math.floor((end - sound_start) * rate + 0.5)
    return stop - round(length * rate), stop
