"""Clocks, clips, windows of sound, splits, stores and events keep what they promise, whatever they are given."""

import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from avad_hf.corpora.splits import HELD_OUT, SHARES, SPLITS, divide, grouped_folds, stratified
from avad_hf.detection.events import ScoredClip, merge_events
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import INDEX, RECIPE, is_stored, read_features, read_jsonl, write_index
from avad_hf.media.audio import CLOCK_TOLERANCE_S, SoundBlock, SoundTrack, resample
from avad_hf.media.clips import JUMP_S, Frame, SteadyClock, cut_clips, deciding_clips, join_ends, sound_window

from .feature_stores import plant

# The same examples each time, so that a failure is one of the change at hand.
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True, database=None, phases=PHASES)
settings.load_profile("suite")

# Low, so that examples are small.
RATE = 1600


# The clock

periods = st.sampled_from([1 / 60, 1 / 30, 0.04, 0.1])
# From milliseconds over wrong clocks to those that wrapped.
marks = st.one_of(st.none(), st.floats(-1e6, 1e6), st.floats(-5, 5), st.integers(0, 200).map(lambda tick: tick / 25))


def placed(items, rising: bool = True) -> list[float]:
    clock = SteadyClock(rising)
    out = list(clock.place([(mark, length, index) for index, (mark, length) in enumerate(items)]))
    assert [index for _, _, index in out] == list(range(len(items)))
    return [start for start, _, _ in out]


@given(st.lists(st.tuples(marks, periods), max_size=30))
def test_a_rising_clock_never_falls(items):
    starts = placed(items)
    assert all(np.isfinite(starts)) and all(later > start for start, later in pairwise(starts))


@given(st.lists(st.tuples(marks, periods), max_size=30))
def test_any_clock_steps_back_by_a_second_at_most(items):
    starts = placed(items, rising=False)
    assert all(later >= start - JUMP_S - 1e-6 for start, later in pairwise(starts))


@given(periods, st.lists(st.one_of(st.floats(0.001, 0.3), st.just(0.04)), min_size=1, max_size=30), st.booleans())
def test_timestamps_that_rise_pass_unchanged(period, gaps, rising):
    times = np.cumsum([0.0, *gaps]).tolist()
    assert placed([(time, period) for time in times], rising) == times


@given(periods, st.integers(12, 40), st.data(), st.booleans())
def test_one_wrong_timestamp_moves_no_other(period, count, data, rising):
    times = [index * period for index in range(count)]
    wrong = data.draw(st.integers(0, count - 1), "which")
    mark = data.draw(st.one_of(st.none(), st.floats(-1e5, 1e5)), "says")
    said = [mark if index == wrong else time for index, time in enumerate(times)]
    starts = placed([(time, period) for time in said], rising)
    del starts[wrong], times[wrong]
    assert starts == pytest.approx(times, abs=1e-6)


@given(periods, st.integers(1, 20), st.integers(6, 20), st.floats(2.0, 1e5))
def test_a_pause_stays_and_a_new_beginning_follows_on(period, more, after, pause):
    before = math.ceil(JUMP_S / period) + 1 + more
    times = [index * period for index in range(before)]
    later = [times[-1] + pause + index * period for index in range(after)]
    assert placed([(time, period) for time in times + later]) == pytest.approx(times + later)
    again = placed([(time, period) for time in [*times, *(index * period for index in range(after))]])
    assert again == pytest.approx([index * period for index in range(before + after)])


# Clips


def frames(count: int) -> list[Frame]:
    return [Frame(index * 0.04, index * 0.04 + 0.5, torch.tensor(index)) for index in range(count)]


@given(st.integers(0, 200), st.integers(1, 40), st.data())
def test_every_frame_is_in_a_clip_and_clips_have_one_length(count, length, data):
    stride = data.draw(st.integers(1, length))
    clips = list(cut_clips(frames(count), length, stride))
    numbers = [[int(frame.pixels) for frame in clip.frames] for clip in clips]
    assert all(len(clip.frames) == length and 1 <= clip.num_real <= length for clip in clips)
    assert sorted({number for clip in numbers for number in clip}) == list(range(count))
    for place, (clip, shown) in enumerate(zip(clips, numbers, strict=True)):
        begin = place * stride
        assert shown == [min(begin + index, count - 1) for index in range(length)]
        assert clip.num_real == min(length, count - begin)
        # None of them is there for frames that the one before holds.
        assert place == 0 or begin + length - stride < count
    assert len(deciding_clips([(clip.start, clip.end) for clip in clips])) == len(clips)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 5)), max_size=20))
