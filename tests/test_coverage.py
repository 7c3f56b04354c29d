import pytest

from avad_hf.media.coverage import MOST_LISTED, Coverage


def pictures(starts, period=0.04, says=None):
    """Pictures at their times, each of which says that it lasts so long (seconds)."""
    seen = Coverage("picture")
    for start in starts:
        seen.add(start, start + (says or period), period)
    return seen


def steady(start, count, period=0.04):
    return [start + index * period for index in range(count)]


def test_a_stream_in_order():
    seen = pictures(steady(0.5, 100))
    assert seen.problems() == []
    assert seen.to_dict() == {"start": 0.5, "end": 4.5, "seconds": 4.0, "missing": [], "damaged": []}


@pytest.mark.parametrize(("pause", "is_missing"), [(0.2, False), (0.24, False), (0.25, True), (0.8, True)])
def test_pictures_of_a_steady_camera_are_missing_from_a_quarter_of_a_second_on(pause, is_missing):
    """Also where the file says that the last one before them lasts as long."""
    for says in (None, pause + 0.04):
        seen = pictures(steady(0.0, 50) + steady(2.0 + pause, 50), says=says)
        problems = [f"there is no picture from 2.00 to {2 + pause:.2f} s"] if is_missing else []
        assert seen.problems() == problems
        assert seen.to_dict()["missing"] == ([[2.0, 2.0 + pause]] if is_missing else [])


def test_a_pause_of_a_camera_that_sends_when_something_moves_is_none():
    starts = [0.0]
    for step in [0.1, 0.4, 0.04, 0.3, 0.2, 0.04, 0.45, 0.12] * 10:
        starts.append(starts[-1] + step)
    assert pictures(starts).problems() == []
    # After something that could not be read for certain it is a loss.
    seen = pictures(starts)
    seen.add(starts[-1] + 0.44, starts[-1] + 0.48, 0.04, is_after_loss=True)
    assert seen.problems() == [f"there is no picture from {starts[-1] + 0.04:.2f} to {starts[-1] + 0.44:.2f} s"]
    # What is far longer than its pauses is missing, too.
    later = [*starts, starts[-1] + 6.0]
    assert pictures(later).problems() == [f"there is no picture from {starts[-1] + 0.04:.2f} to {later[-1]:.2f} s"]


def test_sound_has_no_pauses():
    heard = Coverage("sound", is_continuous=True)
    for start in (0.0, 0.1, 0.5, 0.6):
        heard.add(start, start + 0.1)
    assert heard.problems() == ["there is no sound from 0.20 to 0.50 s"]
    assert heard.to_dict()["seconds"] == pytest.approx(0.4)


def test_damage_lasts_up_to_the_next_picture_that_stands_alone():
    seen = Coverage("picture")
    for number, start in enumerate(steady(0.0, 100)):
        seen.damage(start, 25 <= number < 50)
        seen.add(start, start + 0.04, 0.04)
    assert seen.to_dict()["damaged"] == [[1.0, 2.0]]
    assert seen.problems() == ["there is only damaged picture from 1.00 to 2.00 s"]
    seen.damage(3.8, True)  # and up to the end, where none comes
    assert seen.to_dict()["damaged"] == [[1.0, 2.0], [3.8, 4.0]]


def test_doubts_count_only_where_steps_are_steady():
    """One picture of 100 is missing: those after it are built on it. At a varying rate nobody knows."""
    for starts, damaged in ((steady(0.0, 100), 1), ([n * 0.04 + (n % 3) * 0.013 for n in range(100)], 0)):
        seen = Coverage("picture")
        for number, start in enumerate(starts):
            if number == 50:
                continue
            if number % 25 == 0 or seen.is_skipped(start):
                seen.doubt(start, number % 25 != 0)
            seen.add(start, start + 0.04, 0.04)
        assert len(seen.damaged) == damaged
        if damaged:
            assert seen.damaged == [(pytest.approx(51 * 0.04), pytest.approx(3.0))]


def test_of_a_thousand_gaps_some_are_listed_and_all_are_counted():
    heard = Coverage("sound", is_continuous=True)
    for number in range(1000):
        heard.add(number, number + 0.5)
    assert len(heard.to_dict()["missing"]) == MOST_LISTED
    assert heard.problems() == [
        "there is no sound from 0.50 to 1.00 s, 1.50 to 2.00 s, 2.50 to 3.00 s and 996 more times"
    ]


def test_of_many_pauses_the_longest_are_kept():
    """A camera that sends when something moves, for a day; one pause in it is an hour."""
    seen, start = Coverage("picture"), 0.0
    for number in range(5000):
        start += 3600.0 if number == 4000 else (0.04, 0.5, 0.3, 0.9)[number % 4]
        seen.add(start, start + 0.04, 0.04)
    assert len(seen.missing) == 1 and seen.missing[0][1] - seen.missing[0][0] == pytest.approx(3599.96)


def test_nothing_read():
    assert Coverage("sound").to_dict() == {"start": 0.0, "end": 0.0, "seconds": 0.0, "missing": [], "damaged": []}
    assert Coverage("sound").problems() == []
