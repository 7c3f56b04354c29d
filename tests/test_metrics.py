"""All figures, against scikit-learn, against plain loops, and at limits where the answer is known."""

import math
import socket
import tempfile
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics

from avad_hf.metrics.classes import confusion_matrix, top1_recall
from avad_hf.metrics.modules import AnomalyScores, EventClasses
from avad_hf.metrics.ranking import (
    Ranking,
    average_precision,
    equal_error_threshold,
    false_alarm_rate,
    roc_auc,
)
from avad_hf.metrics.videos import (
    bootstrap_interval,
    frame_scores,
    per_class_auc,
    per_video_auc,
    video_score,
)

INF, NAN = math.inf, math.nan
TAILS = ("extend_score_last", "truncate_gt", "pad_gt_last")


def drawn(kind, size=60):
    """Labels of both classes, and scores that tell them apart only in part."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    labels = np.append(rng.integers(0, 2, size - 2), [0, 1])
    scores = rng.normal(size=size) + labels
    return labels, {
        "random": scores,
        "tied": np.round(scores),
        "two scores": (scores > 0.5).astype(float),
        "reversed": -scores,
        "reversed and tied": -np.round(scores),
        "infinite": np.where(scores > 1.5, INF, np.where(scores < -0.5, -INF, scores)),
        "whole numbers": np.round(3 * scores).astype(int),
    }[kind]


KINDS = ("random", "tied", "two scores", "reversed", "reversed and tied", "infinite", "whole numbers")
CASES = {kind: drawn(kind) for kind in KINDS} | {
    "one of each": ([0, 1], [0.2, 0.7]),
    "one of each, reversed": ([1, 0], [0.2, 0.7]),
    "one of each, alike": ([1, 0], [0.5, 0.5]),
    "constant": ([0, 1, 0, 0, 1], [0.3] * 5),
    "told apart": ([0, 0, 1, 1, 1], [0.1, 0.2, 0.8, 0.9, 0.9]),
    "told apart, reversed": ([0, 0, 1, 1, 1], [0.9, 0.8, 0.2, 0.1, 0.1]),
    "one anomalous": ([0, 0, 0, 1, 0, 0], [0.1, 0.5, 0.5, 0.5, 0.9, 0.0]),
    "one normal": ([1, 1, 1, 0, 1, 1], [0.1, 0.5, 0.5, 0.5, 0.9, 0.0]),
    "zero and minus zero": ([0, 1, 1], [0.0, -0.0, 1.0]),
    "only infinities": ([0, 1, 1, 0], [-INF, INF, -INF, -INF]),
}
ONE_CLASS = {
    "normal": ([0, 0, 0], [0.1, 0.2, 0.2]),
    "anomalous": ([1, 1, 1], [0.1, 0.2, 0.2]),
    "one normal sample": ([0], [0.5]),
    "one anomalous sample": ([1], [0.5]),
}


@pytest.fixture(params=CASES)
def case(request):
    labels, scores = CASES[request.param]
    return np.asarray(labels), np.asarray(scores)


def ranks(scores):
    """The same order without infinities, which scikit-learn refuses."""
    return np.unique(scores, return_inverse=True)[1].astype(float)


def naive_auc(labels, scores):
    """Every anomalous sample against every normal one; a tie is half a win."""
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, one in zip(scores, labels, strict=True)
        for low, other in zip(scores, labels, strict=True)
        if one == 1 and other == 0
    ]
    return sum(wins) / len(wins)


def errors(labels, scores, threshold):
    """Share of false alarms and of misses, as fractions."""
    normal = [score >= threshold for label, score in zip(labels, scores, strict=True) if label == 0]
    anomalous = [score >= threshold for label, score in zip(labels, scores, strict=True) if label == 1]
    return Fraction(sum(normal), len(normal)), 1 - Fraction(sum(anomalous), len(anomalous))


def naive_equal_error(labels, scores):
    """The highest score at which both errors are nearest, and their mean there."""
    best = None
    for threshold in sorted(set(scores.tolist()), reverse=True):
        false_alarms, misses = errors(labels, scores, threshold)
        if best is None or abs(false_alarms - misses) < best[0]:
            best = abs(false_alarms - misses), threshold, (false_alarms + misses) / 2
    return best[1:]


def test_areas_equal_scikit_learn_and_the_count_of_pairs(case):
    labels, scores = case
    found = roc_auc(labels, scores)
    assert found == pytest.approx(sklearn.metrics.roc_auc_score(labels, ranks(scores)))
    assert found == pytest.approx(naive_auc(labels, scores))
    assert type(found) is float
    expected = sklearn.metrics.average_precision_score(labels, ranks(scores))
    assert average_precision(labels, scores) == pytest.approx(expected)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, ranks(scores))
    expected = sklearn.metrics.auc(recall, precision)
    assert average_precision(labels, scores, "trapezoid") == pytest.approx(expected)


def test_the_two_ways_to_integrate_differ():
    labels, scores = CASES["tied"]
    assert average_precision(labels, scores) != pytest.approx(average_precision(labels, scores, "trapezoid"))


def test_curves_equal_scikit_learn(case):
    labels, scores = case
    x, y, _ = sklearn.metrics.roc_curve(labels, ranks(scores), drop_intermediate=False)
    curve = Ranking(labels, scores).roc()
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_allclose(curve.y, y)
    np.testing.assert_array_equal(curve.thresholds, [INF, *sorted(set(scores.tolist()), reverse=True)])
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, ranks(scores))
    curve = Ranking(labels, scores).precision_recall()
    np.testing.assert_allclose(curve.x, recall[::-1])
    np.testing.assert_allclose(curve.y, precision[::-1])
    np.testing.assert_array_equal(curve.thresholds, [INF, *sorted(set(scores.tolist()), reverse=True)])


def test_the_order_of_samples_and_the_kind_of_labels_do_not_matter(case):
    labels, scores = case
    shuffled = np.random.default_rng(1).permutation(len(labels))
    for other in (labels.astype(bool), labels.astype(float), labels.astype(np.int8)):
        assert roc_auc(other[shuffled].tolist(), scores[shuffled].tolist()) == pytest.approx(roc_auc(labels, scores))
        found = average_precision(other[shuffled], scores[shuffled])
        assert found == pytest.approx(average_precision(labels, scores))
        assert equal_error_threshold(other[shuffled], scores[shuffled]) == equal_error_threshold(labels, scores)


def test_limits():
    labels = [0, 0, 1, 1]
    assert roc_auc(labels, [1, 2, 3, 4]) == average_precision(labels, [1, 2, 3, 4]) == 1.0
    assert equal_error_threshold(labels, [1, 2, 3, 4]) == (2.5, 0.0)
    assert roc_auc(labels, [4, 3, 2, 1]) == 0.0
    assert equal_error_threshold(labels, [4, 3, 2, 1]) == (2.5, 1.0)
    assert roc_auc(labels, [7, 7, 7, 7]) == average_precision(labels, [7, 7, 7, 7]) == 0.5
    assert equal_error_threshold(labels, [7, 7, 7, 7]) == (7.0, 0.5)
    assert equal_error_threshold([0, 1], [1.6e308, 1.7e308]) == (pytest.approx(1.65e308), 0.0)


def test_equal_error_equals_the_loop_and_its_threshold_separates(case):
    labels, scores = case
    best, rate = naive_equal_error(labels, scores)
    found = equal_error_threshold(labels, scores)
    assert found.rate == pytest.approx(float(rate))
    np.testing.assert_array_equal(scores >= found.threshold, scores >= best)
    assert float(sum(errors(labels, scores, found.threshold)) / 2) == pytest.approx(found.rate)


@pytest.mark.parametrize("scale", [1, 7])
def test_equal_error_of_many_small_samples(scale):
    """Here several thresholds are often equally good; rounding must not choose between them."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        size = int(rng.integers(0, 14))
        labels, scores = np.append(rng.integers(0, 2, size), [0, 1]), rng.integers(0, 9, size + 2) / scale
        best, rate = naive_equal_error(labels, scores)
        found = equal_error_threshold(labels, scores)
        assert found.rate == pytest.approx(float(rate))
        np.testing.assert_array_equal(scores >= found.threshold, scores >= best)


