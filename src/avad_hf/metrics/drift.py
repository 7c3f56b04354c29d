"""Whether two samples of clips have the same distribution, in any number of dimensions, by permuting blocks of time.

Clips of one block (a recording, or an hour of a long one) resemble each other, so that blocks are what is permuted,
and distances between clips of one block are not compared. Two numbers are looked at, and one p-value says how rare
both are where nothing has changed: how much farther apart clips of different samples are than clips of the same one,
which is the energy distance (Szekely and Rizzo 2004) as a ratio, and how much farther apart clips of the later sample
are than those of the earlier one. The first alone hardly sees in many dimensions that features spread more (Biswas
and Ghosh 2014).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations, product
from typing import Any

import numpy as np

# A chance that is too small to be one.
SIGNIFICANT = 0.05
# With the blocks as they are, 2,000 ways: p-values are multiples of 0.0005. Where there are fewer ways, all are taken.
NUM_PERMUTATIONS = 1999
# In each sample. With four and four there are 35 ways to split the blocks, and the p-value reaches 0.06; among three
# the oddest one would decide, however many the other sample has.
FEWEST_BLOCKS = 4
# With much footage every difference is significant. These are large enough to do something about them: a shift that
# statisticians call small (Cohen 1988), and clips that are a tenth farther from each other than they were, or nearer.
MOVED_SHIFT, MOVED_SPREAD = 0.2, 1.1
# How many numbers are looked at: the p-value of the rarest of them is up to so many times larger.
NUM_STATISTICS = 2


@dataclass(frozen=True)
class Side:
    """Clips of one of the two samples.

    Args:
        values: Their features, shape `(N, channels)`. All channels count as much as they vary.
        block: Number of the block of time that each is from, shape `(N,)`: clips of one block resemble each other.
        hour: Hour of day of each, shape `(N,)`: only blocks of the same hour are permuted. One number for all of them
            where hours are not known.
    """

    values: np.ndarray
    block: np.ndarray
    hour: np.ndarray


@dataclass(frozen=True)
class HourComparison:
    """Clips of one hour of the day.

    Args:
        hour: Hour of day, 0 to 23.
        num_clips: Number of clips then and now.
        num_blocks: Number of blocks then and now.
        shift: As of [`Comparison`].
        chance_shift: As of [`Comparison`]: large where there are few blocks.
    """

    hour: int
    num_clips: tuple[int, int]
    num_blocks: tuple[int, int]
    shift: float
    chance_shift: float


@dataclass(frozen=True)
class Comparison:
    """How two samples differ.

    Args:
        shift: How far they are apart, in standard deviations: as far as if every channel had moved by so many. 0 where
            they are not farther apart than two samples of the same kind.
        chance_shift: The shift that is exceeded with a chance of 5% where nothing has changed.
        spread: Mean distance between clips now, divided by that between clips then.
        energy_distance: Twice the mean distance between clips then and clips now, less the mean distance among clips
            then, and among clips now: in units of the values. Its expectation is 0 where nothing has changed.
        p_value: The chance of a shift or a change of spread as rare as this where nothing has changed; ``None`` where
            there are too few blocks.
        num_clips: Number of clips then and now.
        num_blocks: Number of blocks then and now.
        num_permutations: How many ways to split the blocks were compared.
        is_exact: Whether these are all ways.
        hours: By hour of day, where hours are known.
    """

    shift: float
    chance_shift: float
    spread: float
    energy_distance: float
    p_value: float | None
    num_clips: tuple[int, int]
    num_blocks: tuple[int, int]
    num_permutations: int
    is_exact: bool
    hours: list[HourComparison] = field(default_factory=list)

    def has_moved(self, level: float = SIGNIFICANT) -> bool:
        """Whether the difference is significant at a level, and large enough to do something about it."""
        is_large = self.shift >= MOVED_SHIFT or not 1 / MOVED_SPREAD < self.spread < MOVED_SPREAD
        return self.p_value is not None and self.p_value <= level and is_large

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON has them, by their names."""
        return asdict(self)


