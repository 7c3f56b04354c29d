"""Hides faces, number plates and other things in pictures as they come; what is found is tracked both ways in time."""

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .boxes import Boxes, Detector
from .hiding import METHODS, SIGMA_SHARE, Method, hide, polygons_mask
from .tracks import HOLD_S, Tracks

# Seconds from one picture that detectors look at to the next; what is in between is interpolated. 0.32 and more lost
# small faces and plates that move (seeds 0 to 9 of tests/benchmarks/bench_anonymise.py), less finds no more.
LOOK_EVERY_S = 0.28


@dataclass(frozen=True, eq=False)
class Hidden:
    """A picture of which parts are hidden.

    Args:
        time: When it appears, in seconds.
        picture: RGB of shape `(H, W, 3)`, uint8.
        boxes: What was hidden, by the kinds of the detectors: left, top, right and bottom in pixels, `(N, 4)`.
    """

    time: float
    picture: np.ndarray
    boxes: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def all_boxes(self) -> np.ndarray:
        """All boxes, of shape `(N, 4)`."""
        return np.concatenate([np.zeros((0, 4), np.float32), *self.boxes.values()])


class Anonymiser:
    """Hides what detectors find, and fixed parts of the picture.

    Args:
        detectors: What finds the things to hide, one kind each.
        masks: Corners of polygons that are always hidden, each of shape `(corners, 2)`, as shares of width and height.
        method: ``"blur"``, Gaussian (Leporowski et al., arXiv 2305.15084, section III), ``"mosaic"`` or ``"solid"``.
        look_every: Seconds from one picture that detectors look at to the next; 0: every picture.
        tracking: Whether what is found is followed to the pictures in between, before and after. Without it only
            pictures that detectors look at are hidden, so that `look_every` must be 0.

    Raises:
        ValueError: For settings that cannot be.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        *,
        masks: Sequence[np.ndarray] = (),
        method: Method = "blur",
        look_every: float = LOOK_EVERY_S,
        tracking: bool = True,
    ):
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        if not detectors and not masks:
            raise ValueError("Nothing is to be hidden. Give a detector or a mask.")
        if not 0 <= look_every <= HOLD_S or (look_every and not tracking):
            raise ValueError(f"look_every must be within 0 and {HOLD_S} s, and 0 without tracking; got {look_every}.")
        kinds = [detector.kind for detector in detectors]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"Two detectors find the same kind: {', '.join(kinds)}. Give each once.")
        self.detectors, self.masks, self.method = list(detectors), list(masks), method
        self.look_every, self.tracking = look_every, tracking

    @property
    def recipe(self) -> dict[str, Any]:
        """What is hidden and how: the same on every machine, and another for other weights, settings or masks."""
        corners = b"".join(polygon.astype(np.float64).tobytes() for polygon in self.masks)
        return {
            "detectors": [detector.identity for detector in self.detectors],
            "masks_sha256": hashlib.sha256(corners).hexdigest() if self.masks else None,
            "method": self.method,
            "blur_sigma": SIGMA_SHARE if self.method == "blur" else None,
            "look_every_s": self.look_every,
            "tracking": self.tracking,
        }

    def hide(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Hidden]:
        """Hide parts of the pictures of one video.

        Args:
            pictures: Time in seconds and RGB of shape `(H, W, 3)`, uint8, in order.

        Yields:
            The same pictures, half a second later and more: what is found later is hidden before too.
        """
        mask: np.ndarray | None = None
        if self.tracking:
            # Detectors compute while others decode and encode.
            with ThreadPoolExecutor(1, "anonymise") as worker:
                yield from self._hide_tracked(pictures, worker)
            return
        for time, picture in pictures:
            mask = self._mask(picture, mask)
            found = {one.kind: one(picture).edges for one in self.detectors}
            yield self._hidden(time, picture, found, mask)

    def _hide_tracked(self, pictures: Iterable[tuple[float, np.ndarray]], worker: Executor) -> Iterator[Hidden]:
        tracks = {detector.kind: Tracks(detector) for detector in self.detectors}
        waiting: deque[tuple[float, np.ndarray]] = deque()
        looks: deque[tuple[float, Future[dict[str, Boxes]]]] = deque()
        mask: np.ndarray | None = None
        next_look = -math.inf

        def next_hidden() -> Hidden:
            nonlocal mask
            time, picture = waiting.popleft()
            while looks and looks[0][0] <= time + HOLD_S:
                looked_at, look = looks.popleft()
                for kind, boxes in look.result().items():
                    tracks[kind].add(looked_at, boxes)
            mask = self._mask(picture, mask)
            return self._tracked(time, picture, tracks, mask)

        for time, picture in pictures:
            waiting.append((time, picture))
            if time >= next_look:
                looks.append((time, worker.submit(self._look, picture)))
                # A little early rather than one picture late.
                next_look = time + 0.95 * self.look_every
            # One look longer than what is found is held, so that it need not be waited for.
            while waiting and waiting[0][0] < time - HOLD_S - self.look_every:
                yield next_hidden()
        while waiting:
            yield next_hidden()

    def _look(self, picture: np.ndarray) -> dict[str, Boxes]:
        return {detector.kind: detector(picture) for detector in self.detectors}

    def _mask(self, picture: np.ndarray, before: np.ndarray | None) -> np.ndarray | None:
        """Fixed parts of a picture; those of the picture before, where it has the same size."""
        if not self.masks or (before is not None and before.shape == picture.shape[:2]):
            return before
        return polygons_mask(self.masks, picture.shape[1::-1])

    def _tracked(self, time: float, picture: np.ndarray, tracks: dict[str, Tracks], mask: np.ndarray | None) -> Hidden:
        boxes = {kind: one.at(time) for kind, one in tracks.items()}
        for one in tracks.values():
            one.forget(time)
        return self._hidden(time, picture, boxes, mask)

    def _hidden(
        self, time: float, picture: np.ndarray, boxes: dict[str, np.ndarray], mask: np.ndarray | None
    ) -> Hidden:
        hidden = Hidden(time, picture, boxes)
        return Hidden(time, hide(picture, hidden.all_boxes, self.method, mask), boxes)


__all__ = ["LOOK_EVERY_S", "Anonymiser", "Hidden"]
