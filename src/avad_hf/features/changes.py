"""What `FeatureDataset.map` can do to stored features: coarser maps, other sizes of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Item = dict[str, Tensor]


@dataclass(frozen=True)
class Pooled:
    """Feature maps of fewer cells, each the mean of those that it covers.

    Args:
        grid: Rows and columns.

    Raises:
        ValueError: For a grid without cells.
    """

    grid: tuple[int, int] = (1, 1)

    def __post_init__(self):
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid must be rows and columns, 1 or more each, got {self.grid}.")

    def __call__(self, item: Item) -> Item:
        """The item with its map on the grid."""
        maps = item["visual_features"]
        return item | {"visual_features": F.adaptive_avg_pool2d(maps, tuple(self.grid))}


@dataclass(frozen=True)
class Scaled:
    """Features times a number.

    Args:
        factors: The number, by the names of the features: ``{"audio_features": 0.1}``.

    Raises:
        ValueError: For names that no store has.
    """

    factors: Mapping[str, float]

    def __post_init__(self):
        if unknown := self.factors.keys() - {"visual_features", "audio_features"}:
            raise ValueError(f"factors are of visual_features and audio_features, got {', '.join(sorted(unknown))}.")

    def __call__(self, item: Item) -> Item:
        """The item with its features multiplied."""
        return item | {name: item[name] * factor for name, factor in self.factors.items()}


__all__ = ["Item", "Pooled", "Scaled"]
