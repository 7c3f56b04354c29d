"""Makes room among the evidence: the oldest events go first, whole, and nothing else."""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avad_hf.detection.incidents import PLAIN_NAME, plain_name

from .evidence import EVENT_TIME

# Names that `avad_hf.watching.evidence` gives. A killed run leaves partial files.
FILE = re.compile(rf"({EVENT_TIME.pattern})\.(mp4|mkv|jpg|json)(\.\d+)?(\.partial)?")
DAY_S = 86400.0


@dataclass(frozen=True)
class Freed:
    """What went, or would go.

    Args:
        events: How many events.
        files: How many files.
        bytes: How many bytes.
    """

    events: int
    files: int
    bytes: int


@dataclass
class _Stored:
    """The files of one event; the JSON, by which it is known, is the last one."""

    camera: str  # the folder
    time: float
    paths: list[Path] = field(default_factory=list)
    size: int = 0

    def is_ours(self) -> bool:
        """Whether its JSON is that of an event of this folder's camera."""
        try:
            event = json.loads(self.paths[-1].read_bytes())
            return isinstance(event["id"], str) and plain_name(event["camera"]) == self.camera
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False


def make_room(
    folder: str | os.PathLike,
    *,
    days: float | None = None,
    most_bytes: int | None = None,
    now: float | None = None,
    is_trial: bool = False,
) -> Freed:
    """Remove the oldest events from a folder of evidence.

    Only files with the names of [`~avad_hf.watching.evidence.Evidence`] beside the JSON of an event are removed, and
    links are not followed. A file that cannot be removed stays, and the others go.

    Args:
        folder: The folder; nothing happens if it is not there.
        days: Events that began more days ago go.
        most_bytes: Events go until the others have at most so many bytes.
        now: In seconds since 1970; by default the present.
        is_trial: Count what would go, and remove nothing.
    """
    events = sorted((one for one in _stored(Path(folder)) if one.is_ours()), key=lambda one: one.time)
    now = time.time() if now is None else now
    total = sum(one.size for one in events)
    num_events = num_files = num_bytes = 0
    for event in events:
        is_old = days is not None and event.time < now - days * DAY_S
        if not (is_old or (most_bytes is not None and total > most_bytes)):
            break
        total -= event.size
        with suppress(OSError):
            for path in () if is_trial else event.paths:
                path.unlink(missing_ok=True)
            num_events, num_files, num_bytes = num_events + 1, num_files + len(event.paths), num_bytes + event.size
    return Freed(num_events, num_files, num_bytes)


def kept_events(folder: Path, cameras: Collection[str], most: int) -> list[dict[str, Any]]:
    """The newest events of some cameras in a folder of evidence, the oldest of them first, as they were written."""
    found: list[dict[str, Any]] = []
    for one in sorted(_stored(folder), key=lambda one: one.time, reverse=True):
        if len(found) == most:
            break
        if one.is_ours():
            with suppress(OSError, ValueError):
                event = json.loads(one.paths[-1].read_bytes())
                # What a killed run left open is over.
                found += [event | {"state": "closed"}] if event["camera"] in cameras else []
    return found[::-1]


def _stored(folder: Path) -> list[_Stored]:
    """Events of all cameras; files without a JSON beside them are left out."""
    found = []
    for camera in _entries(os.fspath(folder)):
        if not (camera.is_dir(follow_symlinks=False) and PLAIN_NAME.fullmatch(camera.name)):
            continue
        files = defaultdict(list)
        for entry in _entries(camera.path):
            if entry.is_file(follow_symlinks=False) and (match := FILE.fullmatch(entry.name)):
                files[match[1]].append(entry)
        for name, entries in files.items():
            with suppress(ValueError, OSError):  # no time of any calendar; gone meanwhile
                moment = datetime.strptime(name, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()
                entries.sort(key=lambda entry: entry.name.endswith(".json"))
                if entries[-1].name == f"{name}.json":
                    sizes = [entry.stat(follow_symlinks=False).st_size for entry in entries]
                    found.append(_Stored(camera.name, moment, [Path(entry.path) for entry in entries], sum(sizes)))
    return found


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


__all__ = ["Freed", "kept_events", "make_room"]
