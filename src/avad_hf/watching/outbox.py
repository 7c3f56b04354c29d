"""Events on their way to a receiver that may be slow or absent: kept as files, delivered in order, tried again."""

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from avad_hf.files import as_json, check_folder, write_text

logger = logging.getLogger(__name__)

# Seconds after the first failed try; the pause doubles with each. A receiver that starts anew is back in seconds.
FIRST_PAUSE_S = 1.0
# Longest pause: alerts arrive within a minute after a receiver is back, and a dead one costs a try a minute.
LONGEST_PAUSE_S = 60.0
# Each pause is cut by up to this share, at random: many watchers do not all come back at once.
JITTER_SHARE = 0.5
# Bytes of events that wait: some five thousand with their reasons, days of a busy camera; held in memory too.
MOST_BYTES = 8 << 20
# Seconds that `close` waits: several outboxes end within the ten seconds that Docker gives a container.
CLOSE_PATIENCE_S = 5.0
# An alert, and the end of it. The others tell how it goes on, and are given up first.
NEEDED_STATES = ("opened", "closed")

_LOCK = ".lock"
_FILE = re.compile(r"(\d{16})\.json")
# Pauses have reached the longest one long before; more doublings do not fit a float.
_MOST_DOUBLINGS = 10


class NotDelivered(Exception):
    """The receiver did not take an event now. The text is shown to users: it holds no secrets."""


class Rejected(NotDelivered):
    """The receiver will never take this event."""


@dataclass
class _Waiting:
    """An event that waits: its place in order, its JSON, whether it is an alert, and whether a file holds it."""

    number: int
    text: str
    is_needed: bool
    is_saved: bool = False


