"""Event classes as a module of `evaluate`. This file and `classes.py` are all that a pushed copy of it needs."""

from typing import Any

# On lines of their own: the parser of `evaluate` takes "import datasets, evaluate" for one missing package.
import datasets
import evaluate

from .classes import confusion_matrix, top1_recall

CITATION = """\
@article{gao2024avrl, title={Audio-visual representation learning for anomaly events detection in crowds},
author={Gao, J. and others}, journal={Neurocomputing 582:127489}, year={2024}}"""

# As floats, although they are whole numbers: as integers, `datasets` would cut 1.7 to 1 before it can be refused.
FEATURES = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})

# Far above the classes of any corpus. A pushed Space answers strangers; the confusion matrix takes 8 MB at most.
MOST_CLASSES = 1_000


class EventClasses(evaluate.Metric):
    """Top-1 recall of event classes: of each, of all videos, and averaged over classes; with the confusion matrix."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="How many videos of each event class are recognised.",
            citation=CITATION,
            inputs_description="predictions, references: class numbers. compute(classes=[...]) gives their names.",
            features=FEATURES,
        )

    def _compute(
        self, predictions: list[float], references: list[float], classes: list[str] | None = None
    ) -> dict[str, Any]:
        if classes is None:  # the numbers are the names, up to the highest
            highest = max([*predictions, *references, 0])
            if not highest < MOST_CLASSES:
                raise ValueError(
                    f"Class numbers must be below {MOST_CLASSES:,}, got {highest:g}. Number them from 0 on."
                )
            classes = [str(number) for number in range(int(highest) + 1)]
        elif len(classes) > MOST_CLASSES:
            raise ValueError(f"Give {MOST_CLASSES:,} classes or fewer, got {len(classes):,}.")
        recall = top1_recall(references, predictions, classes)
        matrix = confusion_matrix(references, predictions, len(classes))
        return {**recall._asdict(), "confusion_matrix": matrix.tolist()}


__all__ = ["EventClasses"]
