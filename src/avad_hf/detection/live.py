"""Live sources through a detector: clips as they come, each with its score, its lag, and what was seen and heard."""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from torch import Tensor

from avad_hf.media.ahead import read_waiting
from avad_hf.media.cameras import Camera
from avad_hf.media.clips import Frame, deciding_clips
from avad_hf.media.errors import MediaError
from avad_hf.media.segments import Segment
from avad_hf.media.sources import Media
from avad_hf.models.detector import WHOLE_VIDEO

from .context import ClipContext, Piece
from .describe import Description, classes_of
from .events import ScoredClip, with_label
from .explaining import Explainer
from .one_video import Encoded, Notes

logger = logging.getLogger(__name__)

# Seconds from one tick to the next.
TICK_S = 1.0
# Clips by whose lengths a shorter one is told, at the end of a segment: more change the median little.
NUM_LENGTHS = 9
# Cameras whose next clips go through a GPU together at most.
MOST_TOGETHER = 8


@dataclass(frozen=True)
class LiveClip:
    """A clip of a live source, as soon as it is scored.

    Args:
        number: The camera's place among those that are watched.
        clip: With its times on the segment's clock, in seconds. Those of a camera begin anew with each segment.
        segment: What it is a part of; ``segment.begun + clip.start`` are seconds since 1970.
        lag: Seconds from the end of its last picture to its score.
        sound_db: How loud it was, in dB of full scale; ``None`` without sound.
        picture: Its last picture, of shape `(3, H, W)`, RGB from 0 to 255, as it was scaled for the encoder.
        reasons: Why events are events that ended with this clip or before, by the start of their highest clip.
        is_reused: Whether it was still, and took earlier features of its pictures.
    """

    number: int
    clip: ScoredClip
    segment: Segment
    lag: float
    sound_db: float | None
    picture: Tensor | None = None
    reasons: dict[float, dict[str, Any]] = field(default_factory=dict)
    is_reused: bool = False


