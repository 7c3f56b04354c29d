"""Configuration of RTFM."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.settings import LARGEST, Bounds


@strict
class RtfmConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of an RTFM detector (Tian et al., ICCV 2021, arXiv 2101.10030).

    What it reads of a clip is said by [`ClipVectorConfig`]; as published the visual features.

    Args:
        hidden_size: Width of each branch over time: one for each of `dilations`, and the attention.
        attention_size: Width inside the attention.
        dilations: Dilations of the convolutions over time, in clips.
        classifier_sizes: Widths of the hidden layers of the classifier.
        dropout: Probability of dropout in training: before each layer of the classifier, and of the clips that a
            video is judged by.
        num_segments: In training each video is resampled to so many segments.
        num_selected: How many clips, those of largest feature magnitude, a video is judged by in the loss.
        margin: Magnitude that anomalous videos are pulled to; that of normal ones is pulled to 0.
        magnitude_weight: Weight of the magnitude loss.
        sparsity_weight: Weight of the sparsity loss.
        smoothness_weight: Weight of the smoothness loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "rtfm"
    title: ClassVar[str] = "RTFM"
    context: ClassVar[float] = WHOLE_VIDEO
    summary: ClassVar[str] = "An RTFM detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "magnitude_loss",
        "sparsity_loss",
        "smoothness_loss",
        "magnitudes",
    ]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "hidden_size": (1, LARGEST),
        "attention_size": (1, LARGEST),
        "dilations": (1, 4096),  # in clips: a dilation pads as many on either side of every video
        "classifier_sizes": (1, LARGEST),
        "dropout": (0, 1),
        "num_segments": (1, 65536),  # to which every video is resampled in training
        "num_selected": (1, 65536),
        "margin": (0, 1e6),
        "magnitude_weight": (0, 1e6),
        "sparsity_weight": (0, 1e6),
        "smoothness_weight": (0, 1e6),
    }

    # Architecture
    hidden_size: int = 512
    attention_size: int = 256
    dilations: list[int] | tuple[int, ...] = (1, 2, 4)
    classifier_sizes: list[int] | tuple[int, ...] = (512, 128)

    # Training
    dropout: float | int = 0.7
    num_segments: int = 32
    num_selected: int = 3
    margin: float | int = 100.0
    magnitude_weight: float | int = 1e-4
    sparsity_weight: float | int = 8e-3
    smoothness_weight: float | int = 8e-4

    def validate_architecture(self):
        """Check that there are enough segments to choose from, and that dropout leaves something."""
        if self.num_selected > self.num_segments:
            raise ValueError(
                f"num_selected {self.num_selected} is more than num_segments {self.num_segments}: a video has no more "
                "clips in training."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")


__all__ = ["RtfmConfig"]
