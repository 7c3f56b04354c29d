"""Boxes that a detector finds in a picture."""

from typing import NamedTuple, Protocol

import numpy as np

# How much further a thing reaches than its box: to the left, up, to the right and down, as shares of its sides.
Margin = tuple[float, float, float, float]


class Boxes(NamedTuple):
    """What was found in one picture.

    Args:
        edges: Left, top, right and bottom of each box in pixels, of shape `(N, 4)`, float32.
        scores: How sure the detector is, of shape `(N,)`, from 0 to 1.
    """

    edges: np.ndarray
    scores: np.ndarray


class Detector(Protocol):
    """Finds one kind of thing in pictures."""

    kind: str
    """What it finds, in a word."""
    origin: str
    """Where it comes from, for people."""
    identity: str
    """What tells it from detectors with other weights or settings."""
    margin: Margin
    """How much further than its box a thing may reach."""
    sure: float
    """Score from which on a box counts that is seen once."""

    def __call__(self, picture: np.ndarray) -> Boxes:
        """What it finds in a picture of shape `(H, W, 3)`, uint8 RGB."""


def enlarged(edges: np.ndarray, margin: Margin) -> np.ndarray:
    """Boxes of shape `(N, 4)` with a margin, which is a share of their own width and height."""
    sides = np.tile(edges[:, 2:] - edges[:, :2], 2)
    return edges + sides * np.array([-margin[0], -margin[1], margin[2], margin[3]], dtype=np.float32)


def overlaps(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box of shape `(4,)` with others of shape `(N, 4)`."""
    sides = (np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])).clip(min=0)
    shared = sides.prod(axis=1)
    union = (one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return shared / union.clip(min=1e-9)


def without_doubles(boxes: Boxes, iou: float) -> Boxes:
    """The boxes of which none overlaps a better one by more than `iou` (non-maximum suppression)."""
    order = np.argsort(-boxes.scores, kind="stable")
    kept: list[int] = []
    while len(order):
        kept.append(int(order[0]))
        order = order[1:][overlaps(boxes.edges[order[0]], boxes.edges[order[1:]]) <= iou]
    return Boxes(boxes.edges[kept], boxes.scores[kept])


__all__ = ["Boxes", "Detector", "Margin", "enlarged", "overlaps", "without_doubles"]
