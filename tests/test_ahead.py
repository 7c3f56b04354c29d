"""Threads that read ahead, one or several, and batches: order, errors, and that everything is closed."""

import itertools
import threading
import time
from contextlib import closing

import pytest

from avad_hf.media import ahead
from avad_hf.media.ahead import batches, read_ahead, read_together


def names():
    return [thread.name for thread in threading.enumerate() if thread.name == "read_ahead"]


def noting(number, length, events, error=None):
    """A generator that notes when it is begun, has ended by itself, and is closed, in which thread."""
    ended = False
    events.append(("begun", number))
    try:
        for item in range(length):
            yield number, item
        if error is not None:
            raise error
        ended = True
    finally:
        events.append(("ended" if ended else "closed", number, threading.current_thread().name))


# A thread that reads ahead


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_is_made_than_may_wait(depth):
    """While one item is with the reader, so many wait and one is being handed over."""
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield made[-1]

    reader = read_ahead(endless(), depth)
    for taken in range(3):
        assert next(reader) == taken
        most = taken + 1 + depth + 1
        deadline = time.monotonic() + 20
        while len(made) < most and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(made) == most
    reader.close()


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt("stopped"), SystemExit(3)])
def test_whatever_is_raised_comes_after_what_was_made_before(error):
    events = []
    reader = read_ahead(noting(0, 3, events, error), depth=5)
    assert [next(reader) for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
    with pytest.raises(type(error)) as caught:
        next(reader)
    assert caught.value is error
    assert events == [("begun", 0), ("closed", 0, "read_ahead")] and not names()
    with pytest.raises(StopIteration):
        next(reader)


def test_a_reader_that_is_never_read_starts_nothing():
    events = []
    reader = read_ahead(noting(0, 3, events), depth=2)
    reader.close()
    assert not events and not names()


def test_a_reader_of_readers_ends_with_both():
    """As a video is read: frames ahead of clips, in one thread each."""
    events = []
    outer = read_ahead(batches(read_ahead(noting(0, 100, events), depth=1), 3), depth=1)
    assert next(outer) == [(0, 0), (0, 1), (0, 2)]
    assert len(names()) == 2
    outer.close()
    assert events[-1] == ("closed", 0, "read_ahead") and not names()


# Some generators together


def collected(lengths, at_once, events, depth=2):
    """Items of each generator, and what ended it."""
    items, ends = [[] for _ in lengths], {}
    generators = (noting(number, length, events) for number, length in enumerate(lengths))
    for number, item, error in read_together(generators, at_once, depth):
        assert number not in ends
        if error is None:
            items[number].append(item)
        else:
            ends[number] = error
    return items, ends


@pytest.mark.parametrize("lengths", [[7, 1, 4, 0, 2], [0, 0, 0], [30], [1, 1, 1, 1, 1, 1], []])
@pytest.mark.parametrize("at_once", [1, 2, 3, 20])
@pytest.mark.parametrize("depth", [1, 3])
def test_all_items_in_their_order_and_never_more_at_once(lengths, at_once, depth):
    events, running, most = [], set(), 0
    items, ends = collected(lengths, at_once, events, depth)
    assert items == [[(number, item) for item in range(length)] for number, length in enumerate(lengths)]
    assert sorted(ends) == list(range(len(lengths)))
    assert all(isinstance(error, StopIteration) for error in ends.values())
    for what, number, *_ in events:
        running = running | {number} if what == "begun" else running - {number}
        most = max(most, len(running))
    assert not running and most <= at_once and not names()
    if at_once == 1:
        assert [event[1] for event in events if event[0] == "begun"] == list(range(len(lengths)))


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_what_waits_comes_in_groups_of_at_most_so_many(most):
    """Once each of three generators waits for the reader, it gets an item of each, up to so many."""
    made = threading.Semaphore(0)

    def items(number):
        for item in range(4):
            made.release()
            yield number, item

    with closing(ahead.read_waiting(map(items, range(3)), at_once=3, depth=1, most=most)) as groups:
        taken = [next(groups)]
        for _ in range(len(taken[0]) + 6):  # of each one item waits, and one is made
            assert made.acquire(timeout=60)
        time.sleep(0.05)
        taken.append(next(groups))
        assert len(taken[1]) == min(most, 3) and len({number for number, _, _ in taken[1]}) == len(taken[1])
        taken += groups
    assert all(0 < len(group) <= most for group in taken)
    entries = [entry for group in taken for entry in group]
    for number in range(3):
        own = [(item, error) for one, item, error in entries if one == number]
        assert [item for item, _ in own[:-1]] == [(number, item) for item in range(4)]
        assert isinstance(own[-1][1], StopIteration)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_so_many_run_at_the_same_time(at_once):
    """Each waits for all others before it gives anything."""
    together = threading.Barrier(at_once)

    def waiting(number):
        together.wait(timeout=60)
        yield number

    found = list(read_together((waiting(number) for number in range(at_once)), at_once, depth=1))
    assert sorted(number for number, _, error in found if error is None) == list(range(at_once))


def test_the_next_one_begins_where_one_ends():
    events, gates = [], [threading.Event() for _ in range(4)]

    def gated(number):
        gates[number].wait(60)
        yield from noting(number, 1, events)

    turns = read_together(map(gated, range(4)), at_once=2, depth=1)
    order = []
    for opened in (1, 2, 0, 3):  # 2 begins in the place of 1
        gates[opened].set()
        number, _, error = next(turns)
        order.append(number)
        assert error is None and isinstance(next(turns)[2], StopIteration)
    assert order == [1, 2, 0, 3] and next(turns, None) is None


def test_a_slow_one_holds_up_no_other():
    done = threading.Event()

    def slow():
        yield "first"
        done.wait(60)
        yield "last"

    found = []
    for number, item, error in read_together([slow(), noting(1, 9, []), noting(2, 5, [])], at_once=2, depth=1):
        if error is None:
            found.append(item)
        if number == 2 and error is not None:
            done.set()
    assert found[-1] == "last" and len(found) == 2 + 9 + 5


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt("stopped")])
def test_an_error_comes_in_its_place_and_the_others_go_on(error):
    events = []
    generators = [noting(number, 4, events, error if number == 1 else None) for number in range(5)]
    found = list(read_together(generators, at_once=2, depth=1))
    for number in range(5):
        *items, (none, end) = [(item, error) for n, item, error in found if n == number]
        assert items == [((number, item), None) for item in range(4)] and none is None
        assert end is error if number == 1 else isinstance(end, StopIteration)
    assert [event[0] for event in events if event[1] == 1] == ["begun", "closed"]
    assert not names()


