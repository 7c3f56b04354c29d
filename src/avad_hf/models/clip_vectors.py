"""What detectors share that read one vector a clip: sight and sound averaged, and joined as the config says."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import AutoModelForVideoClassification

from .detector import DetectorConfig, DetectorSpec
from .settings import LARGEST, Bounds
from .untrained_parts import Size, Untrained, untrained_notice

ClipInputs = Literal["visual", "audio", "both"]


class ClipVectorConfig(DetectorConfig):
    r"""What the configs of these detectors have.

    Args:
        visual_size: Channels of the video encoder's feature map.
        audio_size: Width of the audio encoder's embeddings.
        inputs: What it reads: ``"visual"``, the feature map averaged over its cells; ``"audio"``, the embeddings
            averaged over a clip's steps; ``"both"``, one after the other.

    Attributes:
        title: The detector's name for people.
        context: As of `DetectorSpec`.
    """

    title: ClassVar[str]
    context: ClassVar[float] = 0
    bounds: ClassVar[Bounds] = {"visual_size": (1, LARGEST), "audio_size": (1, LARGEST)}

    visual_size: int = 2304
    audio_size: int = 128
    inputs: ClipInputs = "visual"

    @property
    def input_size(self) -> int:
        """Width of what the network gets of a clip."""
        return sum(self.vector_sizes.values())

    @property
    def vector_sizes(self) -> dict[str, int]:
        """Widths of the features that a clip's vector is made of, by their names."""
        widths = {"visual_features": self.visual_size, "audio_features": self.audio_size}
        unused = {"visual": "audio_features", "audio": "visual_features"}.get(self.inputs)
        return {name: width for name, width in widths.items() if name != unused}

    @property
    def detector_spec(self) -> DetectorSpec:
        """What it reads, and how many clips must see each other."""
        return DetectorSpec(self.title, context=self.context, inputs=self.vector_sizes)

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "ClipVectorConfig":
        """A config in the shape of stored features, as `DetectorConfig.for_data` says.

        It reads the visual features alone unless `settings` say otherwise: so these detectors were published, while
        our stores hold sound for all detectors. Only where there are no visual features it reads sound.
        """
        known: dict[str, Any] = {}
        if "audio_features" in item:
            known |= {"audio_size": item["audio_features"].shape[-1], "inputs": "audio"}
        if "visual_features" in item:
            known |= {"visual_size": item["visual_features"].shape[1], "inputs": "visual"}
        return cls(**known | settings)

    @property
    def silence_notice(self) -> str | None:
        """That it hears nothing, and what comes of it."""
        if self.inputs == "visual":
            return None
        hearing = "hears only: this result means nothing" if self.inputs == "audio" else "hears zeros"
        return f"The video has no sound that can be decoded, and the detector {hearing}."


def clip_vectors(
    config: ClipVectorConfig,
    visual_features: Tensor | None,
    audio_features: Tensor | None,
    clip_mask: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """One vector a clip, and the mask as booleans.

    Args:
        config: Says what is read, and how wide it is.
        visual_features: Feature maps, of shape `(B, T, visual_size, h, w)`; ignored with ``inputs="audio"``.
        audio_features: Embeddings, of shape `(B, T, S, audio_size)`; ignored with ``inputs="visual"``.
        clip_mask: False for padding, of shape `(B, T)`; all clips are real if not given.
        dtype: Type of the result.

    Returns:
        `torch.Tensor` of shape `(B, T, input_size)`, scaled by `feature_scales`, zero for padding; and the mask.

    Raises:
        ValueError: For missing features, other shapes, or values that are not finite.
    """
    features = {"visual_features": visual_features, "audio_features": audio_features}
    _check(config, features, clip_mask)
    clip_mask = None if clip_mask is None else clip_mask.bool()
    averaged = []
    for name in config.vector_sizes:
        value = config.scaled(name, features[name].to(dtype))
        value = value.mean(dim=(3, 4)) if name == "visual_features" else value.mean(dim=2)
        if clip_mask is not None:
            value = value.masked_fill(~clip_mask.unsqueeze(2), 0.0)
        # Tracing for export has no values to look at.
        if not torch.compiler.is_compiling() and not torch.isfinite(value).all():
            raise ValueError(
                f"{name} holds NaN or infinite values. Extract the features of that video again, or mask its clips."
            )
        averaged.append(value)
    return torch.cat(averaged, dim=2), clip_mask


def _check(config: ClipVectorConfig, features: dict[str, Tensor | None], clip_mask: Tensor | None) -> None:
    title, first = config.title, None
    for name, width in config.vector_sizes.items():
        value = features[name]
        is_map = name == "visual_features"
        letters = f"(B, T, {width}, h, w)" if is_map else f"(B, T, S, {width})"
        if value is None:
            raise ValueError(
                f"{title} with inputs '{config.inputs}' needs {name} of shape {letters}. Give zeros for videos "
                f"without {'pictures' if is_map else 'sound'}, or a detector that reads something else."
            )
        if value.dim() != (5 if is_map else 4) or value.shape[2 if is_map else 3] != width:
            role, field = ("video", "visual_size") if is_map else ("audio", "audio_size")
            raise ValueError(
                f"{title} needs {name} of shape {letters}, got {tuple(value.shape)}. AvacaProcessor makes them; the "
                f"config's {field} is the width of what its {role} encoder gives."
            )
        first = value if first is None else first
        if value.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"{title} needs visual_features and audio_features of as many videos and clips, got "
                f"{tuple(first.shape)} and {tuple(value.shape)}."
            )
    if clip_mask is not None and clip_mask.shape != first.shape[:2]:
        raise ValueError(f"clip_mask must be of shape {tuple(first.shape[:2])}, got {tuple(clip_mask.shape)}.")


def masked_logits(logits: Tensor, clip_mask: Tensor | None) -> Tensor:
    """Logits of shape `(B, T)`; the lowest number of their type for padding, so that its score is 0."""
    return logits if clip_mask is None else logits.masked_fill(~clip_mask, torch.finfo(logits.dtype).min)


def refuse_other_labels(labels: Tensor) -> None:
    """Raise ``ValueError`` for other labels than 0 (normal) and 1 (anomalous)."""
    if not torch.compiler.is_compiling() and not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels must be 0 (normal) or 1 (anomalous), got {labels.unique().tolist()}.")


def untrained(
    config: type[DetectorConfig],
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    **settings: Any,
) -> Untrained:
    """An untrained detector of stored features and its processor.

    Args:
        config: Its config.
        size: Size of encoders that are not given.
        seed: Seed of the weights.
        video_encoder: Folder or Hub id of a trained one.
        audio_encoder: Folder or Hub id of a trained one.
        settings: Fields of the config.
    """
    from .avaca.untrained_avaca import features_processor  # makes features for every detector that reads some

    processor, facts = features_processor(size, seed, video_encoder, audio_encoder)
    shape = {
        "visual_size": processor.widths["visual_features"],
        "audio_size": processor.widths["audio_features"],
        "notice": untrained_notice("detector", seed),
    }
    return Untrained(AutoModelForVideoClassification.from_config(config(**shape | settings)), processor, facts)


__all__ = [
    "ClipInputs",
    "ClipVectorConfig",
    "clip_vectors",
    "masked_logits",
    "refuse_other_labels",
    "untrained",
]
