"""Which videos each step sees, shared out evenly among processes."""

from collections.abc import Iterator, Sequence

import numpy as np


class BalancedBatches:
    """Which videos each step of an epoch sees, as pairs of a normal and an anomalous one.

    In an epoch every video of the larger class comes once; those of the smaller class come again, as evenly as they
    can. An epoch's batches differ by one pair at most, so that none is tiny. The order depends on the seed and the
    epoch alone: a run that is resumed, or that has another number of processes, sees the same batches.

    Args:
        labels: 1 for anomalous videos, 0 for normal ones.
        batch_size: Videos of a batch; even.
        seed: Seed of the order.

    Raises:
        ValueError: If a class is missing, or for an odd batch size.
    """

    def __init__(self, labels: Sequence[int], batch_size: int, seed: int = 0):
        if batch_size % 2:
            raise ValueError(
                f"batch_size must be even, got {batch_size}: half of a batch is normal videos and half anomalous ones."
            )
        self.classes = [np.flatnonzero(np.asarray(labels) == value) for value in (0, 1)]
        if not all(len(members) for members in self.classes):
            only_class = "normal" if len(self.classes[0]) else "anomalous"
            raise ValueError(
                f"Training needs normal and anomalous videos, but all {len(labels)} of the training set are "
                f"{only_class}."
            )
        self.num_pairs = max(map(len, self.classes))
        self.num_batches = -(-self.num_pairs // (batch_size // 2))
        self.seed = seed

    @property
    def smallest(self) -> int:
        """Pairs of the smallest batch; a process needs one for each part of a batch."""
        return self.num_pairs // self.num_batches

    def epoch(self, number: int) -> Iterator[list[tuple[int, int]]]:
        """Batches of an epoch, each a list of pairs of positions in `labels`."""
        rng = np.random.default_rng((self.seed, number))
        rounds = []
        for members in self.classes:
            repeats = -(-self.num_pairs // len(members))
            order = np.concatenate([rng.permutation(members) for _ in range(repeats)])[: self.num_pairs]
            rounds.append(order.tolist())
        pairs = list(zip(*rounds, strict=True))
        for chosen in np.array_split(np.arange(self.num_pairs), self.num_batches):
            yield [pairs[index] for index in chosen]


class ShuffledBatches:
    """Which videos each step of an epoch sees, each of them once, in an order of the seed and the epoch alone.

    Args:
        num_videos: How many there are.
        batch_size: Videos of a batch; an epoch's batches differ by one at most, so that none is tiny.
        seed: Seed of the order.
    """

    def __init__(self, num_videos: int, batch_size: int, seed: int = 0):
        self.num_videos = num_videos
        self.num_batches = -(-num_videos // batch_size)
        self.seed = seed

    @property
    def smallest(self) -> int:
        """Videos of the smallest batch; a process needs one for each part of a batch."""
        return self.num_videos // self.num_batches

    def epoch(self, number: int) -> Iterator[list[tuple[int]]]:
        """Batches of an epoch, each a list of positions, as `BalancedBatches` has pairs of them."""
        order = np.random.default_rng((self.seed, number)).permutation(self.num_videos)
        for chosen in np.array_split(order, self.num_batches):
            yield [(index,) for index in chosen.tolist()]


__all__ = ["BalancedBatches", "ShuffledBatches"]
