"""What a sense of a detector of normality is, and what its vectors are relative to."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .configuration_normality import NormalityConfig

# The share of all channels' mean variance that is added to each one's: a channel that never changed would make
# anything infinitely far.
LEAST_VARIANCE = 0.01


def fixed(*shape: int) -> nn.Parameter:
    """Numbers that fitting sets, and no gradient changes."""
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


class Sense(nn.Module, ABC):
    """One sense of a detector of normality: how far a clip is from normal ones. An architecture's folder has its own.

    Args:
        config: Its config.
        name: Name of the features.

    Attributes:
        num_rows: How many rows it has, if that depends on the footage.
    """

    num_rows: int | None = None

    def __init__(self, config: NormalityConfig, name: str):
        super().__init__()
        self.config, self.name, self.width = config, name, config.widths[name]

    @staticmethod
    def rows_for(config: NormalityConfig, count: int) -> int | None:
        """How many rows of numbers it has where it is fitted to so many clips; ``None`` where that does not matter."""
        return None

    @abstractmethod
    def reset(self) -> None:
        """Give new numbers to what `fit` sets."""

    @abstractmethod
    def fit(self, vectors: Tensor, certain: Tensor) -> None:
        """Take normal clips.

        Args:
            vectors: Clips, of shape `(N, width)`, relative to their camera.
            certain: Which of them a person has called normal, of shape `(N,)`.
        """

    @abstractmethod
    def forward(self, vectors: Tensor) -> Tensor:
        """Distances of clips, `(..., width)` -> `(...)`."""


class Relative(nn.Module):
    """Vectors relative to their camera: the difference to its mean, in units of each channel's usual difference."""

    def __init__(self, num_scenes: int, width: int):
        super().__init__()
        # The last row is the mean of all footage.
        self.centres, self.scale = fixed(num_scenes + 1, width), fixed(width)

    def fit(self, vectors: Tensor, scenes: Tensor) -> "Relative":
        """Take normal clips of shape `(N, width)` and the rows of their cameras, of shape `(N,)`.

        Raises:
            ValueError: If nothing ever changes.
        """
        vectors = vectors.double()
        centres = vectors.mean(0).repeat(len(self.centres), 1)
        for number in scenes.unique().tolist():
            centres[number] = vectors[scenes == number].mean(0)
        variance = (vectors - centres[scenes]).square().mean(0)
        least = LEAST_VARIANCE * variance.mean()
        if not least > 1e-12 * vectors.square().mean().clamp_min(1e-12):
            raise ValueError(
                "the features of all clips are the same. A camera that sees no change, or an encoder whose weights "
                "are broken, gives such features: look at the videos, and extract them again."
            )
        with torch.no_grad():
            self.centres.copy_(centres)
            self.scale.copy_((variance + least).sqrt())
        return self

    def forward(self, vectors: Tensor, scenes: Tensor | list[int] | None = None) -> Tensor:
        """Relative vectors, of shape `(B, T, width)`; `scenes` are the rows of the videos' cameras, if known."""
        centres = self.centres.float()
        return (vectors - (centres[-1] if scenes is None else centres[scenes].unsqueeze(1))) / self.scale.float()


__all__ = ["Relative", "Sense", "fixed"]
