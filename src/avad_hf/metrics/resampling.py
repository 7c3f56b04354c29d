"""Intervals of figures by drawing recordings, and differences of two systems on the same draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .videos import Interval


@dataclass(frozen=True)
class Estimate:
    """A figure, and what it is in the resamples.

    Args:
        value: That of all videos.
        interval: 95% of the resamples lie within; NaN where half of them or more have no figure.
        values: Values of the resamples; NaN for those that hold one class only.
    """

    value: float
    interval: Interval
    values: np.ndarray

    @classmethod
    def of(cls, value: float, values: np.ndarray) -> "Estimate":
        """With the interval of these values."""
        defined = values[~np.isnan(values)]
        if 2 * len(defined) <= len(values):
            return cls(value, Interval(float("nan"), float("nan")), values)
        low, high = np.quantile(defined, (0.025, 0.975))
        return cls(value, Interval(float(low), float(high)), values)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two figures of the same videos and draws."""
        return Estimate.of(self.value - other.value, self.values - other.values)

    @property
    def p_value(self) -> float:
        """How often a difference as far from 0 would be drawn if there were none, on both sides; NaN if not defined.

        The share of resamples on the other side of 0, twice, by which no p-value is 0.
        """
        defined = self.values[~np.isnan(self.values)]
        if not len(defined):
            return float("nan")
        beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        return min(1.0, 2 * (beyond + 1) / (len(defined) + 1))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.interval.low:.3f}, {self.interval.high:.3f}]"


def draws(recordings: Sequence[str], num_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Weights of videos when recordings are drawn with replacement.

    Args:
        recordings: Recording of each video, shape `(N,)`.
        num_resamples: How many times.
        seed: Seed of the drawing.

    Returns:
        How often each video is there in each resample, shape `(num_resamples, N)`.
    """
    names, numbers = np.unique(np.asarray(recordings), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(num_resamples, len(names)))
    return np.stack([np.bincount(row, minlength=len(names))[numbers] for row in drawn])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that are corrected for being several (Holm, 1979); NaN stays, and counts for none.

    Each is multiplied by how many are as large or larger, and is never below that of a smaller one.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    corrected, highest = [float("nan")] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[index] = highest
    return corrected


__all__ = ["Estimate", "draws", "holm"]
