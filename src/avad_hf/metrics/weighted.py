"""Figures of scored videos under many weightings of the videos at once, as a bootstrap needs them.

Each is a numerator and a denominator for every weighting, so that tests of several folds can be added up: figures of
two detectors' scores never mix the scores, which have no common scale.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

Fraction = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Units:
    """What is ranked: videos, clips, or frames that share a score.

    Args:
        video: Number of the video of each, shape `(M,)`.
        score: Shape `(M,)`.
        positive: How many of it are anomalous, shape `(M,)`.
        negative: How many of it are normal, shape `(M,)`.
    """

    video: np.ndarray
    score: np.ndarray
    positive: np.ndarray
    negative: np.ndarray

    def of(self, chosen: np.ndarray) -> "Units":
        """Those of some videos alone; `chosen` of shape `(N,)`, by the videos' numbers."""
        kept = chosen[self.video]
        return Units(self.video[kept], self.score[kept], self.positive[kept], self.negative[kept])


def roc_area(units: Units, weights: np.ndarray) -> Fraction:
    """Pairs of an anomalous and a normal unit in which the anomalous one has the higher score, and all pairs.

    Args:
        units: What is ranked.
        weights: How often each video counts, shape `(D, N)`.

    Returns:
        Two arrays of shape `(D,)`; a tie is half a pair. Their quotient is the area under the ROC curve.
    """
    positive, negative = _by_score(units, weights)
    below = np.cumsum(negative, axis=1) - negative
    won = (positive * (below + negative / 2)).sum(axis=1)
    return won, positive.sum(axis=1) * negative.sum(axis=1)


def average_precision(units: Units, weights: np.ndarray) -> Fraction:
    """Precision at each anomalous unit, added up, and how many there are; arguments as of `roc_area`.

    Their quotient is the average precision, as the sum of steps.
    """
    positive, negative = (part[:, ::-1] for part in _by_score(units, weights))
    found = np.cumsum(positive, axis=1)
    called = found + np.cumsum(negative, axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return (positive * precision).sum(axis=1), positive.sum(axis=1)


def share(hits: np.ndarray, counted: np.ndarray, weights: np.ndarray) -> Fraction:
    """A share of videos.

    Args:
        hits: What each counts for, within 0 and 1, shape `(N,)`.
        counted: Whether it is one of those that are counted, shape `(N,)`.
        weights: As of `roc_area`.
    """
    return weights @ (np.where(counted, hits, 0.0)), weights @ counted.astype(float)


def _by_score(units: Units, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many anomalous and normal ones have each score, from the lowest on, of shape `(D, scores)`."""
    scores, place = np.unique(units.score, return_inverse=True)
    shape = (weights.shape[1], len(scores))
    counts = (csr_array((part, (units.video, place)), shape=shape) for part in (units.positive, units.negative))
    positive, negative = (weights.astype(float) @ part for part in counts)
    return positive, negative


__all__ = ["Fraction", "Units", "average_precision", "roc_area", "share"]
