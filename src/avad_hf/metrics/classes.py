"""Figures of event classes: recall of each, and what is taken for what."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class TopOne(NamedTuple):
    """Recall of the class with the highest score (AVRL, equation 6, normalised by each class's own videos).

    Args:
        per_class: By name; NaN for a class without videos.
        overall: Share of all videos that are right (micro).
        macro: Mean over the classes that have videos.
    """

    per_class: dict[str, float]
    overall: float
    macro: float


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """How many videos of each class (rows) were taken for which class (columns).

    Args:
        labels: Class numbers, shape `(N,)`.
        predictions: Class numbers, shape `(N,)`.
        num_classes: Size of the matrix.

    Raises:
        ValueError: For different lengths, no videos, or numbers that are no class.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise ValueError(
            f"Give one prediction for each label, and one or more of them, got {predictions.shape} and {labels.shape}."
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if not np.isin(values, np.arange(num_classes)).all():
            raise ValueError(f"{name} must be class numbers from 0 to {num_classes - 1}, got {np.unique(values)[:9]}.")
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (labels.astype(np.int64), predictions.astype(np.int64)), 1)
    return matrix


def top1_recall(labels: ArrayLike, predictions: ArrayLike, classes: Sequence[Any]) -> TopOne:
    """Recall of each class, of all videos, and averaged over classes.

    Args:
        labels: Class numbers, shape `(N,)`.
        predictions: Class numbers, shape `(N,)`.
        classes: Their names, in the order of their numbers.

    Raises:
        ValueError: As `confusion_matrix`, and for names that are the same.
    """
    names = [str(name) for name in classes]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Class names must differ, but these are given more than once: {', '.join(repeated)}.")
    matrix = confusion_matrix(labels, predictions, len(names))
    with np.errstate(invalid="ignore"):
        recalls = matrix.diagonal() / matrix.sum(axis=1)
    per_class = {name: float(value) for name, value in zip(names, recalls, strict=True)}
    return TopOne(per_class, float(matrix.trace() / matrix.sum()), float(np.nanmean(recalls)))


__all__ = ["TopOne", "confusion_matrix", "top1_recall"]
