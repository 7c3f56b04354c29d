"""Cameras, detector, incidents, evidence, alerts and page, put together."""

import io
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from avad_hf.detection.incidents import Incidents
from avad_hf.detection.live import LiveClip, LiveGap, Watched, live
from avad_hf.media.ring import PacketRing

from .board import Board
from .evidence import Evidence
from .sinks import Sink

# Reasons wait so many seconds for the incident that they explain.
REASONS_S = 3600.0
# Seconds from one look at the evidence's size and age to the next.
ROOM_EVERY_S = 60.0
# Quality of the page's pictures, as JPEG has it: they are small, and come with every clip.
PAGE_QUALITY = 75


@dataclass(frozen=True)
class Eye:
    """A camera that is watched, with all that belongs to it.

    Args:
        watched: The camera and its detector.
        incidents: Makes events of its clips.
        ring: Its last packets; ``None`` without evidence.
        shows_pictures: Whether the page shows what it looks like now.
    """

    watched: Watched
    incidents: Incidents
    ring: PacketRing | None = None
    shows_pictures: bool = True

    @property
    def name(self) -> str:
        """The camera's name."""
        return self.watched.camera.name


class Watcher:
    """Watches cameras until they end, or somebody stops it.

    `run` once, and `close` afterwards in any case.

    Args:
        eyes: The cameras, each with a name of its own.
        sinks: Receivers of events, by their names.
        board: What the page shows.
    """

    def __init__(
        self,
        eyes: Sequence[Eye],
        *,
        sinks: Mapping[str, Sink] | None = None,
        board: Board | None = None,
    ):
        self._eyes, self._sinks, self._board = list(eyes), dict(sinks or {}), board
        self._evidence: Evidence | None = None
        self._make_room: Callable[[], Any] = lambda: None
        self._next_room = 0.0
        self._written: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # By camera: reasons of incidents that are not closed yet, by the start of their highest clip since 1970.
        self._reasons: list[dict[float, dict[str, Any]]] = [{} for _ in self._eyes]
        # By camera: id and score of the newest event, and the picture of its highest clip.
        self._peaks: list[tuple[str, float, np.ndarray | None]] = [("", 0.0, None)] * len(self._eyes)
        self._num_clips = [0] * len(self._eyes)
        self._num_reused = [0] * len(self._eyes)
        self._is_closed = False
        self._open: set[str] = set()  # ids of events
        self._lags: list[float | None] = [None] * len(self._eyes)

    def keep(self, evidence: Evidence, make_room: Callable[[], Any]) -> None:
        """Keep clips and pictures of events.

        Args:
            evidence: Writes them.
            make_room: Removes the oldest, now and then.
        """
        self._evidence, self._make_room = evidence, make_room

    def written(self, event: dict[str, Any]) -> None:
        """Take an event whose evidence was written, from any thread: for `Evidence`, as its ``on_ready``."""
        self._written.put(event)

    def run(self) -> Iterator[dict[str, Any]]:
        """Watch.

        Yields:
            Dicts that are ready for JSON, each with a ``type``: ``"clip"``, ``"event"`` (each time that it changes),
            ``"gap"``. An event comes as ``"closed"`` once more with its ``evidence``, when that is written. Times are
            seconds since 1970. Whoever leaves it calls `close`, which gives the rest.
        """
        with closing(live([eye.watched for eye in self._eyes])) as live_clips:
            for found in live_clips:
                if isinstance(found, LiveClip):
                    yield from self._clip(found)
                elif isinstance(found, LiveGap):
                    yield from self._gap(found)
                else:
                    yield from self._tick()
                yield from self._ready()

    def close(self) -> list[dict[str, Any]]:
        """Close events that are open, write what is to be written, and end; returns the events that this gives."""
        if self._is_closed:
            return []
        self._is_closed = True
        records: list[dict[str, Any]] = []
        for number, eye in enumerate(self._eyes):
            records += self._events(number, eye.incidents.end())
        if self._evidence is not None:
            self._evidence.close()
        records += self._ready()
        # At the same time: each may wait some seconds for a receiver that hangs.
        with ThreadPoolExecutor(max(1, len(self._sinks))) as pool:
            list(pool.map(lambda sink: sink.close(), self._sinks.values()))
        self._show_health()
        return records

    def _clip(self, found: LiveClip) -> Iterator[dict[str, Any]]:
        eye, begun = self._eyes[found.number], found.segment.begun
        clip = replace(found.clip, start=begun + found.clip.start, end=begun + found.clip.end)
        self._num_clips[found.number] += 1
        self._num_reused[found.number] += found.is_reused
        self._lags[found.number] = found.lag
        self._keep_reasons(found)
        record = {
            "camera": eye.name,
            "start": round(clip.start, 3),
            "end": round(clip.end, 3),
            "score": clip.score,
            "threshold": eye.watched.used_threshold,
            "label": clip.label,
            "sound_db": None if found.sound_db is None else round(found.sound_db, 1),
            "lag": round(found.lag, 3),
        }
        record |= {"reused": True} if found.is_reused else {}
        record |= {name: value for name in ("seen", "heard") if (value := getattr(clip, name)) is not None}
        picture = None if found.picture is None else _as_array(found.picture)
        if self._board is not None:
            is_shown = picture is not None and eye.shows_pictures
            self._board.clip(record, _as_jpeg(picture) if is_shown else None)
        yield {"type": "clip", **record}
        yield from self._events(found.number, eye.incidents.add(clip, time.time()), picture)

    def _gap(self, found: LiveGap) -> Iterator[dict[str, Any]]:
        eye = self._eyes[found.number]
        self._keep_reasons(found)
        yield {"type": "gap", "camera": eye.name, "at": round(time.time(), 3), "reason": found.reason}
        if not eye.watched.camera.is_live:  # nothing comes after it
            yield from self._events(found.number, eye.incidents.end())

    def _tick(self) -> Iterator[dict[str, Any]]:
        self._show_health()
        if time.monotonic() >= self._next_room:
            self._next_room = time.monotonic() + ROOM_EVERY_S
            self._make_room()
        for number, eye in enumerate(self._eyes):
            if eye.watched.camera.is_live and eye.watched.camera.state != "live":
                yield from self._events(number, eye.incidents.gap(time.time()))

    def _show_health(self) -> None:
        if self._board is None:
            return
        counts = zip(self._eyes, self._num_clips, self._num_reused, self._lags, strict=True)
        for eye, clips, reused, lag in counts:
            counted = {"clips": clips, "reused": reused, "lag": lag}
            self._board.health(eye.name, eye.watched.camera.health | counted)

    def _keep_reasons(self, found: LiveClip | LiveGap) -> None:
        kept, now = self._reasons[found.number], time.time()
        for start, why in found.reasons.items():
            kept[found.segment.begun + start] = why
        for start in [start for start in kept if start < now - REASONS_S]:
            del kept[start]

    def _events(
        self, number: int, events: Sequence[dict[str, Any]], picture: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Hand events on to whoever wants them."""
        eye = self._eyes[number]
        for event in events:
            self._open = self._open - {event["id"]} if event["state"] == "closed" else self._open | {event["id"]}
            if event["state"] == "closed":
                event = self._with_reason(number, event)
            if self._evidence is not None and eye.ring is not None:
                self._evidence.add(event, eye.ring, self._picture_to_draw(number, event, picture))
            yield self._hand_on(event)

    def _picture_to_draw(self, number: int, event: dict[str, Any], picture: np.ndarray | None) -> np.ndarray | None:
        """The picture of an event's highest clip, when that is new, and once more with its heat map."""
        name, score, kept = self._peaks[number]
        if event["id"] != name or event["score"] > score:
            self._peaks[number] = (event["id"], event["score"], picture)
            return picture
        return kept if "heat" in event.get("why", {}) else None

    def _with_reason(self, number: int, event: dict[str, Any]) -> dict[str, Any]:
        """An event with the reasons of its highest clip, where they are known."""
        kept = self._reasons[number]
        # The highest clip begins before the peak, which is its middle.
        starts = [start for start in kept if event["start"] - 1e-3 <= start <= event["peak"]]
        return event | {"why": event.get("why", {}) | kept.pop(max(starts))} if starts else event

    def _ready(self) -> Iterator[dict[str, Any]]:
        """Events whose evidence was written meanwhile: once more, with where it lies."""
        while True:
            try:
                event = self._written.get_nowait()
            except queue.Empty:
                return
            if self._board is not None:
                self._board.event(event)
            if event["state"] == "closed" and "clip" in event["evidence"] and event["id"] not in self._open:
                yield self._hand_on(event)

    def _hand_on(self, event: dict[str, Any]) -> dict[str, Any]:
        for sink in self._sinks.values():
            sink.send(event)
        if self._board is not None:
            self._board.event(event)
        return {"type": "event", **event}


def _as_array(picture: Any) -> np.ndarray:
    """RGB of shape `(H, W, 3)`, uint8, of a tensor of shape `(3, H, W)` that may hold floats."""
    return np.ascontiguousarray(picture.permute(1, 2, 0).clamp(0, 255).round().byte().numpy())


def _as_jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=PAGE_QUALITY)
    return file.getvalue()


__all__ = ["Eye", "Watcher"]
