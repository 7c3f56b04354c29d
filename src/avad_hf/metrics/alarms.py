"""From scores of normal footage to the threshold that gives so many false alarms a day, by peaks over a threshold.

Of footage that is normal every event is a false alarm, and its highest events tell how often others as high will come.
The events a day at thresholds over a base are fitted by the tail of a generalised Pareto distribution (Pickands 1975;
Davison and Smith 1990). What is fitted is the number of events at each threshold, as it is counted, and not the number
of the highest scores of the events at the base: one event at the base may be several at a threshold above it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from .event_streams import (
    Recording,
    Stretch,
    block_numbers,
    check_recordings,
    clip_seconds,
    count_events,
    event_steps,
    events_at,
    footage_hours,
    levels_of,
)

SECONDS_A_DAY = 86_400.0
# Rule of three: what did not happen in three days happens less than once a day, with 95% confidence (exp(-3) = 5%).
# With less footage even a threshold that nothing reaches promises no such rate.
DAYS_FOR_ONE_A_DAY = 3.0
# Files of exactly three days are a little shorter: the last second of each may be missing.
ROUNDING = 1e-3
# The base has this many events for each that is expected at the threshold. More would make the interval narrower, but
# then the base lies where ordinary clips are, whose scores fall off in another way than those of rare events: with 10
# the interval held the true rate in only 87% of simulations with bursts, with 5 in 95%.
BASE_EVENTS_FOR_ONE = 5
# And this many at least: with 20 some resamples hold hardly any event.
FEWEST_BASE_EVENTS = 25
# At most this share of the most events that any threshold makes is tail: at lower thresholds ordinary clips join.
TAIL_SHARE = 0.5
# Its standard deviation is then known to 3%.
NUM_RESAMPLES = 500
# Shapes outside these are those of a few odd events: a uniform distribution has -1; from 0.5 on there is no variance.
SHAPES = (-0.5, 0.5)
WEEK_DAYS = 7.0
# Where the threshold may lie is looked for at so many levels, up to a rate that is lower than what was asked for by so
# much: three days without an event still leave 1.2 a day possible.
NUM_LEVELS, LOWEST_RATE = 60, 20
# Probabilities of less, and of no more, in an interval of 95%. Beyond the threshold hardly any event is left to say
# how the tail goes on: with 97.5% the interval of the threshold held the true one in 88% of simulations.
LOWER, UPPER, UPPER_BEYOND = 0.025, 0.975, 0.995
# At most so many events are called suspicious, and only if the tail of the others gives events like them by a chance
# below this: 0 to 4% of simulated normal footage was called so. The tail may be as long as the last shape.
MOST_SUSPECTS = 5
SUSPICIOUS = 0.02
SUSPICIOUS_SHAPES = np.linspace(0, 0.4, 9)


@dataclass(frozen=True)
class AlarmThreshold:
    """A threshold, and what it promises.

    Args:
        alarms_per_day: Events a day that were asked for.
        threshold: Score from which on clips are anomalous.
        interval_95: Where the true rate at the threshold lies, in events a day, with 95% confidence.
        threshold_interval_95: Where the threshold lies that has exactly the rate that was asked for, likewise.
        week_95: Fewest and most events that the next seven days should bring, likewise, if they are like this footage.
        hours: Length of the footage.
        num_recordings: Number of recordings.
        num_clips: Number of clips.
        num_events: Number of events that the tail is fitted to.
        num_alarms: Number of events of this footage at the threshold.
        suspects: Stretches that score far above all others: events that are perhaps not normal. By the tail of the
            others, normal footage has such ones by a chance of less than 2%.
    """

    alarms_per_day: float
    threshold: float
    interval_95: tuple[float, float]
    threshold_interval_95: tuple[float, float]
    week_95: tuple[int, int]
    hours: float
    num_recordings: int
    num_clips: int
    num_events: int
    num_alarms: int
    suspects: list[Stretch] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON has them, by their names; without the suspects."""
        numbers = {name: value for name, value in asdict(self).items() if name != "suspects"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in numbers.items()}


def hours_needed(alarms_per_day: float) -> float:
    """Hours of normal footage without which a rate cannot be promised."""
    return 24 * DAYS_FOR_ONE_A_DAY / alarms_per_day


