"""Thresholds in alarms a day, on simulated cameras whose rates are known at every threshold."""

import re

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import genpareto

from avad_hf.detection.events import ScoredClip, detect_events
from avad_hf.metrics.alarms import alarm_threshold, hours_needed
from avad_hf.metrics.event_streams import Recording, block_numbers, count_events, footage_hours

from .score_streams import Camera, rate_at

CLIP_S = 20.0
# Long clips, so that 200 simulations take seconds; tests/benchmarks/bench_alarms.py has shorter ones, and more kinds.
SIMULATIONS = 200


def recording(scores, clip_s: float = CLIP_S, name: str = "yard", **options) -> Recording:
    starts = np.arange(len(scores)) * clip_s
    return Recording(name, np.asarray(scores, dtype=float), np.stack([starts, starts + clip_s], axis=1), **options)


def quiet(days: float, seed: int = 0, clip_s: float = CLIP_S) -> np.ndarray:
    """Scores of clips of which none resembles its neighbour."""
    return expit(np.random.default_rng(seed).standard_normal(round(days * 86_400 / clip_s)) - 3)


@pytest.mark.parametrize(
    ("kind", "tail", "days", "rate"),
    [("independent", "light", 3, 1.0), ("correlated", "heavy", 3, 1.0), ("bursts", "heavy", 1, 5.0)],
)
def test_intervals_hold_the_true_rate_and_the_next_week(kind, tail, days, rate):
    camera, rng = Camera(kind, tail, CLIP_S), np.random.default_rng(1)
    right = camera.threshold(rate)
    held, right_threshold, kept, ratios, warned = [], [], [], [], []
    for _ in range(SIMULATIONS):
        found = alarm_threshold(camera.record(days, rng), rate)
        true = rate_at(camera, found.threshold)
        alarms = count_events(camera.record(7, rng), found.threshold)
        held.append(found.interval_95[0] <= true <= found.interval_95[1])
        right_threshold.append(found.threshold_interval_95[0] <= right <= found.threshold_interval_95[1])
        kept.append(found.week_95[0] <= alarms <= found.week_95[1])
        ratios.append(true / rate)
        warned.append(bool(found.suspects))
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(right_threshold) >= 0.9
    assert np.mean(kept) >= 0.9
    assert 0.8 < np.median(ratios) < 1.25
    assert np.mean(warned) < 0.05


@pytest.mark.parametrize("kind", ["independent", "correlated", "bursts"])
def test_the_simulated_rates_are_right(kind):
    """Counted over 200 days, where there are hundreds of events."""
    camera = Camera(kind, "light", CLIP_S)
    threshold = camera.threshold(4.0)
    counted = count_events(camera.record(200, np.random.default_rng(0)), threshold) / 200
    assert counted == pytest.approx(4.0, rel=0.12)


def test_the_tail_of_a_known_distribution():
    """Of 2,000 days, the threshold is that of the distribution."""
    rng, shape, scale = np.random.default_rng(0), 0.2, 0.5
    levels = np.full(2000 * 144, -9.0)  # ten minutes each
    events = np.flatnonzero(rng.random(len(levels)) < 0.1)
    events = events[np.append(True, np.diff(events) > 1)]
    levels[events] = genpareto.rvs(shape, scale=scale, size=len(events), random_state=rng) - 5
    found = alarm_threshold([recording(expit(levels), 600.0)], 0.5)
    expected = genpareto.isf(0.5 * 2000 / len(events), shape, scale=scale) - 5
    assert np.log(found.threshold / (1 - found.threshold)) == pytest.approx(expected, abs=0.1)
    assert found.num_alarms == pytest.approx(1000, rel=0.05)
    assert found.interval_95 == pytest.approx((0.47, 0.53), abs=0.02)
    low, high = np.log(np.array(found.threshold_interval_95)) - np.log1p(-np.array(found.threshold_interval_95))
    assert low < expected < high and 0.05 < high - low < 0.3


def naive_count(scores, threshold, classes=None) -> int:
    """As a person counts: alarm by alarm."""
    count, before = 0, None
    for number, score in enumerate(scores):
        now = (0 if classes is None else classes[number]) if score >= threshold else None
        count += now is not None and now != before
        before = now
    return count


