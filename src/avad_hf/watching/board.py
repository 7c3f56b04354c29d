"""What the page shows: the newest clips, pictures, health and events of all cameras, in bounded memory."""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from avad_hf.detection.explaining import reason
from avad_hf.files import as_json

# Clips whose scores and sound levels the page draws: two minutes of clips of a second, wide enough for a phone.
HISTORY = 120
# Events that the page lists. Older ones are in the evidence folder.
MOST_EVENTS = 100
# Messages that wait for one reader: some seconds of 16 cameras. A reader that is further behind gets the whole state.
MOST_WAITING = 256
# Upper ends of the bins that scores are counted in. Quantiles near 0 and near 1 decide about thresholds.
SCORE_BINS = (
    *(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
    *(0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.997, 0.999, 0.9997, 0.9999, 1.0),
)
# Seconds without a clip after which a camera that says it is live counts as stuck.
LONGEST_QUIET_S = 60.0
# States of a camera that need nobody's attention.
GOOD_STATES = ("live", "ended")


@dataclass
class ScoreCounts:
    """How many clips of a camera had which score, since the start.

    Args:
        bins: Clips up to each of `SCORE_BINS`, and above the last; every clip counts once.
        total: Sum of the scores.
    """

    bins: list[int] = field(default_factory=lambda: [0] * (len(SCORE_BINS) + 1))
    total: float = 0.0


@dataclass
class _Camera:
    number: int
    health: dict[str, Any] = field(default_factory=lambda: {"state": "starting", "problem": None})
    clip: dict[str, Any] | None = None
    picture: bytes | None = None
    num_pictures: int = 0
    history: deque[tuple[float | None, float | None]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    scores: ScoreCounts = field(default_factory=ScoreCounts)
    newest_clip: float = field(default_factory=time.monotonic)


class Subscription:
    """Messages for one reader of the board. Its first message is the whole state.

    Args:
        board: What is read.
        wake: Called from other threads when there is a first message to take. It must not block.
    """

    def __init__(self, board: "Board", wake: Callable[[], None]):
        self._board, self._wake = board, wake
        self._waiting: deque[tuple[str, str]] = deque()
        self._is_behind = True

    def take(self) -> list[tuple[str, str]]:
        """Return what is new: kinds of messages (state, clip, health, event), and their JSON on one line.

        A reader that was too slow for its messages gets the whole state in their place.
        """
        with self._board.lock:
            if not self._is_behind:
                messages = list(self._waiting)
                self._waiting.clear()
                return messages
            self._is_behind = False
            state = self._board.locked_state()
        return [("state", as_json(state))]

    def put(self, kind: str, text: str) -> None:
        """Add a message. The board calls it, and holds its lock."""
        if self._is_behind:
            return
        if len(self._waiting) == MOST_WAITING:
            self._waiting.clear()
            self._is_behind = True
            return
        self._waiting.append((kind, text))
        if len(self._waiting) == 1:
            self._wake()

    def close(self) -> None:
        """Take no more messages."""
        with self._board.lock:
            self._board.subscriptions.discard(self)


class Board:
    """What the page shows. Every method may be called from any thread, and none waits for a reader.

    Args:
        cameras: Names of the cameras, each once.
    """

    def __init__(self, cameras: Sequence[str]):
        self.lock = Lock()
        self.subscriptions: set[Subscription] = set()
        self._num_opened: Counter[tuple[str, str]] = Counter()
        self._cameras = {name: _Camera(number) for number, name in enumerate(cameras)}
        self._events: dict[str, dict[str, Any]] = {}
        self._began = time.time()

    def clip(self, clip: Mapping[str, Any], picture: bytes | None) -> None:
        """Show a scored clip.

        Args:
            clip: With ``camera``, ``start``, ``end``, ``score``, ``threshold``, ``label``, ``sound_db`` and ``lag``.
            picture: Its last picture as JPEG. Without one the picture before it stays.
        """
        score = clip["score"]
        with self.lock:
            camera = self._cameras[clip["camera"]]
            camera.clip, camera.newest_clip = dict(clip), time.monotonic()
            camera.history.append((score, clip.get("sound_db")))
            camera.scores.bins[bisect_left(SCORE_BINS, score)] += 1
            camera.scores.total += score
            if picture is not None:
                camera.picture, camera.num_pictures = picture, camera.num_pictures + 1
            self._tell("clip", {"number": camera.number, "clip": camera.clip, "num_pictures": camera.num_pictures})

    def health(self, camera: str, health: Mapping[str, Any]) -> None:
        """Show how a camera does: ``state``, ``problem`` and counts, which replace those before."""
        with self.lock:
            one = self._cameras[camera]
            one.health = dict(health)
            self._tell("health", {"number": one.number, "health": one.health})

    def event(self, event: Mapping[str, Any]) -> None:
        """Show an event; it replaces the one with the same ``id``, but for the answer that a person gave.

        Args:
            event: As alerts send it; ``answer`` may be among its keys where a person judged it in an earlier run.
        """
        shown = dict(event)
        why = shown.pop("why", None) or {}
        # In words. The page shows the heat map in the snapshot, and its many numbers would only make messages long.
        shown["reason"] = reason(why)
        shown["has_heat"] = "heat" in why
        with self.lock:
            before = self._events.get(shown["id"])
            shown.setdefault("answer", before and before["answer"])
            # What has changed comes without the files that were written before.
            shown["evidence"] = (before["evidence"] if before else {}) | (shown.get("evidence") or {})
            if before is None and shown["state"] == "opened":
                self._num_opened[shown["camera"], shown["label"] or ""] += 1
            self._events[shown["id"]] = shown
            if len(self._events) > MOST_EVENTS:
                del self._events[next(iter(self._events))]
            self._tell("event", shown)

    def answer(self, event_id: str, answer: str) -> None:
        """Show what a person answered to an event, if it is still listed."""
        with self.lock:
            if event_id in self._events:
                self._events[event_id] = self._events[event_id] | {"answer": answer}
                self._tell("event", self._events[event_id])

    def find_event(self, event_id: str) -> dict[str, Any] | None:
        """Return a listed event as it is shown, or ``None``."""
        with self.lock:
            return self._events.get(event_id)

    def picture(self, number: int) -> bytes | None:
        """Return the last picture of a camera as JPEG: by its number, since names can be anything."""
        with self.lock:
            cameras = list(self._cameras.values())
            return cameras[number].picture if 0 <= number < len(cameras) else None

    def state(self) -> dict[str, Any]:
        """Return all that is shown, ready for JSON, without pictures."""
        with self.lock:
            return self.locked_state()

    def locked_state(self) -> dict[str, Any]:
        """Return the state for a caller that holds the lock."""
        return {
            "now": time.time(),
            "began": self._began,
            "cameras": [
                {
                    "name": name,
                    "number": camera.number,
                    "health": camera.health,
                    "clip": camera.clip,
                    "num_pictures": camera.num_pictures,
                    "scores": [score for score, _ in camera.history],
                    "sound_db": [level for _, level in camera.history],
                }
                for name, camera in self._cameras.items()
            ],
            "events": list(self._events.values())[::-1],
        }

    def score_counts(self) -> dict[str, ScoreCounts]:
        """Return how many clips of each camera had which score."""
        with self.lock:
            return {
                name: ScoreCounts(list(camera.scores.bins), camera.scores.total)
                for name, camera in self._cameras.items()
            }

    def opened_counts(self) -> dict[tuple[str, str], int]:
        """Return how many events began, by camera and label; the label is empty where there are no classes."""
        with self.lock:
            return dict(self._num_opened)

    def troubled(self) -> list[str]:
        """Return the names of cameras that are not watched now: not live, or live without a clip for a minute."""
        latest = time.monotonic() - LONGEST_QUIET_S
        with self.lock:
            return [
                name
                for name, camera in self._cameras.items()
                if camera.health["state"] not in GOOD_STATES
                or (camera.health["state"] == "live" and camera.newest_clip < latest)
            ]

    def subscribe(self, wake: Callable[[], None]) -> Subscription:
        """Return a new reader's messages; `wake` is called from other threads when there is a first one to take."""
        subscription = Subscription(self, wake)
        with self.lock:
            self.subscriptions.add(subscription)
        return subscription

    def _tell(self, kind: str, content: dict[str, Any]) -> None:
        if self.subscriptions:
            text = as_json(content)
            for subscription in self.subscriptions:
                subscription.put(kind, text)


__all__ = ["MOST_EVENTS", "MOST_WAITING", "SCORE_BINS", "Board", "ScoreCounts", "Subscription"]
