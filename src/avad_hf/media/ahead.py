"""Reads in threads of its own, so that decoding goes on while the encoders compute."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

# How long whoever stops waits for a reader that hangs, say on a dead camera: its thread ends with the process.
PATIENCE_S = 5.0


def read_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Run a generator in a thread, some items ahead of whoever reads it.

    Args:
        items: The generator. Its errors are raised here, in their place. It is closed in its own thread, also when
            this one is closed before the end.
        depth: Items that wait at most; one more is being made.
    """
    with closing(read_together([items], at_once=1, depth=depth)) as readers:
        for _, item, error in readers:
            if error is None:
                yield item
            elif not isinstance(error, StopIteration):
                raise error


def read_together(
    generators: Iterable[Iterator[T]], at_once: int, depth: int
) -> Generator[tuple[int, Any, BaseException | None], None, None]:
    """Run several generators in threads, and give whatever is there first: a slow one holds up no other.

    Args:
        generators: They are begun in their order, the next one where one has ended. Each is closed in its own thread.
        at_once: How many run at a time.
        depth: Items of each thread that wait at most, of however many generators; one more is being made.

    Yields:
        The generator's number, from 0, an item, and ``None``; at its end ``None`` and what ended it, which is
        ``StopIteration`` for one that is through.
    """
    with closing(read_waiting(generators, at_once, depth, most=1)) as groups:
        for group in groups:
            yield from group


def read_waiting(
    generators: Iterable[Iterator[T]], at_once: int, depth: int, most: int
) -> Generator[list[tuple[int, Any, BaseException | None]], None, None]:
    """As `read_together`, in groups: what is there when the reader comes, up to so many items."""
    ready_items: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    waiting, lock = enumerate(generators), threading.Lock()

    def run(number: int, items: Any, room: threading.Semaphore) -> BaseException:
        try:
            with closing(items):
                for item in items:
                    while not room.acquire(timeout=0.1):
                        if stopped.is_set():
                            return StopIteration()
                    if stopped.is_set():
                        return StopIteration()
                    ready_items.put((number, item, None, room))
        except BaseException as error:  # whatever it is, the reader gets it
            return error
        return StopIteration()

    def work() -> None:
        room = threading.Semaphore(depth)
        try:
            while not stopped.is_set():
                with lock:
                    job = next(waiting, None)
                if job is None:
                    break
                number, items = job
                ready_items.put((number, None, run(number, items, room), None))
        except BaseException as error:  # of the list of generators itself
            ready_items.put((None, None, error, None))
        finally:
            ready_items.put(None)

    threads = [threading.Thread(target=work, name="read_ahead", daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            entries = [ready_items.get()]
            with suppress(queue.Empty):
                while len(entries) < most:
                    entries.append(ready_items.get_nowait())
            group = []
            for entry in entries:
                if entry is None:
                    running -= 1
                    continue
                number, item, error, room = entry
                if number is None:
                    raise error
                if room is not None:
                    room.release()
                group.append((number, item, error))
            if group:
                yield group
    finally:
        stopped.set()
        for thread in threads:
            if thread is not threading.current_thread():  # where the garbage collector may run this
                thread.join(PATIENCE_S)


def batches(items: Generator[T, None, None], size: int) -> Iterator[list[T]]:
    """Lists of so many items of a generator, and a shorter one of what is left. It is closed with this one."""
    with closing(items):
        while batch := list(islice(items, size)):
            yield batch
