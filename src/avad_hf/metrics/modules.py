"""The same figures as modules of `evaluate`. They are part of this package: nothing is loaded from the Hub."""

from typing import Any

# On lines of their own: the parser of `evaluate` takes "import datasets, evaluate" for one missing package.
import datasets
import evaluate

from .classes import confusion_matrix, top1_recall
from .ranking import Ranking

CITATION = """\
@article{leporowski2023avaca, title={Audio-Visual Dataset and Method for Anomaly Detection in Traffic Videos},
author={Leporowski, B. and others}, journal={arXiv:2305.15084}, year={2023}}"""

# Labels too, although they are whole numbers: as integers, `datasets` would cut 0.5 to 0 before it can be refused.
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


class EventClasses(evaluate.Metric):
    """Top-1 recall of event classes, each, overall and averaged, with the confusion matrix."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="How many videos of each event class are recognised.",
            citation=CITATION,
            inputs_description="predictions, references: class numbers. compute(classes=[...]) gives their names.",
            features=FEATURES,
        )

    def _compute(self, predictions: list[int], references: list[int], classes: list[str]) -> dict[str, Any]:
        recall = top1_recall(references, predictions, classes)
        matrix = confusion_matrix(references, predictions, len(classes))
        return {**recall._asdict(), "confusion_matrix": matrix.tolist()}


__all__ = ["AnomalyScores", "EventClasses"]
