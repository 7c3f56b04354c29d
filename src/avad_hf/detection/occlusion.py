"""What a score rests on, by hiding: parts of a clip are replaced in turn, and the detector is asked again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor

# What detectors read of the picture, and of the sound: features of frozen encoders, or the video itself. Zeros in all
# of the latter are a video without sound.
SIGHT = ("visual_features", "pixel_values_videos")
SOUND = ("audio_features", "input_features", "audio_frame_mask")
# Rows and columns of the places of a picture whose pixels are read.
PIXEL_GRID = (4, 6)
# Places that are hidden in turn, at most: each costs a score, and more are finer than a person looks.
MOST_PLACES = 48
# Numbers of the picture that go through a detector together: thirty clips of a wide feature map (1 MB each), or one
# window of pixels.
NUMBERS_AT_ONCE = 2**23
# Falls of a logit that are less say nothing: rounding of networks in bfloat16 moves it as much.
LEAST_FALL = 1e-2


@dataclass(frozen=True)
class HeldClip:
    """A clip with everything that scores it.

    Args:
        features: What the detector's ``forward`` takes, of one video: the clip and the neighbours that it must see.
        clip: Number of the clip among them.
        axis: Which axis of the features counts clips: 1, or 0 of detectors that read videos.
        scores: Computes scores within 0 and 1 of such features, of several variants at once: of shape
            `(variants, clips)`, or `(variants,)` where `axis` is 0.
    """

    features: Mapping[str, Tensor]
    clip: int
    axis: int
    scores: Callable[[dict[str, Tensor]], Tensor]

    @property
    def sight(self) -> str | None:
        """Name of what is read of the picture."""
        return next((name for name in SIGHT if name in self.features), None)

    @property
    def sound(self) -> list[str]:
        """Names of what is read of the sound."""
        return [name for name in SOUND if name in self.features]

    def of(self, name: str) -> Tensor:
        """The clip's own part of what is read."""
        return self.features[name].select(self.axis, self.clip).squeeze(0) if self.axis else self.features[name][0]

    def falls(self, variants: Iterable[Mapping[str, Tensor]]) -> list[float]:
        """By how much the logit of the clip's score falls when parts of the clip are replaced; negative if it rises.

        Args:
            variants: What replaces the clip's part of each, by names; taken a few at a time.
        """
        variants, whole = iter(variants), self._logits([{}])[0]
        at_once = max(1, NUMBERS_AT_ONCE // max(value.numel() for value in self.features.values()))
        falls: list[float] = []
        while some := list(islice(variants, at_once)):
            falls += [whole - logit for logit in self._logits(some)]
        return falls

    def _logits(self, variants: Sequence[Mapping[str, Tensor]]) -> list[float]:
        """Logits of the clip's score, of each variant."""
        batch = {}
        for name, value in self.features.items():
            batch[name] = value.expand(len(variants), *value.shape[1:])
            if any(name in variant for variant in variants):
                batch[name] = batch[name].clone()
                for row, variant in zip(batch[name], variants, strict=True):
                    if name in variant:
                        (row[self.clip] if self.axis else row).copy_(variant[name])
        scores = self.scores(batch)
        scores = scores[:, self.clip] if self.axis else scores
        return torch.logit(scores.double(), eps=1e-12).tolist()


def sense_shares(held: HeldClip, usual: Tensor | None, has_audio: bool) -> dict[str, float]:
    """How much of a score rests on what is seen, and how much on what is heard.

    Each share is the sense's Shapley value, by which the logit of the score falls without the sense: the mean of its
    fall beside the other sense and without it, since a detector may find the same event by either. A picture that says
    nothing is that of the video's usual clips; a sound that says nothing is zero, as in videos without sound.

    Args:
        held: The clip.
        usual: What is usually seen, of the shape of the clip's own sight; zeros if ``None``.
        has_audio: Whether the video has sound.

    Returns:
        ``sight`` and ``sound``, which sum to 1: halves if hiding neither lowers the score. Empty for detectors that
        read neither under a known name.
    """
    sounds = held.sound if has_audio else []
    if held.sight is None or not sounds:
        return {"sight": float(not sounds), "sound": float(bool(sounds))} if held.sight or sounds else {}
    seen = held.of(held.sight)
    unseen = {held.sight: torch.zeros_like(seen) if usual is None else usual}
    unheard = {name: torch.zeros_like(held.of(name)) for name in sounds}
    without_sight, without_sound, without_both = held.falls([unseen, unheard, unseen | unheard])
    falls = {
        "sight": (without_sight + without_both - without_sound) / 2,
        "sound": (without_sound + without_both - without_sight) / 2,
    }
    falls = {sense: fall if fall > LEAST_FALL else 0.0 for sense, fall in falls.items()}
    total = sum(falls.values())
    sight = round(falls["sight"] / total, 4) if total else 0.5
    return {"sight": sight, "sound": round(1 - sight, 4)}


def hidden_heat(held: HeldClip, usual: Tensor | None) -> Tensor | None:
    """By how much the logit of a clip's score falls where places of its picture are hidden in turn.

    A hidden place looks as it does in the video's usual clips.

    Args:
        held: The clip.
        usual: As for `sense_shares`.

    Returns:
        `torch.Tensor` of shape `(rows, columns)`, 0 or more; ``None`` where the picture has no places.
    """
    if held.sight is None or (seen := held.of(held.sight)).dim() < 3:
        return None
    height, width = seen.shape[-2:]
    rows, columns = _grid(height, width) if held.sight == SIGHT[0] else PIXEL_GRID
    if rows * columns == 1:
        return None
    background = torch.zeros_like(seen) if usual is None else usual

    def hidden() -> Iterator[dict[str, Tensor]]:
        for vertical in _parts(height, rows):
            for horizontal in _parts(width, columns):
                picture = seen.clone()
                picture[..., vertical, horizontal] = background[..., vertical, horizontal]
                yield {held.sight: picture}

    falls = torch.tensor(held.falls(hidden())).reshape(rows, columns)
    return falls.where(falls > LEAST_FALL, 0.0)


def _grid(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of places of a feature map, whose cells are joined until the places are few enough."""
    while rows * columns > MOST_PLACES:
        rows, columns = (rows, -(-columns // 2)) if columns >= rows else (-(-rows // 2), columns)
    return rows, columns


def _parts(length: int, count: int) -> list[slice]:
    """A length in parts that are as equal as they can be."""
    edges = [round(number * length / count) for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


__all__ = ["HeldClip", "hidden_heat", "sense_shares"]
