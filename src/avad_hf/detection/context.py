"""What a detector must see at once: clips are held until their neighbours are there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchFeature

from avad_hf.models.detector import WHOLE_VIDEO

# Features that belong to the video, and have no row a clip.
PER_VIDEO = ("has_audio",)


@dataclass(frozen=True)
class Piece:
    """Features that go through the detector together.

    Args:
        features: Features of neighbouring clips of one video, of shape `(1, T, ...)` each.
        times: Start and end in seconds of the clips that are scored.
        first: Number of the first of them among the features' clips: those before and after are only seen.
    """

    features: dict[str, Tensor]
    times: list[list[float]]
    first: int = 0


class ClipContext:
    """Holds the clips of one video that a detector must see with others.

    Args:
        context: Clips before and after each one, `DetectorSpec.context`. With 0 nothing is held, and with
            `WHOLE_VIDEO` all of it, so that memory grows with the video: by its features alone.
        inputs: Names of the features that the detector reads: no others are held.
    """

    def __init__(self, context: float, inputs: Iterable[str]):
        self.context = context
        self._names = {*inputs, "clip_mask", *PER_VIDEO}
        self._parts: dict[str, list[Tensor]] = {}  # of a whole video, joined at its end
        self._held: dict[str, Tensor] = {}
        self._times: list[list[float]] = []
        self._scored = 0  # clips among the held ones that were scored before

    def add(self, features: BatchFeature) -> Iterator[Piece]:
        """Take the next clips, as a processor streams them; gives what can be scored now."""
        features = dict(features)
        # Numbers, not a float64 tensor, which some devices do not have.
        times = features.pop("clip_times")[0].tolist()
        if self.context == 0:
            yield Piece(features, times)
            return
        self._times += times
        for name in self._names & features.keys():
            value = features[name].cpu()
            if name in PER_VIDEO:
                self._held[name] = value
            elif self.context == WHOLE_VIDEO:
                self._parts.setdefault(name, []).append(value)
            else:
                self._held[name] = torch.cat([self._held[name], value], dim=1) if name in self._held else value
        if self.context != WHOLE_VIDEO:
            yield from self._ready(len(self._times) - int(self.context))

    def end(self) -> Iterator[Piece]:
        """The video is over; gives what is left."""
        self._held |= {name: torch.cat(parts, dim=1) for name, parts in self._parts.items()}
        self._parts = {}
        yield from self._ready(len(self._times))

    def _ready(self, until: int) -> Iterator[Piece]:
        """Score held clips up to a number, and let go of those that no later one must see."""
        if until <= self._scored:
            return
        seen = len(self._times) if self.context == WHOLE_VIDEO else min(len(self._times), until + int(self.context))
        features = {name: value if name in PER_VIDEO else value[:, :seen] for name, value in self._held.items()}
        yield Piece(features, self._times[self._scored : until], self._scored)
        self._scored = until
        if (gone := 0 if self.context == WHOLE_VIDEO else until - int(self.context)) > 0:
            self._held = {n: value if n in PER_VIDEO else value[:, gone:] for n, value in self._held.items()}
            self._times = self._times[gone:]
            self._scored -= gone


__all__ = ["ClipContext", "Piece"]