def compare(
    then: Side, now: Side, level: float = SIGNIFICANT, num_permutations: int = NUM_PERMUTATIONS, seed: int = 0
) -> Comparison:
    """Compare two samples of clips.

    The blocks of each hour are split anew into as many of then and of now, and the later sample has at each hour as
    much weight as the earlier one: that more of it is from the night is no difference. What blocks of one day have in
    common, its weather for example, counts as a difference between samples of few days.

    Args:
        then: The earlier sample.
        now: The later sample. Both must be of the same hours and channels.
        level: The p-value that there must be enough blocks for.
        num_permutations: How many ways to split the blocks are drawn where there are more.
        seed: Seed of the drawing.

    Raises:
        ValueError: For samples of other hours or channels, without clips, with values that are not finite, or all of
            the same values.
    """
    _check(then, now)
    cells = _Cells.of(then, now)
    splits, is_exact = cells.splits(num_permutations, np.random.default_rng(seed))
    among_then, among_now, between = cells.mean_distances(splits)
    ratios = _ratios(among_then, among_now, between)
    # No distance at all on one side is endlessly less than on the other: beyond a billion it does not matter.
    least = 1e-9 * cells.distances.mean()
    spreads = np.maximum(among_now, least) / np.maximum(among_then, least)
    num_blocks = (len(np.unique(then.block)), len(np.unique(now.block)))
    shifts = _shift(ratios)
    is_enough = min(num_blocks) >= FEWEST_BLOCKS and cells.smallest_p() <= level
    return Comparison(
        shift=float(shifts[0]),
        chance_shift=_usual(shifts),
        spread=float(spreads[0]),
        energy_distance=float(2 * between[0] - among_then[0] - among_now[0]),
        p_value=_rarity(np.stack([ratios, np.abs(np.log(spreads))], axis=1)) if is_enough else None,
        num_clips=(len(then.values), len(now.values)),
        num_blocks=num_blocks,
        num_permutations=len(splits),
        is_exact=is_exact,
        hours=list(_by_hour(then, now, cells, num_permutations, seed)),
    )


def blocks_needed(num_then: int, level: float = SIGNIFICANT) -> int:
    """How many blocks the later sample needs for a p-value, where the earlier one has so many."""
    needed = FEWEST_BLOCKS
    while _smallest_p([(max(num_then, FEWEST_BLOCKS), needed)]) > level:
        needed += 1
    return needed


def _smallest_p(num_blocks: list[tuple[int, int]]) -> float:
    """The smallest p-value that there may be, by the number of blocks then and now of each hour."""
    num_ways = math.prod(math.comb(one + other, one) for one, other in num_blocks)
    # To exchange both samples leaves the numbers as they are.
    num_same = 2 if all(one == other for one, other in num_blocks) else 1
    return min(1.0, NUM_STATISTICS * num_same / num_ways)


