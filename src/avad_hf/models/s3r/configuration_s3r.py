"""Configuration of S3R."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.settings import Bounds


@strict
class S3rConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of an S3R detector (Wu et al., ECCV 2022).

    What it reads of a clip is said by [`ClipVectorConfig`]; as published the visual features. Its layers are as wide
    as that, or a certain part of it.

    Args:
        num_atoms: Atoms of the dictionary of normal videos, which is part of the checkpoint. `train` learns the
            dictionary before the first step, and sets this.
        atom_share: How many atoms, as a share of the number of normal training videos; at least one.
        dropout: Probability of dropout in training: after the two networks over time, between the layers of both
            classifiers, and of the clips that a video is judged by.
        num_segments: In training each video is resampled to so many segments.
        num_selected: How many clips, those of largest feature magnitude, a video is judged by in the loss.
        margin: Magnitude that anomalous videos are pulled to; that of normal ones is pulled to 0.
        magnitude_weight: Weight of the magnitude loss.
        sparsity_weight: Weight of the sparsity loss.
        smoothness_weight: Weight of the smoothness loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "s3r"
    title: ClassVar[str] = "S3R"
    context: ClassVar[float] = WHOLE_VIDEO
    summary: ClassVar[str] = "An S3R detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "magnitude_loss",
        "sparsity_loss",
        "smoothness_loss",
        "reconstruction_loss",
        "magnitudes",
        "reconstruction_logits",
    ]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "num_atoms": (1, 65536),  # with 2,304 numbers each that is 600 MB
        "atom_share": (1e-6, 1),
        "dropout": (0, 1),
        "num_segments": (1, 65536),  # to which every video is resampled in training
        "num_selected": (1, 65536),
        "margin": (0, 1e6),
        "magnitude_weight": (0, 1e6),
        "sparsity_weight": (0, 1e6),
        "smoothness_weight": (0, 1e6),
    }

    # Architecture
    num_atoms: int = 158  # 90% of ShanghaiTech's 175 normal training videos

    # Training
    atom_share: float | int = 0.9  # as published for ShanghaiTech; 0.5 for UCF-Crime
    dropout: float | int = 0.7
    num_segments: int = 32
    num_selected: int = 3
    margin: float | int = 100.0
    magnitude_weight: float | int = 1e-4
    sparsity_weight: float | int = 8e-3
    smoothness_weight: float | int = 8e-4

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture, and of what the published one had besides."""
        return {
            "architecture": f"It compares videos with a dictionary of {self.num_atoms} atoms of normal ones, which is "
            "part of the checkpoint. The published detector saw ten crops of each frame; this one sees whole frames."
        }

    def validate_architecture(self):
        """Check that there are enough segments to choose from, and that dropout leaves something."""
        if self.num_selected > self.num_segments:
            raise ValueError(
                f"num_selected {self.num_selected} is more than num_segments {self.num_segments}: a video has no more "
                "clips in training."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")


__all__ = ["S3rConfig"]
