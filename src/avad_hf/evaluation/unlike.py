"""How unlike all other recordings each clip of a feature store is: no model is needed, and no labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avad_hf.features.dataset import FeatureDataset
from avad_hf.media.clips import deciding_clips

from .kept import pooled

# Clips of other recordings that a clip is compared with: one alone may be an odd one too.
NEIGHBOURS = 5
# Fewer clips than one and its neighbours say nothing.
FEWEST_CLIPS = NEIGHBOURS + 1
# Share of the mean variance of all channels in that of each: a channel that is constant, or nearly so, is not divided
# by nearly nothing.
SHRINKAGE = 0.1
# In a single recording, so many seconds around a clip are not compared with it: what happens there goes on for a
# while. Of a short recording less, so that most of it is left to compare with.
NEAR_S, NEAR_SHARE = 30.0, 0.1
# Bytes of distances that are held at once.
BLOCK_BYTES = 2**26
# Clips belong to the stretch of a peak while their scores, in powers of ten, are at least this share of the peak's.
STRETCH_SHARE = 0.5
# What half of all clips are is not unlike the rest.
COMMON = 0.5
SENSES = ("sight", "sound")


@dataclass(frozen=True)
class Clips:
    """Clips of several videos, in order: those that may decide the score of their video (`deciding_clips`).

    Args:
        video: Number of each clip's video, of shape `(N,)`.
        number: Number of each clip in its video, of shape `(N,)`.
        recording: Number of each clip's recording, of shape `(N,)`: videos of one ``group`` are one recording.
        times: Start and end, in seconds, of shape `(N, 2)`.
        has_audio: Whether its video has sound, of shape `(N,)`.
        features: Means over the clip, by the names of `SENSES`, of shape `(N, channels)`, float32.
    """

    video: np.ndarray
    number: np.ndarray
    recording: np.ndarray
    times: np.ndarray
    has_audio: np.ndarray
    features: dict[str, np.ndarray]


@dataclass(frozen=True)
class Unlikeness:
    """How unlike the rest each clip is.

    Args:
        tail: Share of clips that are as unlike the rest or more, by the sense that stands out more; corrected for its
            choice. Of shape `(N,)`.
        senses: The same of each sense by itself, of shape `(N,)`; 1 where it says nothing.
        has_audio: Whether there is sound, of shape `(N,)`.
        times_usual: Distance to the nearest other clips, of the sense that stands out more, divided by the median of
            all clips; infinite where that is 0. Of shape `(N,)`.
        notes: What one must know to read them.
    """

    tail: np.ndarray
    senses: dict[str, np.ndarray]
    has_audio: np.ndarray
    times_usual: np.ndarray
    notes: list[str]

    @property
    def scores(self) -> np.ndarray:
        """Scores from 0 to 1, as detectors fitted to normal footage give them: 0.75 is as rare as 1 in 1,000."""
        tens = np.abs(np.log10(self.tail))
        return tens / (1 + tens)

    def shares(self, clip: int) -> dict[str, float]:
        """How much sight and sound have to do with the score of a clip: shares that sum to 1."""
        tens = {sense: abs(float(np.log10(tail[clip]))) for sense, tail in self.senses.items()}
        total = sum(tens.values())
        if not total:
            tens = {"sight": 1.0, "sound": float(self.has_audio[clip])}
            total = sum(tens.values())
        return {sense: value / total for sense, value in tens.items()}


def read_clips(features: FeatureDataset) -> Clips:
    """Read the clips of a store, with their features averaged over places and time.

    Raises:
        ValueError: If features are damaged or not finite.
    """
    parts: dict[str, list[np.ndarray]] = {}
    recordings: dict[tuple, int] = {}
    for video, row in enumerate(features.rows):
        item = features[video]
        times = item["clip_times"].numpy()
        kept = np.flatnonzero(deciding_clips(times.tolist()))
        recording = ("video", row["id"]) if row.get("group") is None else ("group", row["group"])
        columns = {
            "video": np.full(len(kept), video),
            "number": kept,
            "recording": np.full(len(kept), recordings.setdefault(recording, len(recordings))),
            "times": times[kept],
            "has_audio": np.full(len(kept), bool(item["has_audio"][0])),
            "sight": pooled(item["visual_features"])[kept],
            "sound": pooled(item["audio_features"])[kept],
        }
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return Clips(features={sense: joined.pop(sense) for sense in SENSES}, **joined)


def unlikeness(clips: Clips) -> Unlikeness:
    """Say of each clip how unlike the clips of all other recordings it is.

    Of each sense: the mean distance to the nearest `NEIGHBOURS` of them, and the share of clips that have as large a
    distance. Clips of videos without sound are judged by sight alone.

    Raises:
        ValueError: For too few clips, or where all are equal.
    """
    if (count := len(clips.video)) < FEWEST_CLIPS:
        raise ValueError(
            f"Too little to compare: {count} clip{'' if count == 1 else 's'}, and {FEWEST_CLIPS} are needed. Give a "
            "folder of more, or longer, videos."
        )
    notes: list[str] = []
    tails: dict[str, np.ndarray] = {}
    ratios: dict[str, np.ndarray] = {}
    for sense in SENSES:
        judged = np.flatnonzero(clips.has_audio if sense == "sound" else np.ones(len(clips.video), bool))
        found = _distances(clips, sense, judged, notes)
        tails[sense], ratios[sense] = np.ones(len(clips.video)), np.zeros(len(clips.video))
        if found is not None:
            tails[sense][judged] = tail_shares(found)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios[sense][judged] = np.nan_to_num(found / np.median(found), nan=1.0, posinf=np.inf)
    if all((tail == 1).all() for tail in tails.values()):
        raise ValueError(
            f"None of the {len(clips.video):,} clips stands out: all are equally far from the others. Check that the "
            f"videos are not copies of one, or black and silent. {' '.join(notes)}".rstrip()
        )
    num_senses = np.where(clips.has_audio, 2, 1)
    first = np.where(tails["sound"] < tails["sight"], "sound", "sight")
    smaller = np.minimum(tails["sight"], tails["sound"])
    # The smaller of two numbers is small more often than each of them: the chance that either is as small.
    with np.errstate(divide="ignore"):
        tail = -np.expm1(num_senses * np.log1p(-smaller))
    return Unlikeness(
        tail, tails, clips.has_audio, np.where(first == "sound", ratios["sound"], ratios["sight"]), notes
    )


def _distances(clips: Clips, sense: str, judged: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """Distances of the clips that have a sense; ``None``, and a note, where it cannot tell clips apart."""
    if len(judged) < FEWEST_CLIPS:
        notes.append(
            f"{len(judged) or 'No'} clips have sound, and {FEWEST_CLIPS} are needed: they are compared by sight alone."
        )
        return None
    standard = standardised(clips.features[sense][judged])
    if not standard.any():
        what = "look" if sense == "sight" else "sound"
        notes.append(f"All clips {what} the same to the encoder, so {sense} is left out.")
        return None
    left_out, words = _left_out(clips, judged)
    if words and words not in notes:
        notes.append(words)
    return distances_to_others(standard, left_out)


def standardised(features: np.ndarray) -> np.ndarray:
    """Channels with mean 0 and about variance 1, float64; a variance is drawn to the mean of all by `SHRINKAGE`."""
    mean, variance = features.mean(axis=0, dtype=np.float64), features.var(axis=0, dtype=np.float64)
    standard = features.astype(np.float64)
    standard -= mean
    # What rounding leaves of channels that are all constant is no variance.
    if variance.mean() <= 1e-12 * (mean**2).mean():
        return np.zeros_like(standard)
    standard /= np.sqrt((1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean())
    return standard


def _left_out(clips: Clips, judged: np.ndarray) -> tuple[Callable[[slice], np.ndarray], str | None]:
    """What clips are not compared with: those of their own recording, or those near them where there is no other.

    Returns:
        What gives, for a block of clips, a mask of shape `(block, N)`; and what must be said of it.
    """
    recording, video, start = clips.recording[judged], clips.video[judged], clips.times[judged, 0]
    if len(judged) - np.bincount(recording).max() >= NEIGHBOURS:
        return lambda block: recording[block, None] == recording, None
    near = min(NEAR_S, NEAR_SHARE * float(clips.times[judged, 1].max() - start.min()))
    words = (
        f"There are fewer than {NEIGHBOURS} clips of other recordings, so clips are compared with those of their own "
        f"recording too, except those within {near:.1f} s."
    )

    def around(block: slice) -> np.ndarray:
        # A clip is always near itself, whatever rounding does.
        return (video[block, None] == video) & (np.abs(start[block, None] - start) <= near)

    return around, words


def distances_to_others(
    features: np.ndarray, left_out: Callable[[slice], np.ndarray], neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Mean Euclidean distance of each clip to the nearest ones that it is compared with, in bounded memory.

    Args:
        features: An array of shape `(N, channels)`, float64.
        left_out: Gives, for a block of clips, which ones they are not compared with, of shape `(block, N)`.
        neighbours: How many; fewer where a clip has no more to be compared with.

    Raises:
        ValueError: If a clip has none to be compared with.
    """
    squares = (features**2).sum(axis=1)
    rows = max(1, BLOCK_BYTES // features.itemsize // len(features))
    neighbours = min(neighbours, len(features) - 1)
    means = []
    for begin in range(0, len(features), rows):
        block = slice(begin, begin + rows)
        distances = squares[block, None] + squares - 2 * features[block] @ features.T
        distances[left_out(block)] = np.inf
        nearest = np.partition(distances, neighbours - 1, axis=1)[:, :neighbours]
        is_there = np.isfinite(nearest)
        if not is_there.any(axis=1).all():
            raise ValueError(
                "A clip has no other to be compared with: there is too little footage. Give more, or longer, videos."
            )
        # Rounding may leave less than nothing of the distance of equal clips.
        nearest = np.sqrt(np.maximum(np.where(is_there, nearest, 0), 0))
        means.append(nearest.sum(axis=1) / is_there.sum(axis=1))
    return np.concatenate(means)


def tail_shares(values: np.ndarray) -> np.ndarray:
    """Share of all values that are as large as each, or larger: above 0, and 1 for the smallest."""
    # What differs by rounding alone counts as equal.
    return 1 - np.searchsorted(np.sort(values), values * (1 - 1e-9), side="left") / len(values)


def stretches(clips: Clips, found: Unlikeness, top: int) -> list[tuple[np.ndarray, int]]:
    """The stretches that are most unlike the rest: neighbouring clips of a video around a peak, the rarest peak first.

    Fewer than `top` where the others are as half of all clips are.

    Returns:
        For each the clips that belong to it, and its peak, as numbers within `clips`.
    """
    tens = np.abs(np.log10(found.tail))
    # Where shares are equal, the one that is farther away comes first; then the earlier one.
    order = np.lexsort((np.arange(len(tens)), -found.times_usual, found.tail))
    is_free = np.ones(len(tens), bool)
    ranked: list[tuple[np.ndarray, int]] = []
    for peak in order:
        if len(ranked) == top or found.tail[peak] >= COMMON:
            break
        if not is_free[peak]:
            continue
        first = last = peak
        while first > 0 and _goes_on(clips, tens, is_free, first - 1, peak):
            first -= 1
        while last + 1 < len(tens) and _goes_on(clips, tens, is_free, last + 1, peak):
            last += 1
        is_free[first : last + 1] = False
        ranked.append((np.arange(first, last + 1), int(peak)))
    return ranked


def _goes_on(clips: Clips, tens: np.ndarray, is_free: np.ndarray, clip: int, peak: int) -> bool:
    is_same_video = clips.video[clip] == clips.video[peak]
    return bool(is_free[clip] and is_same_video and tens[clip] >= STRETCH_SHARE * tens[peak])


__all__ = ["Clips", "Unlikeness", "distances_to_others", "read_clips", "standardised", "stretches", "unlikeness"]
