"""AVACA to begin training from, and the untrained encoders of every detector that reads features."""

import os
from collections.abc import Sequence
from typing import Any

from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel
from avad_hf.models.untrained_parts import Size, Untrained, encoder_facts, untrained_notice
from avad_hf.models.vggish.configuration_vggish import VggishConfig
from avad_hf.models.vggish.modeling_vggish import VggishModel

from .configuration_avaca import AvacaConfig
from .modeling_avaca import AvacaForAnomalyDetection
from .processing_avaca import AvacaProcessor

# Settings of each part that differ from its defaults, which are the published ones.
SIZES: dict[Size, dict[str, dict[str, Any]]] = {
    "base": {"slowfast": {}, "vggish": {}, "avaca": {}, "processor": {}},
    "tiny": {
        "slowfast": {"stem_width": 8, "fast_ratio": 4, "depths": (1, 1, 1, 1), "pool_size": 2},
        "vggish": {"hidden_sizes": (8, 16, 16, 32), "intermediate_size": 64, "embedding_size": 32},
        "avaca": {"hidden_size": 32, "intermediate_size": 64},
        "processor": {"size": 64, "feature_grid": (1, 3)},
    },
}


def features_processor(
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
) -> tuple[AvacaProcessor, list[str]]:
    """The processor of a new detector that reads features: with trained encoders, or with new ones from torch's seed.

    Args:
        size: Size of new encoders.
        seed: What torch's generator was seeded with, for the notices.
        video_encoder: Folder or Hub id of any trained encoder of pictures; a new SlowFast by default.
        audio_encoder: Folder or Hub id of any trained encoder of sound; a new VGGish by default.

    Returns:
        The processor, and what a card says of the trained encoders.

    Raises:
        TypeError: For encoders that read something else.
    """
    widths = SIZES[size]
    processor = AvacaProcessor(
        video_encoder=video_encoder
        or SlowFastModel(SlowFastConfig(**widths["slowfast"], notice=untrained_notice("video encoder", seed))),
        audio_encoder=audio_encoder
        or VggishModel(VggishConfig(**widths["vggish"], notice=untrained_notice("audio encoder", seed))),
        # A trained encoder wants frames of the size that it was trained on, whatever the detector's widths.
        **({} if video_encoder else widths["processor"]),
    )
    facts = [
        *encoder_facts(video_encoder, processor.video_encoder, "video"),
        *encoder_facts(audio_encoder, processor.audio_encoder, "audio"),
    ]
    return processor, facts


def init(
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    normal_classes: Sequence[str] = (),
    **options: Any,
) -> Untrained:
    """An untrained AVACA detector and its processor; arguments as of `avad_hf.untrained.init`.

    Raises:
        ValueError: For fewer than three classes, of which the score says all.
    """
    processor, facts = features_processor(size, seed, video_encoder, audio_encoder)
    shapes = {
        "visual_size": processor.widths["visual_features"],
        "audio_size": processor.widths["audio_features"],
        "num_audio_steps": processor.num_pictures,
    }
    new = AvacaConfig.new_settings(processor.num_pictures)
    if classes is not None:
        if len(classes) < 3:
            raise ValueError(
                f"AVACA names three classes or more, got {', '.join(classes) or 'none'}. Of two its score says all: "
                "leave classes out."
            )
        shapes |= {"id2label": dict(enumerate(classes)), "normal_labels": list(normal_classes)}
    settings = SIZES[size]["avaca"] | new | shapes | {"notice": untrained_notice("detector", seed)} | options
    return Untrained(AvacaForAnomalyDetection(AvacaConfig(**settings)), processor, facts)


__all__ = ["SIZES", "features_processor", "init"]
