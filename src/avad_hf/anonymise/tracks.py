"""What is found in some pictures, followed through all of them: missed pictures are bridged, in both directions."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .boxes import Boxes, Detector, enlarged, overlaps
from .extra import needs_extra

# How long a thing stays hidden before it is found first and after it is found last, in seconds. Pictures wait as long,
# so that what is found later is known.
HOLD_S = 0.5
# Between two times that are no further apart than this, a thing moves in a straight line.
BRIDGE_S = 1.5
# Beyond what was found a box moves on as before, and grows by this share of its sides a second, as nobody knows.
GROWTH_A_SECOND = 0.6
# Detections of small things move by more than their size from look to look: boxes are compared with this margin.
REACH = (1.5, 1.5, 1.5, 1.5)


class Seen(NamedTuple):
    """A box of shape `(4,)` at a time in seconds, and its score."""

    time: float
    box: np.ndarray
    score: float


class Tracks:
    """Things of one kind in one video.

    Args:
        detector: What finds them; its margin is added to boxes.
    """

    def __init__(self, detector: Detector):
        with needs_extra():
            import supervision
            from trackers import ByteTrackTracker
        self._detections, self._detector = supervision.Detections, detector
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * BRIDGE_S),
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=0.05,
        )
        self._seen: dict[int, list[Seen]] = defaultdict(list)
        self._singles = 0

    def add(self, time: float, boxes: Boxes) -> None:
        """Take what was found in a picture; pictures come in order."""
        compared = enlarged(boxes.edges, REACH)
        found = self._tracker.update(
            self._detections(xyxy=compared, confidence=boxes.scores, data={"number": np.arange(len(compared))}),
            timestamp=time,
        )
        for number, track in zip(found.data.get("number", ()), found.tracker_id, strict=True):
            # A track has a number from its second box on.
            if track == -1:
                self._singles -= 1
                track = self._singles
            elif track not in self._seen:
                self._seen[int(track)] = self._begin(compared[number])
            self._seen[int(track)].append(Seen(time, boxes.edges[number], float(boxes.scores[number])))

    def _begin(self, second: np.ndarray) -> list[Seen]:
        """The first box of a track, by its second one of shape `(4,)`, which has a margin."""
        singles = [number for number in self._seen if number < 0]
        if not singles:
            return []
        firsts = enlarged(np.array([self._seen[number][-1].box for number in singles]), REACH)
        overlap = overlaps(second, firsts)
        return self._seen.pop(singles[int(overlap.argmax())]) if overlap.max() > 0 else []

    def at(self, time: float) -> np.ndarray:
        """Boxes at a time, with their margin, of shape `(N, 4)`, in pixels."""
        boxes = [self._of(seen, time) for seen in self._seen.values() if self._counts(seen)]
        boxes = [box for box in boxes if box is not None]
        return enlarged(np.array(boxes, np.float32).reshape(-1, 4), self._detector.margin)

    def forget(self, time: float) -> None:
        """Forget what no time from this one on needs."""
        for track, seen in list(self._seen.items()):
            while len(seen) > 2 and seen[1].time < time - BRIDGE_S:
                del seen[0]
            if seen[-1].time < time - BRIDGE_S:
                del self._seen[track]

    def _counts(self, seen: list[Seen]) -> bool:
        """Whether it is hidden: weak detections count if they come more than once."""
        return len(seen) > 1 or seen[0].score >= self._detector.sure

    def _of(self, seen: list[Seen], time: float) -> np.ndarray | None:
        before = [one for one in seen if one.time <= time][-2:]
        after = [one for one in seen if one.time >= time][:2]
        if before and after and after[0].time - before[-1].time <= BRIDGE_S:
            gap = after[0].time - before[-1].time
            share = 0.0 if gap == 0 else (time - before[-1].time) / gap
            return (1 - share) * before[-1].box + share * after[0].box
        for known in (before[::-1], after):
            if known and abs(time - known[0].time) <= HOLD_S:
                return self._moved(known, time)
        return None

    @staticmethod
    def _moved(known: list[Seen], time: float) -> np.ndarray:
        """A box that moves on as it did between the two nearest times, the nearest first."""
        nearest, away = known[0], time - known[0].time
        box = nearest.box
        if len(known) > 1 and known[1].time != nearest.time:
            center = (nearest.box[:2] + nearest.box[2:]) / 2
            speed = (center - (known[1].box[:2] + known[1].box[2:]) / 2) / (nearest.time - known[1].time)
            box = box + np.tile(speed * away, 2)
        return enlarged(box[None], (GROWTH_A_SECOND * abs(away) / 2,) * 4)[0]


__all__ = ["HOLD_S", "Tracks"]
