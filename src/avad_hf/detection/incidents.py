"""From the scored clips of one camera to incidents: one incident is one alert. Times are seconds since 1970 (UTC)."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .events import ScoredClip, event_label

# Share of the threshold above which an incident goes on: scores tremble by some hundredths from clip to clip.
RELEASE_SHARE = 0.9
# Seconds below that do not end an incident: a few clips of one second, as between two shouts of one fight.
MERGE_S = 5.0
# Seconds after an incident within which the same again is no new alert: whoever was alerted is looking by then.
COOL_DOWN_S = 60.0
# Names that are the same in a file's name, a topic and an identifier. Others get a hash, so that two stay two.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
_KEPT_CHARACTERS = 30


def plain_name(camera: str) -> str:
    """A camera's name for names of files, topics and identifiers: 40 letters, digits, ``-`` and ``_`` at most."""
    if PLAIN_NAME.fullmatch(camera):
        return camera
    kept = re.sub("[^A-Za-z0-9_]+", "-", camera)[:_KEPT_CHARACTERS].strip("-") or "camera"
    return f"{kept}-{hashlib.sha256(camera.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


@dataclass
class _Incident:
    """An incident as it stands; `best` is its clip with the highest score."""

    id: str
    start: float
    end: float
    label: str
    latency: float
    best: ScoredClip
    is_open: bool = True


class Incidents:
    """Makes incidents of the clips of one camera.

    The rules:

    - A clip that reaches the threshold opens an incident. Clips that are `partial` open none; those directly before
      the first full one belong to it.
    - An open incident goes on with every clip whose score reaches `release`, of whichever class. It ends with the
      last of them, and is closed as soon as `merge_s` have passed since, by clips below or by a gap.
    - Its score, peak, label and reasons are those of its full clip with the highest score (ties: the first).
    - A clip that reaches the threshold less than `cool_down_s` after the end of the last incident, with the label of
      that one, opens it again under its id: ``"updated"``, and later ``"closed"`` once more.
    - A clip that starts before the one before it (the camera's clock was set back) belongs to nothing that was: what
      is open is closed, and there is no cool-down.

    With ``merge_s=0``, ``cool_down_s=0`` and ``release=threshold``, and one label, incidents equal the events of
    [`~avad_hf.detection.events.merge_events`]. As there, clips that follow each other are neighbours; say by `gap`
    where something is missing.

    Args:
        camera: Name of the camera.
        threshold: Lowest score that opens an incident.
        release: Lowest score that prolongs an open one; ``None`` for a tenth less than the threshold.
        merge_s: Seconds below `release` that close an incident.
        cool_down_s: Seconds after an incident in which the same again is no new one.
        normal_labels: Classes that no incident is called by.

    Raises:
        ValueError: If a number is impossible.
    """

    def __init__(
        self,
        camera: str,
        *,
        threshold: float,
        release: float | None = None,
        merge_s: float = MERGE_S,
        cool_down_s: float = COOL_DOWN_S,
        normal_labels: Sequence[str] = (),
    ):
        release = RELEASE_SHARE * threshold if release is None else release
        if not 0 <= release <= threshold <= 1:
            raise ValueError(
                f"threshold={threshold:g} and release={release:g}: both lie between 0 and 1, and release is not above "
                "the threshold."
            )
        if not (0 <= merge_s < float("inf") and 0 <= cool_down_s < float("inf")):
            raise ValueError(f"merge_s={merge_s:g} and cool_down_s={cool_down_s:g}: both are seconds, 0 or more.")
        self.camera, self.threshold, self.release = camera, threshold, release
        self.merge_s, self.cool_down_s, self.normal_labels = merge_s, cool_down_s, tuple(normal_labels)
        self._incident: _Incident | None = None  # the latest one, open or closed
        self._partial_start: float | None = None  # of partial clips over the threshold that came last
        self._last_start = float("-inf")

    def add(self, clip: ScoredClip, now: float) -> list[dict[str, Any]]:
        """Take the next clip.

        Args:
            clip: In order of time.
            now: When its score was known; for the latency of what it opens.

        Returns:
            The event as it stands, each time that it changes: ``"opened"``, ``"updated"`` (a higher score, or open
            again), ``"closed"``.

        Raises:
            ValueError: If the score is not between 0 and 1.
        """
        if not 0 <= clip.score <= 1:
            raise ValueError(
                f"The score of a clip of camera {self.camera!r} is {clip.score}: the weights are broken, or the "
                "precision is too low for this model. Try float32 or another checkpoint."
            )
        events = []
        if clip.start < self._last_start:
            events = self.end()
            self._incident = self._partial_start = None
        self._last_start = clip.start
        if self._incident is not None and self._incident.is_open:
            return events + self._follow(self._incident, clip)
        return events + self._open(clip, now)

    def gap(self, end: float) -> list[dict[str, Any]]:
        """Nothing was seen until `end`, which may grow from call to call; closes an incident like clips below do."""
        self._partial_start = None
        return self._close_after(end)

    def end(self) -> list[dict[str, Any]]:
        """Close what is open: the camera ends, or the program."""
        if self._incident is None or not self._incident.is_open:
            return []
        self._incident.is_open = False
        return [self._event(self._incident, "closed")]

    def _follow(self, incident: _Incident, clip: ScoredClip) -> list[dict[str, Any]]:
        if clip.score < self.release:
            return self._close_after(clip.end)
        incident.end = max(incident.end, clip.end)
        return [self._event(incident, "updated")] if self._raise(incident, clip) else []

    def _open(self, clip: ScoredClip, now: float) -> list[dict[str, Any]]:
        label = event_label(clip, self.threshold, self.normal_labels)
        start = clip.start if self._partial_start is None else self._partial_start
        self._partial_start = start if label is not None and clip.partial else None
        if label is None or clip.partial:
            return []
        last = self._incident
        # Clips may overlap: without a cool-down one may start before the end of an incident that is closed.
        if last and label == last.label and self.cool_down_s and start - last.end < self.cool_down_s:
            last.is_open, last.end = True, max(last.end, clip.end)
            self._raise(last, clip)
            return [self._event(last, "updated")]
        moment = datetime.fromtimestamp(start, UTC)
        number = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        name = f"{plain_name(self.camera)}-{number}"
        self._incident = _Incident(name, start, clip.end, label, round(now - clip.end, 3), clip)
        return [self._event(self._incident, "opened")]

    def _raise(self, incident: _Incident, clip: ScoredClip) -> bool:
        """Let a clip decide the score if it is the highest; returns whether it is."""
        if clip.partial or clip.score <= incident.best.score:
            return False
        incident.best = clip
        incident.label = event_label(clip, self.threshold, self.normal_labels) or incident.label
        return True

    def _close_after(self, until: float) -> list[dict[str, Any]]:
        """Close an incident that nothing prolonged until some second, if that is long enough."""
        if self._incident is None or until - self._incident.end < self.merge_s:
            return []
        return self.end()

    def _event(self, incident: _Incident, state: str) -> dict[str, Any]:
        best = incident.best
        event = {
            "id": incident.id,
            "camera": self.camera,
            "state": state,
            "start": round(incident.start, 6),
            "end": round(incident.end, 6),
            "peak": round((best.start + best.end) / 2, 6),
            "score": best.score,
            "threshold": self.threshold,
            "label": incident.label,
            "latency": incident.latency,
        }
        known = {"seen": best.seen, "heard": best.heard, "why": best.why}
        return event | {name: value for name, value in known.items() if value is not None}


__all__ = ["Incidents", "plain_name"]
