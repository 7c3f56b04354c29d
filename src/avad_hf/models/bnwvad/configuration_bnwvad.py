"""Configuration of BN-WVAD."""

import math
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.settings import LARGEST, Bounds
from avad_hf.models.urdmu.configuration_urdmu import TrunkConfig


@strict
class BnwvadConfig(TrunkConfig):
    r"""Architecture, loss and threshold of a BN-WVAD detector (Zhou et al., 2023, arXiv 2311.15367).

    What it reads of a clip is said by [`ClipVectorConfig`], as published the visual features; the trunk, which is that
    of UR-DMU, by `TrunkConfig`.

    Args:
        classifier_sizes: Widths of the hidden layers of the classifier, each with a batch norm.
        sample_ratio: In the loss, share of its clips that each anomalous video is judged by at least, those farthest
            from the mean.
        batch_ratio: Share of the clips of all anomalous videos of a batch, those farthest from the mean, which are
            added to these.
        margin: By how much an anomalous clip should be farther from the mean than the normal one it is paired with.
        triplet_weights: Weights of the triplet losses of the batch norms, one for each of `classifier_sizes`.
        normal_weight: Weight of the normal loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "bnwvad"
    title: ClassVar[str] = "BN-WVAD"
    summary: ClassVar[str] = "A BN-WVAD detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["normal_loss", "triplet_loss", "distances"]

    bounds: ClassVar[Bounds] = TrunkConfig.bounds | {
        "classifier_sizes": (1, LARGEST),
        "sample_ratio": (0, 1),
        "batch_ratio": (0, 1),
        "margin": (0, 1e6),
        "triplet_weights": (0, 1e6),
        "normal_weight": (0, 1e6),
    }

    # Architecture
    classifier_sizes: list[int] | tuple[int, ...] = (32, 16)

    # Training. The weights are published. The ratios and the margin are ours: the paper's were not at hand.
    sample_ratio: float | int = 0.2
    batch_ratio: float | int = 0.4
    margin: float | int = 1.0
    triplet_weights: list[float | int] | tuple[float | int, ...] = (5.0, 20.0)
    normal_weight: float | int = 1.0

    def validate_architecture(self):
        """Check that each batch norm has a weight."""
        if len(self.triplet_weights) != len(self.classifier_sizes):
            raise ValueError(
                f"triplet_weights needs a number for each of classifier_sizes, got {list(self.triplet_weights)} for "
                f"{list(self.classifier_sizes)}."
            )

    @property
    def usual_distance(self) -> float:
        """Sum of the distances of a clip that is one standard deviation from the mean in every channel."""
        return sum(math.sqrt(size) for size in self.classifier_sizes)


__all__ = ["BnwvadConfig"]
