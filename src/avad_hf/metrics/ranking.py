"""Figures that depend on the order of scores alone: ROC and precision-recall curves, the areas under them, thresholds.

Where a figure is not defined because one class is missing, it is NaN; what cannot be meant (NaN scores, labels other
than 0 and 1, nothing at all) is refused. scikit-learn gives the same; here samples may be weighted, so that a
bootstrap need not sort again.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

APMethod = Literal["step", "trapezoid"]


class Curve(NamedTuple):
    """Points of a curve, one for each threshold from above the highest score down.

    Args:
        x: False positive rate (ROC) or recall (precision-recall).
        y: True positive rate (ROC) or precision (precision-recall).
        thresholds: Scores from which on a sample counts as positive; the first is infinite.
    """

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray


class EqualError(NamedTuple):
    """Where as large a part of the normal samples is called anomalous as of the anomalous ones is missed.

    Args:
        threshold: Score from which on a sample counts as anomalous.
        rate: The error there; the mean of both errors where they do not meet exactly.
    """

    threshold: float
    rate: float


def check_scores(scores: ArrayLike) -> np.ndarray:
    """Scores as float64; raises ``ValueError`` for none, for other shapes than `(N,)`, and for NaN."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"Scores must be of shape (N,) with one or more of them, got {scores.shape}.")
    if broken := int(np.isnan(scores).sum()):
        raise ValueError(
            f"{broken} of {scores.size} scores are NaN. Find the videos they belong to and leave them out."
        )
    return scores


