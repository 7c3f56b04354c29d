"""What stays of an event: a clip with its sound that begins before it, a picture with the heat map, and its JSON."""

import io
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.detection.incidents import plain_name
from avad_hf.files import as_json, check_folder, write_file
from avad_hf.media.ring import Cut, PacketRing

logger = logging.getLogger(__name__)

# Time of an event in its id, and the name of its files: to the millisecond, UTC.
EVENT_TIME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
EXAMPLE_TIME = "20261130T131500.123Z"
# Seconds between two looks at rings and clocks: a small part of the time that a ring gives notice.
LOOK_S = 0.25
# Seconds until a disk that could not be written is tried again.
RETRY_S = 2.0
# Seconds that the last pictures of an event are waited for, beside its own; then the camera is gone.
GRACE_S = 5.0
# Events that wait for a disk, with half a megabyte each. After that the oldest one is left out.
MOST_WAITING = 100
# Where clips wait to be made unrecognisable. Whatever is there when it begins was left by a killed run.
UNMASKED = ".unmasked"
# JPEG's quality, at which the heat map and small letters stay clear.
QUALITY = 90


@dataclass(eq=False)
class _Case:
    """An event of which something is still to be written."""

    event: dict[str, Any]
    ring: PacketRing
    path: Path  # of its files, without their endings
    begin: float  # of the clip, in seconds since 1970
    picture: np.ndarray | None = None  # not drawn yet
    snapshot: bytes | None = None  # drawn, and not written yet
    closed_at: float | None = None  # on the monotonic clock
    is_clip_over: bool = False  # written, or given up
    is_changed: bool = True  # since its JSON was written
    retry_at: float = 0.0
    evidence: dict[str, Any] = field(default_factory=dict)
    cut: Cut | None = None
    masked: Future | None = None  # that the cut was made unrecognisable


