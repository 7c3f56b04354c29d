"""How the videos of a comparison are divided: seeded splits, or folds by recording where recordings are known."""

from collections.abc import Sequence
from dataclasses import dataclass

from avad_hf.corpora.splits import SPLITS, grouped_folds
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import read_index


@dataclass(frozen=True)
class Division:
    """One division into training, validation and test videos.

    Args:
        seed: Seed of the split, or of the folds.
        fold: Number of the fold; ``None`` for a split.
        num_folds: How many folds the seed has.
    """

    seed: int
    fold: int | None = None
    num_folds: int | None = None

    @property
    def name(self) -> str:
        """What its files are called by."""
        return f"seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")

    @property
    def training_seed(self) -> int:
        """Seed of new weights and of the order of videos."""
        return self.seed if self.fold is None else self.seed * self.num_folds + self.fold

    def parts(self, store: str, scene: str | None) -> dict[str, FeatureDataset]:
        """The videos for ``"train"``, ``"validation"`` and ``"test"``."""
        if self.fold is None:
            return {name: FeatureDataset(store, name, self.seed, scene) for name in SPLITS}
        data = FeatureDataset(store, scene=scene)
        divided = grouped_folds(data.rows, self.num_folds, self.seed)[self.fold]
        return {name: data.where(lambda row, name=name: divided[row["id"]] == name) for name in SPLITS}


def divisions(data: FeatureDataset, seeds: Sequence[int], num_folds: int | None) -> list[Division]:
    """The divisions of a comparison.

    Args:
        data: All videos.
        seeds: One split each, or one set of folds.
        num_folds: Folds of each seed, by the manifest's ``group``; 0 for splits. By default 5 where the corpus knows
            groups and fixes no split.

    Raises:
        ValueError: For a number of folds that cannot be, or seeds that come twice.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"Give one seed or more, each once, got {list(seeds)}.")
    if num_folds is None:
        is_grouped = any(row.get("group") is not None for row in data.rows)
        is_divided = any(row.get("split") for row in read_index(data.directory))
        num_folds = 5 if is_grouped and not is_divided else 0
    if num_folds == 0:
        return [Division(seed) for seed in seeds]
    if num_folds < 2:
        raise ValueError(f"folds must be 2 or more, or 0 for splits, got {num_folds}.")
    return [Division(seed, fold, num_folds) for seed in seeds for fold in range(num_folds)]


__all__ = ["Division", "divisions"]
