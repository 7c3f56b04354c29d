"""Scores of normal footage whose rate of events is known at every threshold."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.special import expit
from scipy.stats import expon, genpareto, norm, t

from avad_hf.metrics.alarms import SECONDS_A_DAY
from avad_hf.metrics.event_streams import Recording

KINDS = ("independent", "correlated", "bursts")
TAILS = ("light", "heavy")
# Of neighbouring clips (AR(1)).
CORRELATION = 0.9
# A burst begins with a clip of so many, and ends with one of so many.
BURST_BEGINS, BURST_ENDS = 1 / 3000, 1 / 5
# Levels (logits) lie lower by this, so that scores look like scores.
SHIFT = 5.0


@dataclass(frozen=True)
class Camera:
    """Clips of one camera, for ever.

    Args:
        kind: ``"independent"`` clips; ``"correlated"`` ones, each like the one before; or noise with ``"bursts"`` of
            several clips that are all higher.
        tail: ``"light"`` (normal distribution; levels of bursts exponential) or ``"heavy"`` (Student's t with 4
            degrees of freedom, 6 with bursts; levels of bursts generalised Pareto of shape 0.25).
        clip_s: Seconds of a clip.
    """

    kind: str
    tail: str
    clip_s: float = 1.28

    @property
    def _noise(self):
        return norm if self.tail == "light" else t(4 if self.kind != "bursts" else 6, scale=0.5)

    @property
    def _burst(self):
        return expon(1, 1.5) if self.tail == "light" else genpareto(0.25, 0.5, 0.6)

    def levels(self, days: float, rng: np.random.Generator) -> np.ndarray:
        """Levels of the clips of some days."""
        count = round(days * SECONDS_A_DAY / self.clip_s)
        if self.kind == "bursts":
            return self._with_bursts(self._noise.rvs(size=count, random_state=rng), rng)
        if self.kind == "independent":
            values = rng.standard_normal(count)
        else:
            lead = 200
            noise = rng.standard_normal(count + lead) * np.sqrt(1 - CORRELATION**2)
            values = lfilter([1], [1, -CORRELATION], noise)[lead:]
        if self.tail == "heavy":  # what is low decides nothing, and need not be exact
            high = values > 2
            values[high] = self._noise.isf(norm.sf(values[high]))
            values[~high] /= 2
        return values

    def _with_bursts(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count = len(values)
        number = int(count * BURST_BEGINS * 1.5) + 50
        calm, lengths = rng.geometric(BURST_BEGINS, number), rng.geometric(BURST_ENDS, number)
        starts = np.cumsum(calm + np.concatenate([[0], lengths[:-1]]))
        where = np.repeat(starts, lengths) + np.concatenate([np.arange(length) for length in lengths])
        high = np.repeat(self._burst.rvs(size=number, random_state=rng), lengths)
        values[where[where < count]] += high[where < count]
        return values

    def rate(self, level: float) -> float:
        """Events a day at a level: how often a clip is at or above it, and the one before is not."""
        noise, per_day = self._noise, SECONDS_A_DAY / self.clip_s
        if self.kind == "independent":
            return per_day * noise.cdf(level) * noise.sf(level)
        if self.kind == "correlated":
            limit = norm.isf(noise.sf(level))
            above = np.linspace(limit, limit + 8, 4001)
            below = norm.cdf((limit - CORRELATION * above) / np.sqrt(1 - CORRELATION**2))
            return per_day * float(np.trapezoid(norm.pdf(above) * below, above))
        heights = self._burst.ppf((np.arange(1000) + 0.5) / 1000)
        below, in_burst = noise.cdf(level), noise.cdf(level - heights)
        bursting = BURST_BEGINS / (BURST_BEGINS + BURST_ENDS)
        calm = 1 - bursting
        return per_day * float(
            calm * (1 - BURST_BEGINS) * below * noise.sf(level)
            + calm * BURST_BEGINS * below * (1 - in_burst).mean()
            + bursting * (1 - BURST_ENDS) * (in_burst * (1 - in_burst)).mean()
            + bursting * BURST_ENDS * in_burst.mean() * noise.sf(level)
        )

    def threshold(self, rate: float) -> float:
        """The score at which there are so many events a day."""
        return float(expit(brentq(lambda level: self.rate(level) - rate, 1, 30) - SHIFT))

    def record(self, days: float, rng: np.random.Generator) -> list[Recording]:
        """Some days of footage, in recordings of six hours."""
        scores = expit(self.levels(days, rng) - SHIFT)
        starts = np.arange(len(scores)) * self.clip_s
        times = np.stack([starts, starts + self.clip_s], axis=1)
        length = round(6 * 3600 / self.clip_s)
        parts = [slice(begin, begin + length) for begin in range(0, len(scores), length)]
        return [Recording(f"{self.kind}/{number}", scores[part], times[part]) for number, part in enumerate(parts)]


def rate_at(camera: Camera, threshold: float) -> float:
    """Events a day at a score."""
    return camera.rate(float(np.log(threshold) - np.log1p(-threshold)) + SHIFT)