class Evidence:
    """Writes ``CAMERA/TIME.mp4`` (or ``.mkv``), ``.jpg`` and ``.json`` of each event, in a thread of its own.

    The clip is cut `after_s` after the end of the event, or before the ring loses its beginning: of an event that is
    longer than the ring it shows the first part, and so it does where an event was closed and is open again. A full
    disk is said, and tried again; what could not be written before it was lost is counted.

    Args:
        folder: Where everything goes; it is made if it is missing.
        before_s: Seconds of the clip before the event.
        after_s: Seconds after it.
        anonymise: By the name of a camera, what hides parts of its pictures, such as
            [`~avad_hf.anonymise.anonymiser.Anonymiser`]: then the clip is
            encoded anew, and nothing else is kept.
        on_ready: Told in that thread of each event whose JSON was written, with ``evidence``: ``snapshot`` and
            ``clip``, paths within the folder, and of the clip ``begin`` and ``end``, in seconds since 1970, and
            ``has_sound``.

    Raises:
        OSError: If nothing can be written in the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        before_s: float,
        after_s: float,
        anonymise: Mapping[str, Any] | None = None,
        on_ready: Callable[[dict[str, Any]], None] | None = None,
    ):
        check_folder(folder)
        self.folder, self.before_s, self.after_s = Path(folder), before_s, after_s
        self._anonymise, self._on_ready = dict(anonymise or {}), on_ready
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / UNMASKED, ignore_errors=True)
        self._masking: ThreadPoolExecutor | None = None
        if self._anonymise:
            (self.folder / UNMASKED).mkdir(mode=0o700)
            self._masking = ThreadPoolExecutor(1, "masking")
        self.num_written = self.num_left_out = 0
        self.problem: str | None = None
        self._cases: dict[str, _Case] = {}
        self._last: dict[str, _Case] = {}  # that was written, by camera
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    def add(self, event: dict[str, Any], ring: PacketRing, picture: np.ndarray | None = None) -> None:
        """Take an event that was opened, updated or closed; never waits.

        Args:
            event: As it is now. It is kept: who changes it must copy it.
            ring: Packets of its camera.
            picture: What it looked like at its peak, RGB of shape `(H, W, 3)`, uint8; ``None`` if that is known.
        """
        with self._changed:
            case = self._cases.get(event["id"]) or self._begin(event, ring)
            case.event, case.is_changed = event, True
            if picture is not None:
                case.picture = picture
            if event["state"] != "closed":
                case.closed_at = None
            elif case.closed_at is None:
                case.closed_at = time.monotonic()
            self._changed.notify()

    def _begin(self, event: dict[str, Any], ring: PacketRing) -> _Case:
        camera, name = plain_name(event["camera"]), event["id"]
        moment = name.removeprefix(f"{camera}-")
        if not EVENT_TIME.fullmatch(moment):
            raise ValueError(f"The id {name!r} is not that of an event of {camera}, such as {camera}-{EXAMPLE_TIME}.")
        case = _Case(event, ring, self.folder / camera / moment, event["start"] - self.before_s)
        if (last := self._last.get(camera)) is not None and last.event["id"] == name:  # open again
            case.evidence, case.is_clip_over = last.evidence, True
        self._cases[name] = case
        if len(self._cases) > MOST_WAITING:
            del self._cases[next(iter(self._cases))]
            self.num_left_out += 1
        return case

    def health(self) -> dict[str, Any]:
        """How it goes, ready for JSON: events written and waiting, what was left out, and the newest problem."""
        with self._changed:
            return {
                "written": self.num_written,
                "waiting": len(self._cases),
                "left_out": self.num_left_out,
                "problem": self.problem,
            }

    def close(self) -> None:
        """Write what there is of all events, without waiting for later pictures, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        if self._masking is not None:
            self._masking.shutdown()
        shutil.rmtree(self.folder / UNMASKED, ignore_errors=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_closing:
                    self._changed.wait(LOOK_S if self._cases else None)
                is_last, cases = self._is_closing, list(self._cases.values())
            for case in cases:
                self._work(case, is_last)
            if is_last:
                return

    def _work(self, case: _Case, is_last: bool) -> None:
        """Do what can be done for an event now."""
        if time.monotonic() < case.retry_at and not is_last:
            return
        try:
            self._write_snapshot(case)
            if not case.is_clip_over and (is_last or case.cut is not None or self._is_due(case)):
                self._write_clip(case, is_last)
            if case.is_changed:
                self._write_json(case)
            if case.retry_at:
                case.retry_at, self.problem = 0.0, None
        except OSError as error:
            self._say(f"Evidence of {case.event['id']} is not written yet. {error}")
            case.retry_at = time.monotonic() + RETRY_S
            is_lost = case.cut is None and case.ring.is_losing(case.begin)
            if not case.is_clip_over and (is_last or is_lost):
                self._leave_out(case)
            elif is_last:
                self.num_left_out += 1
        with self._changed:
            if case.closed_at is not None and case.is_clip_over and not case.is_changed:
                self._cases.pop(case.event["id"], None)
                self._last[case.path.parent.name] = case
                self.num_written += 1

    def _is_due(self, case: _Case) -> bool:
        """Whether the clip is cut now."""
        if case.closed_at is not None:
            newest = case.ring.newest
            if newest is None or newest >= case.event["end"] + self.after_s:
                return True
            if time.monotonic() >= case.closed_at + self.after_s + GRACE_S:
                return True
        return case.ring.is_losing(case.begin)

    def _write_snapshot(self, case: _Case) -> None:
        with self._changed:
            picture, case.picture = case.picture, None
        if picture is not None:
            try:
                case.snapshot = self._drawn(case.event["camera"], picture, case.event.get("why") or {})
            except Exception as error:  # whatever a detector's map holds, there will be a clip
                self._say(f"The picture of {case.event['id']} cannot be drawn ({type(error).__name__}: {error}).")
                self.num_left_out += 1
        if case.snapshot is not None:
            path = _ending(case.path, "jpg")
            write_file(path, case.snapshot)
            case.snapshot = None
            case.evidence["snapshot"] = path.relative_to(self.folder).as_posix()

    def _drawn(self, camera: str, picture: np.ndarray, why: dict[str, Any]) -> bytes:
        """JPEG of a picture, with what must be hidden hidden, and the heat map over it."""
        from PIL import Image

        from avad_hf.report.heat import heat_picture, with_heat

        if (anonymise := self._anonymise.get(camera)) is not None:
            (hidden,) = anonymise.hide([(0.0, picture)])
            picture = hidden.picture
        image = Image.fromarray(picture)
        if "heat" in why:
            image = with_heat(image.convert("RGBA"), heat_picture(why, image.size), 1.0).convert("RGB")
        data = io.BytesIO()
        image.save(data, format="JPEG", quality=QUALITY)
        return data.getvalue()

    def _write_clip(self, case: _Case, is_last: bool) -> None:
        path, anonymise = case.path, self._anonymise.get(case.event["camera"])
        if anonymise is not None:
            path = self.folder / UNMASKED / f"{path.parent.name}_{path.name}"
        case.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if case.cut is None:
                end = case.event["end"] + self.after_s
                if case.closed_at is None:  # up to now
                    end = max(end, case.ring.newest or end)
                cut = case.ring.cut(case.begin, end, path)
                # A page gives out what ends like a video.
                case.cut = cut if anonymise is None else replace(cut, path=cut.path.rename(path))
            cut, written = case.cut, case.cut.path
            if self._masking is not None and anonymise is not None:
                written = _ending(case.path, "mp4")
                if not self._is_masked(self._masking, anonymise, case, written, is_last):
                    return
        except OSError:
            raise
        except Exception as error:  # the ring holds nothing, or whatever a camera sent
            self._leave_out(case)
            self._say(f"There is no clip of {case.event['id']}. {error}")
            return
        case.evidence["clip"] = written.relative_to(self.folder).as_posix()
        case.evidence |= {"begin": cut.begin, "end": cut.end, "has_sound": cut.has_sound}
        case.is_clip_over = case.is_changed = True

    def _is_masked(
        self, masking: ThreadPoolExecutor, anonymise: Any, case: _Case, written: Path, is_last: bool
    ) -> bool:
        """Whether a clip has been made unrecognisable; another thread does it, while rings go on losing packets."""
        from avad_hf.anonymise.video import anonymise_video

        if case.cut is None:
            return False
        if case.masked is None:
            case.masked = masking.submit(anonymise_video, case.cut.path, written, anonymise)
        if not (is_last or case.masked.done()):
            return False
        masked, case.masked = case.masked, None
        masked.result()
        case.cut.path.unlink()
        return True

    def _leave_out(self, case: _Case) -> None:
        """Give a clip up."""
        self.num_left_out += 1
        if case.event["camera"] in self._anonymise and case.cut is not None:
            case.cut.path.unlink(missing_ok=True)
        case.is_clip_over = case.is_changed = True

    def _write_json(self, case: _Case) -> None:
        with self._changed:
            event, case.is_changed = case.event, False
        event = event | {"evidence": dict(case.evidence)}
        try:
            write_file(_ending(case.path, "json"), (as_json(event, indent=2) + "\n").encode())
        except OSError:
            case.is_changed = True
            raise
        if self._on_ready is not None:
            with suppress(Exception):  # who listens must not end it
                self._on_ready(event)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            logger.warning(problem)
        self.problem = problem


def _ending(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


__all__ = ["EVENT_TIME", "Evidence"]
