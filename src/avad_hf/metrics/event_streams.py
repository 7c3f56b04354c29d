"""Recordings as streams of scored clips: their events at any threshold, their length, and blocks of their time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Blocks of time that are resampled: events that come together are within one of them. In an hour a storm or a crowd
# has gone by; of little footage blocks are shorter, so that there are enough of them to draw from; of more than 1,000
# hours they are longer, for memory.
BLOCK_S = 3600.0
FEWEST_BLOCKS, MOST_BLOCKS = 48, 1000
# The highest and the lowest score of float64 that are not 1 and 0: these have no logit.
SCORES = (np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)


@dataclass(frozen=True)
class Recording:
    """Scores of the clips of one recording, in order of time.

    Args:
        name: What it is called in messages.
        scores: Between 0 and 1, shape `(T,)`.
        times: Start and end of each clip in seconds, shape `(T, 2)`; clips may overlap.
        decides: False for clips that begin no event, as `avad_hf.media.clips.deciding_clips` says, shape `(T,)`. Only
            the last clip of a recording may be one.
        classes: Which class an event of each clip would have, of detectors that know classes, shape `(T,)`:
            neighbouring clips of different classes are different events.
    """

    name: str
    scores: np.ndarray
    times: np.ndarray
    decides: np.ndarray | None = None
    classes: np.ndarray | None = None


class Stretch(NamedTuple):
    """A part of a recording.

    Args:
        recording: Its name.
        start: In seconds.
        end: In seconds.
        score: The highest score in it.
    """

    recording: str
    start: float
    end: float
    score: float


def footage_hours(recordings: Sequence[Recording]) -> float:
    """Hours that the clips of recordings cover."""
    return sum(float(clip_seconds(recording.times).sum()) for recording in recordings) / 3600


def count_events(recordings: Sequence[Recording], threshold: float) -> int:
    """Number of events at a threshold, as `avad_hf.detection.events.merge_events` merges clips to events."""
    return sum(int(((low < threshold) & (high >= threshold)).sum()) for high, low in map(event_steps, recordings))


def block_numbers(recordings: Sequence[Recording]) -> list[np.ndarray]:
    """Number of the block of time that each clip belongs to, by recording, shape `(T,)`.

    Blocks are an hour long (shorter where there are less than 48 hours in all, longer where there are more than
    1,000), and the recordings lie one after the other: short ones share a block.
    """
    seconds = [clip_seconds(recording.times) for recording in recordings]
    begins = np.concatenate([[0.0], np.cumsum(np.concatenate(seconds))])
    length = min(max(BLOCK_S, begins[-1] / MOST_BLOCKS), begins[-1] / FEWEST_BLOCKS)
    # A last block of a few seconds would count as much as the others: it goes to the one before.
    num_blocks = max(1, round(begins[-1] / length))
    numbers = np.minimum((begins[:-1] / length).astype(np.int64), num_blocks - 1)
    return np.split(numbers, np.cumsum([len(part) for part in seconds])[:-1])


def event_steps(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Scores of clips, and those of the clips before: an event begins where a threshold lies between."""
    highs = np.asarray(recording.scores, dtype=np.float64)
    if recording.decides is not None:
        highs = np.where(recording.decides, highs, -np.inf)
    lows = np.concatenate([[-np.inf], highs[:-1]])
    if recording.classes is not None:
        same = recording.classes[1:] == recording.classes[:-1]
        lows[1:] = np.where(same, lows[1:], -np.inf)
    return highs, lows


def levels_of(scores: np.ndarray) -> np.ndarray:
    """Scores on a scale without ends, on which tails are long: their logits."""
    from scipy.special import logit

    return logit(np.clip(scores, *SCORES))


def clip_seconds(times: np.ndarray) -> np.ndarray:
    """How much of the footage each clip covers, of shape `(T,)`: up to the next one, where they overlap."""
    times = np.asarray(times, dtype=np.float64)
    ends = times[:, 1].copy()
    ends[:-1] = np.minimum(ends[:-1], times[1:, 0])
    return np.maximum(ends - times[:, 0], 0.0)


def check_recordings(recordings: Sequence[Recording]) -> None:
    """Refuse what are no scores of clips."""
    if not recordings:
        raise ValueError("No recording was given. Give normal footage: videos in which nothing happens.")
    for recording in recordings:
        scores, times = np.asarray(recording.scores), np.asarray(recording.times)
        if scores.ndim != 1 or not len(scores) or times.shape != (len(scores), 2):
            raise ValueError(
                f"{recording.name}: scores of shape (T,) and times of shape (T, 2) are needed, got {scores.shape} and "
                f"{times.shape}."
            )
        if num_broken := int(np.isnan(scores).sum()):
            raise ValueError(
                f"{recording.name}: {num_broken} of {len(scores)} scores are NaN. The detector's weights or the "
                "features are damaged."
            )
        if scores.min() < 0 or scores.max() > 1:
            raise ValueError(
                f"{recording.name}: scores must be between 0 and 1, got {scores.min():g} to {scores.max():g}."
            )


def events_at(recording: Recording, level: float) -> list[tuple[float, Stretch]]:
    """The highest level of each event at a level, and where it is."""
    highs, lows = map(levels_of, event_steps(recording))
    events: list[tuple[float, Stretch]] = []
    for number in np.flatnonzero(highs >= level):
        start, end = (float(second) for second in recording.times[number])
        if lows[number] < level:
            events.append((highs[number], Stretch(recording.name, start, end, 0.0)))
        else:
            peak, stretch = events[-1]
            events[-1] = (max(peak, highs[number]), stretch._replace(end=end))
    return events


__all__ = [
    "Recording",
    "Stretch",
    "block_numbers",
    "check_recordings",
    "clip_seconds",
    "count_events",
    "event_steps",
    "events_at",
    "footage_hours",
    "levels_of",
]
