"""Reads in a thread of its own, so that decoding goes on while the encoders compute."""

import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Run a generator in a thread, some items ahead of whoever reads it.

    Args:
        items: The generator. Its errors are raised here, in their place. It is closed in its own thread, also when
            this one is closed before the end.
        depth: Items that wait at most; one more is being made.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def hand_over(item: T | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not hand_over(item, None):
                        return
        except BaseException as error:  # whatever it is, the reader gets it
            hand_over(None, error)
        else:
            hand_over(None, StopIteration())

    thread = threading.Thread(target=work, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