class Outbox:
    """Delivers events in order by a thread of its own, each at least once, also after a restart.

    When `send` returns, the event is in a file, which survives the end of this process, killed or not. (A power cut
    may cost the last half minute: nothing waits for the disk.) Where the disk is full, events are held in memory, and
    written when there is room. A receiver that took an event right before this process was killed gets it again.

    Args:
        folder: For the files; made if it is not there. Of one outbox at a time.
        deliver: Gives one event to the receiver; raises [`NotDelivered`], to be tried again, or [`Rejected`]. Others
            count as not delivered, and only their type is shown: their text may hold secrets.
        name: What the receiver is called in messages, without secrets.

    Raises:
        ValueError: If another outbox has the folder.
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, deliver: Callable[[dict[str, Any]], None], name: str):
        self.folder, self.name = Path(folder), name
        self._deliver = deliver
        check_folder(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"Another process sends the events in {folder}. End it, or give another folder: two would send each "
                "event twice."
            ) from None
        except (OSError, NotImplementedError):  # of file systems without locks, and of full ones
            logger.warning("%s cannot be locked: start no second watcher on it.", folder)
        self._changed = threading.Condition()  # guards all that follows
        self._delivered = self._failed_tries = self._dropped = 0
        self._receiver_problem: str | None = None
        self._disk_problem: str | None = None
        self._is_trying = False
        self._deadline: float | None = None  # of `close`, on the monotonic clock
        self._waiting = self._resumed()
        self._bytes = sum(len(one.text) for one in self._waiting)
        self._next_number = self._waiting[-1].number + 1 if self._waiting else 0
        self._drop_what_is_too_much()
        self._thread = threading.Thread(target=self._work, name=f"outbox {name}", daemon=True)
        self._thread.start()

    def send(self, event: dict[str, Any]) -> None:
        """Take an event; returns at once. After `close` it is kept for the next start."""
        text = as_json(event)
        with self._changed:
            self._waiting.append(_Waiting(self._next_number, text, event.get("state") in NEEDED_STATES))
            self._next_number += 1
            self._bytes += len(text)
            self._drop_what_is_too_much()
            self._save()
            self._changed.notify_all()

    def health(self) -> dict[str, Any]:
        """As [`~avad_hf.watching.sinks.Sink`] says."""
        with self._changed:
            problems = [problem for problem in (self._receiver_problem, self._disk_problem) if problem]
            return {
                "waiting": len(self._waiting),
                "delivered": self._delivered,
                "failed_tries": self._failed_tries,
                "dropped": self._dropped,
                "problem": " ".join(problems) or None,
            }

    def close(self, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """Try once more to deliver what waits, for so many seconds; the rest stays in its files."""
        with self._changed:
            self._deadline = time.monotonic() + patience_s
            self._changed.notify_all()
        self._thread.join(patience_s)
        with self._changed:
            self._save()
            if lost := sum(not one.is_saved for one in self._waiting):
                logger.warning("%s: %d events were not delivered, nor could they be written.", self.name, lost)
            elif self._waiting:
                logger.warning("%s: %d events wait for the next start.", self.name, len(self._waiting))

    def _work(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
                if not self._waiting or (self._deadline is not None and time.monotonic() >= self._deadline):
                    break
                one, self._is_trying = self._waiting[0], True
            problem, is_done = self._try(json.loads(one.text))
            with self._changed:
                self._is_trying = False
                failures = 0 if is_done else failures + 1
                self._failed_tries += not is_done
                self._delivered += problem is None
                self._dropped += is_done and problem is not None
                if problem is not None and problem != self._receiver_problem:
                    logger.warning("%s: %s", self.name, problem)
                self._receiver_problem = problem
                if is_done:
                    self._remove(one)
                elif self._deadline is not None:
                    break
                else:
                    self._changed.wait_for(lambda: self._deadline is not None, _pause(failures))
        self._lock.release()

    def _try(self, event: dict[str, Any]) -> tuple[str | None, bool]:
        """Deliver one event: what went wrong, and whether it is done with."""
        try:
            self._deliver(event)
            return None, True
        except Rejected as error:
            return f"An event was rejected, and is not sent again. {error}", True
        except NotDelivered as error:
            return str(error), False
        except Exception as error:
            return f"Sending failed ({type(error).__name__}).", False

    def _remove(self, one: _Waiting) -> None:
        self._waiting.remove(one)
        self._bytes -= len(one.text)
        if one.is_saved:
            with suppress(OSError):  # which is sent again after a restart
                self._path(one.number).unlink(missing_ok=True)
        self._save()

    def _drop_what_is_too_much(self) -> None:
        dropped = 0
        while self._bytes > MOST_BYTES:
            free = self._waiting[1:] if self._is_trying else self._waiting
            if not free:
                break
            self._remove(next((one for one in free if not one.is_needed), free[0]))
            dropped += 1
        self._dropped += dropped
        if dropped:
            logger.warning("%s: more than %d bytes wait; %d events were dropped.", self.name, MOST_BYTES, dropped)

    def _save(self) -> None:
        """Write what no file holds yet, in order, as far as the disk takes it."""
        unsaved = [one for one in self._waiting if not one.is_saved]
        problem = None
        for index, one in enumerate(unsaved):
            try:
                write_text(self._path(one.number), one.text)
                one.is_saved = True
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else type(error).__name__
                count = len(unsaved) - index
                problem = f"{count} waiting events are held in memory alone: {self.folder}: {reason}. Make room."
                if self._disk_problem is None:
                    logger.warning("%s: %s", self.name, problem)
                break
        self._disk_problem = problem

    def _resumed(self) -> list[_Waiting]:
        """What an earlier process left; files that hold no event are removed, and count as dropped."""
        waiting = []
        for path in sorted(self.folder.iterdir()):
            if not (match := _FILE.fullmatch(path.name)):
                continue
            try:
                text = path.read_text(encoding="utf-8")
                event = json.loads(text)
                is_needed = event.get("state") in NEEDED_STATES
            except (ValueError, AttributeError):
                self._dropped += 1
                logger.warning("%s: %s holds no event, and is removed.", self.name, path)
                path.unlink()
                continue
            waiting.append(_Waiting(int(match[1]), text, is_needed, is_saved=True))
        return waiting

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:016d}.json"


def _pause(failures: int) -> float:
    """Seconds until the next try."""
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    return pause * (1 - JITTER_SHARE * random.random())


__all__ = ["NotDelivered", "Outbox", "Rejected"]
