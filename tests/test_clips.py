"""Time arithmetic, against plain counting."""

from fractions import Fraction

import pytest
import torch

from avad_hf.media.clips import LOOK_AHEAD, Frame, SteadyClock, cut_clips, deciding_clips, join_ends, sound_window


def frames(count, period=0.04):
    return [Frame(i * period, i * period + 0.5, torch.tensor(i)) for i in range(count)]


def indices(clip):
    return [int(frame.pixels) for frame in clip.frames]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 63, 64, 65, 132, 250])
def test_every_frame_is_in_exactly_one_clip(count):
    clips = list(cut_clips(frames(count), 32, 32))
    assert len(clips) == -(-count // 32)
    assert [i for clip in clips for i in indices(clip)[: clip.num_real]] == list(range(count))
    assert all(len(clip.frames) == 32 for clip in clips)
    assert indices(clips[-1])[clips[-1].num_real :] == [count - 1] * (32 - clips[-1].num_real)


@pytest.mark.parametrize("stride", [1, 3, 8, 31])
@pytest.mark.parametrize("count", [1, 7, 32, 33, 40, 64, 65])
def test_overlapping_clips_cover_every_frame_and_repeat_none_in_vain(count, stride):
    clips = list(cut_clips(frames(count), 32, stride))
    assert [indices(clip)[0] for clip in clips] == [k * stride for k in range(len(clips))]
    assert {i for clip in clips for i in indices(clip)} == set(range(count))
    seen = -1
    for clip in clips:
        assert indices(clip)[clip.num_real - 1] > seen
        seen = indices(clip)[clip.num_real - 1]


def test_clips_follow_each_other_in_time():
    clips = list(cut_clips(join_ends(frames(70)), 32, 32))
    assert [clip.start for clip in clips] == pytest.approx([0.0, 1.28, 2.56])
    assert [clip.end for clip in clips] == pytest.approx([1.28, 2.56, 69 * 0.04 + 0.5])


def test_join_ends_with_a_pause_and_a_repeated_time():
    joined = list(join_ends([Frame(0.0, 0.04, None), Frame(3.0, 3.04, None), Frame(3.0, 3.04, None)]))
    assert [frame.end for frame in joined] == [3.0, 3.04, 3.04]
    assert list(join_ends([])) == []


def test_clips_are_cut_as_frames_come():
    """One clip is held, however long the video: nothing is read ahead."""
    drawn = []

    def endless():
        for frame in frames(10_000):
            drawn.append(frame)
            yield frame

    next(cut_clips(endless(), 32, 32))
    assert len(drawn) == 32


@pytest.mark.parametrize(("real", "decides"), [(1, False), (7, False), (8, True), (32, True)])
def test_a_clip_decides_if_a_quarter_of_it_is_real(real, decides):
    """Known from times alone, as a feature store has them."""
    steady = [Frame(0.04 * number, 0.04 * (number + 1), None) for number in range(64 + real)]
    cut = [(clip.start, clip.end) for clip in cut_clips(join_ends(steady), 32, 32)]
    assert deciding_clips(cut) == [True, True, decides]
    assert deciding_clips(cut[-1:]) == [True] and deciding_clips([]) == []
    # One slow clip among others does not make them partial.
    assert all(deciding_clips([(0.0, 1.0), (1.0, 2.0), (2.0, 30.0), (30.0, 31.0)]))


# The clock


def starts(marks, length=0.04, rising=True):
    """Where a clock puts items of one length, and the clock."""
    clock = SteadyClock(rising)
    placed = list(clock.place((mark, length, index) for index, mark in enumerate(marks)))
    assert [item for *_, item in placed] == list(range(len(marks)))
    assert all(lasts == length for _, lasts, _ in placed)
    return [start for start, *_ in placed], clock


def regular(count, start=0.0, period=0.04):
    return [start + index * period for index in range(count)]


def test_steady_clock():
    marks = [0.0, 1.0, None, 3.0, 3.25, 0.0, 1.0, None]
    placed, clock = starts(marks, 1.0, rising=False)
    assert placed == [0.0, 1.0, 2.0, 3.0, 3.25, 4.25, 5.25, 6.25]
    assert clock.jumps == [4.25] and clock.first_stray is None
    assert starts([None], 1.0)[0] == [0.0] and starts([])[0] == []


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("pause", [0.0, 3.0, 60.0])
@pytest.mark.parametrize("size", [-1000.0, -5.0, -1.5, -0.5, 0.5, 0.9, 1.5, 5.0, 1000.0])
def test_one_wrong_timestamp_moves_no_other(size, pause, rising):
    """Wherever it stands, also at a pause or at either end; it is placed between its neighbours itself."""
    true = regular(15) + regular(15, 15 * 0.04 + pause)
    for index in range(30):
        marks = true.copy()
        marks[index] += size
        placed, clock = starts(marks, rising=rising)
        others = [number for number in range(30) if number != index]
        assert [placed[number] for number in others] == pytest.approx([true[number] for number in others], abs=1e-9)
        # The first may be long before the others, and the last as long after them as is usual: nothing speaks against.
        if index and not (index == 29 and 0 < size < max(1, 2 * pause)):
            assert true[index - 1] < placed[index]
            assert index == 29 or placed[index] < true[index + 1]
            if index not in (14, 15):
                assert placed[index] == pytest.approx(true[index])
                said, where = clock.first_stray or (None, None)
                assert where == (pytest.approx(true[index]) if abs(size) > 1 else None)
                assert said == (pytest.approx(marks[index]) if abs(size) > 1 else None)
        assert clock.jumps == []


@pytest.mark.parametrize("size", [-1000.0, -5.0, 5.0, 1000.0])
@pytest.mark.parametrize("run", [2, 3])
def test_several_wrong_timestamps_in_a_row_move_no_other(size, run):
    true = regular(30)
    for begin in range(1, 24):
        marks = true.copy()
        for index in range(begin, begin + run):
            marks[index] += size
        assert starts(marks)[0] == pytest.approx(true)


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("size", [-1000.0, -5.0, 5.0, 1000.0])
def test_a_wrong_timestamp_where_recordings_are_joined(size, rising):
    """Also if it is the last one of a recording, or the first one of the next."""
    true = regular(220)
    for index in range(190, 210):
        marks = regular(200) + regular(20)
        marks[index] += size
        placed, clock = starts(marks, rising=rising)
        assert placed == pytest.approx(true)
        assert len(clock.jumps) == 1 and clock.first_stray is not None


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("after", [2, 3, 30])
def test_a_pause_stays_a_pause(after, rising):
    marks = regular(10) + regular(after, 3600.0)
    placed, clock = starts(marks, rising=rising)
    assert placed == marks
    assert clock.jumps == [] and clock.first_stray is None


def test_pictures_far_apart_keep_their_times():
    """Of a camera that records what moves; the lengths that its file gives are wrong."""
    marks = [0.0, 5.0, 5.04, 9.0, 30.0, 31.0, 32.0, 60.0]
    assert starts(marks)[0] == marks
    assert starts(marks, 60.0)[0] == marks


def test_the_last_timestamp_has_none_to_vouch_for_it():
    true = regular(20)
    assert starts([*true[:-1], 1000.0])[0] == pytest.approx(true)
    assert starts([*true[:-1], true[-1] + 0.5])[0][-1] == true[-1] + 0.5
    # It has paused for as long before.
    paused = [*regular(10), *regular(10, 600.0), 1000.0]
    assert starts(paused)[0] == paused


def test_a_first_timestamp_that_the_container_took_for_its_start():
    placed, clock = starts([0.0, *regular(10, -1000.0)])
    assert placed == pytest.approx(regular(11)) and clock.jumps == [0.04]
    placed, clock = starts([-1000.0, *regular(10, 0.04)])
    assert placed == pytest.approx(regular(11)) and clock.jumps == []


def test_pictures_rise_also_where_times_are_repeated_or_swapped():
    placed, _ = starts([0.0, 0.04, 0.04, 0.08, 0.12, 0.12, 0.12, 0.16])
    assert [placed[index] for index in (0, 1, 3, 4, 7)] == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert placed == sorted(set(placed))
    placed, _ = starts([0.0, 0.08, 0.04, 0.12, 0.16])
    assert placed == pytest.approx([0.0, 0.08, 0.10, 0.12, 0.16], abs=0.015) and placed == sorted(set(placed))
    placed, _ = starts([0.0] * 60)  # no clock at all
    assert placed == pytest.approx(regular(60))


def test_the_clock_reads_ahead_only_where_a_timestamp_is_doubtful():
    drawn = []

    def endless():
        for index, mark in enumerate(regular(40) + regular(40, 100.0)):
            drawn.append(index)
            yield mark, 0.04, index

    ahead = [len(drawn) - 1 - item for *_, item in SteadyClock().place(endless())]
    assert max(ahead) == LOOK_AHEAD
    # At the beginning, which nothing comes before, and after the pause, until what was read ahead is used up.
    assert [index for index, count in enumerate(ahead) if count] == [*range(5), *range(40, 45)]


@pytest.mark.parametrize("stride", [0, 33])
def test_refuses_strides_that_lose_frames(stride):
    with pytest.raises(ValueError, match="stride must be between 1 and the clip's length 32"):
        list(cut_clips(frames(3), 32, stride))


@pytest.mark.parametrize("fps", [24, 25, 30, Fraction(30000, 1001), 60])
def test_sound_windows_do_not_drift(fps):
    """Over an hour each window ends at the sample nearest to its frame."""
    for index in range(0, int(3600 * fps), 997):
        exact = Fraction(index) / Fraction(fps) * 16000
        start, stop = sound_window(float(Fraction(index) / Fraction(fps)), 0.0, 1.0, 16000)
        assert abs(stop - exact) <= Fraction(1, 2) + Fraction(1, 10**6)
        assert stop - start == 16000


def test_sound_window_counts_from_the_start_of_the_sound():
    assert sound_window(2.0, 0.5, 1.0, 16000) == (8000, 24000)
    assert sound_window(0.25, 0.5, 1.0, 16000) == (-20000, -4000)