def test_joined_frames_end_where_the_next_begins(drawn):
    given_frames = [Frame(start, start + length, None) for start, length in drawn]
    joined = list(join_ends(given_frames))
    assert [frame.start for frame in joined] == [start for start, _ in drawn]
    assert all(frame.end > frame.start for frame in joined)
    for frame, own, following in zip(joined, given_frames, given_frames[1:], strict=False):
        assert frame.end == (following.start if following.start > frame.start else own.end)
    assert not joined or joined[-1].end == given_frames[-1].end


# Windows of sound

blocks = st.lists(
    st.tuples(
        # Samples, and where the block begins after the one before: in place, a gap of seconds, an overlap.
        st.integers(0, 400),
        st.one_of(st.just(0.0), st.floats(-0.5, 2.0), st.sampled_from([5.0, 9.0])),
    ),
    min_size=1,
    max_size=12,
)


def sounding(drawn, rate: int, begin: float) -> tuple[list[SoundBlock], np.ndarray]:
    """Blocks, and all of their sound on one timeline by the plain definition."""
    rng, made = np.random.default_rng(len(drawn)), []
    clock, timeline = begin, np.zeros(0, np.float32)
    for index, (count, late) in enumerate(drawn):
        start = clock if index == 0 else max(begin, clock + late)
        samples = rng.uniform(-1, 1, count).astype(np.float32)
        made.append(SoundBlock(start, samples, rate))
        if index == 0 and not count:
            return [], timeline  # the first block that sounds begins the sound; tested by the others
        after = start - begin - len(timeline) / rate
        if after > CLOCK_TOLERANCE_S:
            timeline = np.concatenate([timeline, np.zeros(round(after * rate), np.float32)])
        elif after < -CLOCK_TOLERANCE_S:
            samples = samples[round(-after * rate) :]
        timeline = np.concatenate([timeline, samples])
        clock = begin + len(timeline) / rate
    return made, timeline


@given(blocks, st.sampled_from([RATE, 800, 2205]), st.floats(-1, 3), st.lists(st.floats(0, 4), max_size=15), st.data())
def test_windows_of_sound_equal_the_whole_timeline(drawn, rate, begin, steps, data):
    made, timeline = sounding(drawn, rate, begin)
    assume(made)
    whole = resample(timeline, rate, RATE).numpy() if rate != RATE else timeline
    track, end = SoundTrack(made, RATE), begin
    assert track.start == begin
    for step in [*steps, 30.0]:
        end += step
        length = min(data.draw(st.sampled_from([0.02, 0.3, 1.0])), step)
        low, high = sound_window(end, begin, length, RATE)
        expected = np.zeros(high - low, np.float32)
        inside = whole[max(low, 0) : max(high, 0)]
        expected[max(0, -low) : max(0, -low) + len(inside)] = inside
        assert track.window(end, length).numpy() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20)
@given(blocks, st.floats(-1, 3), st.floats(0, 30))
def test_sound_is_read_to_a_time_and_to_its_end(drawn, begin, until):
    made, timeline = sounding(drawn, RATE, begin)
    assume(made)
    assert SoundTrack(made, RATE).read().numpy() == pytest.approx(timeline)
    _, stop = sound_window(begin + until, begin, 0.0, RATE)
    assert SoundTrack(made, RATE).read(begin + until).numpy() == pytest.approx(timeline[:stop])
    # After a window comes what is left.
    track = SoundTrack(made, RATE)
    track.window(begin + until, 0.1)
    rest = track.read().numpy()
    assert len(rest) >= len(timeline) - stop and rest == pytest.approx(timeline[len(timeline) - len(rest) :])


# Splits

names = st.sampled_from(["normal", "horse", "bus", "fight"])
rows_of_videos = st.lists(
    st.tuples(
        names, st.sampled_from(["street", "field", None]), st.one_of(st.none(), st.integers(0, 8)), st.integers(0, 30)
    ),
    min_size=1,
    max_size=60,
).map(
    lambda drawn: [
        {"id": f"{index}", "label": label, "scene": scene, "split": None}
        | ({} if group is None else {"group": f"g{group}"})
        # Some are stretches of one video.
        | ({"video": f"v{video}.mp4"} if video < 10 else {})
        for index, (label, scene, group, video) in enumerate(drawn)
    ]
)


def keeps_together(rows, splits) -> bool:
    for key in ("group", "video"):
        sets = {}
        for row in rows:
            if row.get(key) is not None:
                sets.setdefault(row[key], set()).add(splits[row["id"]])
        if any(len(parts) > 1 for parts in sets.values()):
            return False
    return True


@given(rows_of_videos, st.integers(0, 5), st.sampled_from([SHARES, HELD_OUT]))
def test_a_split_holds_every_video_once_and_no_group_twice(rows, seed, shares):
    splits = stratified(rows, seed, shares)
    assert splits.keys() == {row["id"] for row in rows} and set(splits.values()) <= set(shares)
    assert keeps_together(rows, splits)
    assert stratified(rows[::-1], seed, shares) == splits