def test_equal_error_is_the_highest_of_equally_good_thresholds():
    # At 3: no false alarm, half missed. At 2: all false alarms, half missed.
    assert equal_error_threshold([1, 0, 1], [3, 2, 1]) == (2.5, 0.25)
    # Errors of 1/2 and 2/3, then of 1/2 and 1/3.
    assert equal_error_threshold([0, 1, 1, 1, 0], [5, 4, 3, 2, 1]) == (3.5, pytest.approx(7 / 12))


@pytest.mark.parametrize(
    ("high", "low"),
    [
        (1.0, math.nextafter(1.0, 0.0)),
        (math.nextafter(1.0, 0.0), math.nextafter(math.nextafter(1.0, 0.0), 0.0)),
        (5e-324, 0.0),
        (0.0, -5e-324),
        (1.7e308, 1.6e308),
        (1.7e308, -1.7e308),
        (INF, 0.5),
        (0.5, -INF),
        (INF, -INF),
    ],
)
def test_equal_error_threshold_leaves_no_sample_on_the_wrong_side(high, low):
    for labels, rate in (([1, 0], 0.0), ([0, 1], 1.0)):
        found = equal_error_threshold(labels, [high, low])
        assert found.rate == rate
        assert low < found.threshold <= high


@pytest.mark.parametrize("kind", ONE_CLASS)
def test_one_class_is_nan(kind):
    labels, scores = ONE_CLASS[kind]
    ranking = Ranking(labels, scores)
    figures = [roc_auc(labels, scores), average_precision(labels, scores), *equal_error_threshold(labels, scores)]
    figures += [average_precision(labels, scores, "trapezoid"), *bootstrap_interval(labels, scores, num_resamples=9)]
    assert all(math.isnan(figure) for figure in figures)
    missing = ranking.roc().y if not sum(labels) else ranking.roc().x
    assert np.isnan(missing).all()
    if not sum(labels):
        assert np.isnan(ranking.precision_recall().x).all()


