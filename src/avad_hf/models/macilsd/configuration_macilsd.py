"""Configuration of MACIL-SD."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from torch import Tensor

from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.settings import LARGEST, Bounds


@strict
class MacilsdConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of a MACIL-SD detector (Yu et al., ACM MM 2022, arXiv 2207.05500).

    It always reads both senses, as [`ClipVectorConfig`] averages them.

    Args:
        hidden_size: Width of both senses and of the attention between them.
        num_heads: Heads of the attention.
        feedforward_size: Width inside the layer after the attention.
        dropout: Probability of dropout in training, of attention weights too.
        max_clips: In training, so many clips of a longer video are taken, evenly spread.
        temperature: What cosines are divided by in the contrastive losses.
        contrast_weight: Largest weight of the contrastive losses.
        contrast_growth: How much this weight grows in each epoch of training; it begins at 0.
        distillation: Share of the twin's weights that sight takes over after the first epoch. It falls to 0, along
            half a cosine.
        distillation_epochs: After so many epochs nothing is taken over.
        videos_per_epoch: How many videos are an epoch, of which the last four settings speak. `train` sets it to what
            its epochs have.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "macilsd"
    title: ClassVar[str] = "MACIL-SD"
    context: ClassVar[float] = WHOLE_VIDEO
    summary: ClassVar[str] = "A MACIL-SD detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "contrast_loss",
        "twin_loss",
        "audio_logits",
        "visual_logits",
        "twin_logits",
        "audio_states",
        "visual_states",
    ]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "hidden_size": (1, LARGEST),
        "num_heads": (1, LARGEST),
        "feedforward_size": (1, LARGEST),
        "dropout": (0, 1),
        "max_clips": (1, 65536),
        "temperature": (1e-3, 1e3),  # cosines divided by less leave no gradient in 32 bits
        "contrast_weight": (0, 1e6),
        "contrast_growth": (0, 1e6),
        "distillation": (0, 1),
        "distillation_epochs": (1, 1_000_000),
        "videos_per_epoch": (1, 1 << 40),  # a count, in 64 bits
    }

    # Architecture
    inputs: Literal["both"] = "both"
    hidden_size: int = 128
    num_heads: int = 4
    feedforward_size: int = 128

    # Training
    dropout: float | int = 0.1
    max_clips: int = 200
    temperature: float | int = 0.1
    contrast_weight: float | int = 1.5
    contrast_growth: float | int = 0.1
    distillation: float | int = 0.09
    distillation_epochs: int = 50
    videos_per_epoch: int = 19_770  # five crops of XD-Violence's 3,954 training videos, as published

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture, and of what the published training had besides."""
        return {
            "architecture": "Sight and sound attend to each other, and a twin that sees alone teaches sight. What the "
            "published training had besides: a learning rate of its own for the twin, a fifth of the other one, and "
            "five crops of each frame."
        }

    def validate_architecture(self):
        """Check that heads share the width evenly, and that dropout leaves something."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}: each head has a "
                "part of it."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "MacilsdConfig":
        """A config in the shape of stored features, as `DetectorConfig.for_data` says.

        Raises:
            ValueError: For features of one sense alone.
        """
        if missing := [name for name in ("visual_features", "audio_features") if name not in item]:
            raise ValueError(
                f"{cls.title} reads sight and sound, but these videos have no {missing[0]}. Give features of both, or "
                "train a detector that reads one sense: rtfm with inputs 'visual' or 'audio'."
            )
        widths = {
            "visual_size": item["visual_features"].shape[1],
            "audio_size": item["audio_features"].shape[-1],
        }
        return cls(**widths | settings)


__all__ = ["MacilsdConfig"]