def is_enough(hours: float, alarms_per_day: float) -> bool:
    """Whether a rate can be promised from so many hours of normal footage."""
    return hours >= hours_needed(alarms_per_day) * (1 - ROUNDING)


def check_rate(alarms_per_day: float) -> None:
    """Raise ``ValueError`` for what is no rate."""
    if not (isinstance(alarms_per_day, Real) and 0 < alarms_per_day < math.inf):
        raise ValueError(f"alarms_per_day must be a finite number above 0, got {alarms_per_day}.")


def refuse_too_little(hours: float, alarms_per_day: float) -> None:
    """Raise ``ValueError``, which says how much is missing, if the footage is too short for the rate."""
    if is_enough(hours, alarms_per_day):
        return
    needed = hours_needed(alarms_per_day)
    possible = _rounded(24 * DAYS_FOR_ONE_A_DAY / hours, math.ceil)
    raise ValueError(
        f"{hours:.4g} hours of normal footage cannot promise {alarms_per_day:g} alarms a day: that takes "
        f"{needed:.4g} hours ({DAYS_FOR_ONE_A_DAY:g} days for one alarm a day). {needed - hours:.4g} hours are "
        f"missing. Give more footage, or ask for {possible} alarms a day, which this footage can promise."
    )


def alarm_threshold(recordings: Sequence[Recording], alarms_per_day: float = 1.0) -> AlarmThreshold:
    """Find the threshold at which normal footage brings so many events a day.

    The interval stays right where clips resemble their neighbours and events come in bursts, as long as these are
    within an hour: blocks of time are resampled. It cannot know of days unlike all that it has seen.

    Args:
        recordings: Normal footage.
        alarms_per_day: Events a day of footage.

    Raises:
        ValueError: For no recordings, too little footage for the rate, too few clips, scores that are NaN, out of
            range or all equal, and a rate that no threshold has.
    """
    check_rate(alarms_per_day)
    check_recordings(recordings)
    hours = footage_hours(recordings)
    refuse_too_little(hours, alarms_per_day)
    days, num_clips = hours / 24, sum(len(recording.scores) for recording in recordings)
    tail = _tail(recordings, alarms_per_day * days, num_clips, alarms_per_day)
    fit = tail.fit(tail.counts.sum(axis=0)[None], np.array([days]))

    # How much rates vary is seen in blocks that are drawn again, correlated or not.
    num_blocks = len(tail.counts)
    drawn = np.random.default_rng(0).integers(num_blocks, size=(NUM_RESAMPLES, num_blocks))
    drawn += np.arange(NUM_RESAMPLES)[:, None] * num_blocks
    drawn = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)
    resampled = tail.fit(drawn @ tail.counts, drawn @ tail.block_days)
    # The level that is found in few events is too low more often than not: resamples show by how much.
    bias = float(np.median(fit.rate(resampled.levels(alarms_per_day)[:, 0]))) / alarms_per_day
    level = fit.levels(alarms_per_day / bias).item()
    wanted = np.array([alarms_per_day])
    (low,), (high,), num_independent = _intervals(wanted, bias * resampled.rate(level), UPPER)
    # From the lowest to the highest level at which the rate may be what was asked for.
    levels = np.linspace(tail.base, fit.levels(alarms_per_day / LOWEST_RATE).item(), NUM_LEVELS)
    lows, highs, _ = _intervals(bias * fit.rate(levels)[0], bias * resampled.rate(levels), UPPER_BEYOND)
    ends = [np.interp(-alarms_per_day, -np.minimum.accumulate(side), levels) for side in (lows, highs)]
    from scipy.special import expit
    from scipy.stats import nbinom

    # The week's number varies as the rate does, by as many events as at the ends of its interval; and once more by its
    # own chance: more than by Poisson's in bursts.
    at_base = tail.counts[:, 0]
    burstiness = max(1.0, at_base.var(ddof=1) / at_base.mean())
    num_events = num_independent.item() + np.array([0, 1])
    mean = alarms_per_day * WEEK_DAYS * num_events / num_events[0]
    variance = mean * burstiness + mean**2 / num_events
    week = nbinom.ppf((LOWER, UPPER), mean**2 / (variance - mean), mean / variance)
    threshold = float(expit(level))
    return AlarmThreshold(
        alarms_per_day=float(alarms_per_day),
        threshold=threshold,
        interval_95=(float(low), float(high)),
        threshold_interval_95=(float(expit(ends[0])), float(expit(ends[1]))),
        week_95=(int(week[0]), int(week[1])),
        hours=hours,
        num_recordings=len(recordings),
        num_clips=num_clips,
        num_events=int(at_base.sum()),
        num_alarms=count_events(recordings, threshold),
        suspects=_suspects(recordings, tail.base),
    )


