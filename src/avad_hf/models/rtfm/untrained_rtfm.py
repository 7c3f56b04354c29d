"""RTFM to begin training from."""

import os
from typing import Any

from avad_hf.models.avaca.untrained_avaca import features_processor
from avad_hf.models.untrained_parts import Size, Untrained, untrained_notice

from .configuration_rtfm import RtfmConfig
from .modeling_rtfm import RtfmForAnomalyDetection

# Settings that differ from the defaults, which are the published ones.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {},
    "tiny": {"hidden_size": 32, "attention_size": 16, "classifier_sizes": (32, 16)},
}


def init(
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    **options: Any,
) -> Untrained:
    """An untrained RTFM detector and its processor; arguments as of `avad_hf.untrained.init`."""
    processor, facts = features_processor(size, seed, video_encoder, audio_encoder)
    settings = {
        "visual_size": processor.widths["visual_features"],
        "audio_size": processor.widths["audio_features"],
        "notice": untrained_notice("detector", seed),
    }
    config = RtfmConfig(**SIZES[size] | settings | options)
    return Untrained(RtfmForAnomalyDetection(config), processor, facts)


__all__ = ["SIZES", "init"]
