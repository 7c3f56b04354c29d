"""Configuration of AR-Net."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.settings import LARGEST, Bounds


@strict
class ArnetConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of an AR-Net detector (Wan et al., ICME 2020, arXiv 2104.07268).

    What it reads of a clip is said by [`ClipVectorConfig`]; as published the visual features.

    Args:
        hidden_size: Width of the hidden layer; ``None`` for that of the input, as published.
        dropout: Probability of dropout in training, after the hidden layer.
        alpha: In the loss a video of t clips is judged by its ``ceil(t / alpha)`` highest ones.
        center_weight: Weight of the center loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "arnet"
    title: ClassVar[str] = "AR-Net"
    summary: ClassVar[str] = "An AR-Net detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["dmil_loss", "center_loss"]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "hidden_size": (1, LARGEST),
        "dropout": (0, 0.99),  # 1 would leave nothing to learn from
        "alpha": (1, 65536),
        "center_weight": (0, 1e6),
    }

    # Architecture
    hidden_size: int | None = None

    # Training
    dropout: float | int = 0.7
    alpha: int = 4
    center_weight: float | int = 20.0


__all__ = ["ArnetConfig"]
