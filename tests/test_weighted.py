"""Figures under many weightings against scikit-learn on the videos written out, and what is made of the draws."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from avad_hf.metrics.resampling import Estimate, draws, holm
from avad_hf.metrics.weighted import Units, average_precision, roc_area, share


def frames(seed=0, num_videos=12):
    """Units of several videos; scores tie within and across videos."""
    rng = np.random.default_rng(seed)
    video = np.sort(rng.integers(num_videos, size=60))
    score = rng.integers(0, 9, 60) / 10
    return Units(video, score, rng.integers(0, 4, 60), rng.integers(0, 4, 60))


def written_out(units, weights):
    """Every frame of every video as often as it counts."""
    labels, scores = [], []
    for video, score, positive, negative in zip(units.video, units.score, units.positive, units.negative, strict=True):
        for _ in range(int(weights[video])):
            labels += [1] * positive + [0] * negative
            scores += [score] * (positive + negative)
    return labels, scores


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_those_of_the_videos_written_out(seed):
    units = frames(seed)
    weights = draws([f"recording {number // 2}" for number in range(12)], 7, seed)
    for statistic, definition in ((roc_area, roc_auc_score), (average_precision, average_precision_score)):
        numerator, denominator = statistic(units, weights)
        expected = [definition(*written_out(units, row)) for row in weights]
        np.testing.assert_allclose(numerator / denominator, expected, atol=1e-12)


def test_some_videos_alone():
    units, chosen = frames(), np.arange(12) % 3 == 0
    numerator, denominator = roc_area(units.of(chosen), np.ones((1, 12)))
    labels, scores = written_out(units, chosen)
    assert numerator[0] / denominator[0] == pytest.approx(roc_auc_score(labels, scores))


def test_one_class_has_no_area():
    units = Units(np.array([0, 1]), np.array([0.1, 0.2]), np.array([1, 1]), np.array([0, 0]))
    assert roc_area(units, np.ones((1, 2)))[1] == 0


def test_shares_count_those_that_are_meant():
    numerator, denominator = share(np.array([1, 0, 0.5]), np.array([True, True, False]), np.array([[1, 3, 9]]))
    assert (numerator[0], denominator[0]) == (1, 4)


def test_videos_of_one_recording_are_drawn_together():
    drawn = draws(["a", "b", "a", "c"], 50)
    assert (drawn[:, 0] == drawn[:, 2]).all() and (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_a_difference_is_that_of_the_same_draws():
    one, other = Estimate.of(0.9, np.array([0.9, 0.8, 1.0])), Estimate.of(0.7, np.array([0.7, 0.6, 0.8]))
    difference = one.minus(other)
    np.testing.assert_allclose(difference.values, 0.2)
    assert difference.value == pytest.approx(0.2) and difference.p_value == 2 / 4
    assert one.minus(one).p_value == 1
    assert math.isnan(Estimate.of(0.5, np.full(3, np.nan)).p_value)
    assert math.isnan(Estimate.of(0.5, np.array([np.nan, np.nan, 0.5])).interval.low)


def test_corrected_p_values_are_those_of_holm():
    """By hand: the smallest times 4, the next times 3, ..., and none below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    corrected = holm([math.nan, 0.02])
    assert math.isnan(corrected[0]) and corrected[1] == 0.02
