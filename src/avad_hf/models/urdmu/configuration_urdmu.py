"""Configuration of UR-DMU, and of the trunk that other detectors share with it."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.settings import LARGEST, Bounds


class TrunkConfig(ClipVectorConfig):
    r"""What the configs of detectors with UR-DMU's trunk have, beside what [`ClipVectorConfig`] says.

    Args:
        hidden_size: Width of the features of the trunk.
        num_layers: Transformer layers.
        num_heads: Heads of each layer.
        head_size: Width of each head, in each of the two branches.
        feedforward_size: Width inside the feed-forward network of each layer.
        dropout: Probability of dropout in the transformer layers, in training.
        num_segments: In training each video is resampled to so many segments. Otherwise a video keeps its length: for
            short videos choose about as many as they have clips, since the layers know clips by their distances.
    """

    context: ClassVar[float] = WHOLE_VIDEO
    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "hidden_size": (1, LARGEST),
        "num_layers": (1, 64),  # published: 2
        "num_heads": (1, 1024),
        "head_size": (1, LARGEST),
        "feedforward_size": (1, LARGEST),
        "dropout": (0, 0.99),  # 1 would leave nothing to learn from
        "num_segments": (1, 65536),  # to which every video is resampled in training
    }

    # Architecture
    hidden_size: int = 512
    num_layers: int = 2
    num_heads: int = 4
    head_size: int = 128
    feedforward_size: int = 512

    # Training
    dropout: float | int = 0.5
    num_segments: int = 200


@strict
class UrdmuConfig(TrunkConfig):
    r"""Architecture, loss and threshold of a UR-DMU detector (Zhou et al., AAAI 2023, arXiv 2302.05160).

    What it reads of a clip is said by [`ClipVectorConfig`], as published the visual features; the trunk by
    `TrunkConfig`.

    Args:
        num_slots: Vectors of each of the two memories, the abnormal and the normal one.
        classifier_size: Width of the hidden layer of the classifier.
        margin: By how much the norms of what the memories give should differ, in the distance loss.
        memory_weight: Weight of the memory loss.
        triplet_weight: Weight of the triplet loss.
        divergence_weight: Weight of the divergence loss.
        distance_weight: Weight of the distance loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "urdmu"
    title: ClassVar[str] = "UR-DMU"
    summary: ClassVar[str] = "A UR-DMU detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "memory_loss",
        "triplet_loss",
        "divergence_loss",
        "distance_loss",
        "memory_attention",
        "states",
        "memory_norms",
        "divergences",
    ]

    bounds: ClassVar[Bounds] = TrunkConfig.bounds | {
        "num_slots": (1, 65536),
        "classifier_size": (1, LARGEST),
        "margin": (0, 1e6),
        "memory_weight": (0, 1e6),
        "triplet_weight": (0, 1e6),
        "divergence_weight": (0, 1e6),
        "distance_weight": (0, 1e6),
    }

    # Architecture
    num_slots: int = 60
    classifier_size: int = 128

    # Training
    margin: float | int = 100.0
    memory_weight: float | int = 0.1
    triplet_weight: float | int = 0.1
    divergence_weight: float | int = 1e-3
    distance_weight: float | int = 1e-4


__all__ = ["TrunkConfig", "UrdmuConfig"]
