"""What any detector of stored features should beat: logistic regression on their means, and what needs no content."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avad_hf.corpora.splits import grouped_folds
from avad_hf.features.dataset import FeatureDataset
from avad_hf.metrics.ranking import Ranking

# Strengths of the regularisation (scikit-learn's C) that are tried, from strong to weak.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
INNER_FOLDS = 4


def mean_features(features: FeatureDataset) -> dict[str, np.ndarray]:
    """Each video's mean over clips and cells (``"seen"``) and over clips and steps (``"heard"``), `(N, width)` each.

    Those of videos without sound are zero.
    """
    seen, heard = [], []
    for item in features:
        seen.append(item["visual_features"].float().mean(dim=(0, 2, 3)).numpy())
        heard.append(item["audio_features"].float().mean(dim=(0, 1)).numpy())
    return {"seen": np.stack(seen).astype(np.float64), "heard": np.stack(heard).astype(np.float64)}


class MeanRegression:
    """Logistic regression on mean features; its strength is chosen by folds within the training recordings.

    Each sense is divided by its root mean square over the training videos, so that none counts more by its unit.

    Args:
        senses: ``"seen"``, ``"heard"``, or both.
    """

    def __init__(self, senses: Sequence[str]):
        from sklearn.linear_model import LogisticRegression  # which takes a second to load

        self._make = lambda strength: LogisticRegression(C=strength, max_iter=5000)
        self.senses = senses

    def fit(self, means: dict[str, np.ndarray], rows: Sequence[dict[str, Any]]) -> "MeanRegression":
        """Learn from videos.

        Args:
            means: What `mean_features` gives for these videos.
            rows: What is known of them: ``anomaly``, ``group`` and what `grouped_folds` needs.
        """
        labels = np.array([int(row["anomaly"]) for row in rows])
        self.scales = {name: 1 / max(float(np.sqrt(np.mean(means[name] ** 2))), 1e-12) for name in self.senses}
        inputs = self._inputs(means)
        folds = grouped_folds(rows, INNER_FOLDS, seed=0)
        is_tested = np.array([[fold[row["id"]] == "test" for row in rows] for fold in folds])
        outside = {}
        for strength in STRENGTHS:
            scores = np.empty(len(rows))
            for tested in is_tested:
                scores[tested] = (
                    self._make(strength).fit(inputs[~tested], labels[~tested]).decision_function(inputs[tested])
                )
            outside[strength] = Ranking(labels, scores)
        self.strength = max(STRENGTHS, key=lambda strength: outside[strength].roc_auc())
        self.threshold = outside[self.strength].equal_error().threshold
        self.model = self._make(self.strength).fit(inputs, labels)
        return self

    def scores(self, means: dict[str, np.ndarray]) -> np.ndarray:
        """Scores of videos, shape `(N,)`; they are logits, on the scale of `threshold`."""
        return self.model.decision_function(self._inputs(means))

    def _inputs(self, means: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([means[name] * self.scales[name] for name in self.senses], axis=1)


__all__ = ["MeanRegression", "mean_features"]