class _Fit(NamedTuple):
    """Rates of events over a base: ``rate(level) = base_rate * survival(level - base)``, one fit a row, `(N, 1)`."""

    base: float
    base_rate: np.ndarray  # events a day
    shape: np.ndarray
    scale: np.ndarray

    def rate(self, levels: np.ndarray | float) -> np.ndarray:
        """Events a day at each level, of shape `(N, levels)`."""
        from scipy.stats import genpareto

        return self.base_rate * genpareto.sf(np.atleast_1d(levels) - self.base, self.shape, scale=self.scale)

    def levels(self, rate: float) -> np.ndarray:
        """The level that has a rate, by each fit, of shape `(N, 1)`; the base, where the base has less."""
        from scipy.stats import genpareto

        share = np.minimum(1.0, rate / np.maximum(self.base_rate, np.finfo(float).tiny))
        return self.base + genpareto.isf(share, self.shape, scale=self.scale)


def _intervals(rates: np.ndarray, resampled: np.ndarray, upper: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals of rates, by how much they vary over resamples of shape `(N, rates)`.

    Args:
        rates: Events a day.
        resampled: The same of each resample.
        upper: Probability of a rate below the upper end.

    Returns:
        The lowest and highest rates, and how many independent events would tell each rate as well: the interval is
        theirs (Garwood 1936). Percentiles of the resamples would hold the true rate less often, since few events are
        drawn from.
    """
    from scipy.stats import gamma

    num_independent = rates**2 / np.maximum(resampled.var(axis=0), np.finfo(float).tiny)
    lowest = rates * gamma.ppf(LOWER, num_independent) / num_independent
    return lowest, rates * gamma.ppf(upper, num_independent + 1) / num_independent, num_independent


class _Tail(NamedTuple):
    """Events over a base.

    Args:
        base: The level.
        counts: Events of each block at thresholds between one level and the next, shape `(blocks, levels)`.
        widths: From each level to the next, shape `(levels,)`; the first level is the base.
        block_days: Length of each block in days.
    """

    base: float
    counts: np.ndarray
    widths: np.ndarray
    block_days: np.ndarray

    def fit(self, counts: np.ndarray, days: np.ndarray) -> _Fit:
        """Fit generalised Pareto tails by probability-weighted moments (Hosking and Wallis 1987).

        The moments are integrals of the share of events that is left at each level.

        Args:
            counts: Events between levels, one footage a row.
            days: Length of each footage.
        """
        at_base = counts[:, 0]
        pairs = counts * (counts - 1) @ self.widths
        with np.errstate(divide="ignore", invalid="ignore"):  # of resamples with hardly any event
            mean = counts @ self.widths / at_base
            weighted = pairs / (2 * at_base * (at_base - 1))
            shape = 2 - mean / (mean - 2 * weighted)
        shape = np.clip(np.nan_to_num(shape, nan=0.0), *SHAPES)
        smallest = np.finfo(float).tiny
        scale = np.maximum(np.nan_to_num(mean * (1 - shape)), smallest)
        return _Fit(self.base, (at_base / days)[:, None], shape[:, None], scale[:, None])


def _tail(recordings: Sequence[Recording], num_alarms: float, num_clips: int, alarms_per_day: float) -> _Tail:
    """The highest events, so many that the tail can be fitted for so many expected alarms."""
    steps = [event_steps(recording) for recording in recordings]
    scores = np.concatenate([recording.scores for recording in recordings])
    if scores.min() == scores.max():
        raise ValueError(
            f"All {num_clips} scores are {scores[0]:.6g}: nothing can be told from them. The detector is untrained, "
            "or its features are constant."
        )
    highs, lows = (levels_of(np.concatenate([step[side] for step in steps])) for side in (0, 1))
    blocks = np.concatenate(block_numbers(recordings))
    seconds = np.concatenate([clip_seconds(recording.times) for recording in recordings])
    block_days = np.bincount(blocks, seconds) / SECONDS_A_DAY
    begins = lows < highs
    highs, lows, blocks = highs[begins], lows[begins], blocks[begins]
    levels = np.unique(highs)[::-1]
    # An event at a level begins with each step that leads from below it to it or above.
    num_events = _at_or_above(highs, levels) - _at_or_above(lows, levels)
    wanted = max(FEWEST_BASE_EVENTS, math.ceil(BASE_EVENTS_FOR_ONE * num_alarms))
    most_events = int(num_events.max() * TAIL_SHARE)
    if most_events < FEWEST_BASE_EVENTS:
        raise ValueError(
            f"The {num_clips} clips make {num_events.max()} separate events at most, at whichever threshold, and "
            f"{math.ceil(FEWEST_BASE_EVENTS / TAIL_SHARE)} are needed to see how scores fall off. Give more footage."
        )
    if most_events < wanted:
        most = most_events / BASE_EVENTS_FOR_ONE / num_alarms * alarms_per_day
        raise ValueError(
            f"{alarms_per_day:g} alarms a day are more than this footage can tell apart from ordinary clips. Ask for "
            f"{_rounded(most, math.floor)} a day or fewer."
        )
    if num_events[0] > num_alarms * (1 + ROUNDING):
        from scipy.special import expit

        raise ValueError(
            f"No threshold gives {alarms_per_day:g} alarms a day: {num_events[0]} events of this footage have the "
            f"highest score, {expit(levels[0]):.6g}, which makes {num_events[0] / num_alarms * alarms_per_day:.3g} a "
            "day. The detector cannot tell them apart: fit or train another one on footage of this place."
        )
    number = int(np.argmax(num_events >= wanted))
    # Between two scores, so that the events at the base are those that were counted.
    base = (levels[number] + levels[min(number + 1, len(levels) - 1)]) / 2
    above = highs >= base
    highs, lows, blocks = highs[above], np.maximum(lows[above], base), blocks[above]
    edges = np.unique(np.concatenate([[base], highs, lows]))
    change = np.zeros((len(block_days), len(edges)))
    np.add.at(change, (blocks, np.searchsorted(edges, lows)), 1)
    np.add.at(change, (blocks, np.searchsorted(edges, highs)), -1)
    return _Tail(float(base), change.cumsum(axis=1)[:, :-1], np.diff(edges), block_days)


def _at_or_above(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many values are at or above each level."""
    return len(values) - np.searchsorted(np.sort(values), levels, "left")


def _rounded(value: float, to: Callable[[float], int]) -> str:
    """Two digits of a number, rounded up or down."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{to(value / step) * step:.6g}"


def _suspects(recordings: Sequence[Recording], base: float) -> list[Stretch]:
    """Events that are far above all others, the highest first.

    The tail of all events is fitted as if of the highest ones only were known that they are above the others. They
    are suspicious if that tail gives so many events, so high, by a small chance alone; all tails that the others
    leave open are weighed by how well they fit.
    """
    from scipy.special import expit
    from scipy.stats import poisson

    events = sorted(
        (event for recording in recordings for event in events_at(recording, base)), key=lambda event: -event[0]
    )
    excess = np.array([peak - base for peak, _ in events])
    shape = SUSPICIOUS_SHAPES[:, None]
    for number in range(min(MOST_SUSPECTS, len(excess) - 2), 0, -1):
        others = excess[number:]
        scale = others.mean() * np.geomspace(0.3, 3, 40)
        density = _log_survival(others[:, None, None], shape, scale) * (1 + shape) - np.log(scale)
        fits = density.sum(axis=0) + number * _log_survival(others[0], shape, scale)
        weights = np.exp(fits - fits.max())
        expected = len(excess) * np.exp(_log_survival(excess[number - 1], shape, scale))
        if np.average(poisson.sf(number - 1, expected), weights=weights) < SUSPICIOUS:
            return [stretch._replace(score=float(expit(peak))) for peak, stretch in events[:number]]
    return []


def _log_survival(excess: np.ndarray | float, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Logarithm of the share of generalised Pareto events that are higher; the shape is 0 or more."""
    ratio = excess / scale
    return -np.where(shape > 0, np.log1p(shape * ratio) / np.where(shape > 0, shape, 1), ratio)


__all__ = [
    "AlarmThreshold",
    "alarm_threshold",
    "check_rate",
    "hours_needed",
    "is_enough",
    "refuse_too_little",
]
