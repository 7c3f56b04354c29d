"""Configuration of the first stage of MIST."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.settings import LARGEST, Bounds


@strict
class MistConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of MIST's first stage (Feng et al., CVPR 2021, arXiv 2104.01633).

    The second stage of MIST trains the encoder itself, on labels of clips that the first one makes. It is not part of
    this detector: the figures of the paper are those of both stages.

    What it reads of a clip is said by [`ClipVectorConfig`]; as published the visual features.

    Args:
        hidden_sizes: Widths of the hidden layers. ReLU follows the first one; the others are linear.
        dropout: Probability of dropout in training, after each hidden layer.
        num_parts: In the loss each video is seen as so many parts.
        part_length: Clips in a row of each part. Its score is their mean.
        num_selected: How many parts, those of the highest scores, a video is judged by.
        margin: By how much the score of an anomalous video should exceed that of the normal one it is paired with.
        sparsity_weight: Weight of the mean score of the parts of anomalous videos.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "mist"
    title: ClassVar[str] = "MIST (stage 1)"
    summary: ClassVar[str] = (
        "A detector of MIST's first stage. The second stage, which trains the encoder, is not part of it: the paper's "
        "figures are those of both."
    )
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["ranking_loss", "sparsity_loss"]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "hidden_sizes": (1, LARGEST),
        "dropout": (0, 0.99),  # 1 would leave nothing to learn from
        "num_parts": (1, 65536),
        "part_length": (1, 65536),
        "num_selected": (1, 65536),
        "margin": (0, 1e6),
        "sparsity_weight": (0, 1e6),
    }

    # Architecture
    hidden_sizes: list[int] | tuple[int, ...] = (512, 32)

    # Training
    dropout: float | int = 0.6
    num_parts: int = 32
    part_length: int = 7
    num_selected: int = 7
    margin: float | int = 1.0
    sparsity_weight: float | int = 0.01

    def validate_architecture(self):
        """Check that there are enough parts to choose from."""
        if self.num_selected > self.num_parts:
            raise ValueError(
                f"num_selected {self.num_selected} is more than num_parts {self.num_parts}: a video has no more parts."
            )


__all__ = ["MistConfig"]