@pytest.mark.parametrize("taken", [1, 2, 3, 7])
def test_closing_early_closes_each_in_its_own_thread(taken):
    events, all_run = [], threading.Barrier(3)

    def together(number):
        all_run.wait(60)
        yield from noting(number, 50, events)

    turns = read_together(map(together, range(9)), at_once=3, depth=1)
    for _ in range(taken):
        next(turns)
    assert len(names()) == 3
    turns.close()
    assert not names()
    # Those whose turn had not come are not begun.
    assert sorted(event for event in events if event[0] == "closed") == [("closed", n, "read_ahead") for n in range(3)]
    assert sorted(event for event in events if event[0] == "begun") == [("begun", n) for n in range(3)]


def test_generators_are_drawn_only_when_there_is_room():
    drawn = []

    def endless():
        yield from itertools.count()

    def generators():
        for number in itertools.count():
            drawn.append(number)
            yield endless()

    turns = read_together(generators(), at_once=3, depth=2)
    for _ in range(50):
        next(turns)
    assert len(drawn) <= 3
    turns.close()


@pytest.mark.parametrize(("at_once", "depth"), [(1, 1), (2, 1), (3, 4)])
def test_short_ones_do_not_pile_up(at_once, depth):
    """Videos of a clip each: however long the networks take, no more wait than of long ones."""
    events = []
    generators = (noting(number, 1, events) for number in itertools.count())
    with closing(read_together(generators, at_once, depth)) as turns:
        next(turns)
        time.sleep(0.2)
        # Beside the one that is here, so many of each thread wait, and one is made.
        assert len([event for event in events if event[0] == "begun"]) <= 1 + at_once * (depth + 1)


def test_whoever_stops_does_not_wait_for_one_that_hangs(monkeypatch):
    """Say, one that reads a camera that has died."""
    monkeypatch.setattr(ahead, "PATIENCE_S", 0.5)
    hangs = threading.Event()

    def hanging():
        yield 1
        hangs.wait(60)

    turns = read_together([hanging(), noting(1, 50, [])], at_once=2, depth=1)
    next(turns)
    turns.close()
    assert len(names()) == 1
    hangs.set()
    for thread in threading.enumerate():
        if thread.name == "read_ahead":
            thread.join(60)
    assert not names()


def test_what_makes_the_generators_may_fail():
    """As a list of videos that somebody else makes: its error comes out, and nobody waits for ever."""

    def generators():
        yield noting(0, 2, [])
        raise OSError("the list ends here")

    raised = []

    def read():
        try:
            for _, _, error in read_together(generators(), at_once=2, depth=1):
                raised.append(error)
        except OSError as error:
            raised.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert "the list ends here" in map(str, raised)


# Batches


@pytest.mark.parametrize(
    ("length", "size", "sizes"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (7, 3, [3, 3, 1]), (4, 1, [1] * 4), (2, 9, [2])],
)
def test_batches_are_whole_but_the_last(length, size, sizes):
    events = []
    found = list(batches(noting(0, length, events), size))
    assert [len(batch) for batch in found] == sizes
    assert [item for batch in found for _, item in batch] == list(range(length))
    assert events[-1][0] == "ended"


def test_batches_close_what_they_draw_from():
    events = []
    found = batches(noting(0, 50, events), 4)
    next(found)
    assert events == [("begun", 0)]
    found.close()
    assert events[-1][:2] == ("closed", 0)
    with pytest.raises(ValueError, match="broken"):
        list(batches(noting(1, 3, events, ValueError("broken")), 2))
