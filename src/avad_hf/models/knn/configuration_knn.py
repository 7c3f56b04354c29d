"""Configuration of nearest neighbours."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.detector import DetectorSpec
from avad_hf.models.normality.configuration_normality import NormalityConfig
from avad_hf.models.settings import LARGEST, Bounds


@strict
class KnnConfig(NormalityConfig):
    r"""Settings of a detector by nearest neighbours.

    Args:
        num_neighbours: A clip's distance is the mean of those to so many of the nearest clips of the memory.
        memory_size: How many normal clips the memory has at most. They are chosen so that all others are near to one
            of them (a greedy coreset, as PatchCore has: Roth et al., CVPR 2022, arXiv 2106.08265, section 3.2).

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "knn"
    summary: ClassVar[str] = "A detector that was fitted to normal footage: nearest neighbours."
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["surprises", "distances"]
    bounds: ClassVar[Bounds] = {"num_neighbours": (1, 1024), "memory_size": (1, LARGEST)}

    num_neighbours: int = 5
    memory_size: int = 2048

    @property
    def detector_spec(self) -> DetectorSpec:
        """Clips that do not see each other."""
        return self.detector_spec_of("KNN")


__all__ = ["KnnConfig"]
