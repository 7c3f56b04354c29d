"""How rare a distance is among normal clips: a probability, also far beyond what was seen."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers import initialization as init

# Share of the largest distances that the tail is fitted to (peaks over threshold), and how few it may be fitted to.
TAIL_SHARE, FEWEST_IN_TAIL = 0.1, 10
# Shapes of the generalised Pareto distribution: below -1 it would rise towards its end; above 0.5 it has no variance,
# and a few odd clips in the footage would make everything likely.
SHAPES = (-1.0, 0.5)
# A shape nearer to 0 than this is that of an exponential distribution.
STRAIGHT = 1e-4
NUM_KNOTS = 32
# Excess up to which a tail without end goes on as it is: no distance that means something is larger.
NO_LIMIT = 1e4


class Tail(nn.Module):
    """From a distance to how surprising it is: ``-log10`` of the share of normal clips that are as far, or farther.

    Linear between the quantiles that were seen, and beyond the last of them by a generalised Pareto distribution. One
    of negative shape ends somewhere: beyond the farthest clip that was seen it goes on as an exponential one, so that
    of two distances the larger one is always more surprising.
    """

    def __init__(self):
        super().__init__()
        self.knots = nn.Parameter(torch.empty(NUM_KNOTS), requires_grad=False)  # distances
        self.levels = nn.Parameter(torch.empty(NUM_KNOTS), requires_grad=False)  # how surprising they are
        self.scale = nn.Parameter(torch.empty(()), requires_grad=False)
        self.shape = nn.Parameter(torch.empty(()), requires_grad=False)
        self.limit = nn.Parameter(torch.empty(()), requires_grad=False)  # distance beyond the last knot

    def reset(self) -> None:
        """Begin as if distances were exponential with mean 1."""
        init.copy_(self.knots, torch.linspace(0, 1, NUM_KNOTS))
        init.copy_(self.levels, torch.linspace(0, 1, NUM_KNOTS) / math.log(10))
        init.ones_(self.scale)
        init.zeros_(self.shape)
        init.constant_(self.limit, NO_LIMIT)

    def fit(self, distances: np.ndarray) -> "Tail":
        """Take the distances of normal clips that were not used to measure them, of shape `(N,)`."""
        from scipy.stats import genpareto

        distances = np.sort(np.asarray(distances, dtype=np.float64))
        count = len(distances)
        in_tail = min(count - 1, max(FEWEST_IN_TAIL, round(TAIL_SHARE * count)))
        share = in_tail / count
        quantiles = np.linspace(0, 1 - share, NUM_KNOTS)
        knots = np.quantile(distances, quantiles, method="hazen")
        # Quantiles that are alike would make a step of no width.
        least = max(knots[-1] - knots[0], abs(knots[-1]), 1e-6) * 1e-6
        knots = np.maximum.accumulate(knots + least * np.arange(NUM_KNOTS))
        excess = distances[-in_tail:] - knots[-1]
        excess = excess[excess > 0]
        shape, scale = 0.0, least
        if len(excess):
            shape, _, scale = genpareto.fit(excess, floc=0)
            if not SHAPES[0] <= shape <= SHAPES[1]:
                shape = min(max(shape, SHAPES[0]), SHAPES[1])
                scale = genpareto.fit(excess, f0=shape, floc=0)[2]
        scale, limit = max(scale, least), NO_LIMIT
        if shape < -STRAIGHT:
            # Where one of twice as many clips would be, and well before the end.
            limit = min(scale / -shape * (1 - (2 * in_tail) ** shape), 0.99 * scale / -shape)
        with torch.no_grad():
            for parameter, value in (
                (self.knots, knots),
                (self.levels, -np.log10(1 - quantiles)),
                (self.scale, scale),
                (self.shape, shape),
                (self.limit, limit),
            ):
                parameter.copy_(torch.as_tensor(value))
        return self

    def forward(self, distances: Tensor) -> Tensor:
        """Surprises of distances, of the same shape."""
        knots, levels = self.knots.float(), self.levels.float()
        # A sum of slopes, which every runtime of exported networks computes.
        steps = ((distances.unsqueeze(-1) - knots[:-1]) / (knots[1:] - knots[:-1])).clamp(0, 1)
        within = (steps * (levels[1:] - levels[:-1])).sum(-1)
        scale, shape, limit = self.scale.float(), self.shape.float(), self.limit.float()
        excess = (distances - knots[-1]).clamp_min(0)
        near, far = torch.minimum(excess, limit) / scale, (excess - limit).clamp_min(0)
        # log1p(shape * near) / shape is `near` itself where the shape goes to 0.
        is_bent = shape.abs() > STRAIGHT
        bent = torch.where(is_bent, torch.log1p(shape * near) / torch.where(is_bent, shape, 1.0), near)
        return within + (bent + far / (scale + shape * limit).clamp_min(1e-30) * (far > 0)) / math.log(10)


def joined(surprises: Tensor) -> Tensor:
    """One surprise of two senses: that one of two is as rare as the rarer one is (Sidak), ``p = 1 - (1 - min)**2``.

    Args:
        surprises (`torch.Tensor` of shape `(..., 2)`): ``-log10`` of their tail probabilities.
    """
    largest = surprises.amax(-1)
    return largest - torch.log10(2 - torch.pow(10.0, -largest))


__all__ = ["Tail", "joined"]
