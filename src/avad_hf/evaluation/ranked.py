"""The stretches of stored footage that are most unlike the rest, read again for their pictures and for words."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avad_hf.detection.describe import SENSES as VERBS
from avad_hf.detection.describe import Description, left_out
from avad_hf.detection.explaining import likelier_classes
from avad_hf.detection.looking_again import SeenClip, look_again
from avad_hf.features.dataset import FeatureDataset
from avad_hf.media.errors import MediaError
from avad_hf.metrics.event_streams import clip_seconds

from .unlike import Clips, Unlikeness, read_clips, stretches, unlikeness

# Clips of the rest that are read again to learn what is usual: enough for a mean, and few beside a night's footage.
MOST_USUAL = 32
# Fewer clips say nothing of what is usual.
FEWEST_USUAL = 5


@dataclass(frozen=True)
class RankedFootage:
    """What of some footage is most unlike the rest.

    Args:
        stretches: The rarest first, ready for JSON. Of each ``rank``, ``video`` (its id), ``start``, ``end`` and
            ``peak`` in seconds; ``score`` from 0 to 1 (0.75: as rare as one clip in 1,000), ``one_in``, the same as a
            number of clips; ``times_usual``, its distance to the nearest others divided by the median of all (``None``
            where that is 0); ``sight`` and ``sound``, shares that sum to 1; ``seen`` and ``heard``, the most probable
            classes, and ``likelier``, those that are likelier than in the rest, each with ``label``, ``score``,
            ``usual`` and ``times``.
        pictures: The middle frame of each peak, of shape `(3, H, W)`, by the rank.
        num_videos: Videos that were compared.
        num_recordings: Recordings that they are from.
        num_clips: Clips that were compared.
        seconds: Their length.
        notes: What one must know to read the ranking.
    """

    stretches: list[dict[str, Any]]
    pictures: dict[int, Tensor]
    num_videos: int
    num_recordings: int
    num_clips: int
    seconds: float
    notes: list[str]


def rank_footage(
    processor: Any,
    sources: Mapping[str, Mapping[str, Any]],
    features: FeatureDataset,
    top: int,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> RankedFootage:
    """Rank stretches of stored videos by how unlike all other recordings they are.

    Args:
        processor: What computed the features.
        sources: Where each video is, as rows of a manifest by their ids.
        features: The stored videos.
        top: How many stretches.
        on_stage: Told in words what is done next.

    Raises:
        ValueError: If there is too little to compare, or all clips are alike.
    """
    on_stage("comparing clips")
    clips = read_clips(features)
    found = unlikeness(clips)
    ranked = stretches(clips, found, top)
    on_stage(f"looking at {len(ranked)} stretches again")
    ids = [row["id"] for row in features.rows]
    usual = _usual(len(clips.video), ranked)
    seen, lost = _look_again(processor, sources, ids, clips, [peak for _, peak in ranked], usual)
    rest = _mean_probabilities([seen[clip] for clip in usual if clip in seen])
    documents, pictures = [], {}
    for number, (members, peak) in enumerate(ranked, 1):
        document = {"rank": number, "video": ids[clips.video[peak]]} | _facts(clips, found, members, peak)
        documents.append(document | _words(processor.classes, document, seen.get(peak), rest))
        if peak in seen and seen[peak].picture is not None:
            pictures[number] = seen[peak].picture
    return RankedFootage(
        stretches=documents,
        pictures=pictures,
        num_videos=len(ids),
        num_recordings=len(np.unique(clips.recording)),
        num_clips=len(clips.video),
        seconds=round(_seconds(clips), 3),
        notes=[*found.notes, *left_out(processor.classes), *lost],
    )


def _seconds(clips: Clips) -> float:
    """How much footage there is: where clips overlap, it counts once."""
    first_clips = np.flatnonzero(np.diff(clips.video, prepend=-1))
    return sum(float(clip_seconds(times).sum()) for times in np.split(clips.times, first_clips[1:]))


def _usual(num_clips: int, ranked: Sequence[tuple[np.ndarray, int]]) -> list[int]:
    """Clips that stand for the rest, spread evenly over it; none where the rest is too little."""
    rest = np.setdiff1d(np.arange(num_clips), [clip for members, _ in ranked for clip in members])
    if len(rest) < FEWEST_USUAL:
        return []
    return rest[np.unique(np.linspace(0, len(rest) - 1, MOST_USUAL).round().astype(int))].tolist()


def _look_again(
    processor: Any,
    sources: Mapping[str, Mapping[str, Any]],
    ids: Sequence[str],
    clips: Clips,
    peaks: Sequence[int],
    usual: Sequence[int],
) -> tuple[dict[int, SeenClip], list[str]]:
    """The clips that are shown or stand for the rest, by their numbers; and what could not be read any more."""
    wanted = dict.fromkeys(usual if processor.classes else (), False) | dict.fromkeys(peaks, True)
    of_video: dict[int, dict[int, int]] = defaultdict(dict)
    for clip in wanted:
        of_video[int(clips.video[clip])][int(clips.number[clip])] = clip
    seen, lost = {}, []
    for video, numbers in of_video.items():
        try:
            again = look_again(processor, sources[ids[video]], {n: wanted[clip] for n, clip in numbers.items()})
        except MediaError as error:
            lost.append(f"{ids[video]} cannot be read again, and has no pictures and words: {error}")
            continue
        seen |= {numbers[number]: one for number, one in again.items()}
    return seen, lost


def _mean_probabilities(clips: Sequence[SeenClip]) -> dict[str, Tensor]:
    """Mean probabilities of what is seen and heard, over the clips that have some."""
    found = {verb: [one.probabilities[verb] for one in clips if verb in one.probabilities] for verb in VERBS}
    return {verb: torch.stack(rows).mean(0) for verb, rows in found.items() if len(rows) >= FEWEST_USUAL}


def _facts(clips: Clips, found: Unlikeness, members: np.ndarray, peak: int) -> dict[str, Any]:
    """Where a stretch is, and how rare."""
    times = float(found.times_usual[peak])
    return {
        "start": round(float(clips.times[members[0], 0]), 6),
        "end": round(float(clips.times[members[-1], 1]), 6),
        "peak": round(float(clips.times[peak].mean()), 6),
        "score": round(float(found.scores[peak]), 6),
        "one_in": round(1 / float(found.tail[peak]), 2),
        "times_usual": round(times, 3) if np.isfinite(times) else None,
    } | {sense: round(share, 6) for sense, share in found.shares(peak).items()}


def _words(
    classes: Mapping[str, Sequence[str]], stretch: Mapping[str, Any], clip: SeenClip | None, rest: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What is seen and heard in a stretch, and what is likelier there than in the rest."""
    if clip is None or not clip.probabilities:
        return {verb: [] for verb in VERBS} | {"likelier": {}}
    description = Description(classes)
    rows = {verb: probabilities[None] for verb, probabilities in clip.probabilities.items()}
    description.add([(stretch["start"], stretch["end"])], rows)
    compared = {
        verb: likelier_classes(classes[verb], probabilities, rest[verb])
        for verb, probabilities in clip.probabilities.items()
        if verb in rest
    }
    return {verb: description.clips[0][verb] for verb in VERBS} | {"likelier": compared}


__all__ = ["RankedFootage", "rank_footage"]