def test_nothing_is_warned_of(case, recwarn):
    labels, scores = case
    for one, other in ((labels, scores), ([0, 0], [1, 2]), ([1], [INF])):
        ranking = Ranking(one, other)
        ranking.roc_auc(), ranking.average_precision(), ranking.average_precision("trapezoid"), ranking.equal_error()
        ranking.roc_auc(np.zeros(len(one))), ranking.average_precision(weights=np.zeros(len(one)))
    assert not recwarn.list


# Weights


@pytest.mark.parametrize("seed", range(3))
def test_weights_equal_repeated_samples(case, seed):
    labels, scores = case
    weights = np.random.default_rng(seed).integers(0, 4, len(labels))
    weights[labels.argmax()], weights[labels.argmin()] = 2, 1  # both classes stay
    weighted, repeated = Ranking(labels, scores), Ranking(np.repeat(labels, weights), np.repeat(scores, weights))
    assert weighted.roc_auc(weights) == pytest.approx(repeated.roc_auc())
    for method in ("step", "trapezoid"):
        assert weighted.average_precision(method, weights) == pytest.approx(repeated.average_precision(method))
    for found, expected in (
        (weighted.roc(weights), repeated.roc()),
        (weighted.precision_recall(weights), repeated.precision_recall()),
    ):
        kept = np.isin(found.thresholds, expected.thresholds)
        np.testing.assert_allclose(found.x[kept], expected.x)
        np.testing.assert_allclose(found.y[kept], expected.y)


def test_weights_need_not_be_whole_numbers():
    labels, scores = CASES["tied"]
    weights = np.random.default_rng(2).uniform(0, 3, len(labels))
    expected = sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert Ranking(labels, scores).roc_auc(weights) == pytest.approx(expected)
    expected = sklearn.metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert Ranking(labels, scores).average_precision(weights=weights) == pytest.approx(expected)


def test_weights_that_remove_a_class_are_nan(case):
    labels, scores = case
    ranking = Ranking(labels, scores)
    for weights in (labels, 1 - labels, np.zeros(len(labels))):
        assert math.isnan(ranking.roc_auc(weights))
        assert math.isnan(ranking.average_precision(weights=weights))
        assert math.isnan(ranking.average_precision("trapezoid", weights))
    assert not math.isnan(ranking.roc_auc(np.ones(len(labels))))


# False alarms


def test_false_alarm_rate_equals_the_confusion_matrix():
    for kind in KINDS:
        scores = CASES[kind][1]
        for threshold in (*sorted(set(scores.tolist()))[:9], 0.5):
            called = (scores >= threshold).astype(int)
            matrix = sklearn.metrics.confusion_matrix(np.zeros(len(scores), int), called, labels=[0, 1])
            true_negatives, false_positives = matrix[0]
            expected = false_positives / (false_positives + true_negatives)
            assert false_alarm_rate(scores, threshold) == pytest.approx(expected)


def test_false_alarm_rate_counts_scores_at_the_threshold():
    assert false_alarm_rate([0.5, 0.5, 0.49, 0.51]) == 0.75
    assert false_alarm_rate([0.5, 0.5, 0.49, 0.51], math.nextafter(0.5, 1)) == 0.25
    assert false_alarm_rate([0.1]) == 0.0
    assert false_alarm_rate([INF, -INF], INF) == 0.5
    assert math.isnan(false_alarm_rate([]))


# Videos


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_video_score_equals_its_definition(count):
    rng = np.random.default_rng(count)
    for scores in (rng.normal(size=count).tolist(), rng.integers(0, 2, count).tolist()):
        assert video_score(scores) == video_score(scores, "max") == max(scores)
        assert video_score(scores, "mean") == pytest.approx(sum(scores) / count)
        for alpha in (1, 2, 3, 4, 20):
            k = max(1, math.floor(count / alpha))
            expected = sum(sorted(scores)[-k:]) / k
            assert video_score(scores, "topk_mean", alpha) == pytest.approx(expected)
        assert video_score(scores, "topk_mean") == video_score(scores, "topk_mean", 4)


def naive_frames(scores, labels, length, stride, tail):
    """Frame by frame: the mean of the clips it is in, or the last clip's score after all of them."""
    end = (len(scores) - 1) * stride + length
    wanted = {"extend_score_last": len(labels), "truncate_gt": min(len(labels), end), "pad_gt_last": end}[tail]
    found, truth = [], []
    for frame in range(wanted):
        covering = [score for k, score in enumerate(scores) if k * stride <= frame < k * stride + length]
        found.append(sum(covering) / len(covering) if covering else scores[-1])
        truth.append(labels[min(frame, len(labels) - 1)])
    return found, truth


