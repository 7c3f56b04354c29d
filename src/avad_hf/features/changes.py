"""What `FeatureDataset.map` can do to stored features: coarser maps, other sizes of numbers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Item = dict[str, Tensor]
# The dimension of channels, by the names of the features.
CHANNEL_AXES = {"visual_features": 1, "audio_features": 2, "patch_features": 2}
# A channel whose deviation is below this share of the largest one is constant but for rounding.
SMALLEST_SHARE = 1e-6


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


@dataclass(frozen=True, repr=False, eq=False)
class Standardised:
    """Features of which each channel has mean 0 and deviation 1 over given videos, such as those to learn from.

    Encoders give channels of very different sizes. Where a small one counts, detectors learn it faster, and from fewer
    videos.

    Args:
        means: Mean of each channel, of shape `(C,)`, by the names of the features.
        deviations: Standard deviation of each channel, likewise; channels that hardly change are left as they are.
    """

    means: Mapping[str, Tensor]
    deviations: Mapping[str, Tensor]

    @classmethod
    def by(cls, data: Sequence[Item]) -> "Standardised":
        """Standardised by the clips of some videos, such as a `FeatureDataset`."""
        counts, totals, squares = {}, {}, {}
        for number in range(len(data)):
            item = data[number]
            for name in _present(item):
                channels = item[name].double().movedim(CHANNEL_AXES[name], -1).flatten(0, -2)
                counts[name] = counts.get(name, 0) + len(channels)
                totals[name] = totals.get(name, 0.0) + channels.sum(0)
                squares[name] = squares.get(name, 0.0) + channels.square().sum(0)
        means = {name: totals[name] / counts[name] for name in counts}
        deviations = {}
        for name, mean in means.items():
            deviation = (squares[name] / counts[name] - mean.square()).clamp(min=0).sqrt()
            deviations[name] = torch.where(deviation > SMALLEST_SHARE * deviation.max(), deviation, 1.0)
        return cls(means, deviations)

    def __call__(self, item: Item) -> Item:
        """The item with its channels standardised; sound that is not there stays zero."""
        changed = {}
        for name in _present(item):
            if name in self.means:
                channels = item[name].movedim(CHANNEL_AXES[name], -1)
                standard = (channels - self.means[name].float()) / self.deviations[name].float()
                changed[name] = standard.movedim(-1, CHANNEL_AXES[name]).contiguous()
        return item | changed

    def __repr__(self) -> str:
        parts = [part.double() for name in sorted(self.means) for part in (self.means[name], self.deviations[name])]
        digest = hashlib.sha256(torch.cat(parts).numpy().tobytes()).hexdigest()
        return f"Standardised({', '.join(sorted(self.means))}, sha256={digest[:16]})"


def _present(item: Item) -> list[str]:
    """Features of a video by name, without those of sound that it does not have, which are zero and stay so."""
    is_silent = "has_audio" in item and not item["has_audio"].any()
    return [name for name in CHANNEL_AXES if name in item and not (name == "audio_features" and is_silent)]


__all__ = ["Item", "Pooled", "Scaled", "Standardised"]
