"""A warm process that reads one file after another within limits of time and memory."""

import atexit
import contextlib
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0
LIMIT_BYTES = 2 << 30
# How long a new process may take to import everything, on a machine that others use too.
START_S = 120.0
LOOK_S = 0.02
READER = ("-m", "tests.laboratory.observer")


class Runner:
    """Reads files in a process; one that crashes, hangs or takes too much memory is replaced.

    Args:
        limit_s: For one file, in seconds of the clock.
        limit_bytes: Of resident memory, of the whole process.
        command: Arguments of Python that start the reader.
    """

    def __init__(self, limit_s: float = LIMIT_S, limit_bytes: int = LIMIT_BYTES, command: Sequence[str] = READER):
        self.limit_s, self.limit_bytes, self.command = limit_s, limit_bytes, command
        self._process: subprocess.Popen | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._errors.close()

    def read(self, source: Any, limit_s: float | None = None, task: str = "observe", **request: Any) -> dict[str, Any]:
        """What a task of `observer` says of a file, or an ``outcome`` of crash, hang or memory, with ``words``."""
        limit_s = self.limit_s if limit_s is None else limit_s
        if self._process is None:
            self._start()
        began = time.monotonic()
        self._errors.seek(0)
        self._errors.truncate()
        self._process.stdin.write(json.dumps({"source": source, "task": task} | request).encode() + b"\n")
        self._process.stdin.flush()
        answer, why = self._answer(limit_s)
        if answer is None:
            self.stop()
            seconds = time.monotonic() - began
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")[-2000:]
            return {"outcome": why[0], "words": why[1], "trace": said, "seconds": seconds, "cpu": seconds, "peak": 0}
        if answer["peak"] > self.limit_bytes:
            self.stop()  # the peak is that of the process's life
            return answer | {"outcome": "memory", "words": f"took {answer['peak'] >> 20} MiB"}
        return answer

    def stop(self) -> None:
        """End the process; the next file starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        command = [sys.executable, *self.command]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=self._errors, cwd=ROOT, env=env)
        self._buffer = b""
        answer, why = self._answer(START_S)
        if answer != "ready":
            self._errors.seek(0)
            raise RuntimeError(f"The reading process did not start ({why}): {self._errors.read().decode()}")

    def _answer(self, limit_s: float) -> tuple[Any, tuple[str, str]]:
        """What it answers; or ``None`` and why there is no answer."""
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if time.monotonic() > deadline:
                    return None, ("hang", f"no end after {limit_s:g} s")
                if selector.select(LOOK_S):
                    if not (data := os.read(self._process.stdout.fileno(), 1 << 20)):
                        status = self._process.wait()
                        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
                        return None, ("crash", name)
                    self._buffer += data
                with contextlib.suppress(psutil.NoSuchProcess):
                    used = psutil.Process(self._process.pid).memory_info().rss
                    if used > self.limit_bytes:
                        return None, ("memory", f"took {used >> 20} MiB")
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line), ("", "")


@functools.cache
def warm_runner() -> Runner:
    """One for all tests of this process, which import torch only once."""
    runner = Runner()
    atexit.register(runner.stop)
    return runner