@given(st.dictionaries(st.tuples(names, st.sampled_from(["street", "field"])), st.integers(1, 40)), st.integers(0, 5))
def test_a_split_has_the_sizes_of_its_shares(counts, seed):
    rows = [
        {"id": f"{label}/{scene}/{index}", "label": label, "scene": scene, "split": None}
        for (label, scene), count in counts.items()
        for index in range(count)
    ]
    splits = stratified(rows, seed)
    for (label, scene), count in counts.items():
        sizes = dict.fromkeys(SHARES, 0)
        for row in rows:
            sizes[splits[row["id"]]] += (row["label"], row["scene"]) == (label, scene)
        assert sizes == divide(count, SHARES)


@given(rows_of_videos, st.integers(2, 5), st.integers(0, 3))
def test_folds_test_every_video_once_and_divide_no_group(rows, num_folds, seed):
    try:
        folds = grouped_folds(rows, num_folds, seed)
    except ValueError as error:
        assert "fewer folds" in str(error)
        return
    assert len(folds) == num_folds
    for fold in folds:
        assert fold.keys() == {row["id"] for row in rows} and set(fold.values()) <= set(SPLITS)
        assert "test" in fold.values() and keeps_together(rows, fold)
    assert all([fold[row["id"]] for fold in folds].count("test") == 1 for row in rows)


# Stores


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return plant(tmp_path_factory.mktemp("stores") / "store", num_videos=4)


@pytest.fixture(scope="module")
def damaged(store, tmp_path_factory):
    """Copies of the store in which one file was changed: `damaged(name, change)`."""
    folder = tmp_path_factory.mktemp("damaged") / "store"

    def damage(name: str, change) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(store, folder)
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        return folder

    return damage


def cut(share: float):
    return lambda data: data[: min(len(data) - 1, int(len(data) * share))]


def without_byte(share: float):
    return lambda data: data[: int(len(data) * share)] + data[int(len(data) * share) + 1 :]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


shares = st.floats(0, 1, exclude_max=True)


@given(shares, st.sampled_from([cut, without_byte]))
def test_cut_features_are_refused(store, damaged, share, how):
    row = read_jsonl(store / INDEX)[0]
    folder = damaged(row["file"], how(share))
    for read in (lambda: read_features(folder / row["file"]), lambda: FeatureDataset(folder)[0]):
        with pytest.raises(ValueError, match="missing or damaged"):
            read()
    # Neither does an extraction that goes on take them for finished.
    with pytest.raises(ValueError, match="run the extraction again"):
        is_stored(folder, {"id": row["id"]})


@given(shares)
def test_a_cut_index_gives_no_wrong_features(store, damaged, share):
    whole = {row["id"]: FeatureDataset(store)[index] for index, row in enumerate(FeatureDataset(store).rows)}
    folder = damaged(INDEX, cut(share))
    try:
        opened = FeatureDataset(folder)
    except ValueError as error:
        assert "damaged" in str(error) or "no video" in str(error).lower()
        # Without it, an extraction that goes on lists what is there.
        (folder / INDEX).unlink()
        write_index(folder, read_jsonl(store / INDEX), [])
        opened = FeatureDataset(folder)
        assert opened.rows == FeatureDataset(store).rows
    assert all(same(opened[index], whole[row["id"]]) for index, row in enumerate(opened.rows))


@given(shares)
def test_a_cut_recipe_is_refused(damaged, share):
    with pytest.raises(ValueError, match="damaged"):
        FeatureDataset(damaged(RECIPE, cut(share)))


# Events

scores = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["fire", "fight", "normal"]), st.booleans()), min_size=1, max_size=30
)


@given(scores, st.floats(0.01, 1), st.booleans())
def test_events_hold_all_clips_that_reach_the_threshold(drawn, threshold, has_classes):
    clips = [
        ScoredClip(
            index * 1.28,
            (index + 1) * 1.28,
            score,
            probabilities={name: float(name == label) for name in ("fire", "fight", "normal")}
            if has_classes
            else None,
            partial=True if partial and index == len(drawn) - 1 and index else None,
        )
        for index, (score, label, partial) in enumerate(drawn)
    ]
    events = merge_events(clips, threshold, ["normal"])
    for clip in clips:
        holding = [event for event in events if event.start <= clip.start and clip.end <= event.end]
        assert len(holding) <= 1
        assert bool(holding) == (clip.score >= threshold) or clip.partial
        assert not holding or clip.partial or holding[0].score >= clip.score
    for event, following in pairwise(events):
        assert event.end <= following.start
        assert event.end < following.start or event.label != following.label
    for event in events:
        assert event.score >= threshold and event.start <= event.peak <= event.end and event.label != "normal"
        assert event.score == max(c.score for c in clips if event.start <= c.start < event.end and not c.partial)
