"""A command that is run with each event on its standard input."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from avad_hf.files import as_json

from .outbox import NotDelivered, Outbox, Rejected

# Seconds that a command may take: the next event waits so long.
TIMEOUT_S = 60.0
# The status by which a command asks to be run again (EX_TEMPFAIL of sysexits.h).
TRY_AGAIN = 75


class Command:
    """Runs a command for each event, one at a time, in order, and without a shell.

    It gets the event as one line of JSON on its standard input. What it prints to standard output is left out, which
    may be a stream of JSON; its errors go where this process's go. A status of 0 means that the event is done, 75 that
    it shall be run again; after any other, and when it takes longer than a minute, the event counts as rejected. Then
    it is killed with all that it started.

    Args:
        argv: The command and its arguments.
        folder: For events that wait.

    Raises:
        ValueError: If there is no such command.
        OSError: If the folder cannot be written.
    """

    def __init__(self, argv: Sequence[str], folder: str | os.PathLike):
        if isinstance(argv, str) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise ValueError(
                'A command is a list of words, such as ["notify", "--loud"]. No shell reads it; for one, give '
                '["sh", "-c", "..."].'
            )
        if shutil.which(argv[0]) is None:
            raise ValueError(f"There is no command {argv[0]!r} that can be run. Give its whole path.")
        self._argv = list(argv)
        self._running: subprocess.Popen | None = None
        self._outbox = Outbox(folder, self._deliver, f"Command {os.path.basename(argv[0])}")
        self.send, self.health = self._outbox.send, self._outbox.health

    def close(self) -> None:
        """Let what waits be run for some seconds, then kill what still runs; its event is kept."""
        self._outbox.close()
        if (process := self._running) is not None:
            _kill(process)

    def _deliver(self, event: dict[str, Any]) -> None:
        try:
            process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise NotDelivered(f"The command cannot be started: {error.strerror}.") from None
        with process:
            self._running = process
            try:
                process.communicate(f"{as_json(event)}\n".encode(), timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise Rejected(f"The command took longer than {TIMEOUT_S:g} s, and was killed.") from None
            finally:
                self._running = None
        status = process.returncode
        if status in (TRY_AGAIN, -signal.SIGKILL):  # by `close`, or for want of memory
            raise NotDelivered(f"The command ended with status {status}.")
        if status:
            raise Rejected(f"The command ended with status {status}.")


def _kill(process: subprocess.Popen) -> None:
    """Kill a command with all that it started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.killpg(process.pid, signal.SIGKILL)  # it leads its group
    else:  # Windows
        process.kill()


__all__ = ["Command"]