@pytest.mark.parametrize("last", [1.28, 0.2])
@pytest.mark.parametrize("classes", [None, ("fire", "fight")])
def test_events_are_those_that_detecting_merges(last, classes):
    rng = np.random.default_rng(0)
    for _ in range(60):
        scores = rng.integers(1, 6, rng.integers(1, 30)) / 8
        numbers = rng.integers(0, 2, len(scores))
        starts = np.arange(len(scores)) * 1.28
        ends = starts + 1.28
        ends[-1] = starts[-1] + last
        clips = [
            ScoredClip(start, end, score, probabilities=classes and {classes[number]: score, "normal": 1 - score})
            for start, end, score, number in zip(starts, ends, scores, numbers, strict=True)
        ]
        one = Recording(
            "clips",
            scores,
            np.stack([starts, ends], axis=1),
            np.array([True] * (len(scores) - 1) + [last > 0.3 or len(scores) == 1]),
            None if classes is None else numbers,
        )
        for threshold in (0.1, 0.25, 0.3, 0.5, 0.625, 0.7):
            result = detect_events(clips, threshold, None, 25, True, normal_labels=("normal",))
            assert count_events([one], threshold) == len(result.events)
            if last > 0.3:
                assert count_events([one], threshold) == naive_count(scores, threshold, classes and numbers)


def test_events_of_two_recordings_are_not_merged():
    assert count_events([recording([0.1, 0.9]), recording([0.9, 0.1])], 0.5) == 2


def test_scores_of_0_and_1_have_a_place_on_the_scale():
    scores = quiet(3)
    scores[::5000], scores[1::2] = 1.0, 0.0
    found = alarm_threshold([recording(scores)])
    assert 0.5 < found.threshold <= 1
    assert all(0 <= value <= 1 for value in found.threshold_interval_95)


def test_scores_near_0_and_1_are_told_apart():
    """The threshold of scores that are all nearly 0 is nearly 0, and that of scores nearly 1 nearly 1."""
    levels = np.log(quiet(3) / (1 - quiet(3)))
    low, high = (alarm_threshold([recording(expit(levels + shift))]).threshold for shift in (-30, 15))
    assert 0 < low < 1e-10 and 1 - 1e-4 < high < 1
    # The same clips are meant.
    assert np.log(low / (1 - low)) + 30 == pytest.approx(np.log(high / (1 - high)) - 15, abs=1e-3)


def test_what_is_found_is_said():
    found = alarm_threshold([recording(quiet(2)), recording(quiet(2, seed=1))], 2.0)
    assert (found.hours, found.num_recordings, found.num_clips) == (96.0, 2, 17_280)
    assert found.interval_95[0] < 2 < found.interval_95[1]
    assert found.threshold_interval_95[0] < found.threshold < found.threshold_interval_95[1]
    assert found.week_95[0] < 14 < found.week_95[1]
    assert 4 <= found.num_alarms <= 14 and found.suspects == []
    numbers = found.to_dict()
    assert numbers["threshold"] == found.threshold and numbers["week_95"] == list(found.week_95)
    assert "suspects" not in numbers
    assert found == alarm_threshold([recording(quiet(2)), recording(quiet(2, seed=1))], 2.0)


def test_overlapping_clips_and_gaps_count_once():
    times = np.array([[0, 10], [5, 15], [30, 40]])
    assert footage_hours([Recording("a", np.zeros(3), times)]) == pytest.approx(25 / 3600)


def test_blocks_are_hours_or_shorter():
    two_days = [recording(np.zeros(6), 3600.0)] * 10
    assert np.concatenate(block_numbers(two_days)).tolist() == list(range(60))
    short = [recording(np.zeros(12), 300.0)] * 2
    assert np.concatenate(block_numbers(short)).tolist() == list(range(0, 48, 2))
    # Recordings of ten minutes share a block.
    many = block_numbers([recording(np.zeros(10), 60.0)] * 600)
    assert [part.tolist() for part in many[5:7]] == [[0] * 10, [1] * 10] and many[-1][-1] == 99


