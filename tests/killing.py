"""Kills commands in the middle, runs them again, and compares what they leave with what an undisturbed run leaves."""

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import warm

# Runs in the process before the command: counts what Python does to files below a folder, and dies at one of them.
DIES_AT = """
import atexit, os, signal, sys

seen = 0

def hook(event, arguments):
    global seen
    if event in {events!r} and str(arguments[0]).startswith({root!r}):
        seen += 1
        if seen == {number}:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
atexit.register(lambda: open({count!r}, "w").write(str(seen)))
"""
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree")
NEVER = 0


@dataclass
class Found:
    """What came of some kills.

    Args:
        phases: When they hit: before anything was written, while it was, after all of it was.
        different: Files that differ from the undisturbed run's, or are missing, of each round in which some did.
        stray: Files and folders that an undisturbed run does not leave, likewise.
        failed: What runs that nobody killed printed where they failed.
    """

    phases: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("before", "while", "after"), 0))
    different: list[list[str]] = field(default_factory=list)
    stray: list[list[str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many processes were killed before they ended by themselves."""
        return sum(self.phases.values())


class Victim:
    """A command that writes below a folder of its own.

    Args:
        root: For everything: ``work``, where the command writes, ``tmp``, its folder of temporary files, and a cache.
        arguments: Of ``avad-hf``; ``{work}`` stands for the folder.
        code: Python that the process runs first.
        may_refuse: Whether the command refuses a folder that is finished.
    """

    def __init__(self, root: Path, arguments: list[str], code: str = "", may_refuse: bool = False):
        self.root, self.work, self.tmp = root, root / "work", root / "tmp"
        self.arguments = [argument.format(work=self.work) for argument in arguments]
        self.code, self.may_refuse = code, may_refuse
        self.clear()
        warm.run()  # so that what all processes are forked from is there
        begin = time.monotonic()
        self.finish()
        self.length = time.monotonic() - begin
        self.operations = int((root / "count").read_text())
        self.expected, self.names = self.contents(), self.listing()

    def clear(self) -> None:
        """Forget all runs."""
        for folder in (self.work, self.tmp, self.root / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def contents(self) -> dict[str, bytes]:
        """Files of the working folder."""
        return {name: (self.work / name).read_bytes() for name in self.listing() if (self.work / name).is_file()}

    def listing(self) -> list[str]:
        """Everything in the working folder, and in the one of temporary files."""
        work = (path.relative_to(self.work) for path in self.work.rglob("*"))
        return sorted([*map(str, work), *(str(path) for path in self.tmp.rglob("*"))])

    def start(self, dies_at: int = NEVER) -> warm.Process:
        """Begin the command, which kills itself right before one of its file operations."""
        hook = DIES_AT.format(events=EVENTS, root=str(self.root), number=dies_at, count=str(self.root / "count"))
        env = {"TMPDIR": str(self.tmp), "HF_DATASETS_CACHE": str(self.root / "cache"), "OMP_NUM_THREADS": "1"}
        return warm.start("-m", "avad_hf.cli", *self.arguments, code=self.code + hook, env=env)

    def finish(self) -> None:
        """Run the command to its end; raises ``AssertionError`` if it fails."""
        process = self.start()
        status = process.wait()
        assert status == 0 or (self.may_refuse and status == 2 and self.contents() == self.expected), process.stderr

    def kill(self, moment: float | int, found: Found) -> None:
        """Kill one run: after so many seconds, or at a file operation if the moment is a whole number."""
        process = self.start(moment if isinstance(moment, int) else NEVER)
        if not isinstance(moment, int):
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:  # it was faster
            return
        contents = self.contents()
        written = [name for name in contents if not name.endswith(".lock")]
        found.phases["before" if not written else "after" if contents == self.expected else "while"] += 1

    def round(self, moments: list[float | int], found: Found) -> None:
        """Kill the command at each moment in turn, run it to the end, and look at what it left."""
        self.clear()
        for moment in moments:
            self.kill(moment, found)
        try:
            self.finish()
        except AssertionError as error:
            found.failed.append(str(error))
        contents = self.contents()
        if different := [name for name, data in self.expected.items() if contents.get(name) != data]:
            found.different.append(different)
        if stray := sorted(set(self.listing()) - set(self.names)):
            found.stray.append(stray)

    def moments(self, number: int, seed: int) -> list[float | int]:
        """Moments that are spread over the whole run: half of them in time, half over its file operations."""
        rng = random.Random(seed)
        timed = number // 2
        chosen: list[float | int] = [self.length * (index + rng.random()) / timed for index in range(timed)]
        operations = number - timed
        chosen += [1 + int(self.operations * (index + rng.random()) / operations) for index in range(operations)]
        rng.shuffle(chosen)
        return chosen


__all__ = ["Found", "Victim"]