def _ratios(among_then: np.ndarray, among_now: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Distances between samples, by those within them; 1 where there are none."""
    among = among_then + among_now
    return np.divide(2 * between, among, out=np.ones_like(among), where=among > 0)


def _shift(ratios: np.ndarray) -> np.ndarray:
    """From distances between and within samples to a shift in standard deviations.

    In many dimensions the distance between two clips of one kind is ``sqrt(2) * size``, and if one of them has moved
    by ``shift * size`` it is ``sqrt(2 + shift**2) * size``, where ``size`` is the root of the summed variances. Of one
    dimension (a normal distribution) that is true of small shifts; large ones come out larger, by up to a quarter.
    """
    return np.sqrt(np.maximum(2 * (ratios**2 - 1), 0))


def _usual(shifts: np.ndarray) -> float:
    """What 95% of shifts do not exceed; of less than 20 the largest."""
    return float(np.quantile(shifts, 1 - SIGNIFICANT, method="higher"))


def _rarity(statistics: np.ndarray) -> float:
    """The chance of a row in which one of the numbers is as rare as the rarest of the first row is (Tippett's).

    Args:
        statistics: Numbers, larger for larger differences, shape `(ways, numbers)`: the first row is of the data.
    """
    rarest = np.ones(len(statistics))
    for column in statistics.T:
        # What differs by rounding alone counts as equal.
        num_smaller = np.searchsorted(np.sort(column), column * (1 - 1e-9), side="left")
        rarest = np.minimum(rarest, 1 - num_smaller / len(column))
    return float((rarest <= rarest[0] * (1 + 1e-9)).mean())


@dataclass(frozen=True)
class _Cells:
    """The clips of one block and one hour each, which are permuted.

    Args:
        distances: Mean distance between the clips of each two of them, shape `(cells, cells)`. That of a cell to
            itself is replaced by the mean distance between the cells of its hour.
        is_now: Whether they are of the later sample, shape `(cells,)`.
        hour: Number of their hour, from 0 on, shape `(cells,)`.
        size: How many clips they have, beside others of their sample, shape `(cells,)`: samples may be drawn with
            different density.
    """

    distances: np.ndarray
    is_now: np.ndarray
    hour: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, then: Side, now: Side) -> "_Cells":
        keys = np.concatenate(
            [
                np.stack([np.full(len(side.block), number), side.hour, side.block], axis=1)
                for number, side in enumerate((then, now))
            ]
        )
        found, cell, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(cell.reshape(-1), kind="stable")
        values = np.concatenate([then.values, now.values]).astype(np.float64)[order]
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(np.add.reduceat(_distances(values), starts, axis=0), starts, axis=1)
        distances = sums / np.outer(counts, counts)
        is_now, hour = found[:, 0] == 1, np.unique(found[:, 1], return_inverse=True)[1].reshape(-1)
        for number in range(hour.max() + 1):
            (same,) = np.nonzero(hour == number)
            among = distances[np.ix_(same, same)]
            others = (among.sum() - np.trace(among)) / (len(same) * (len(same) - 1))
            distances[same, same] = others
        size = counts / np.where(is_now, np.median(counts[is_now]), np.median(counts[~is_now]))
        return cls(distances, is_now, hour, size)

    def num_blocks(self) -> list[tuple[int, int]]:
        """How many there are then and now, by hour."""
        later = np.bincount(self.hour, self.is_now).astype(int)
        return list(zip((np.bincount(self.hour) - later).tolist(), later.tolist(), strict=True))

    def smallest_p(self) -> float:
        """The smallest p-value that there may be."""
        return _smallest_p(self.num_blocks())

    def splits(self, most: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """Ways to say which cells are of the later sample, shape `(ways, cells)`, the true one first; whether all."""
        members = [np.flatnonzero(self.hour == number) for number in range(self.hour.max() + 1)]
        num_later = [later for _, later in self.num_blocks()]
        if math.prod(math.comb(len(one), later) for one, later in zip(members, num_later, strict=True)) <= most + 1:
            chosen = product(*(combinations(one, later) for one, later in zip(members, num_later, strict=True)))
            splits = np.array([np.isin(np.arange(len(self.hour)), np.concatenate(one)) for one in chosen])
            is_true = (splits == self.is_now).all(axis=1)
            return np.concatenate([splits[is_true], splits[~is_true]]), True
        splits = np.zeros((most + 1, len(self.hour)), bool)
        for one, later in zip(members, num_later, strict=True):
            drawn = rng.random((most + 1, len(one))).argsort(axis=1)[:, :later]
            np.put_along_axis(splits, one[drawn], True, axis=1)
        splits[0] = self.is_now
        return splits, False

    def mean_distances(self, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean distance among clips then, among clips now, and between both, of shape `(ways,)` each."""
        of_hour = self.hour[:, None] == np.arange(self.hour.max() + 1)
        blocks = np.array(self.num_blocks(), dtype=np.float64)
        # What an hour can tell: as much as both samples have of it.
        share = blocks.prod(axis=1) / blocks.sum(axis=1)
        share /= share.sum()
        weights = []
        for split in (~splits, splits):
            sizes = split * self.size
            weights.append(sizes * (share / (sizes @ of_hour))[:, self.hour])
        then, now = weights
        from_then = then @ self.distances
        return (
            (from_then * then).sum(axis=1),
            ((now @ self.distances) * now).sum(axis=1),
            (from_then * now).sum(axis=1),
        )

    def of_hour(self, number: int) -> "_Cells":
        """Those of one hour."""
        same = self.hour == number
        return _Cells(
            self.distances[np.ix_(same, same)], self.is_now[same], np.zeros(same.sum(), int), self.size[same]
        )


def _distances(values: np.ndarray) -> np.ndarray:
    """Euclidean distances, of shape `(N, N)`."""
    # Around their mean, which leaves distances as they are, and less to round.
    values = values - values.mean(axis=0)
    squares = (values**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * values @ values.T, 0))


def _by_hour(then: Side, now: Side, cells: _Cells, num_permutations: int, seed: int) -> Iterator[HourComparison]:
    hours = np.unique(then.hour)
    if len(hours) == 1 and hours[0] < 0:
        return
    for number, (hour, num_blocks) in enumerate(zip(hours.tolist(), cells.num_blocks(), strict=True)):
        one = cells.of_hour(number)
        splits, _ = one.splits(num_permutations, np.random.default_rng(seed))
        shifts = _shift(_ratios(*one.mean_distances(splits)))
        num_clips = (int((then.hour == hour).sum()), int((now.hour == hour).sum()))
        yield HourComparison(hour, num_clips, num_blocks, float(shifts[0]), _usual(shifts))


def _check(then: Side, now: Side) -> None:
    """Refuse what cannot be compared."""
    for name, side in (("then", then), ("now", now)):
        if side.values.ndim != 2 or not len(side.values) or {len(side.block), len(side.hour)} != {len(side.values)}:
            raise ValueError(
                f"The clips {name} need values of shape (N, channels), and N blocks and hours, got "
                f"{side.values.shape}, {side.block.shape} and {side.hour.shape}."
            )
        if not np.isfinite(side.values).all():
            raise ValueError(f"The clips {name} have values that are NaN or infinite. Extract the features again.")
    if then.values.shape[1] != now.values.shape[1]:
        raise ValueError(
            f"Clips then have {then.values.shape[1]} channels, clips now {now.values.shape[1]}. Features of one "
            "encoder are needed."
        )
    if set(then.hour.tolist()) != set(now.hour.tolist()):
        raise ValueError("Both samples must be of the same hours: leave out those that only one of them has.")
    values = np.concatenate([then.values, now.values])
    if not (values != values[0]).any():
        raise ValueError("All clips have the same values, so that nothing can be told from them.")


__all__ = [
    "FEWEST_BLOCKS",
    "MOVED_SHIFT",
    "MOVED_SPREAD",
    "NUM_PERMUTATIONS",
    "SIGNIFICANT",
    "Comparison",
    "HourComparison",
    "Side",
    "blocks_needed",
    "compare",
]
