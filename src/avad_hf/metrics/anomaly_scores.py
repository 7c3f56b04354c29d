"""Anomaly scores as a module of `evaluate`. This file and `ranking.py` are all that a pushed copy of it needs."""

# On lines of their own: the parser of `evaluate` takes "import datasets, evaluate" for one missing package.
import datasets
import evaluate

from .ranking import Ranking

CITATION = """\
@article{leporowski2023avaca, title={Audio-Visual Dataset and Method for Anomaly Detection in Traffic Videos},
author={Leporowski, B. and others}, journal={arXiv:2305.15084}, year={2023}}"""

# References too, although they are whole numbers: as integers, `datasets` would cut 0.5 to 0 before it can be refused.
FEATURES = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})


class AnomalyScores(evaluate.Metric):
    """ROC AUC, average precision and equal error rate of anomaly scores, of frames, clips or videos.

    Example:
    ```python
    >>> AnomalyScores().compute(predictions=[0.1, 0.8], references=[0, 1])["roc_auc"]
    1.0
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="How well scores tell anomalous from normal samples.",
            citation=CITATION,
            inputs_description="predictions: scores. references: 1 for anomalous samples, 0 for normal ones.",
            features=FEATURES,
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        ranking = Ranking(references, predictions)
        error = ranking.equal_error()
        return {
            "roc_auc": ranking.roc_auc(),
            "average_precision": ranking.average_precision("step"),
            "average_precision_trapezoid": ranking.average_precision("trapezoid"),
            "equal_error_rate": error.rate,
            "equal_error_threshold": error.threshold,
        }


__all__ = ["AnomalyScores"]
