"""Time arithmetic, against plain counting."""

from fractions import Fraction

import pytest
import torch

from avad_hf.media.clips import Frame, SteadyClock, cut_clips, join_ends, sound_window


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


def test_steady_clock():
    clock = SteadyClock()
    marks = [0.0, 1.0, None, 3.0, 3.25, 0.0, 1.0, None]
    assert [clock(mark, 1.0) for mark in marks] == [0.0, 1.0, 2.0, 3.0, 3.25, 4.25, 5.25, 6.25]
    assert clock.jumps == [4.25]
    assert SteadyClock()(None, 1.0) == 0.0


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
