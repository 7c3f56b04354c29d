"""Figures of repeated cross-validation where videos of one recording belong together: means and intervals.

Every video is scored once a repeat, by a detector that has seen nothing of its recording. A figure is computed on the
scores of all videos of a repeat, and averaged over the repeats. Its interval comes from drawing recordings, not
videos, with replacement; two systems are compared on the same draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from avad_hf.metrics.ranking import Ranking
from avad_hf.metrics.resampling import Estimate, draws


@dataclass(frozen=True)
class Repeat:
    """The videos of one repeat, each scored out of its own fold.

    Args:
        labels: 1 for anomalous videos, 0 for normal ones, shape `(N,)`.
        scores: Shape `(N,)`.
        alarms: Whether each reaches the threshold of the detector that scored it, shape `(N,)`.
        folds: In which fold each is tested, shape `(N,)`.
    """

    labels: np.ndarray
    scores: np.ndarray
    alarms: np.ndarray
    folds: np.ndarray

    def roc_auc(self, weights: np.ndarray) -> float:
        """Area under the ROC curve within folds: how often an anomalous video is above a normal one of its fold.

        Scores of two detectors have no common scale, and nobody uses five at once.
        """
        total = pairs = 0.0
        for fold in np.unique(self.folds):
            own = self.folds == fold
            labels, counted = self.labels[own], weights[own]
            number = counted[labels == 1].sum() * counted[labels == 0].sum()
            if number:
                total += number * Ranking(labels, self.scores[own]).roc_auc(counted)
                pairs += number
        return total / pairs if pairs else float("nan")

    def pooled_roc_auc(self, weights: np.ndarray) -> float:
        """Area under the ROC curve over all folds at once, as if all detectors had one scale."""
        return Ranking(self.labels, self.scores).roc_auc(weights)

    def average_precision(self, weights: np.ndarray) -> float:
        """Average precision, as the sum of steps."""
        return Ranking(self.labels, self.scores).average_precision("step", weights)

    def false_alarms(self, weights: np.ndarray) -> float:
        """Share of the normal videos that reach their threshold."""
        return self._share(weights, 0)

    def found(self, weights: np.ndarray) -> float:
        """Share of the anomalous videos that reach their threshold."""
        return self._share(weights, 1)

    def _share(self, weights: np.ndarray, label: int) -> float:
        counted = weights * (self.labels == label)
        total = counted.sum()
        return float((counted * self.alarms).sum() / total) if total else float("nan")


def estimate(repeats: Sequence[Repeat], weights: np.ndarray, statistic: Callable[[Repeat, np.ndarray], float]):
    """A figure of several repeats with its interval.

    Args:
        repeats: The same videos each.
        weights: What `draws` gives; a video may be left out by weights of 0 in every draw.
        statistic: ``Repeat.roc_auc`` and the like.
    """
    counted = (weights.sum(axis=0) > 0).astype(float)
    value = float(np.mean([statistic(repeat, counted) for repeat in repeats]))
    return Estimate.of(value, np.array([np.mean([statistic(one, row) for one in repeats]) for row in weights]))


__all__ = ["Estimate", "Repeat", "draws", "estimate"]