LAYOUTS = {
    "whole clips": (3, 8, 8, 24),
    "a last clip in part": (3, 8, 8, 17),
    "frames after the last clip": (3, 8, 8, 31),
    "one clip": (1, 8, 8, 8),
    "shorter than a clip": (1, 8, 8, 3),
    "one frame": (1, 8, 8, 1),
    "clips of one frame": (5, 1, 1, 5),
    "by half": (4, 8, 4, 20),
    "by half, in part": (4, 8, 4, 13),
    "by half, frames after": (4, 8, 4, 26),
    "unevenly": (5, 8, 3, 20),
    "unevenly, in part": (5, 8, 3, 13),
    "unevenly, frames after": (5, 8, 3, 33),
    "every frame": (6, 8, 1, 6),
    "overlapping, shorter than a clip": (2, 8, 3, 4),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_frame_scores_equal_the_loop(layout, tail):
    count, length, stride, frames = LAYOUTS[layout]
    rng = np.random.default_rng(frames)
    scores, labels = rng.normal(size=count), rng.integers(0, 2, frames)
    found, truth = frame_scores(scores, labels, length, stride, tail)
    expected, expected_truth = naive_frames(scores.tolist(), labels.tolist(), length, stride, tail)
    np.testing.assert_allclose(found, expected)
    assert truth.tolist() == expected_truth


@pytest.mark.parametrize("tail", TAILS)
def test_frame_scores_by_default(tail):
    """32 frames a clip, without overlap; every real frame once."""
    scores, labels = [0.25, 0.75], [0] * 40 + [1] * 10
    for one, other in zip(
        frame_scores(scores, labels, tail=tail), frame_scores(scores, labels, 32, 32, tail), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    found, truth = frame_scores(scores, labels)
    assert found.tolist() == [0.25] * 32 + [0.75] * 18
    assert truth.tolist() == labels


def test_tails_by_hand():
    scores, labels = [0.1, 0.9], [0, 0, 0, 0, 0, 1]
    assert [part.tolist() for part in frame_scores(scores, labels, 4, tail="pad_gt_last")] == [
        [0.1] * 4 + [0.9] * 4,
        [0, 0, 0, 0, 0, 1, 1, 1],
    ]
    for tail in ("truncate_gt", "extend_score_last"):
        found, truth = frame_scores(scores, labels, 4, tail=tail)
        assert found.tolist() == [0.1] * 4 + [0.9] * 2 and truth.tolist() == labels
    # Two frames after the last clip.
    labels = [0] * 8 + [1, 1]
    found, truth = frame_scores(scores, labels, 4)
    assert found.tolist() == [0.1] * 4 + [0.9] * 6 and truth.tolist() == labels
    for tail in ("truncate_gt", "pad_gt_last"):
        found, truth = frame_scores(scores, labels, 4, tail=tail)
        assert found.tolist() == [0.1] * 4 + [0.9] * 4 and truth.tolist() == [0] * 8
    # A frame in two clips.
    found, _ = frame_scores([0.0, 1.0], [0] * 6, 4, 2)
    assert found.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("tail", "lengths"),
    [("pad_gt_last", (48, 41, 33, 7, 16)), ("truncate_gt", (48, 50, 63, 16, 17))],
    ids=["RTFM", "AR-Net"],
)
def test_tails_of_published_codes(tail, lengths):
    """Frame AUC over all videos, where the labels are made to fit scores that are repeated 16 times."""
    rng = np.random.default_rng(3)
    all_scores, all_labels, ours = [], [], []
    for length in lengths:
        count = -(-length // 16) if tail == "pad_gt_last" else length // 16
        scores, labels = rng.normal(size=count), rng.integers(0, 2, length).tolist()
        ours.append(frame_scores(scores, labels, 16, tail=tail))
        missing = 16 * count - length
        # RTFM goes on with the last label; AR-Net cuts the labels to the scores.
        all_labels += labels + missing * [labels[-1]] if tail == "pad_gt_last" else labels[: 16 * count]
        all_scores += np.repeat(scores, 16).tolist()
    expected = sklearn.metrics.roc_auc_score(all_labels, all_scores)
    found, truth = (np.concatenate(parts) for parts in zip(*ours, strict=True))
    assert found.tolist() == all_scores and truth.tolist() == all_labels
    assert roc_auc(truth, found) == pytest.approx(expected)


@pytest.mark.parametrize("frames", [9, 15, 16, 23, 32, 39])
@pytest.mark.parametrize("tail", TAILS)
def test_labels_may_differ_by_a_clip(tail, frames):
    """Three clips of 8 frames: labels that end before the last clip begins, or go on for a clip or more after it."""
    scores, labels = [0.1, 0.2, 0.3], [0] * (frames - 1) + [1]
    found, truth = frame_scores(scores, labels, 8, tail=tail)
    expected, expected_truth = naive_frames(scores, labels, 8, 8, tail)
    assert found.tolist() == expected and truth.tolist() == expected_truth


def test_labels_that_end_before_the_last_clip_by_hand():
    scores, labels = [0.1, 0.5, 0.9], [0, 0, 0, 0, 0, 1]
    for tail in ("extend_score_last", "truncate_gt"):
        found, truth = frame_scores(scores, labels, 4, tail=tail)
        assert found.tolist() == [0.1] * 4 + [0.5] * 2 and truth.tolist() == labels
    found, truth = frame_scores(scores, labels, 4, tail="pad_gt_last")
    assert found.tolist() == [0.1] * 4 + [0.5] * 4 + [0.9] * 4 and truth.tolist() == labels + [1] * 6


@pytest.mark.parametrize("tail", TAILS)
def test_labels_of_another_video_are_refused(tail):
    for frames in (8, 40):
        words = f"{frames} frame labels do not fit 3 clips of 8 frames, 8 apart, which need 9 to 39. Are they those of"
        with pytest.raises(ValueError, match=words):
            frame_scores([0.1, 0.2, 0.3], [0] * frames, 8, tail=tail)
    with pytest.raises(ValueError, match="1 frame labels do not fit 4 clips of 8 frames, 3 apart, which need 2 to 32"):
        frame_scores([0.1, 0.2, 0.3, 0.4], [0], 8, 3, tail)
    # A recording that broke off is shorter than its labels.
    found, truth = frame_scores([0.1, 0.2, 0.3], [0] * 400, 8, tail=tail, cut_short=True)
    assert len(found) == len(truth) == (400 if tail == "extend_score_last" else 24)
    with pytest.raises(ValueError, match="8 frame labels do not fit"):
        frame_scores([0.1, 0.2, 0.3], [0] * 8, 8, tail=tail, cut_short=True)


@pytest.mark.parametrize("rule", ["max", "topk_mean", "mean"])
def test_clips_that_do_not_decide_leave_the_score_to_the_others(rule):
    scores = [0.1, 0.9, 0.5, 0.3, 0.2, 0.4, 0.6, 0.8, 0.7]
    decides = [index != 1 for index in range(9)]
    rest = [score for score, counts in zip(scores, decides, strict=True) if counts]
    for alpha in (1, 2, 4):
        assert video_score(scores, rule, alpha, decides) == video_score(rest, rule, alpha)
    assert video_score(scores, rule, 4, np.ones(9)) == video_score(scores, rule, 4)
    # Unless there are no others.
    assert video_score(scores, rule, 4, [False] * 9) == video_score(scores, rule, 4)
    assert video_score([0.7], rule, decides=[False]) == 0.7


def test_per_video_auc_is_the_mean_over_videos_of_both_classes():
    labels = [[0, 1, 0, 1], [0, 0, 0], [1, 1], [1, 0, 0], [1]]
    scores = [[0.1, 0.4, 0.5, 0.5], [0.1, 0.2, 0.9], [0.3, 0.4], [0.2, 0.2, 0.9], [0.5]]
    chosen = [0, 3]
    expected = np.mean([sklearn.metrics.roc_auc_score(labels[k], scores[k]) for k in chosen])
    assert per_video_auc(labels, scores) == pytest.approx(expected)
    assert math.isnan(per_video_auc(labels[1:3], scores[1:3]))
    assert math.isnan(per_video_auc([], []))


def test_per_class_auc_equals_scikit_learn():
    rng = np.random.default_rng(4)
    # A normal video counts as normal whatever its class is called.
    classes = np.array(["Fire", "Normal", "Crash", "Arson"])[rng.integers(0, 4, 80)]
    labels = np.where(classes == "Normal", 0, rng.integers(0, 2, 80))
    scores = np.round(rng.normal(size=80) + labels, 1)
    found = per_class_auc(classes.tolist(), labels, scores)
    assert list(found) == ["Arson", "Crash", "Fire"]
    for name, value in found.items():
        chosen = [k for k in range(80) if labels[k] == 0 or classes[k] == name]
        assert value == pytest.approx(sklearn.metrics.roc_auc_score(labels[chosen], scores[chosen]))


def test_per_class_auc_at_limits():
    found = per_class_auc(["Fire", "Crash", "Fire"], [1, 1, 1], [0.1, 0.2, 0.3])
    assert list(found) == ["Crash", "Fire"] and all(math.isnan(value) for value in found.values())
    assert per_class_auc(["Normal", "Normal"], [0, 0], [0.1, 0.2]) == {}


# Bootstrap


def sampled(num_videos, frames=1, seed=0):
    """Videos whose frames are all alike."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_videos) % 2
    scores = rng.normal(size=num_videos) + labels
    return np.repeat(labels, frames), np.repeat(scores, frames), np.repeat(np.arange(num_videos), frames)


STATISTICS = {
    "roc_auc": (lambda ranking, weights: ranking.roc_auc(weights), sklearn.metrics.roc_auc_score),
    "ap": (
        lambda ranking, weights: ranking.average_precision(weights=weights),
        sklearn.metrics.average_precision_score,
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_bootstrap_equals_copied_videos(name, confidence):
    rng = np.random.default_rng(5)
    videos = np.array(["c", "a", "b", "d", "f", "e"])[rng.integers(0, 6, 60)]
    labels = (rng.random(60) < np.where(np.isin(videos, ["a", "d"]), 0.5, 0.0)).astype(int)
    scores = np.round(rng.normal(size=60) + labels, 1)
    ours, theirs = STATISTICS[name]
    found = bootstrap_interval(labels, scores, videos, ours, confidence, num_resamples=60, seed=7)

    draws, values, names = np.random.default_rng(7), [], sorted(set(videos))
    for _ in range(60):
        copies = [np.flatnonzero(videos == names[k]) for k in draws.integers(6, size=6)]
        chosen = np.concatenate(copies)
        if len(set(labels[chosen])) == 2:
            values.append(theirs(labels[chosen], scores[chosen]))
    assert 30 < len(values) < 60  # some resamples hold one class only
    expected = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    np.testing.assert_allclose(found, expected)


def test_bootstrap_contains_the_estimate_and_is_deterministic():
    labels, scores, videos = sampled(100)
    found = bootstrap_interval(labels, scores, num_resamples=300)
    assert found.low < roc_auc(labels, scores) < found.high
    assert found == bootstrap_interval(labels, scores, num_resamples=300)
    assert found == bootstrap_interval(labels, scores, videos, num_resamples=300)  # each to its own by default
    assert found != bootstrap_interval(labels, scores, num_resamples=300, seed=1)
    wider = bootstrap_interval(labels, scores, num_resamples=300, confidence=0.99)
    assert wider.low < found.low and found.high < wider.high


def test_bootstrap_is_wider_with_fewer_videos():
    widths = []
    for count in (20, 80, 320):
        low, high = bootstrap_interval(*sampled(count), num_resamples=200)
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_bootstrap_draws_whole_videos():
    """Frames that are all alike say no more than one of them: about sqrt(50) times as wide as by frames."""
    labels, scores, videos = sampled(30, frames=50)
    low, high = bootstrap_interval(labels, scores, videos, num_resamples=200)
    by_frame = bootstrap_interval(labels, scores, num_resamples=200)
    assert high - low > 4 * (by_frame.high - by_frame.low)
    once = bootstrap_interval(*sampled(30), num_resamples=200)
    assert (low, high) == pytest.approx(once)


def test_bootstrap_at_limits():
    labels, scores = [0, 1, 0, 1], [0.1, 0.4, 0.5, 0.5]
    # One video: nothing varies.
    assert bootstrap_interval(labels, scores, ["a"] * 4, num_resamples=9) == pytest.approx(
        (roc_auc(labels, scores),) * 2
    )


@pytest.mark.parametrize(("num_defined", "expected"), [(10, 1.0), (6, 1.0), (5, NAN), (4, NAN), (0, NAN)])
def test_bootstrap_needs_more_than_half_of_its_resamples(num_defined, expected):
    values = iter([1.0] * num_defined + [NAN] * (10 - num_defined))
    found = bootstrap_interval([0, 1], [1, 2], statistic=lambda *_: next(values), num_resamples=10)
    assert found == pytest.approx((expected, expected), nan_ok=True)


# Event classes


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_classes_equal_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    labels, predictions = rng.integers(0, num_classes, (2, 40))
    labels[labels == 3] = 2  # of five classes, one has no videos, but is predicted
    numbers, present = list(range(num_classes)), sorted(set(labels.tolist()))
    matrix = confusion_matrix(labels, predictions, num_classes)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predictions, labels=numbers))
    names = [f"class {number}" for number in numbers]
    found = top1_recall(labels, predictions, names)
    assert list(found.per_class) == names
    expected = sklearn.metrics.recall_score(labels, predictions, labels=numbers, average=None, zero_division=NAN)
    np.testing.assert_allclose(list(found.per_class.values()), expected)
    assert found.overall == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    expected = sklearn.metrics.recall_score(labels, predictions, labels=present, average="macro")
    assert found.macro == pytest.approx(expected)


def test_classes_by_hand():
    found = top1_recall([0, 0, 0, 2], [0, 1, 1, 2], ["fire", "crash", 7])
    assert found.per_class == {"fire": pytest.approx(1 / 3), "crash": pytest.approx(NAN, nan_ok=True), "7": 1.0}
    assert found.overall == 0.5 and found.macro == pytest.approx(2 / 3)
    assert confusion_matrix([0, 0, 0, 2], [0, 1, 1, 2], 3).tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


# Modules of evaluate


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a metric reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_anomaly_scores_is_a_module(tmp_path, no_network):
    labels, scores = CASES["tied"]
    error = equal_error_threshold(labels, scores)
    expected = {
        "roc_auc": roc_auc(labels, scores),
        "average_precision": average_precision(labels, scores),
        "average_precision_trapezoid": average_precision(labels, scores, "trapezoid"),
        "equal_error_rate": error.rate,
        "equal_error_threshold": error.threshold,
    }
    module = AnomalyScores(cache_dir=str(tmp_path))
    assert module.compute(predictions=scores, references=labels) == pytest.approx(expected)
    for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
        module.add(prediction=score, reference=label)
    assert module.compute() == pytest.approx(expected)
    for part in (slice(0, 25), slice(25, None)):
        module.add_batch(predictions=scores[part].tolist(), references=labels[part].astype(bool).tolist())
    assert module.compute() == pytest.approx(expected)


def test_event_classes_is_a_module(tmp_path, no_network):
    labels, predictions, classes = [0, 0, 1, 2, 2], [0, 1, 1, 2, 0], ["fire", "crash", "fight"]
    expected = {
        "per_class": {"fire": 0.5, "crash": 1.0, "fight": 0.5},
        "overall": pytest.approx(3 / 5),
        "macro": pytest.approx(2 / 3),
        "confusion_matrix": [[1, 1, 0], [0, 1, 0], [1, 0, 1]],
    }
    module = EventClasses(cache_dir=str(tmp_path))
    assert module.compute(predictions=predictions, references=labels, classes=classes) == expected
    for label, prediction in zip(labels, predictions, strict=True):
        module.add(prediction=prediction, reference=label)
    assert module.compute(classes=classes) == expected
    module.add_batch(predictions=np.array(predictions[:2]), references=np.array(labels[:2]))
    module.add_batch(predictions=np.array(predictions[2:]), references=np.array(labels[2:]))
    assert module.compute(classes=classes) == expected


def test_modules_refuse_what_the_functions_refuse(tmp_path):
    """Also fractions, which whole numbers in the features would cut."""
    # A folder each: `evaluate` waits for the lock of a computation that was refused.
    for labels, scores, words in (
        ([0, 0.5], [0.1, 0.2], "Labels must be 0"),
        ([0, 2], [0.1, 0.2], "Labels must be 0"),
        ([0, 1], [0.1, NAN], "1 of 2 scores are NaN"),
        ([], [], "Scores must be of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            AnomalyScores(cache_dir=tempfile.mkdtemp(dir=tmp_path)).compute(predictions=scores, references=labels)
    for labels, predictions, words in (
        ([0, 1], [0, 1.7], "predictions must be class numbers from 0 to 1"),
        ([0, 2], [0, 1], "labels must be class numbers from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            EventClasses(cache_dir=tempfile.mkdtemp(dir=tmp_path)).compute(
                predictions=predictions, references=labels, classes=["fire", "crash"]
            )


# Refusals

REFUSED = {
    "no scores": (lambda: roc_auc([], []), r"Scores must be of shape \(N,\) with one or more of them, got \(0,\)"),
    "one number": (lambda: roc_auc(1, 0.5), r"Scores must be of shape \(N,\) .* got \(\)"),
    "scores of two axes": (lambda: average_precision([[0, 1]], [[0.1, 0.2]]), r"shape \(N,\) .* got \(1, 2\)"),
    "NaN": (lambda: roc_auc([0, 1, 1], [0.1, NAN, NAN]), "2 of 3 scores are NaN. Find the videos"),
    "all NaN": (lambda: equal_error_threshold([0, 1], [NAN, NAN]), "2 of 2 scores are NaN"),
    "fewer labels": (lambda: roc_auc([0], [0.1, 0.2]), r"One label a score is needed, got \(1,\) labels and \(2,\)"),
    "labels of two axes": (lambda: roc_auc([[0, 1]], [0.1, 0.2]), r"got \(1, 2\) labels and \(2,\) scores"),
    "label 2": (lambda: average_precision([0, 2], [0.1, 0.2]), r"Labels must be 0 .* got \[0, 2\]"),
    "label -1": (lambda: equal_error_threshold([-1, 1], [0.1, 0.2]), r"Labels must be 0 .* got \[-1, 1\]"),
    "label 0.5": (lambda: roc_auc([0.5, 1], [0.1, 0.2]), r"Labels must be 0 .* got \[0.5, 1.0\]"),
    "label NaN": (lambda: roc_auc([NAN, 1], [0.1, 0.2]), r"Labels must be 0 .* got \[1.0, nan\]"),
    "labels in words": (lambda: roc_auc(["normal", "fire"], [0.1, 0.2]), "Labels must be 0 .* got .'fire', 'normal'"),
    "method": (lambda: average_precision([0, 1], [0.1, 0.2], "area"), "must be 'step' or 'trapezoid', got 'area'"),
    "more weights": (lambda: Ranking([0, 1], [1, 2]).roc_auc(np.ones(3)), r"one of 2 samples each, got shape \(3,\)"),
    "no weights": (lambda: Ranking([0, 1], [1, 2]).roc_auc([]), r"one of 2 samples each, got shape \(0,\)"),
    "negative weights": (lambda: Ranking([0, 1], [1, 2]).roc_auc([-1, 1]), "Weights must be 0 or more.* lowest -1.0"),
    "NaN weights": (lambda: Ranking([0, 1], [1, 2]).average_precision(weights=[NAN, 1]), "0 or more.* lowest nan"),
    "false alarms of NaN": (lambda: false_alarm_rate([0.1, NAN]), "1 of 2 scores are NaN"),
    "false alarms of two axes": (lambda: false_alarm_rate([[0.1, 0.2]]), r"shape \(N,\) .* got \(1, 2\)"),
    "rule": (lambda: video_score([0.1], "median"), "rule must be one of max, topk_mean, mean, got 'median'"),
    "video without clips": (lambda: video_score([]), "Scores must be of shape"),
    "video with NaN": (lambda: video_score([0.1, NAN], "mean"), "1 of 2 scores are NaN"),
    "alpha": (lambda: video_score([0.1], "topk_mean", 0), "alpha must be 1 or more, got 0"),
    "fewer decide": (lambda: video_score([0.1, 0.2], decides=[True]), r"2 clips, got shape \(1,\)"),
    "tail": (lambda: frame_scores([0.1], [0], tail="cut"), "tail must be one of extend_score_last, .* got 'cut'"),
    "no frames": (lambda: frame_scores([0.1], []), r"Frame labels must be of shape \(N,\) .* got \(0,\)"),
    "frames of two axes": (lambda: frame_scores([0.1], [[0, 1]]), r"Frame labels must .* got \(1, 2\)"),
    "no clips": (lambda: frame_scores([], [0]), "Scores must be of shape"),
    "clip of NaN": (lambda: frame_scores([NAN], [0]), "1 of 1 scores are NaN"),
    "gaps": (lambda: frame_scores([0.1, 0.2], [0] * 40, 8, 9), "between 1 and the clip's length 8, got 9"),
    "no stride": (lambda: frame_scores([0.1, 0.2], [0] * 40, 8, 0), "between 1 and the clip's length 8, got 0"),
    "clips of no frames": (lambda: frame_scores([0.1], [0], 0), "between 1 and the clip's length 0, got 0"),
    "one video": (lambda: per_video_auc([0, 1], [0.1, 0.2]), "Scores must be of shape"),
    "fewer videos": (lambda: per_video_auc([[0, 1]], [[0.1, 0.2], [0.3, 0.4]]), "argument 2 is longer"),
    "fewer classes": (lambda: per_class_auc(["a"], [0, 1], [0.1, 0.2]), r"One class a video .* \(1,\) classes"),
    "fewer classes' scores": (lambda: per_class_auc(["a", "b"], [0, 1], [0.1]), "One label a score is needed"),
    "class of label 2": (lambda: per_class_auc(["a", "b"], [0, 2], [0.1, 0.2]), "Labels must be 0"),
    "class of NaN": (lambda: per_class_auc(["a", "b"], [0, 1], [0.1, NAN]), "1 of 2 scores are NaN"),
    "no videos": (lambda: per_class_auc([], [], []), "Scores must be of shape"),
    "no confidence": (lambda: bootstrap_interval([0, 1], [1, 2], confidence=0), "between 0 and 1 .* got 0, 1000"),
    "in per cent": (lambda: bootstrap_interval([0, 1], [1, 2], confidence=95), "between 0 and 1 .* got 95, 1000"),
    "certainty": (lambda: bootstrap_interval([0, 1], [1, 2], confidence=1), "between 0 and 1 .* got 1, 1000"),
    "no resamples": (lambda: bootstrap_interval([0, 1], [1, 2], num_resamples=0), "1 or more, got 0.95, 0"),
    "fewer names": (lambda: bootstrap_interval([0, 1], [1, 2], ["a"]), r"2 samples, got \(1,\)"),
    "names of two axes": (lambda: bootstrap_interval([0, 1], [1, 2], [["a", "b"]]), r"2 samples, got \(1, 2\)"),
    "bootstrap of nothing": (lambda: bootstrap_interval([], []), "Scores must be of shape"),
    "bootstrap of NaN": (lambda: bootstrap_interval([0, 1], [1, NAN]), "1 of 2 scores are NaN"),
    "no events": (lambda: top1_recall([], [], ["a"]), r"one or more of them, got \(0,\) and \(0,\)"),
    "fewer predictions": (lambda: confusion_matrix([0, 1], [0], 2), r"for each label, .* got \(1,\) and \(2,\)"),
    "events of two axes": (lambda: confusion_matrix([[0]], [[0]], 2), r"got \(1, 1\) and \(1, 1\)"),
    "unknown class": (lambda: top1_recall([0, 2], [0, 1], "ab"), r"labels must be .* from 0 to 1, got \[0 2\]"),
    "unknown prediction": (lambda: top1_recall([0, 1], [0, -1], "ab"), r"predictions must be .* got \[-1  0\]"),
    "half a class": (lambda: confusion_matrix([0.5], [0], 2), r"labels must be .* got \[0.5\]"),
    "no classes": (lambda: confusion_matrix([0], [0], 0), "labels must be class numbers"),
    "same names": (lambda: top1_recall([0, 1], [0, 1], ["a", "b", "a"]), "must differ, .* more than once: a[.]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