@dataclass(frozen=True)
class LiveGap:
    """A segment is over: what comes next does not follow on it.

    Args:
        number: The camera's place.
        segment: The one that is over; ``None`` if nothing of it could be scored.
        reason: Why, in words.
        reasons: As of [`LiveClip`].
    """

    number: int
    segment: Segment
    reason: str
    reasons: dict[float, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveTick:
    """A second has passed, in which perhaps nothing came."""


@dataclass(frozen=True)
class Watched:
    """One camera and how it is judged.

    Args:
        camera: The source.
        pipe: The pipeline of a detector; cameras may share one.
        threshold: Score from which on a clip is anomalous; the detector's own by default.
        scene: Scene of the camera, of detectors that have thresholds by scene.
        describe: Whether to say what is seen and heard.
        explain: Whether to say why events are events.
        gate: Whether still clips take the features of the last clip that was computed.
        masked: Hides parts of the pictures before they are computed; as they are by default.
    """

    camera: Camera
    pipe: Any
    threshold: float | None = None
    scene: str | None = None
    describe: bool = False
    explain: bool = False
    gate: bool = False
    masked: Callable[[Segment], Media] = lambda segment: segment

    def __post_init__(self) -> None:
        refuse_whole_videos(self.pipe, self.camera.name)
        if self.describe:
            classes_of(self.pipe.processor)
        if self.gate:
            self.pipe.processor.gated()  # which refuses what cannot be

    @property
    def used_threshold(self) -> float:
        """The threshold that was given, or the scene's, or the detector's."""
        return self.pipe.threshold_used(self.threshold, self.scene)


def refuse_whole_videos(pipe: Any, name: str) -> None:
    """Raise ``ValueError`` for a detector that has to wait for the end of a video."""
    if pipe.spec.context == WHOLE_VIDEO:
        raise ValueError(
            f"{name} has no end, and {pipe.spec.title} must see a whole video before it scores any of it. Take a "
            "detector that scores clip by clip."
        )


def live(watched: Sequence[Watched]) -> Generator[LiveClip | LiveGap | LiveTick, None, None]:
    """Score cameras at the same time, each in a thread of its own; they share the networks, and take turns.

    Of one file the scores are those of the pipeline (to 1e-6): segments go through the same code.

    Args:
        watched: The cameras.

    Yields:
        Clips as they are scored, the ends of segments, and each second a tick. It ends when all cameras have.
    """
    states: dict[int, _SegmentScores] = {}
    # Cameras are stopped first: threads that wait for them end then.
    with closing(_groups(watched)) as groups, _stopping(watched):
        for number, entry, ended, encoded in chain.from_iterable(_encoded(watched, group) for group in groups):
            if entry is None:
                if ended is not None and not isinstance(ended, StopIteration):
                    raise ended
                continue
            if isinstance(entry, LiveTick):
                yield entry
                continue
            segment, batch, picture = entry
            one = watched[number]
            try:
                if number not in states or states[number].segment is not segment:
                    states[number] = _SegmentScores(one, number, segment)
                yield from states[number].end() if batch is None else states[number].add(batch, picture, encoded)
            except MediaError as error:
                logger.warning("%s: %s", one.camera.name, error)
            if batch is None:
                found = states.pop(number)
                yield LiveGap(number, segment, segment.feed.ended or "over", found.new_reasons)


def _groups(watched: Sequence[Watched]) -> Any:
    running = set(range(len(watched)))
    readers = [_decoded(one, number, running) for number, one in enumerate(watched)]
    return read_waiting([*readers, _ticks(running)], at_once=len(watched) + 1, depth=1, most=_most_together(watched))


def _most_together(watched: Sequence[Watched]) -> int:
    """How many clips are computed at once: one keeps a CPU busy, and not a GPU."""
    return MOST_TOGETHER if any(one.pipe.device.type == "cuda" for one in watched) else 1


def _encoded(watched: Sequence[Watched], group: Sequence[tuple]) -> Iterator[tuple[int, Any, Any, Encoded | None]]:
    """The entries of a group, with what is computed of clips of cameras that share a detector."""
    sharing: dict[int, list[int]] = {}
    for place, (number, entry, _) in enumerate(group):
        if isinstance(entry, tuple) and entry[1] is not None and not watched[number].gate:
            sharing.setdefault(id(watched[number].pipe), []).append(place)
    encoded: dict[int, Encoded] = {}
    for places in sharing.values():
        if len(places) > 1:
            processor = watched[group[places[0]][0]].pipe.processor
            found = processor.encode_together([group[place][1][1] for place in places])
            encoded |= dict(zip(places, found, strict=True))
    for place, (number, entry, ended) in enumerate(group):
        yield number, entry, ended, encoded.get(place)


def _ticks(running: set[int]) -> Iterator[LiveTick]:
    while running:
        time.sleep(TICK_S)
        yield LiveTick()


@contextmanager
def _stopping(watched: Sequence[Watched]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in watched:
            one.camera.stop()


def _decoded(one: Watched, number: int, running: set[int]) -> Iterator[tuple[Segment, Any, Tensor | None]]:
    """Batches of clips of each segment, each with its last picture, and ``None`` at its end."""
    try:
        with closing(one.camera.segments()) as segments:
            for segment in segments:
                shown = _LastPicture(one.masked(segment))
                try:
                    for batch in one.pipe.processor.decode(shown, 1):
                        yield segment, batch, shown.picture
                # A stretch that cannot be decoded is a gap, and no reason to stop watching.
                except Exception as error:
                    if segment.feed.ended is None:  # else that is why
                        segment.feed.end(f"it cannot be decoded: {error}", drop=True)
                        logger.warning("%s cannot be decoded: %s", one.camera.name, error)
                yield segment, None, None
    finally:
        running.discard(number)


class _LastPicture:
    """A source that remembers its last picture, as it was scaled and masked."""

    def __init__(self, media: Media):
        self._media = media
        self.picture: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._media, name)

    def frames(self, *args: Any, **kwargs: Any) -> Iterator[Frame]:
        for frame in self._media.frames(*args, **kwargs):
            if frame.pixels is not None:
                self.picture = frame.pixels
            yield frame


class _SegmentScores:
    """Scores of one segment, clip by clip."""

    def __init__(self, one: Watched, number: int, segment: Segment):
        self.one, self.number, self.segment = one, number, segment
        self.context = ClipContext(one.pipe.spec.context, one.pipe.spec.inputs)
        self.notes = one.pipe.notes(segment, explain=one.explain, gate=one.gate)
        # The last pictures of clips that are not scored yet, with whether they are reused; and their names.
        self.pictures: deque[tuple[Tensor | None, bool]] = deque()
        self.names: deque[dict[str, Any]] = deque()
        self.classes = classes_of(one.pipe.processor) if one.describe else None
        self.lengths: deque[float] = deque(maxlen=NUM_LENGTHS)

    def add(self, batch: Any, picture: Tensor | None, encoded: Encoded | None) -> Iterator[LiveClip]:
        """Take the next clip; `encoded` as of the pipeline's `encode`."""
        # What is said of one clip is no business of the next: nothing grows.
        description = None if self.classes is None else Description(self.classes)
        gate = self.notes.gate
        num_reused = 0 if gate is None else gate.reused["pictures"]
        features = self.one.pipe.encode(batch, Notes(description, self.notes.explainer, gate), encoded)
        self.pictures.append((picture, gate is not None and gate.reused["pictures"] > num_reused))
        if description is not None:
            self.names.extend(description.clips)
        yield from self._score(self.context.add(features))

    def end(self) -> Iterator[LiveClip]:
        """The segment is over."""
        yield from self._score(self.context.end())
        if (explainer := self.notes.explainer) is not None:
            explainer.end(may_decide=not self._is_short)

    @property
    def new_reasons(self) -> dict[float, dict[str, Any]]:
        """Why events are events that were not asked for before."""
        explainer: Explainer | None = self.notes.explainer
        return {} if explainer is None else explainer.take()

    @property
    def _is_short(self) -> bool:
        return not deciding_clips([(0.0, length) for length in self.lengths] or [(0.0, 1.0)])[-1]

    def _score(self, pieces: Iterator[Piece]) -> Iterator[LiveClip]:
        pipe, threshold = self.one.pipe, self.one.used_threshold
        for piece in pieces:
            given = {"piece": piece, "media": self.segment, "notes": self.notes, "is_last": False}
            chunk = pipe.forward(given, threshold=threshold, scene=self.one.scene)
            for clip in pipe.scored_clips(chunk):
                self.lengths.append(clip.end - clip.start)
                clip = with_label(clip, threshold, pipe.spec.normal_labels)
                if self._is_short:
                    clip = replace(clip, partial=True)
                if self.names:
                    named = self.names.popleft()
                    clip = replace(clip, seen=named["seen"], heard=named["heard"])
                picture, is_reused = self.pictures.popleft() if self.pictures else (None, False)
                yield LiveClip(
                    self.number,
                    clip,
                    self.segment,
                    self.segment.lag(clip.end),
                    self.segment.sound_db(clip.start, clip.end),
                    picture,
                    self.new_reasons,
                    is_reused,
                )


__all__ = ["LiveClip", "LiveGap", "LiveTick", "Watched", "live"]
