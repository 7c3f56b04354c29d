"""Runs in processes of their own: each reads runs from its input, one a line, and answers on its output.

They are started as programs, so that the caller's main program needs no guard, and end with it: their input ends.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from .runs import Run

# A process that is asked to end has this many seconds to do so.
PATIENCE_S = 10


def run_in_processes(runs: Sequence[Run], num_workers: int, on_run: Callable[[Run], None]) -> None:
    """Do runs in several processes.

    Args:
        runs: The runs; they are begun in this order.
        num_workers: Processes.
        on_run: Told of every run that ends, in the thread that called this function.

    Raises:
        ValueError: If a run fails, with what it said; the other runs are ended.
    """
    waiting: queue.Queue[Run] = queue.Queue()
    for run in runs:
        waiting.put(run)
    answers: queue.Queue[tuple[Run | None, str | None]] = queue.Queue()
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", __name__]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(num_workers)
    ]

    def feed(process: subprocess.Popen) -> None:
        run = None
        with suppress(BrokenPipeError, queue.Empty):
            while True:
                run = waiting.get_nowait()
                process.stdin.write(run.to_json() + "\n")
                process.stdin.flush()
                if not (line := process.stdout.readline()):
                    break
                answers.put((run, json.loads(line)))
                run = None
        if run is not None:
            answers.put((run, f"the process that ran it was ended (code {process.wait()})"))

    threads = [threading.Thread(target=feed, args=(process,), daemon=True) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for _ in runs:
            run, error = answers.get()
            if error is not None:
                raise ValueError(f"{run.words}: {error}")
            on_run(run)
    finally:
        for process in processes:
            process.stdin.close()
            process.terminate()
        for process in processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def work() -> None:
    """Read runs from the input, do them, and answer ``null`` or an error on the output."""
    # Ctrl-C reaches all processes of a terminal; the parent alone acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    # What libraries print is no answer.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    waiting: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(waiting,), daemon=True).start()
    while True:
        line = waiting.get()
        try:
            Run.from_json(line).run()
            error = None
        # The parent says what it was; it must hear of everything.
        except Exception as found:
            error = f"{found}" if isinstance(found, (ValueError, OSError)) else f"{type(found).__name__}: {found}"
        print(json.dumps(error), file=output, flush=True)


def _read(waiting: queue.Queue[str]) -> None:
    """Read runs, and end with the input: a parent that is killed ends nobody, and its next run needs the folders."""
    for line in sys.stdin:
        waiting.put(line)
    os._exit(1)


if __name__ == "__main__":
    work()

__all__ = ["run_in_processes"]