def test_more_bursts_make_a_wider_week():
    calm, bursts = (Camera(kind, "light", CLIP_S) for kind in ("independent", "bursts"))
    rng = np.random.default_rng(3)
    widths = [
        np.median([np.diff(alarm_threshold(camera.record(3, rng)).week_95) for _ in range(10)])
        for camera in (calm, bursts)
    ]
    assert widths[1] > widths[0]


def test_planted_anomalies_are_named():
    scores = quiet(3)
    scores[[2000, 2001, 9000]] = expit(9), expit(8.5), expit(8)
    found = alarm_threshold([recording(scores)])
    assert [(one.recording, one.start, one.end) for one in found.suspects] == [
        ("yard", 40_000.0, 40_040.0),
        ("yard", 180_000.0, 180_020.0),
    ]
    assert found.suspects[0].score == pytest.approx(expit(9))


# Refusals


@pytest.mark.parametrize(
    ("days", "rate", "words"),
    [
        (1, 1.0, "24 hours of normal footage cannot promise 1 alarms a day: that takes 72 hours (3 days for one alarm "
         "a day). 48 hours are missing. Give more footage, or ask for 3 alarms a day"),
        (2.5, 0.5, "that takes 144 hours"),
        (0.2, 10.0, "ask for 15 alarms a day"),
    ],
)  # fmt: skip
def test_a_promise_that_cannot_be_kept(days, rate, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        alarm_threshold([recording(quiet(days))], rate)


def test_what_is_said_to_be_possible_is_possible():
    footage = [recording(quiet(0.77))]
    with pytest.raises(ValueError, match=r"ask for .* alarms a day") as refusal:
        alarm_threshold(footage)
    possible = float(re.search("ask for (.*) alarms", str(refusal.value))[1])
    assert alarm_threshold(footage, possible).alarms_per_day == possible
    assert hours_needed(possible) <= 0.77 * 24


def test_files_of_exactly_three_days_may_be_a_second_short():
    parts = [recording(quiet(0.25, seed)) for seed in range(12)]
    assert alarm_threshold([Recording(one.name, one.scores[:-1], one.times[:-1]) for one in parts]).hours < 72


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "1"])
def test_what_is_no_rate(rate):
    with pytest.raises(ValueError, match="alarms_per_day must be a finite number above 0"):
        alarm_threshold([recording(quiet(3))], rate)


def changed(number: int, value: float) -> list[Recording]:
    scores = quiet(3)
    scores[number] = value
    return [recording(scores)]


@pytest.mark.parametrize(
    ("recordings", "words"),
    [
        ([], "No recording was given"),
        (changed(7, np.nan), "yard: 1 of 12960 scores are NaN"),
        (changed(7, 1.5), "yard: scores must be between 0 and 1, got .* to 1.5"),
        (changed(7, -0.5), "scores must be between 0 and 1, got -0.5"),
        ([recording(np.full(12_960, 0.25))], "All 12960 scores are 0.25"),
        ([recording(np.linspace(0.9, 0.1, 12_960))], "make 1 separate events at most"),
        ([recording(np.array([]))], r"yard: scores of shape \(T,\)"),
        ([recording(quiet(3, clip_s=7200), 7200.0)], "The 36 clips make .* separate events at most"),
        ([recording(np.maximum(quiet(3), 0.05 + 0.9 * (np.arange(12_960) % 90 == 0)))], "No threshold gives 1 alarms"),
    ],
)
def test_footage_that_tells_nothing(recordings, words):
    with pytest.raises(ValueError, match=words):
        alarm_threshold(recordings)


def test_more_alarms_than_the_footage_can_tell_apart():
    with pytest.raises(
        ValueError, match=r"more than this footage can tell apart.* Ask for .* a day or fewer"
    ) as refusal:
        alarm_threshold([recording(quiet(1))], 2000.0)
    most = float(re.search("Ask for (.*) a day", str(refusal.value))[1])
    assert alarm_threshold([recording(quiet(1))], most).num_alarms == pytest.approx(most, rel=0.1)
