"""What the pipeline keeps of one video while it is read: words, reasons, and what is scored so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import BatchFeature

from avad_hf.media.sources import Media

from .context import ClipContext, Piece
from .describe import Description
from .explaining import Explainer

# Features of some clips, and the probabilities of what is seen and heard in them.
Encoded = tuple[BatchFeature, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Notes:
    """What is collected of one video beside its scores.

    Args:
        description: What is seen and heard; ``None`` where nobody asked.
        explainer: Why events are events, likewise.
        gate: Encodes its clips, and spares still ones, as of `DetectorProcessor.gated`; likewise.
    """

    description: Description | None
    explainer: Explainer | None
    gate: Any = None

    @property
    def need_names(self) -> bool:
        """Whether the encoders are asked for their classes too."""
        return self.description is not None or bool(self.explainer and self.explainer.classes)

    def name(self, times: Sequence[Sequence[float]], probabilities: Mapping[str, Tensor]) -> None:
        """Take the classes of the next clips."""
        if self.description is not None:
            self.description.add(times, probabilities)
        if self.explainer is not None:
            self.explainer.name(probabilities)


class ScoredVideo:
    """One of the videos that are scored at the same time.

    Args:
        pipe: The pipeline.
        preprocess: Parameters of its `preprocess`.
        forward: Parameters of its `forward`.
        postprocess: Parameters of its `postprocess`.
    """

    def __init__(self, pipe: Any, preprocess: dict, forward: dict, postprocess: dict):
        self.pipe, self.forward, self.postprocess = pipe, forward, postprocess
        self.asked = {name: preprocess.get(name, False) for name in ("describe", "explain", "gate")}
        self.context = ClipContext(pipe.spec.context, pipe.spec.inputs)
        self.notes: Notes | None = None
        self.chunks: list[dict] = []

    def add(self, media: Media, batch: Any) -> float:
        """Take its next clips; returns up to which second it is read."""
        if self.notes is None:
            self.notes = self.pipe.notes(media, **self.asked)
        features = self.pipe.encode(batch, self.notes)
        until = float(features["clip_times"][0, -1, 1])
        self._score(media, self.context.add(features))
        return until

    def end(self, media: Media) -> dict:
        """The result, when the video is over."""
        self._score(media, self.context.end())
        return self.pipe.postprocess(self.chunks, **self.postprocess)

    def _score(self, media: Media, pieces: Iterable[Piece]) -> None:
        beside = {"media": media, "notes": self.notes, "is_last": False}
        self.chunks += [self.pipe.forward({"piece": piece, **beside}, **self.forward) for piece in pieces]


__all__ = ["Encoded", "Notes", "ScoredVideo"]