def check_samples(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores as float64; raises ``ValueError`` for labels other than one 0 or 1 a score."""
    scores, labels = check_scores(scores), np.asarray(labels)
    if labels.shape != scores.shape:
        raise ValueError(f"One label a score is needed, got {labels.shape} labels and {scores.shape} scores.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Labels must be 0 (normal) or 1 (anomalous), got {np.unique(labels)[:5].tolist()}.")
    return labels, scores


class Ranking:
    """Samples sorted by score once, for many figures of them.

    Args:
        labels: 1 for anomalous samples, 0 for normal ones, shape `(N,)`.
        scores: Higher for more anomalous ones, shape `(N,)`. Ties are one point of a curve.

    Raises:
        ValueError: For other shapes, other labels, NaN, or no sample.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike):
        labels, scores = check_samples(labels, scores)
        self._order = np.argsort(-scores, kind="stable")
        self._labels = labels[self._order].astype(np.float64)
        ranked = scores[self._order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last sample of each tie
        self._thresholds = ranked[self._ends]

    def _counts(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at each threshold, from 0 on."""
        if weights is None:
            weights = np.ones(len(self._labels))
        else:
            weights = np.asarray(weights, dtype=np.float64)
            if weights.shape != self._labels.shape or not (weights >= 0).all():
                raise ValueError(
                    f"Weights must be 0 or more, one of {len(self._labels)} samples each, got shape {weights.shape}"
                    f"{f', lowest {weights.min()}' if weights.size else ''}."
                )
            weights = weights[self._order]
        positives = np.cumsum(weights * self._labels)[self._ends]
        negatives = np.cumsum(weights * (1 - self._labels))[self._ends]
        return np.append(0.0, positives), np.append(0.0, negatives)

    def roc(self, weights: np.ndarray | None = None) -> Curve:
        """False against true positive rate; NaN where a class is missing."""
        positives, negatives = self._counts(weights)
        with np.errstate(invalid="ignore"):
            return Curve(negatives / negatives[-1], positives / positives[-1], np.append(np.inf, self._thresholds))

    def precision_recall(self, weights: np.ndarray | None = None) -> Curve:
        """Recall against precision, which is 1 by convention where nothing is called anomalous."""
        positives, negatives = self._counts(weights)
        called = positives + negatives
        with np.errstate(invalid="ignore"):
            precision = np.where(called > 0, positives / called, 1.0)
            return Curve(positives / positives[-1], precision, np.append(np.inf, self._thresholds))

    def roc_auc(self, weights: np.ndarray | None = None) -> float:
        """See [`roc_auc`]; `weights` of shape `(N,)`, in the order of the labels."""
        curve = self.roc(weights)
        return float(np.trapezoid(curve.y, curve.x))

    def average_precision(self, method: APMethod = "step", weights: np.ndarray | None = None) -> float:
        """See [`average_precision`]; `weights` of shape `(N,)`, in the order of the labels."""
        if method not in ("step", "trapezoid"):
            raise ValueError(f"method must be 'step' or 'trapezoid', got {method!r}.")
        _, negatives = self._counts(weights)
        if not negatives[-1]:
            return float("nan")
        curve = self.precision_recall(weights)
        if method == "trapezoid":
            return float(np.trapezoid(curve.y, curve.x))
        return float(np.sum(np.diff(curve.x) * curve.y[1:]))

    def equal_error(self) -> EqualError:
        """See [`equal_error_threshold`]."""
        positives, negatives = self._counts(None)
        if not positives[-1] or not negatives[-1]:
            return EqualError(float("nan"), float("nan"))
        # Times both counts, so in whole numbers: rates that are equally near would be told apart by rounding.
        false_alarms, misses = negatives * positives[-1], (positives[-1] - positives) * negatives[-1]
        best = int(np.argmin(np.abs(false_alarms - misses)))
        rate = float((false_alarms[best] + misses[best]) / (2 * positives[-1] * negatives[-1]))
        # The first point is the best only where all scores are equal, and then there is one threshold for both.
        low, below = float(self._thresholds[best - 1]), float(self._thresholds[best])
        # Between two scores, so that neither stands on the edge, if they are finite and leave room.
        middle = low / 2 + below / 2
        return EqualError(middle if below < middle < low else low, rate)


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often an anomalous sample scores higher than a normal one, ties counting half.

    Args:
        labels: 1 for anomalous samples, 0 for normal ones, shape `(N,)`.
        scores: Shape `(N,)`.

    Returns:
        Between 0 and 1; NaN where all samples are of one class.
    """
    return Ranking(labels, scores).roc_auc()


def average_precision(labels: ArrayLike, scores: ArrayLike, method: APMethod = "step") -> float:
    """Average precision of the anomalous samples.

    Published figures differ by how they integrate: VadCLIP sums steps, as scikit-learn's `average_precision_score`;
    XDVioDet, RTFM and PEL4VAD join the points of the curve by lines, as `auc(recall, precision)`.

    Args:
        labels: 1 for anomalous samples, 0 for normal ones, shape `(N,)`.
        scores: Shape `(N,)`.
        method: ``"step"`` or ``"trapezoid"``.

    Returns:
        Between 0 and 1; NaN where all samples are of one class.
    """
    return Ranking(labels, scores).average_precision(method)


def equal_error_threshold(labels: ArrayLike, scores: ArrayLike) -> EqualError:
    """Threshold at which the share of false alarms and the share of misses are nearest to each other.

    Args:
        labels: 1 for anomalous samples, 0 for normal ones, shape `(N,)`.
        scores: Shape `(N,)`.

    Returns:
        [`EqualError`], NaN where all samples are of one class. The threshold lies halfway between the lowest score
        that is called anomalous and the next one below; of several that are equally good it is the highest.
    """
    return Ranking(labels, scores).equal_error()


def false_alarm_rate(scores_of_normal: ArrayLike, threshold: float = 0.5) -> float:
    """Share of normal samples whose score reaches the threshold (the FAR of the literature: normal videos, at 0.5).

    Args:
        scores_of_normal: Scores of frames, clips or videos in which nothing happens, shape `(N,)`.
        threshold: Score from which on a sample is called anomalous.

    Returns:
        Between 0 and 1; NaN without samples.
    """
    if not np.size(scores_of_normal):
        return float("nan")
    return float(np.mean(check_scores(scores_of_normal) >= threshold))


__all__ = [
    "Curve",
    "EqualError",
    "Ranking",
    "average_precision",
    "equal_error_threshold",
    "false_alarm_rate",
    "roc_auc",
]
