"""Nearest neighbours over a coreset of normal clips."""

import torch
from torch import Tensor
from transformers import initialization as init

from avad_hf.models.normality.modeling_normality import NormalityForAnomalyDetection, NormalityModel
from avad_hf.models.normality.senses import Sense, fixed

from .configuration_knn import KnnConfig

# Numbers that vectors are projected to while the coreset is chosen: distances stay within some percent (Johnson and
# Lindenstrauss), and choosing costs a tenth.
PROJECTED = 128


class KnnSense(Sense):
    """One sense: the mean Euclidean distance to the nearest clips of the memory."""

    def __init__(self, config: KnnConfig, name: str):
        super().__init__(config, name)
        self.num_rows = (config.rows or {}).get(name, config.num_neighbours)
        self.memory = fixed(self.num_rows, self.width)

    @staticmethod
    def rows_for(config: KnnConfig, count: int) -> int:
        """How many rows the memory has for so many clips."""
        return min(config.memory_size, count)

    def reset(self) -> None:
        """Begin with random rows."""
        init.normal_(self.memory)

    def fit(self, vectors: Tensor, certain: Tensor) -> None:
        """Choose the memory among normal clips; those that are certain come first."""
        chosen = coreset(vectors, self.num_rows, self.config.seed, torch.nonzero(certain).flatten().tolist())
        with torch.no_grad():
            self.memory.copy_(vectors[chosen])

    def forward(self, vectors: Tensor) -> Tensor:
        """Mean distances to the nearest clips of the memory, `(..., width)` -> `(...)`."""
        memory = self.memory.float()
        count = min(self.config.num_neighbours, len(memory))
        flat = vectors.reshape(-1, self.width)
        if torch.compiler.is_compiling():
            squares = flat.square().sum(1, keepdim=True) + memory.square().sum(1) - 2 * flat @ memory.T
            distances = squares.clamp_min(0).sqrt()
        else:
            # Differences first: the products above lose what is left where clips are nearly the same.
            distances = torch.cdist(flat, memory, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(count, dim=1, largest=False).values.mean(1).reshape(vectors.shape[:-1])


def coreset(vectors: Tensor, size: int, seed: int, first: list[int] | None = None) -> list[int]:
    """Choose vectors so that all are near to a chosen one: each time the one that is farthest from all before.

    Args:
        vectors: An array of shape `(N, width)`.
        size: How many are chosen, at most N.
        seed: Seed of the projection.
        first: Numbers of those that are chosen in any case.

    Returns:
        Their numbers, sorted.
    """
    if size >= len(vectors):
        return list(range(len(vectors)))
    if vectors.shape[1] > PROJECTED:
        generator = torch.Generator().manual_seed(seed)
        vectors = vectors @ torch.randn(vectors.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    chosen = list(first or [])[:size] or [int((vectors - vectors.mean(0)).square().sum(1).argmin())]
    nearest = torch.full((len(vectors),), torch.inf)
    added = chosen[:]
    while True:
        for number in added:
            nearest = torch.minimum(nearest, (vectors - vectors[number]).square().sum(1))
        if len(chosen) >= size:
            return sorted(chosen)
        nearest[chosen] = -1.0  # also where two are the same
        added = [int(nearest.argmax())]
        chosen += added


class KnnModel(NormalityModel):
    """Body of nearest neighbours: distances to the nearest normal clips, by sight and by sound."""

    config_class = KnnConfig
    base_model_prefix = "knn"
    sense_class = KnnSense


class KnnForAnomalyDetection(NormalityForAnomalyDetection):
    """A detector by nearest neighbours over a coreset of normal clips."""

    config_class = KnnConfig
    base_model_prefix = "knn"
    body_class = KnnModel


__all__ = ["KnnForAnomalyDetection", "KnnModel", "KnnSense", "coreset"]
